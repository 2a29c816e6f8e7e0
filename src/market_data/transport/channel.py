"""Channel: one class of endpoints of one host, asked within its budget, past bans and breaker, again if that helps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from market_data.model.errors import (
    ConfigError,
    MalformedPayload,
    MarketDataError,
    ProviderUnavailable,
    RateLimited,
    TransientError,
)
from market_data.model.provider import ProviderSettings
from market_data.model.text import cleaned
from market_data.transport.budget import Budget, Time, can_wait
from market_data.transport.gate import Gate, Refused
from market_data.transport.ledger import Key
from market_data.transport.senders import Request, Response

log = structlog.get_logger()

# Told to wait but not for how long, all tasks of the process wait so long.
UNTOLD_SECONDS: Final = 1.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """What a channel may spend: `live` for every request, `slow` as well for those that can wait."""

    live: Budget
    slow: Budget
    slow_key: Key


class Channel:
    """See the module; opened by `Http.channel`, shared by all tasks of a process, by all processes through the ledger.

    Attributes:
        name: the source, and after a colon the class of endpoints.
        gate: whether it may be asked at all.
        quota_remaining: what its source said last of its own limit, None when it does not.
    """

    def __init__(
        self,
        key: Key,
        settings: ProviderSettings,
        gate: Gate,
        budgets: Budgets,
        send: Callable[[Request, bool], Awaitable[Response]],
        *,
        most_bytes: int,
        passing: Time,
    ) -> None:
        self.name = key.channel
        self.gate = gate
        self.quota_remaining: float | None = None
        self._key = key
        self._settings = settings
        self._budgets = budgets
        self._send = send
        self._most_bytes = most_bytes
        self._time = passing

    async def get(
        self,
        url: str,
        dialect: Dialect,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        most_bytes: int | None = None,
    ) -> Response:
        """The answer to a GET, tried again on transient errors within the deadline.

        Args:
            url: absolute.
            dialect: how to read the answer's status.
            params: query parameters; those that are None are left out.
            headers: more header fields.
            most_bytes: longest answer read, where it is another than the channel's.

        Raises:
            MarketDataError: as `dialect.classify` says; ConnectionLost and MalformedPayload for what went wrong on
                the way; ProviderUnavailable while the breaker is open; RateLimited, without asking, during a ban that
                ends after the deadline.
            ConfigError: when the address or a key, which come from settings, is none.
        """
        request = Request(
            url=_checked(self.name.partition(":")[0], url),
            params={name: str(value) for name, value in (params or {}).items() if value is not None},
            headers=_proper(self.name.partition(":")[0], headers or {}),
            timeout_seconds=self._settings.timeout_seconds,
            max_bytes=min(most_bytes or self._most_bytes, self._settings.max_response_bytes),
        )
        passage = _Passage()
        try:
            await self._pass(passage)
            response: Response = await self._retrying()(self._attempt, request, dialect, passage)
        except Refused as refused:
            await self.gate.undecided(probing=passage.probing)
            raise refused.error from None
        except MarketDataError as error:
            await self.gate.failed(error, probing=passage.probing)
            raise
        await self.gate.succeeded(probing=passage.probing)
        return response

    async def _attempt(self, request: Request, dialect: Dialect, passage: _Passage) -> Response:
        await self._admitted(passage)
        response = await self._sent(request, dialect)
        try:
            quota, error = dialect.quota(response), self._error_in(response, dialect)
        except Exception as unread:  # whatever the bytes of a source make a reader do
            log.warning("answer_unreadable", channel=self.name, status=response.status, fault=type(unread).__name__)
            raise MalformedPayload(
                f"{self.name} answered {response.status} in a way that cannot be read: {response.excerpt()}"
            ) from None
        if quota is not None:
            used, allowed = quota
            self.quota_remaining = max(0.0, allowed - used)
            self._budgets.live.observe(used, allowed)
        if error is None:
            return response
        error.args = (cleaned(str(error)),)
        if isinstance(error, RateLimited):
            # Everybody waits, not only the one who was told.
            if error.retry_after is None:
                self._budgets.live.pause(UNTOLD_SECONDS)
            else:
                await self.gate.told_to_wait(error.retry_after, str(error))
        raise error

    async def _admitted(self, passage: _Passage) -> None:
        """Wait for a request's turn, past bans and breaker as they are known by then."""
        if can_wait():
            await self._budgets.slow.acquire(self._budgets.slow_key, self.gate.learn)
        while True:
            await self.gate.obey_ban()
            await self._budgets.live.acquire(self._key, self.gate.learn)
            await self._pass(passage)
            if not await self.gate.obey_ban():
                return

    async def _pass(self, passage: _Passage) -> None:
        if not passage.probing:
            passage.probing = await self.gate.enter()

    async def _sent(self, request: Request, dialect: Dialect) -> Response:
        try:
            return await self._send(request, dialect.browser)
        except MarketDataError as error:
            error.args = (cleaned(str(error)),)
            raise
        except Exception as error:  # whatever a library makes of odd bytes; its words may hold a key
            log.warning("answer_unreadable", channel=self.name, fault=type(error).__name__)
            raise MalformedPayload(f"{self.name} was answered with what cannot be read") from None

    def _error_in(self, response: Response, dialect: Dialect) -> MarketDataError | None:
        if 300 <= response.status < 400 and not dialect.takes_redirects:
            # Before the dialect sees it: no source's API redirects, what does is a portal or a consent page.
            return ProviderUnavailable(f"{self.name} redirected to {response.redirected_to or 'nowhere'}")
        return dialect.classify(response)

    def _retrying(self) -> AsyncRetrying:
        began = self._time.clock()

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, RateLimited) else None
            return asked if asked is not None else float(2**state.attempt_number) * self._time.jitter()

        def stop(state: RetryCallState) -> bool:
            too_late = self._time.clock() - began + state.upcoming_sleep > self._settings.deadline_seconds
            return state.attempt_number > self._settings.max_retries or too_late

        return AsyncRetrying(
            sleep=self._time.sleep, wait=wait, stop=stop, retry=retry_if_exception_type(TransientError), reraise=True
        )


@dataclass(slots=True)
class _Passage:
    """One request on its way: whether it finds out if the source is well again."""

    probing: bool = False


def _proper(name: str, headers: Mapping[str, str]) -> dict[str, str]:
    """The header fields; libraries quote one that is none in their errors, or send the line break in it along.

    Raises:
        ConfigError: when one cannot be sent; never with its value, which may be a key.
    """
    for field, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(f"the {field} header for {name} cannot be sent: is the key of providers.{name} whole?")
    return dict(headers)


def _checked(name: str, url: str) -> str:
    """The address, which comes from a setting; what is wrong with one, senders tell late and each in its own way.

    Raises:
        ConfigError: naming what is wrong; never with the query, which may hold a key.
    """
    address = f"the address of providers.{name}, {cleaned(url.partition('?')[0])!r},"
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ConfigError(f"{address} is none: {cleaned(str(error))}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"{address} is none: http:// or https:// and a host are needed")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise ConfigError(f"{address} has port {parsed.port}: 1 to 65535 are valid")
    return url
