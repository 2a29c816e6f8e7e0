"""How Yahoo says no: by status and error code, never by words that a time stamp may contain."""

from __future__ import annotations

import re
from typing import Final

from market_data.model.errors import (
    BadCredentials,
    GeoBlocked,
    MalformedPayload,
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
    400: UnsupportedRequest,
    401: BadCredentials,
    403: NotEntitled,
    404: UnknownInstrument,
    408: ProviderUnavailable,
    422: UnsupportedRequest,
}
# Said with status 200 now and then, as text or in the place of an error: a refusal is small.
TOO_MANY: Final = re.compile(rb'\s*Too Many Requests|[^[]*"code"\s*:\s*"Too Many Requests"')
LONGEST_REFUSAL: Final = 4096
OUTAGE_PAGE: Final = b"Will be right back"
# The 400 for a range before the first trade: no error, there is nothing.
# Where visitors from Europe are sent to agree to cookies (a form to be posted): a person's to give, not a program's.
CONSENT_HOSTS: Final = ("guce.yahoo.com", "consent.yahoo.com")
CONSENT_FORM: Final = b"collectConsent"
NOTHING_THERE: Final = "Data doesn't exist for startDate"


_COIN: Final = re.compile(r"([A-Z0-9]+)-USD")
_SHARE_CLASS: Final = re.compile(r"([A-Z]+)-([A-Z])")


def canonical(raw_symbol: str) -> str:
    """Our symbol for one that is only spoken of: BRK.B for BRK-B, BTC for BTC-USD; others are the same."""
    if coin := _COIN.fullmatch(raw_symbol):
        return coin[1]
    share = _SHARE_CLASS.fullmatch(raw_symbol)
    return f"{share[1]}.{share[2]}" if share else raw_symbol


def classify(response: Response) -> MarketDataError | None:
    """The error an answer means; None when it is good."""
    if 300 <= response.status < 400:
        return _redirected(response)
    if response.status == 200:
        if CONSENT_FORM in response.body[:100_000] and response.body.lstrip()[:1] == b"<":
            return _wants_consent()
        if OUTAGE_PAGE in response.body[:10_000]:
            return ProviderUnavailable("yahoo shows its outage page")
        if response.body.lstrip()[:1] == b"<":
            return MalformedPayload(f"yahoo sent a page where data was asked for: {response.excerpt()}")
        if len(response.body) <= LONGEST_REFUSAL and TOO_MANY.match(response.body):
            return RateLimited(f"yahoo answered 200: {response.excerpt()}", retry_after=response.retry_after)
        return None
    text = _description(response)
    message = f"yahoo answered {response.status}: {text}"
    if response.status == 429:
        return RateLimited(message, retry_after=response.retry_after)
    if response.status == 400 and text.startswith(NOTHING_THERE):
        return None
    if response.status in BY_STATUS:
        return BY_STATUS[response.status](message)
    return ProviderUnavailable(message) if response.status >= 500 else UnsupportedRequest(message)


def _redirected(response: Response) -> MarketDataError:
    host = response.redirected_to
    return _wants_consent() if host in CONSENT_HOSTS else ProviderUnavailable(f"yahoo redirected to {host}")


def _wants_consent() -> GeoBlocked:
    return GeoBlocked(
        "yahoo wants its European visitors' consent to cookies before it gives more than charts; this program does "
        "not give it. Candles, dividends and splits need none; take earnings, options and news from another source"
    )


def _description(response: Response) -> str:
    try:
        return str(next(iter(response.refusal.values()))["error"]["description"])
    except (TypeError, AttributeError, KeyError, StopIteration):
        return response.excerpt()


def dialect(*, browser: bool) -> Dialect:
    """How data is asked for; `browser` where the source wants to see one."""
    return Dialect(classify=classify, browser=browser, takes_redirects=True)


def any_answer(*, browser: bool) -> Dialect:
    """How the cookie is asked for: it comes with any answer."""
    return Dialect(classify=lambda _: None, browser=browser, takes_redirects=True)
