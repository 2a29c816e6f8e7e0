"""Massive on the other side of the wire, as its documentation describes it: made-up bars, pages, all its refusals."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from zoneinfo import ZoneInfo

import httpx

from market_data.model import errors
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import Timeframe

NEW_YORK = ZoneInfo("America/New_York")
KEY = "a-key-for-tests"
LISTED = datetime(2024, 1, 1, tzinfo=UTC)
# Wednesday, 10:00:30 in New York: the regular session has begun.
NOW = datetime(2025, 3, 5, 15, 0, 30, tzinfo=UTC)

KNOWN = Instrument("AAPL", AssetClass.STOCK)
COIN = Instrument("BTC", AssetClass.CRYPTO)
UNKNOWN = Instrument("NOSUCH", AssetClass.STOCK)
RAW_SYMBOL = "AAPL"
SETTINGS: dict[str, object] = {"api_key": KEY}
# A half day (2024-11-29), a change to summer time in New York (2025-03-09 lies after NOW, 2024-11-03 before), pages.
CASES = [
    (KNOWN, Timeframe.H1, datetime(2024, 10, 30, tzinfo=UTC), datetime(2024, 12, 3, tzinfo=UTC)),
    (KNOWN, Timeframe.M5, datetime(2025, 3, 5, tzinfo=UTC), datetime(2025, 3, 6, tzinfo=UTC)),
    (KNOWN, Timeframe.H4, datetime(2024, 11, 27, 15, tzinfo=UTC), datetime(2024, 12, 3, tzinfo=UTC)),
    (KNOWN, Timeframe.D1, datetime(2024, 10, 1, tzinfo=UTC), NOW),
    (KNOWN, Timeframe.W1, datetime(2025, 1, 1, tzinfo=UTC), NOW),
    (COIN, Timeframe.M1, datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, 12, tzinfo=UTC)),
    (COIN, Timeframe.H4, datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 5, tzinfo=UTC)),
    (COIN, Timeframe.W1, datetime(2025, 1, 1, tzinfo=UTC), NOW),
]
EMPTY = (KNOWN, Timeframe.H1, datetime(2023, 1, 3, tzinfo=UTC), datetime(2023, 1, 14, tzinfo=UTC))


def error(code: int, **body: str) -> httpx.Response:
    return httpx.Response(code, json={"request_id": "r", **body})


ERRORS = [
    (error(400, status="ERROR", error="Could not parse the time parameter: 'from'."), errors.UnsupportedRequest),
    (error(401, status="ERROR", error="Unknown API Key"), errors.BadCredentials),
    (
        error(403, status="NOT_AUTHORIZED", message="You are not entitled to this data. Please upgrade your plan."),
        errors.NotEntitled,
    ),
    (error(404, status="NOT_FOUND", message="Ticker not found."), errors.UnknownInstrument),
    (error(429, status="ERROR", error="You've exceeded the maximum requests per minute."), errors.RateLimited),
    (httpx.Response(429), errors.RateLimited),
    (httpx.Response(413), errors.ProviderUnavailable),
    (httpx.Response(499), errors.ProviderUnavailable),
    (httpx.Response(500, html="<html>oops</html>"), errors.ProviderUnavailable),
    (httpx.Response(504), errors.ProviderUnavailable),
]
GARBAGE = [
    b"",
    b"<html>maintenance</html>",
    b"[]",
    b'{"status":"OK","resultsCount":2}',
    b'{"status":"ERROR","error":"no"}',
    b'{"status":"OK","resultsCount":1,"results":{}}',
    b'{"status":"OK","resultsCount":1,"results":[{"t":1735741800000,"o":1,"h":1,"l":1,"c":1}]}',
    b'{"status":"OK","resultsCount":1,"results":[{"t":1735741800000,"o":1,"h":1,"l":1,"c":"one","v":1}]}',
    b'{"status":"OK","resultsCount":1,"results":[{"t":1735741800000,"o":1,"h":1,"l":1,"c":NaN,"v":1}]}',
    b'{"status":"OK","resultsCount":1,"results":[[1,2,3]]}',
    b'{"status":"OK","resultsCount":1,"results":[{"t":1735741800000,"o":1,"h":1,"l":1,"c":1,"v":1}',
]


class Source:
    """Answers requests; `override` takes precedence for bars. Pages hold `page_rows` bars."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.override: httpx.Response | None = None
        self.status = "OK"
        self.page_rows = 700
        self.now = NOW
        # Answers of other paths: lists of pages of results, or a refusal.
        self.lists: dict[str, list[list[dict[str, object]]] | httpx.Response] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        path = request.url.path
        if path == "/v3/reference/tickers":
            return self.answer(tickers(request.url.params), 1)
        if path.startswith("/v2/aggs/ticker/"):
            return self.override or self.bars(request)
        found = self.lists.get(path, [])
        if isinstance(found, httpx.Response):
            return found
        if found:
            return self.listed(request, found)
        return error(404, status="NOT_FOUND", message="no such path")

    def listed(self, request: httpx.Request, pages: list[list[dict[str, object]]]) -> httpx.Response:
        number = int(request.url.params.get("cursor", 0))
        body: dict[str, object] = {"results": pages[number]}
        if number + 1 < len(pages):
            body["next_url"] = f"https://elsewhere.example{request.url.path}?cursor={number + 1}"
        return self.answer(body, len(pages[number]))

    def answer(self, body: dict[str, object], count: int) -> httpx.Response:
        content = json.dumps({"status": self.status, "request_id": "r", "resultsCount": count, **body}).encode()
        return httpx.Response(200, content=content, headers={"Date": format_datetime(self.now, usegmt=True)})

    def bars(self, request: httpx.Request) -> httpx.Response:
        _, _, _, symbol, _, multiplier, span, begin, end = request.url.path.lstrip("/").split("/", 8)[:9]
        rows = all_bars(symbol, int(multiplier), span, begin, end, self.now)
        skip = int(request.url.params.get("cursor", 0))
        page = rows[skip : skip + self.page_rows]
        body: dict[str, object] = {"ticker": symbol, "adjusted": False}
        if page:
            body["results"] = page
        if skip + self.page_rows < len(rows):
            # The key is not in it, and the host is not the one that was asked.
            body["next_url"] = f"https://elsewhere.example{request.url.path}?cursor={skip + self.page_rows}"
        return self.answer(body, len(page))


def all_bars(symbol: str, multiplier: int, span: str, begin: str, end: str, now: datetime) -> list[dict[str, object]]:
    crypto = symbol == "X:BTCUSD"
    first, last = bound(begin, crypto=crypto), bound(end, crypto=crypto)
    if span == "day":
        last += timedelta(days=1) - timedelta(milliseconds=1)
    step = timedelta(minutes=multiplier) * {"minute": 1, "hour": 60, "day": 1440}[span]
    zone = UTC if crypto else NEW_YORK
    rows = []
    moment = max(first, LISTED)
    moment = moment.astimezone(zone).replace(minute=0, second=0, microsecond=0, hour=0)
    while (opens := moment.astimezone(UTC)) <= min(last, now):
        if opens >= max(first, LISTED) and (crypto or is_traded(moment, span)):
            rows.append(bar(opens, multiplier if span == "minute" else 60))
        # Days are counted in local time, minutes and hours in real time.
        moment = moment + step if span == "day" else (opens + step).astimezone(zone)
    return rows


def is_traded(moment: datetime, span: str) -> bool:
    holidays = {(2024, 11, 28), (2024, 12, 25), (2025, 1, 1), (2025, 1, 9), (2025, 1, 20), (2025, 2, 17)}
    day = moment.weekday() < 5 and (moment.year, moment.month, moment.day) not in holidays
    # Extended hours are part of the minutes.
    return day and (span == "day" or 4 <= moment.hour < 20)


def bound(text: str, *, crypto: bool) -> datetime:
    if "-" in text:
        return datetime.fromisoformat(text).replace(tzinfo=UTC if crypto else NEW_YORK).astimezone(UTC)
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(text))


def bar(opens: datetime, minutes: int) -> dict[str, object]:
    number = opens.hour * 60 + opens.minute
    return {
        "t": int(opens.timestamp()) * 1000,
        "o": 100 + number / 4,
        "h": 103.5 + number / 4,
        "l": 99.25 + number / 4,
        "c": 101.75 + number / 4,
        "v": 10.5 * minutes,
        "vw": 101.5,
        "n": minutes,
    }


def tickers(params: httpx.QueryParams) -> dict[str, object]:
    stock = {"ticker": "AAPL", "market": "stocks", "active": True, "type": "CS", "primary_exchange": "XNAS"}
    coins = [
        {"ticker": f"X:{base}{quote}", "base_currency_symbol": base, "currency_symbol": quote, "market": "crypto"}
        for base, quote in [("WBTC", "USD"), ("BTC", "EUR"), ("BTC", "USD")]
    ]
    if params.get("market") == "crypto":
        listed = coins if params["active"] == "true" else []
        return {"results": [coin for coin in listed if params.get("search", "") in coin["ticker"]]}
    asked = params.get("ticker", "AAPL") == "AAPL" and params.get("market", "stocks") == "stocks"
    return {"results": [stock] if asked and params["active"] == "true" else []}


def filled() -> Source:
    """A source that has something of every dataset."""
    source, contract = Source(), {"ticker": "O:AAPL260116C00200000", "contract_type": "call", "strike_price": 200,
                                  "expiration_date": "2026-01-16", "exercise_style": "american"}  # fmt: skip
    day, nanos = "2025-03-03", int((NOW - timedelta(minutes=5)).timestamp()) * 10**9
    lists: dict[str, list[dict[str, object]]] = {
        "/stocks/v1/dividends": [{"ticker": "AAPL", "ex_dividend_date": day, "cash_amount": 0.25, "currency": "USD",
                                  "pay_date": "2025-03-10", "frequency": 4, "distribution_type": "recurring"}],
        "/stocks/v1/splits": [{"ticker": "AAPL", "execution_date": day, "split_from": 1, "split_to": 4}],
        "/benzinga/v1/earnings": [{"fiscal_year": 2025, "fiscal_period": "Q1", "date": day, "time": "16:30:00",
                                   "actual_eps": 2.4, "estimated_eps": 2.35, "currency": "USD"}],
        "/v2/reference/news": [{"id": "n1", "published_utc": "2025-03-04T10:00:00Z", "title": "T", "tickers": ["AAPL"],
                                "article_url": "https://news.example/1", "publisher": {"name": "P"}, "keywords": ["k"],
                                "insights": [{"ticker": "AAPL", "sentiment": "positive"}]}],
        "/v3/snapshot/options/AAPL": [{"details": contract, "implied_volatility": 0.3, "greeks": {"delta": 0.5},
                                       "last_quote": {"bid": 9.5, "ask": 9.7}, "open_interest": 12,
                                       "underlying_asset": {"price": 201.5}, "day": {"volume": 3}}],
        "/v3/reference/options/contracts": [contract | {"ticker": "O:AAPL260116C00210000", "strike_price": 210}],
        "/v3/trades/AAPL": [{"id": "1", "exchange": 4, "price": 200.1, "size": 3, "participant_timestamp": nanos,
                             "sip_timestamp": nanos, "conditions": [12]}],
        "/v3/quotes/AAPL": [{"sequence_number": 7, "sip_timestamp": nanos, "participant_timestamp": nanos,
                             "bid_price": 200.0, "bid_size": 1, "ask_price": 200.1, "ask_size": 2}],
    }  # fmt: skip
    source.lists = {path: [rows, rows] for path, rows in lists.items()}
    return source
