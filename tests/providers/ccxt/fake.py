"""Bitstamp on the other side of the wire, as its documentation describes it, for the library to read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import format_datetime

import httpx

from market_data.model import errors
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import Timeframe

KNOWN = Instrument("BTC", AssetClass.CRYPTO)
UNKNOWN = Instrument("NOSUCH", AssetClass.CRYPTO)
RAW_SYMBOL = "BTC/USD"
SETTINGS: dict[str, object] = {"exchange": "bitstamp"}
LISTED = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2025, 3, 5, 10, 30, 30, tzinfo=UTC)
CASES = [
    (KNOWN, Timeframe.M1, datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, 12, tzinfo=UTC)),
    (KNOWN, Timeframe.M5, datetime(2025, 3, 5, tzinfo=UTC), datetime(2025, 3, 6, tzinfo=UTC)),
    (KNOWN, Timeframe.H4, datetime(2023, 12, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)),
    (KNOWN, Timeframe.D1, datetime(2025, 2, 1, 5, tzinfo=UTC), NOW),
    (KNOWN, Timeframe.W1, datetime(2025, 1, 1, tzinfo=UTC), NOW),
]
EMPTY = (KNOWN, Timeframe.H1, datetime(2023, 1, 1, tzinfo=UTC), datetime(2023, 2, 1, tzinfo=UTC))
ERRORS = [
    (httpx.Response(429, json={"error": "Too many requests"}, headers={"Retry-After": "3"}), errors.RateLimited),
    (httpx.Response(418, text="banned"), errors.RateLimited),
    (httpx.Response(451, text="not available in your country"), errors.GeoBlocked),
    (httpx.Response(401, text="no"), errors.BadCredentials),
    (httpx.Response(500, text="oops"), errors.ProviderUnavailable),
    (httpx.Response(503, html="<html>maintenance</html>"), errors.ProviderUnavailable),
    (httpx.Response(200, json={"error": "No permission found"}), errors.NotEntitled),
    (httpx.Response(200, json={"status": "error", "reason": "Invalid pair"}), errors.UnsupportedRequest),
]
# The library forgives more than our own parsers do.
GARBAGE = [
    b"",
    b"<html>Just a moment...</html>",
    b'{"data":{"ohlc":[{"timestamp":"173',
    b'{"data":{"ohlc":[{"timestamp":"1735689600","open":"x","high":"1","low":"1","close":"1","volume":"1"}]}}',
    b'{"data":{"ohlc":[{"timestamp":"1735689600","open":"1","high":"1","low":"1","volume":"1"}]}}',
]


class Source:
    """Answers requests; `override` takes precedence for candles."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.override: httpx.Response | None = None
        self.now = NOW

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.path
        if path == "/api/v2/markets/":
            return self.answer([market("BTC", "USD"), market("BTC", "EUR"), market("BTC", "USD", "PERPETUAL")])
        if path == "/api/v2/currencies/":
            return self.answer([])
        if path == "/api/v2/ohlc/btcusd/":
            return self.override or self.answer(self.candles(request.url.params))
        if path == "/api/v2/transactions/btcusd/":
            return self.answer(self.trades())
        return httpx.Response(404, json={"error": "no such path"})

    def answer(self, body: object) -> httpx.Response:
        header = {"Date": format_datetime(self.now, usegmt=True)}
        return httpx.Response(200, content=json.dumps(body).encode(), headers=header)

    def candles(self, params: httpx.QueryParams) -> dict[str, object]:
        step, limit = int(params["step"]), min(int(params["limit"]), 1000)
        begin = max(int(params["start"]), int(LISTED.timestamp()))
        stop = min(int(params.get("end", 2**40)), int(self.now.timestamp()))
        rows = [candle(second) for second in range(-(-begin // step) * step, stop + 1, step)]
        return {"data": {"pair": "BTC/USD", "ohlc": rows[:limit]}}

    def trades(self) -> list[dict[str, str]]:
        newest = int(self.now.timestamp())
        return [
            {"date": str(newest - age), "tid": str(1000 - age), "price": "100.10", "amount": "0.00500000", "type": side}
            for age, side in ((1, "0"), (2, "1"), (60, "0"))
        ]


def market(base: str, quote: str, kind: str = "SPOT") -> dict[str, object]:
    suffix = "-perp" if kind == "PERPETUAL" else ""
    return {
        "name": f"{base}/{quote}{suffix.upper()}",
        "market_symbol": f"{base}{quote}{suffix}".lower(),
        "base_currency": base,
        "base_decimals": 8,
        "counter_currency": quote,
        "counter_decimals": 2,
        "minimum_order_value": "10",
        "trading": "Enabled",
        "description": f"{base} / {quote}",
        "market_type": kind,
        "payoff_type": "Linear",
        "contract_size": "1.00000000",
    }


def candle(second: int) -> dict[str, str]:
    number = second // 60 % 1000
    return {
        "timestamp": str(second),
        "open": f"{100 + number}.10",
        "high": f"{102 + number}.00",
        "low": f"{99 + number}.05",
        "close": f"{101 + number}.00000001",
        "volume": f"{number}.500",
    }
