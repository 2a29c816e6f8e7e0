"""How Binance says no, and how much of its limits is used."""

from __future__ import annotations

import re
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
from market_data.transport.channel import Dialect
from market_data.transport.senders import Response

# https://github.com/binance/binance-spot-api-docs/blob/master/errors.md
BY_CODE: Final[dict[int, type[MarketDataError]]] = {
    -1000: ProviderUnavailable,
    -1001: ProviderUnavailable,
    -1007: ProviderUnavailable,
    -1008: ProviderUnavailable,
    -1002: BadCredentials,
    -1121: UnknownInstrument,
    # "Invalid symbol status.": it is listed, but settled.
    -1122: UnknownInstrument,
    -2014: BadCredentials,
    -2015: BadCredentials,
}


TOO_MANY: Final = -1003
BANNED_UNTIL: Final = re.compile(r"banned until (\d{13})\b")
# A ban lasts from two minutes to three days; where none is told, the shortest.
SHORTEST_BAN_SECONDS: Final = 120.0
# A refusal is small; a list of candles never begins like one.
REFUSAL: Final = re.compile(rb'\s*\{\s*"code"\s*:')


def classify(response: Response) -> MarketDataError | None:
    """The error an answer means; None when it is good."""
    if response.status == 200 and not REFUSAL.match(response.body):
        return None
    code, text = _code_and_text(response)
    if response.status == 200 and code != TOO_MANY and code not in BY_CODE:
        # No answer of the protocol: the parser says so.
        return None
    message = f"binance answered {response.status}: {text}"
    if response.status in (418, 429) or code == TOO_MANY:
        return RateLimited(message, retry_after=_told_to_wait(response, text))
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


def _told_to_wait(response: Response, text: str) -> float | None:
    """Seconds, the longer of what the header and the text say: the text names the moment on the source's clock."""
    told = [] if response.retry_after is None else [response.retry_after]
    if found := BANNED_UNTIL.search(text):
        source_now = response.server_time or response.fetched_at
        told.append(max(0.0, int(found[1]) / 1000 - source_now.timestamp()))
    if not told and response.status == 418:
        return SHORTEST_BAN_SECONDS
    return max(told, default=None)


def classify_file(response: Response) -> MarketDataError | None:
    """The error an answer of the archive means; that a file is not there is none."""
    return None if response.status == 404 else classify(response)


def _code_and_text(response: Response) -> tuple[int | None, str]:
    answer = response.refusal
    if not isinstance(answer, dict) or not isinstance(answer.get("code"), int):
        return None, response.excerpt()
    return answer["code"], str(answer.get("msg", ""))


def dialect(allowed: Callable[[], float]) -> Dialect:
    """How a market speaks; `allowed` is its limit of weight per minute and address, as known by then."""

    def quota(response: Response) -> tuple[float, float] | None:
        used = response.header_number("x-mbx-used-weight-1m")
        return None if used is None else (used, allowed())

    return Dialect(classify=classify, quota=quota)


UNCOUNTED = Dialect(classify=classify)
"""How the endpoints speak whose requests no weight counts."""
ARCHIVE = Dialect(classify=classify_file)
