"""Http: asks one source over HTTP, within its limits, trying again where that may help."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from market_data.model.errors import ConfigError, MarketDataError, ProviderUnavailable, RateLimited, TransientError
from market_data.model.provider import ProviderSettings
from market_data.transport.breaker import Breaker
from market_data.transport.ratelimit import Clock, RateLimit, Sleep
from market_data.transport.senders import BrowserSender, HttpxSender, Request, Response, Sender

DEFAULT_LIMIT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one source speaks HTTP."""

    classify: Callable[[Response], MarketDataError | None]
    """The error an answer means, None when it is good."""
    quota: Callable[[Response], tuple[float, float] | None] = lambda _: None
    """(used, allowed) of the source's own limit as its headers tell, None when they do not."""
    browser: bool = False
    """Whether the source refuses clients without a browser's fingerprint."""
    takes_redirects: bool = False
    """Whether a redirect is an answer; followed they are never."""


class Http:
    """One source's HTTP: limits, breaker and connections shared by all tasks of a process.

    Args:
        name: the source, for messages.
        settings: limits, deadlines and retries.
        sender: replaces both senders; the seam for tests.
        clock: monotonic seconds.
        sleep: how to wait.
        jitter: a factor around 1 for each wait between tries.
    """

    def __init__(
        self,
        name: str,
        settings: ProviderSettings,
        *,
        sender: Sender | None = None,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.5),
    ) -> None:
        self.name = name
        self.settings = settings
        self.breaker = Breaker(name, failures=settings.breaker_failures, seconds=settings.breaker_seconds, clock=clock)
        self.quota_remaining: float | None = None
        self._plain = sender or HttpxSender()
        self._browser = sender or BrowserSender()
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._limits: dict[str, RateLimit] = {}

    def limit(self, name: str = DEFAULT_LIMIT, requests: float | None = None, seconds: float = 60.0) -> RateLimit:
        """The shared limit of that name; declared by its first caller, from the settings when nothing is given."""
        if name not in self._limits:
            if requests is None:
                requests, seconds = self.settings.requests_per_window
            self._limits[name] = RateLimit(requests, seconds, clock=self._clock, sleep=self._sleep)
        return self._limits[name]

    async def get(
        self,
        url: str,
        dialect: Dialect,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        limit: str = DEFAULT_LIMIT,
    ) -> Response:
        """The answer to a GET, tried again on transient errors within the deadline.

        Args:
            url: absolute.
            dialect: how to read the answer's status.
            params: query parameters; those that are None are left out.
            headers: more header fields.
            limit: which of the source's limits it counts against.

        Raises:
            MarketDataError: as `dialect.classify` says; ConnectionLost and MalformedPayload for what went wrong on
                the way; ProviderUnavailable while the breaker is open.
            ConfigError: when the address, which comes from a setting, is none.
        """
        request = Request(
            url=_checked(self.name, url),
            params={name: str(value) for name, value in (params or {}).items() if value is not None},
            headers=dict(headers or {}),
            timeout_seconds=self.settings.timeout_seconds,
            max_bytes=self.settings.max_response_bytes,
        )
        self.breaker.check()
        try:
            response: Response = await self._retrying()(self._attempt, request, dialect, self.limit(limit))
        except MarketDataError as error:
            self.breaker.failed(error)
            raise
        except BaseException:
            self.breaker.cancelled()
            raise
        self.breaker.succeeded()
        return response

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._plain.aclose()
        if self._browser is not self._plain:
            await self._browser.aclose()

    async def _attempt(self, request: Request, dialect: Dialect, limit: RateLimit) -> Response:
        await limit.acquire()
        sender = self._browser if dialect.browser else self._plain
        response = await sender.send(request)
        if quota := dialect.quota(response):
            used, allowed = quota
            self.quota_remaining = max(0.0, allowed - used)
            limit.observe(used, allowed)
        if 300 <= response.status < 400 and not dialect.takes_redirects:
            # Before the dialect sees it: no source's API redirects, what does is a portal or a consent page.
            raise ProviderUnavailable(
                f"{self.name} redirected to {httpx.URL(response.headers.get('location', '')).host}"
            )
        if error := dialect.classify(response):
            if isinstance(error, RateLimited):
                # Everybody waits, not only the one who was told.
                limit.pause(min(error.retry_after or 1.0, self.settings.deadline_seconds))
            raise error
        return response

    def _retrying(self) -> AsyncRetrying:
        began = self._clock()

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, RateLimited) else None
            return asked if asked is not None else float(2**state.attempt_number) * self._jitter()

        def stop(state: RetryCallState) -> bool:
            too_late = self._clock() - began + state.upcoming_sleep > self.settings.deadline_seconds
            return state.attempt_number > self.settings.max_retries or too_late

        return AsyncRetrying(
            sleep=self._sleep, wait=wait, stop=stop, retry=retry_if_exception_type(TransientError), reraise=True
        )


def _checked(name: str, url: str) -> str:
    """The address, which comes from a setting; what is wrong with one, senders tell late and each in its own way.

    Raises:
        ConfigError: naming what is wrong; never with the query, which may hold a key.
    """
    address = f"the address of providers.{name}, {url.partition('?')[0]!r},"
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"{address} is none: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"{address} is none: http:// or https:// and a host are needed")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise ConfigError(f"{address} has port {parsed.port}: 1 to 65535 are valid")
    return url
