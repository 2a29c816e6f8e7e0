"""Yahoo on the other side of the wire, as observed: a chart with holes and a live row, all its refusals."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from zoneinfo import ZoneInfo

import httpx

from market_data.model import errors
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import Timeframe

NEW_YORK = ZoneInfo("America/New_York")
LISTED = datetime(2023, 6, 1, tzinfo=UTC)
# Wednesday, 10:20:30 in New York: the regular session has begun.
NOW = datetime(2025, 3, 5, 15, 20, 30, tzinfo=UTC)
# New York 2025-02-11 11:00: a hole.
HOLE = datetime(2025, 2, 11, 16, tzinfo=UTC)
# Two for one, with effect from this session's open.
SPLIT = datetime(2025, 2, 25, 14, 30, tzinfo=UTC)

KNOWN = Instrument("AAPL", AssetClass.STOCK)
COIN = Instrument("PEPE", AssetClass.CRYPTO)
UNKNOWN = Instrument("NOSUCH", AssetClass.STOCK)
RAW_SYMBOL = "AAPL"
SETTINGS: dict[str, object] = {}
CASES = [
    (KNOWN, Timeframe.H1, datetime(2024, 11, 25, tzinfo=UTC), datetime(2025, 2, 11, tzinfo=UTC)),
    (KNOWN, Timeframe.M5, datetime(2025, 3, 5, tzinfo=UTC), datetime(2025, 3, 6, tzinfo=UTC)),
    (KNOWN, Timeframe.M1, datetime(2025, 2, 12, tzinfo=UTC), datetime(2025, 3, 1, tzinfo=UTC)),
    (KNOWN, Timeframe.M5, datetime(2025, 2, 11, tzinfo=UTC), datetime(2025, 2, 12, tzinfo=UTC)),
    (KNOWN, Timeframe.M30, datetime(2025, 2, 11, tzinfo=UTC), datetime(2025, 2, 12, tzinfo=UTC)),
    (KNOWN, Timeframe.H4, datetime(2024, 11, 27, 15, tzinfo=UTC), datetime(2024, 12, 3, tzinfo=UTC)),
    (KNOWN, Timeframe.D1, datetime(2023, 5, 1, tzinfo=UTC), NOW),
    (KNOWN, Timeframe.W1, datetime(2025, 1, 1, tzinfo=UTC), NOW),
    (COIN, Timeframe.H4, datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 5, tzinfo=UTC)),
    (COIN, Timeframe.D1, datetime(2025, 1, 1, tzinfo=UTC), NOW),
]
EMPTY = (KNOWN, Timeframe.D1, datetime(2022, 1, 3, tzinfo=UTC), datetime(2022, 1, 14, tzinfo=UTC))
STEPS = {"1m": 60, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "60m": 3600}
HOLIDAYS = {
    date(2023, 6, 19), date(2023, 7, 4), date(2023, 9, 4), date(2023, 11, 23), date(2023, 12, 25), date(2024, 1, 1),
    date(2024, 1, 15), date(2024, 2, 19), date(2024, 3, 29), date(2024, 5, 27), date(2024, 6, 19), date(2024, 7, 4),
    date(2024, 9, 2), date(2024, 11, 28), date(2024, 12, 25), date(2025, 1, 1), date(2025, 1, 9), date(2025, 1, 20),
    date(2025, 2, 17),
}  # fmt: skip
HALF_DAYS = {date(2023, 7, 3), date(2023, 11, 24), date(2024, 7, 3), date(2024, 11, 29), date(2024, 12, 24)}


def missing(instrument: Instrument, timeframe: Timeframe) -> set[int]:
    """Opens of the candles that a hole leaves without rows, microseconds."""
    return {int(HOLE.timestamp()) * 1_000_000} if timeframe is Timeframe.M5 else set()


def error(code: int, name: str, description: str) -> httpx.Response:
    return httpx.Response(code, json={"chart": {"result": None, "error": {"code": name, "description": description}}})


ERRORS = [
    (error(404, "Not Found", "No data found, symbol may be delisted"), errors.UnknownInstrument),
    (
        error(400, "Bad Request", "Invalid input - interval=7m is not supported. Valid intervals: [1m]"),
        errors.UnsupportedRequest,
    ),
    (
        error(422, "Unprocessable Entity", "1m data not available for startTime=1429000 and endTime=1429999."),
        errors.UnsupportedRequest,
    ),
    (
        httpx.Response(401, json={"finance": {"error": {"code": "Unauthorized", "description": "Invalid Crumb"}}}),
        errors.BadCredentials,
    ),
    (httpx.Response(429, text="Edge: Too Many Requests"), errors.RateLimited),
    (httpx.Response(429, html="<html>Too Many Requests</html>"), errors.RateLimited),
    (httpx.Response(500, text=""), errors.ProviderUnavailable),
    (httpx.Response(502, html="<html></html>"), errors.ProviderUnavailable),
    (httpx.Response(200, html="<html>Will be right back...</html>"), errors.ProviderUnavailable),
]
INVALID_CRUMB = {"finance": {"error": {"code": "Unauthorized", "description": "Invalid Crumb"}}}
META = '"meta":{"symbol":"AAPL","currency":"USD","exchangeTimezoneName":"America/New_York","dataGranularity":"1h"}'
GARBAGE = [
    b"",
    b"<!doctype html><html>consent</html>",
    b"{}",
    b'{"chart":{"result":null,"error":null}}',
    b'{"chart":{"result":[],"error":null}}',
    f'{{"chart":{{"result":[{{{META},"timestamp":[1732545000],"indicators":{{"quote":[{{}}]}}}}]}}}}'.encode(),
    (
        f'{{"chart":{{"result":[{{{META},"timestamp":[1732545000],"indicators":{{"quote":[{{"open":[1],"high":[1],'
        '"low":[1],"close":[1,2],"volume":[1]}]}}]}}'
    ).encode(),
    (
        f'{{"chart":{{"result":[{{{META},"timestamp":["x"],"indicators":{{"quote":[{{"open":[1],"high":[1],'
        '"low":[1],"close":[1],"volume":[1]}]}}]}}'
    ).encode(),
    (
        f'{{"chart":{{"result":[{{{META.replace("1h", "1d")},"timestamp":[1732545000],"indicators":{{"quote":'
        '[{"open":[1],"high":[1],"low":[1],"close":[1],"volume":[1]}]}}]}}'
    ).encode(),
    b'{"chart":{"result":[{"meta":{"currency":"USD"',
]


class Source:
    """Answers requests; `override` takes precedence for charts."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.override: httpx.Response | None = None
        self.now = NOW
        # Bodies of other paths, and the crumb they want, with the cookie.
        self.bodies: dict[str, object] = {}
        self.crumb = "a.b/c"
        self.dividends: list[tuple[datetime, float]] = []
        self.news: list[dict[str, object]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path == "/v1/finance/search":
            return self.answer({"quotes": found(request.url.params["q"]), "news": self.news})
        if request.url.path.startswith("/v8/finance/chart/"):
            return self.override or self.chart(request.url.path.rsplit("/", 1)[1], request.url.params)
        if request.url.host == "fc.yahoo.com":
            cookie = {"Set-Cookie": "A3=d=x; Domain=.yahoo.com; Path=/"}
            return httpx.Response(302, headers=cookie | {"Location": "https://www.yahoo.com"})
        if "A3=d=x" not in request.headers.get("Cookie", ""):
            return httpx.Response(401, json=INVALID_CRUMB)
        if request.url.path == "/v1/test/getcrumb":
            return httpx.Response(200, text=self.crumb)
        if request.url.params.get("crumb") != self.crumb:
            return httpx.Response(401, json=INVALID_CRUMB)
        if request.url.path in self.bodies:
            return self.answer(self.bodies[request.url.path])
        return error(404, "Not Found", "no such path")

    def answer(self, body: object) -> httpx.Response:
        date_header = {"Date": format_datetime(self.now, usegmt=True)}
        return httpx.Response(200, content=json.dumps(body).encode(), headers=date_header)

    def chart(self, symbol: str, params: httpx.QueryParams) -> httpx.Response:
        begin, end = (datetime.fromtimestamp(int(params[name]), UTC) for name in ("period1", "period2"))
        interval = params["interval"]
        if (interval == "1m" and (end - begin > timedelta(days=8) or self.now - begin > timedelta(days=30))) or (
            interval in ("5m", "15m") and self.now - begin > timedelta(days=60)
        ):
            return error(422, "Unprocessable Entity", f"{interval} data not available for startTime={begin}.")
        if end < LISTED:
            return error(400, "Bad Request", f"Data doesn't exist for startDate = {begin}, endDate = {end}")
        crypto = symbol != "AAPL"
        times = [
            moment for moment in moments(interval, crypto=crypto) if max(begin, LISTED) <= moment < min(end, self.now)
        ]
        if times and end >= self.now - timedelta(minutes=1):
            # The live row, today's again.
            times.append(self.now.replace(second=17))
        rows = [None if moment == HOLE and interval == "5m" else price(moment) for moment in times]
        quote = {
            name: [None if row is None else row[place] for row in rows]
            for place, name in enumerate(("open", "high", "low", "close", "volume"))
        }
        result: dict[str, object] = {
            "meta": {
                "currency": "USD",
                "symbol": symbol,
                "instrumentType": "CRYPTOCURRENCY" if crypto else "EQUITY",
                "exchangeTimezoneName": "UTC" if crypto else "America/New_York",
                "regularMarketTime": int(self.now.timestamp()),
                "priceHint": 2,
                "dataGranularity": {"60m": "1h"}.get(interval, interval),
            },
            "indicators": {"quote": [quote if times else {}]},
        }
        if times:
            result["timestamp"] = [int(moment.timestamp()) for moment in times]
        paid = {
            str(int(moment.timestamp())): {"amount": amount, "date": int(moment.timestamp())}
            for moment, amount in self.dividends
            if begin <= moment < end
        }
        if paid:
            result["events"] = {"dividends": paid}
        if not crypto and begin <= SPLIT < end:
            event = {"date": int(SPLIT.timestamp()), "numerator": 2, "denominator": 1, "splitRatio": "2:1"}
            result["events"] = {"dividends": paid, "splits": {str(event["date"]): event}}
        return self.answer({"chart": {"result": [result], "error": None}})


def moments(interval: str, *, crypto: bool) -> list[datetime]:
    days = [LISTED + timedelta(days=number) for number in range((NOW - LISTED).days + 2)]
    if crypto:
        opens = [(day, day + timedelta(days=1)) for day in days]
    else:
        opens = [session(day.date()) for day in days if day.weekday() < 5 and day.date() not in HOLIDAYS]
    if interval == "1d":
        return [begin for begin, _ in opens]
    step = timedelta(seconds=STEPS[interval])
    return [begin + step * number for begin, end in opens for number in range(-((begin - end) // step))]


def session(day: date) -> tuple[datetime, datetime]:
    begin = datetime(day.year, day.month, day.day, 9, 30, tzinfo=NEW_YORK)
    return begin.astimezone(UTC), begin.replace(hour=13 if day in HALF_DAYS else 16, minute=0).astimezone(UTC)


def price(moment: datetime) -> tuple[float, float, float, float, int]:
    """Prices that a 32-bit float holds exactly."""
    number = moment.hour * 60 + moment.minute
    return 100.5 + number, 102.25 + number, 99.125 + number, 101.5 + number, 1000 + 2 * number


def found(query: str) -> list[dict[str, str]]:
    everything = [
        {"symbol": "AAPL", "quoteType": "EQUITY", "exchange": "NMS"},
        {"symbol": "AAPU", "quoteType": "ETF", "exchange": "NGM"},
        {"symbol": "AAPL251219C00120000", "quoteType": "OPTION", "exchange": "OPR"},
        {"name": "a private company", "quoteType": "PRIVATE"},
        {"symbol": "PEPE", "quoteType": "EQUITY", "exchange": "PNK"},
        {"symbol": "PEPECASH-USD", "quoteType": "CRYPTOCURRENCY", "exchange": "CCC"},
        {"symbol": "PEPE24478-EUR", "quoteType": "CRYPTOCURRENCY", "exchange": "CCC"},
        {"symbol": "PEPE24478-USD", "quoteType": "CRYPTOCURRENCY", "exchange": "CCC"},
        {"symbol": "BRK-B", "quoteType": "EQUITY", "exchange": "NYQ"},
    ]
    return [quote for quote in everything if quote.get("symbol", query).startswith(query)]


def filled() -> Source:
    """A source that has something of every dataset."""
    source, quarter = Source(), int(datetime(2024, 12, 31, tzinfo=UTC).timestamp())
    source.dividends = [(datetime(2025, 2, 10, 14, 30, tzinfo=UTC), 0.25)]
    source.news = [{"uuid": "u", "title": "T", "providerPublishTime": int(NOW.timestamp()) - 3600, "publisher": "P",
                    "link": "https://news.example/u", "relatedTickers": ["AAPL"]}]  # fmt: skip
    expires = int(datetime(2026, 1, 16, tzinfo=UTC).timestamp())
    option = {"contractSymbol": "AAPL260116C00200000", "strike": 200.0, "expiration": expires, "bid": 9.5, "ask": 9.7,
              "lastPrice": 9.6, "volume": 3, "openInterest": 12, "impliedVolatility": 0.31}  # fmt: skip
    earnings = {
        "earningsHistory": {"history": [{"quarter": {"raw": quarter}, "epsActual": {"raw": 2.4}, "currency": "USD",
                                         "epsEstimate": {"raw": 2.35}, "surprisePercent": {"raw": 0.021}}]},
        "earnings": {"earningsChart": {"currentQuarterEstimate": 1.6, "currentQuarterEstimateDate": "1Q",
                                       "currentQuarterEstimateYear": 2025},
                     "financialsChart": {"quarterly": [{"date": "4Q2024", "revenue": 124300000000}]}},
        "calendarEvents": {"earnings": {"earningsDate": [quarter + 10_000_000], "revenueAverage": 94000000000}},
    }  # fmt: skip
    source.bodies = {
        "/v10/finance/quoteSummary/AAPL": {"quoteSummary": {"result": [earnings], "error": None}},
        "/v7/finance/options/AAPL": {
            "optionChain": {
                "result": [
                    {
                        "quote": {"regularMarketPrice": 201.5},
                        "expirationDates": [expires],
                        "options": [{"calls": [option], "puts": [option | {"contractSymbol": "AAPL260116P00200000"}]}],
                    }
                ],
                "error": None,
            }
        },
    }
    return source
