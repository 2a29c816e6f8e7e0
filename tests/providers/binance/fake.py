"""Binance on the other side of the wire, as documented: hand-made candles, all its refusals."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx

from market_data.model import errors
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import Timeframe

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STEPS = {"1m": 60, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "4h": 14400, "1d": 86400, "1w": 604800}
# 1970-01-01 was a Thursday, weeks begin on Monday.
MONDAY = 4 * 86400
LISTED = datetime(2024, 1, 1, tzinfo=UTC)

KNOWN = Instrument("BTC", AssetClass.CRYPTO)
UNKNOWN = Instrument("NOSUCH", AssetClass.CRYPTO)
RAW_SYMBOL = "BTCUSDT"
SETTINGS: dict[str, object] = {}
NOW = datetime(2025, 3, 5, 10, 30, 30, tzinfo=UTC)
# More candles than one page holds; up to the one still open; before the listing.
CASES = [
    (KNOWN, Timeframe.M1, datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 3, 12, tzinfo=UTC)),
    (KNOWN, Timeframe.M5, datetime(2025, 3, 5, tzinfo=UTC), datetime(2025, 3, 6, tzinfo=UTC)),
    (KNOWN, Timeframe.H4, datetime(2023, 12, 1, tzinfo=UTC), datetime(2024, 2, 1, tzinfo=UTC)),
    (KNOWN, Timeframe.D1, datetime(2025, 2, 1, 5, tzinfo=UTC), NOW),
    (KNOWN, Timeframe.W1, datetime(2025, 1, 1, tzinfo=UTC), NOW),
]
EMPTY = (KNOWN, Timeframe.H1, datetime(2023, 1, 1, tzinfo=UTC), datetime(2023, 2, 1, tzinfo=UTC))


def error(status: int, code: int | None, message: str, **headers: str) -> httpx.Response:
    if code is None:
        return httpx.Response(status, html=message, headers=headers)
    return httpx.Response(status, json={"code": code, "msg": message}, headers=headers)


GEO = (
    "Service unavailable from a restricted location according to 'b. Eligibility' in https://www.binance.com/en/terms."
)
ERRORS = [
    (error(400, -1121, "Invalid symbol."), errors.UnknownInstrument),
    (error(400, -1120, "Invalid interval."), errors.UnsupportedRequest),
    (error(400, -1127, "More than 24 hours between startTime and endTime."), errors.UnsupportedRequest),
    (error(400, -1100, "Illegal characters found in a parameter."), errors.UnsupportedRequest),
    (error(400, -1003, "Way too many requests."), errors.RateLimited),
    (error(429, -1003, "Too many requests.", **{"Retry-After": "7"}), errors.RateLimited),
    (error(418, -1003, "Way too much request weight used; IP banned.", **{"Retry-After": "120"}), errors.RateLimited),
    (error(403, None, "<html><body>403 Forbidden</body></html>"), errors.RateLimited),
    (error(401, -2015, "Invalid API-key, IP, or permissions for action."), errors.BadCredentials),
    (error(401, -2014, "API-key format invalid."), errors.BadCredentials),
    (error(500, -1000, "An unknown error occurred."), errors.ProviderUnavailable),
    (error(400, -1001, "Internal error; unable to process your request."), errors.ProviderUnavailable),
    (error(502, None, "<html>Bad Gateway</html>"), errors.ProviderUnavailable),
    (error(451, 0, GEO), errors.GeoBlocked),
]
GARBAGE = [
    b"",
    b"<html>Just a moment...</html>",
    b"{}",
    b'{"code":0,"msg":"hello"}',
    b"[[1499040000000]]",
    b'[[1499040000000,"1","1","1","1","1",1499040059999,"1",1,"1","1","0"],[1499040060000,"1","1","1',
    b'[[1499040000000,"1","1","1","one","1",1499040059999,"1",1,"1","1","0"]]',
    b'[[1499040000000,"1","1","1",NaN,"1",1499040059999,"1",1,"1","1","0"]]',
    b'[[1499040000000,"1","1","1",null,"1",1499040059999,"1",1,"1","1","0"]]',
]


class Source:
    """Answers requests; `override` takes precedence for market data, `blocked` hosts answer 451."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.override: httpx.Response | None = None
        self.blocked: set[str] = set()
        self.now = NOW
        self.files: dict[str, bytes] = {}
        self.checksums: dict[str, str] = {}
        self.labels_are_starts = True
        self.used_weight = 40
        self.most_trades = 1000

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.host in self.blocked:
            return error(451, 0, GEO)
        path = request.url.path
        if path.startswith("/data/"):
            return self.file(path)
        if path.startswith("/futures/data/"):
            return self.statistics(path, request.url.params)
        if path.endswith("/openInterest"):
            return self.answer({"openInterest": "777.125", "symbol": RAW_SYMBOL, "time": millis(self.now) - 4321})
        if path.endswith("/fundingRate"):
            return self.funding(request.url.params)
        if path.endswith("/aggTrades"):
            return self.trades(request.url.params)
        if path.endswith("/exchangeInfo"):
            return self.answer(exchange_info(futures="/fapi/" in path))
        if path.endswith("/time"):
            return self.answer({"serverTime": millis(self.now)})
        if path.endswith("/premiumIndexKlines"):
            return self.answer(self.klines(request.url.params, 1500, premium_kline))
        if path.endswith("/klines"):
            return self.override or self.answer(self.klines(request.url.params, 1500 if "/fapi/" in path else 1000))
        return error(404, None, "<html>no such path</html>")

    def answer(self, body: object) -> httpx.Response:
        content = json.dumps(body, separators=(",", ":")).encode()
        return httpx.Response(200, content=content, headers={"X-MBX-USED-WEIGHT-1M": str(self.used_weight)})

    def add_file(self, path: str, csv: str) -> None:
        """A file of the archive and its checksum."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(path.rsplit("/", 1)[1].replace(".zip", ".csv"), csv)
        self.files[f"/data/{path}"] = packed.getvalue()
        self.checksums[f"/data/{path}"] = hashlib.sha256(packed.getvalue()).hexdigest()

    def file(self, path: str) -> httpx.Response:
        name = path.removesuffix(".CHECKSUM")
        if name not in self.files:
            return httpx.Response(404, text="<Error><Code>NoSuchKey</Code></Error>")
        if path != name:
            return httpx.Response(200, text=f"{self.checksums[name]}  {name.rsplit('/', 1)[1]}\n")
        return httpx.Response(200, content=self.files[name])

    def statistics(self, path: str, params: httpx.QueryParams) -> httpx.Response:
        begin, end, limit = (int(params[name]) for name in ("startTime", "endTime", "limit"))
        if begin < millis(self.now - timedelta(days=30)) or limit > 500:
            return error(400, -1130, "parameter 'startTime' is invalid.")
        step = 300_000
        labels = range(-(-begin // step) * step, end + 1, step)
        # A row is published when its five minutes are over.
        newest = millis(self.now) - (step if self.labels_are_starts else 0)
        rows = [statistic(path, label) for label in labels if label <= newest][-limit:]
        return httpx.Response(200, json=rows)

    def funding(self, params: httpx.QueryParams) -> httpx.Response:
        begin, end, limit = (int(params[name]) for name in ("startTime", "endTime", "limit"))
        times = range(millis(LISTED) + 3, millis(self.now), 8 * 3_600_000)
        rows = [
            {"symbol": params["symbol"], "fundingTime": time, "fundingRate": f"0.{time // 3_600_000 % 1000:08}"}
            | ({"markPrice": ""} if time < millis(datetime(2024, 6, 1, tzinfo=UTC)) else {"markPrice": "61234.5"})
            | ({} if time % 7 else {"rateType": "Regular"})
            for time in times
            if begin <= time <= end
        ]
        return httpx.Response(200, json=rows[:limit])

    def trades(self, params: httpx.QueryParams) -> httpx.Response:
        if "fromId" in params:
            if "startTime" in params:
                return error(400, -1128, "Combination of optional parameters invalid.")
            first = int(params["fromId"])
            numbers = range(first, first + min(int(params["limit"]), self.most_trades))
        else:
            begin, end = int(params["startTime"]), int(params["endTime"])
            if end - begin >= 3_600_000:
                return error(400, -1127, "Lookup has to be within 1 hour.")
            if begin < millis(self.now - timedelta(hours=48)):
                return error(400, -1130, "startTime is too long ago.")
            first = -(-begin // 2000)
            numbers = range(first, min(end // 2000 + 1, first + min(int(params["limit"]), self.most_trades)))
        rows = [trade(number) for number in numbers if number * 2000 <= millis(self.now)]
        return httpx.Response(200, content=json.dumps(rows, separators=(",", ":")).encode())

    def klines(
        self, params: httpx.QueryParams, most: int, row: Callable[[int, int], list[object]] | None = None
    ) -> list[list[object]]:
        if params["symbol"] != RAW_SYMBOL:
            return []
        step = STEPS[params["interval"]]
        limit = min(int(params.get("limit", 500)), most)
        anchor = MONDAY if params["interval"] == "1w" else 0
        begin = max(int(params["startTime"]), millis(LISTED)) / 1000
        stop = min(int(params.get("endTime", millis(self.now))), millis(self.now)) / 1000
        first = anchor + -(-(begin - anchor) // step) * step
        rows = []
        while first <= stop and len(rows) < limit:
            rows.append((row or kline)(int(first), step))
            first += step
        return rows


def kline(second: int, step: int) -> list[object]:
    number = second // 60 % 1000
    return [
        second * 1000,
        f"{100 + number}.10",
        f"{102 + number}.00",
        f"{99 + number}.05",
        f"{101 + number}.00000001",
        f"{number}.500",
        (second + step) * 1000 - 1,
        f"{number * 100}.25",
        number,
        f"{number}.125",
        f"{number * 50}.5",
        "0",
    ]


def premium(second: int) -> str:
    """Tells its five minutes; on both sides of zero."""
    return f"{(second // 300 % 200 - 100) / 100_000:.8f}"


def premium_kline(second: int, step: int = 300) -> list[object]:
    """As the premium index has them: no volumes."""
    value = premium(second)
    times = second * 1000, (second + step) * 1000 - 1
    return [times[0], "0.00010000", "0.01000000", "-0.01000000", value, "0", times[1], "0", 60, "0", "0", "0"]


def statistic(path: str, label: int) -> dict[str, str]:
    """Values that tell their label."""
    number = label // 300_000 % 100_000
    if path.endswith("/openInterestHist"):
        return {
            "symbol": RAW_SYMBOL,
            "sumOpenInterest": f"{number}.250",
            "sumOpenInterestValue": f"{number * 1000}.5",
            "timestamp": str(label),
        }
    return {
        "symbol": RAW_SYMBOL,
        "longShortRatio": f"{number}.5",
        "longAccount": "0.6",
        "shortAccount": "0.4",
        "timestamp": str(label),
    }


def trade(number: int) -> dict[str, object]:
    """One every two seconds; the taker sold in every third."""
    return {
        "a": number,
        "p": f"{100 + number % 50}.10",
        "q": f"0.{number % 1000:03}",
        "nq": "0.000",
        "f": number * 2,
        "l": number * 2 + 1,
        "T": number * 2000,
        "m": number % 3 == 0,
    }


def exchange_info(*, futures: bool) -> dict[str, object]:
    def row(symbol: str, base: str, quote: str = "USDT", **more: object) -> dict[str, object]:
        common = {"symbol": symbol, "status": "TRADING", "baseAsset": base, "quoteAsset": quote}
        contract = {
            "contractType": "PERPETUAL",
            "marginAsset": quote,
            "onboardDate": millis(LISTED),
            "deliveryDate": 4133404800000,
        }
        return common | (contract if futures else {}) | more

    if futures:
        rows = [
            row("BTCUSDC", "BTC", "USDC"),
            row("BTCUSDT_250328", "BTC", contractType="CURRENT_QUARTER"),
            row("BTCUSD_PERP", "BTC", "USD", marginAsset="BTC"),
            row("BTCUSDT", "BTC"),
            row("1000PEPEUSDT", "1000PEPE"),
        ]
    else:
        rows = [row("BTCUSDT", "BTC"), row("PEPEUSDT", "PEPE")]
    return {"timezone": "UTC", "serverTime": millis(NOW), "rateLimits": [], "symbols": rows}


def millis(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)
