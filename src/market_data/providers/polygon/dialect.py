"""How Massive (formerly Polygon.io) says no."""

from __future__ import annotations

import re
from typing import Final

from market_data.model.errors import (
    BadCredentials,
    MarketDataError,
    NotEntitled,
    ProviderUnavailable,
    RateLimited,
    UnknownInstrument,
    UnsupportedRequest,
)
from market_data.transport.channel import Dialect
from market_data.transport.senders import Response

BY_STATUS: Final[dict[int, type[MarketDataError]]] = {
    401: BadCredentials,
    403: NotEntitled,
    404: UnknownInstrument,
    408: ProviderUnavailable,
    # The official client tries these again too: 413 is answered under load, 499 when it gave up on itself.
    413: ProviderUnavailable,
    499: ProviderUnavailable,
}
# A refusal sent as a success is small, and says so where an answer says OK or DELAYED.
LONGEST_REFUSAL: Final = 4096
REFUSED: Final = re.compile(rb'"status"\s*:\s*"(?:ERROR|NOT_AUTHORIZED)"')
TOO_MANY: Final = "exceeded the maximum requests"

_COIN: Final = re.compile(r"X:([A-Z0-9]+?)USD")


def canonical(raw_symbol: str) -> str:
    """Our symbol for one that is only spoken of: BTC for X:BTCUSD; others are the same."""
    coin = _COIN.fullmatch(raw_symbol)
    return coin[1] if coin else raw_symbol


def classify(response: Response) -> MarketDataError | None:
    """The error an answer means; None when it is good."""
    if response.status == 200:
        return _hidden(response)
    message = f"polygon answered {response.status}: {_text(response)}"
    if response.status == 429:
        return RateLimited(message, retry_after=response.retry_after)
    if response.status in BY_STATUS:
        return BY_STATUS[response.status](message)
    return ProviderUnavailable(message) if response.status >= 500 else UnsupportedRequest(message)


def _hidden(response: Response) -> MarketDataError | None:
    """The error in an answer of status 200."""
    if len(response.body) > LONGEST_REFUSAL or not (said := REFUSED.search(response.body)):
        return None
    text = _text(response)
    message = f"polygon answered 200: {text}"
    if TOO_MANY in text:
        return RateLimited(message, retry_after=response.retry_after)
    # Any other is no answer of the protocol: the parser says so.
    return NotEntitled(message) if b"NOT_AUTHORIZED" in said[0] else None


def _text(response: Response) -> str:
    answer = response.refusal
    # A refusal for lack of entitlement has "message" where other errors have "error".
    said = (answer.get("error") or answer.get("message")) if isinstance(answer, dict) else None
    return str(said) if said else response.excerpt()


MASSIVE = Dialect(classify=classify)
