"""Exchange: one exchange of the library ccxt, asked through our transport, its errors as ours."""

from __future__ import annotations

import importlib
import json
from collections.abc import Awaitable
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from market_data.model.errors import (
    BadCredentials,
    ConfigError,
    GeoBlocked,
    MalformedPayload,
    MarketDataError,
    NotEntitled,
    ProviderUnavailable,
    RateLimited,
    UnknownInstrument,
    UnsupportedRequest,
)
from market_data.model.provider import ProviderSettings
from market_data.model.text import kept_within
from market_data.transport.channel import Dialect
from market_data.transport.http import Http
from market_data.transport.senders import Response

NAME: Final = "ccxt"
ROWS = 500
# The library asks some exchanges for all their instruments at once.
LIST_BYTES: Final = 64 * 2**20
# Names in the library's tree of errors, from the leaves up, and ours.
ERRORS: Final[tuple[tuple[str, type[MarketDataError]], ...]] = (
    ("BadSymbol", UnknownInstrument),
    ("PermissionDenied", NotEntitled),
    ("AuthenticationError", BadCredentials),
    ("RateLimitExceeded", RateLimited),
    ("DDoSProtection", RateLimited),
    ("OperationFailed", ProviderUnavailable),
    ("NetworkError", ProviderUnavailable),
    ("BadResponse", MalformedPayload),
    ("BaseError", UnsupportedRequest),
)

BY_STATUS: Final[dict[int, type[MarketDataError]]] = {
    400: UnsupportedRequest,
    401: BadCredentials,
    403: NotEntitled,
    404: UnsupportedRequest,
    422: UnsupportedRequest,
}


class CcxtSettings(ProviderSettings):
    """Settings of the provider `ccxt`."""

    exchange: str | None = None
    """The library's name of the exchange: kraken, coinbase, okx …"""
    market_type: Literal["spot", "swap"] = "spot"
    """Whether a symbol is the spot pair or the linear perpetual."""
    rest_url: str | None = None
    """Asked instead of the exchange's own host."""


class Exchange:
    """What the settings name: the library shapes requests and answers, our transport carries them."""

    def __init__(self, settings: CcxtSettings, http: Http) -> None:
        self.settings = settings
        self._channel = http.channel(most_bytes=LIST_BYTES)
        self.last: Response | None = None

    @property
    def ready(self) -> str | None:
        """None when it can be asked; else what to do."""
        if find_spec(NAME) is None:
            return "the library is absent: pip install 'market-data-platform[ccxt]'"
        return None if self.settings.exchange else "no exchange: set providers.ccxt.exchange, for example to kraken"

    @property
    def source(self) -> str:
        """What rows from it carry as their source."""
        return f"{NAME}:{self.settings.exchange}"

    def page_rows(self, call: str) -> int:
        """How many rows an answer of `call` may hold."""
        features = (getattr(self.library, "features", None) or {}).get(self.settings.market_type) or {}
        return int((features.get(call) or {}).get("limit") or ROWS)

    @cached_property
    def library(self) -> Any:
        """The library's exchange.

        Raises:
            ConfigError: when it is absent or does not know the exchange.
        """
        if (why := self.ready) is not None:
            raise ConfigError(f"ccxt cannot be asked: {why}")
        library, name = importlib.import_module("ccxt.async_support"), str(self.settings.exchange)
        if name not in library.exchanges:
            raise ConfigError(f"ccxt knows no exchange {name!r}")
        options = {"defaultType": self.settings.market_type}
        exchange = getattr(library, name)({"enableRateLimit": False, "options": options})
        # Digits as sent, and our transport: its limits, deadlines and breaker hold for every exchange.
        exchange.number = str
        exchange.on_json_response = lambda text: kept_within(json.loads(text, parse_float=str))
        exchange.fetch = self._fetch
        return exchange

    async def _fetch(
        self, url: str, method: str = "GET", headers: dict[str, str] | None = None, body: str | None = None
    ) -> Any:
        """Takes the place of the library's own HTTP."""
        if method != "GET" or body:
            raise UnsupportedRequest(f"{self.source} wants {method} where only GET is sent")
        answers: list[Any] = []

        def classify(response: Response) -> MarketDataError | None:
            error, answer = self._read(response, url)
            answers.append(answer)
            return error

        if self.settings.rest_url:
            parts = urlsplit(url)
            url = f"{self.settings.rest_url.rstrip('/')}{parts.path}" + (f"?{parts.query}" if parts.query else "")
        self.last = await self._channel.get(url, Dialect(classify=classify), headers=headers)
        return answers[-1]

    def _read(self, response: Response, url: str) -> tuple[MarketDataError | None, Any]:
        if response.status == 451:
            # The library takes it for an outage.
            return GeoBlocked(f"{self.source} answered 451: {response.excerpt()}"), None
        if response.status in (418, 429):
            # Some exchanges' bodies make the library think of something else.
            message = f"{self.source} answered {response.status}: {response.excerpt()}"
            return RateLimited(message, retry_after=response.retry_after), None
        text = response.body.decode("utf-8", "replace").strip()
        answer = self.library.parse_json(text)
        reason = "OK" if response.status == 200 else ""
        try:
            arguments = (response.status, reason, url, "GET", dict(response.headers), text, answer, None, None)
            self.library.handle_errors(*arguments)
            if response.status in BY_STATUS:
                # Without a word of the exchange's own; the library would take some of these for an outage.
                message = f"{self.source} answered {response.status}: {response.excerpt()}"
                return BY_STATUS[response.status](message), None
            self.library.handle_http_status_code(response.status, reason, url, "GET", text)
        except Exception as error:
            return self._translated(error, response.retry_after), None
        if answer is None:
            return MalformedPayload(f"{self.source} sent no JSON: {response.excerpt()}"), None
        return None, answer

    async def calling(self, call: Awaitable[Any]) -> Any:
        """A call of the library, its errors as ours; what breaks its parsing was not what the exchange promises."""
        try:
            return await call
        except MarketDataError:
            raise
        except Exception as error:
            raise self._translated(error, None) from error

    def _translated(self, error: Exception, retry_after: float | None) -> MarketDataError:
        library = importlib.import_module("ccxt")
        message = f"{self.source}: {str(error)[:300]}"
        for name, kind in ERRORS:
            if isinstance(error, getattr(library, name)):
                return RateLimited(message, retry_after=retry_after) if kind is RateLimited else kind(message)
        return MalformedPayload(f"{self.source} sent what the library cannot read: {error!r}")
