"""How Binance says no, and how much of its limits is used."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from market_data.model.errors import (
    BadCredentials,
    GeoBlocked,
    MarketDataError,
    NotEntitled,
    ProviderUnavailable,
    RateLimited,
    UnknownInstrument,
    UnsupportedRequest,
)
from market_data.transport.http import Dialect
from market_data.transport.senders import Response

# https://github.com/binance/binance-spot-api-docs/blob/master/errors.md
BY_CODE: Final[dict[int, type[MarketDataError]]] = {
    -1000: ProviderUnavailable,
    -1001: ProviderUnavailable,
    -1007: ProviderUnavailable,
    -1008: ProviderUnavailable,
    -1002: BadCredentials,
    -1121: UnknownInstrument,
    -2014: BadCredentials,
    -2015: BadCredentials,
}


def classify(response: Response) -> MarketDataError | None:
    """The error an answer means; None when it is good."""
    if response.status == 200:
        return None
    code, text = _code_and_text(response)
    message = f"binance answered {response.status}: {text}"
    if response.status in (418, 429) or code == -1003:
        return RateLimited(message, retry_after=response.retry_after)
    if response.status == 451:
        return GeoBlocked(message)
    # The firewall's answer is HTML; with a code it is the application's.
    if response.status == 403:
        return RateLimited(message, retry_after=response.retry_after) if code is None else NotEntitled(message)
    if code in BY_CODE:
        return BY_CODE[code](message)
    if response.status == 401:
        return BadCredentials(message)
    if response.status >= 500 or response.status == 408:
        return ProviderUnavailable(message)
    return UnsupportedRequest(message)


def classify_file(response: Response) -> MarketDataError | None:
    """The error an answer of the archive means; that a file is not there is none."""
    return None if response.status == 404 else classify(response)


def _code_and_text(response: Response) -> tuple[int | None, str]:
    try:
        answer = json.loads(response.body)
        return int(answer["code"]), str(answer.get("msg", ""))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None, response.excerpt()


def dialect(allowed: Callable[[], float]) -> Dialect:
    """How a market speaks; `allowed` is its limit of weight per minute and address, as known by then."""

    def quota(response: Response) -> tuple[float, float] | None:
        used = response.headers.get("x-mbx-used-weight-1m", "")
        return (float(used), allowed()) if used.isdigit() else None

    return Dialect(classify=classify, quota=quota)


ARCHIVE = Dialect(classify=classify_file)
