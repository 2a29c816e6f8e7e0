"""Binance's public REST, USD-M futures and spot: candles, instruments, clock, weights and errors (PROVIDERS §1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from market_data.sandbox.block import DAY, HOUR, MINUTE, Block, aggregated
from market_data.sandbox.buckets import BINANCE, Span
from market_data.sandbox.coins import CoinHistory
from market_data.sandbox.limits import Weights
from market_data.sandbox.marketplace import Marketplace
from market_data.sandbox.refusals import Refused, refuse, whole_number
from market_data.sandbox.symbols import Coin
from market_data.sandbox.text import Rows, decimal, listed, rows

CHUNK = {MINUTE: 8 * DAY, HOUR: 64 * DAY}
KLINE_PARAMETERS = {"symbol", "interval", "startTime", "endTime", "limit", "timeZone"}
# Past this a time is in microseconds (spot takes both).
FIRST_MICROSECOND = 10**14


@dataclass(frozen=True, slots=True, kw_only=True)
class Venue:
    """One of Binance's two houses."""

    name: str
    prefix: str
    most_candles: int
    weight_limit: int
    futures: bool

    def raw_symbol(self, coin: Coin) -> str:
        """How this house spells a coin."""
        bundle = str(coin.lot) if self.futures and coin.lot > 1 else ""
        return f"{bundle}{coin.symbol}USDT"

    def decimals(self, coin: Coin) -> tuple[int, int]:
        """Decimals of price and volume: a bundle of 1000 moves the point by three."""
        moved = int(math.log10(coin.lot)) if self.futures else 0
        return coin.price_decimals - moved, coin.volume_decimals + moved


FUTURES = Venue(name="um", prefix="/fapi/v1", most_candles=1500, weight_limit=2400, futures=True)
SPOT = Venue(name="spot", prefix="/api/v3", most_candles=1000, weight_limit=6000, futures=False)


@dataclass(slots=True)
class BinanceHouse:
    """The routes of one house over a marketplace."""

    market: Marketplace
    venue: Venue
    weights: Weights
    _by_raw: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._by_raw = {self.venue.raw_symbol(coin): coin.symbol for coin in self.market.coins.values()}

    def routes(self) -> list[Route]:
        """Every path this house answers."""
        prefix = self.venue.prefix
        return [
            Route(f"{prefix}/klines", self.klines),
            Route(f"{prefix}/exchangeInfo", self.exchange_info),
            Route(f"{prefix}/time", self.time),
            Route(f"{prefix}/ping", self.ping),
        ]

    async def ping(self, request: Request) -> Response:
        """``{}``."""
        return self.weights.spend(1) or JSONResponse({}, headers=self.weights.headers())

    async def time(self, request: Request) -> Response:
        """The server's clock."""
        return self.weights.spend(1) or JSONResponse({"serverTime": self.market.now()}, headers=self.weights.headers())

    async def klines(self, request: Request) -> Response:
        """Candles, the forming one last."""
        try:
            limit, most = whole_number(request, "limit", 500), self.venue.most_candles
            if limit < 1 or (limit > most and self.venue.futures):
                refuse(-1130, "Data sent for parameter 'limit' is not valid.")
            limit = min(limit, most)
            refused = self.weights.spend(self.kline_weight(limit))
            if refused:
                return refused
            body = self._kline_body(request, limit)
        except Refused as refusal:
            return JSONResponse(refusal.body, 400, headers=self.weights.headers())
        return Response(body, media_type="application/json", headers=self.weights.headers())

    def kline_weight(self, limit: int) -> int:
        """What a request for so many candles weighs."""
        if not self.venue.futures:
            return 2
        return next(weight for most, weight in ((99, 1), (499, 2), (1000, 5), (1500, 10)) if limit <= most)

    def history(self, request: Request) -> CoinHistory:
        """The coin that the request names.

        Raises:
            Refused: -1102 without a symbol, -1121 when it is not listed.
        """
        raw = request.query_params.get("symbol", "")
        if not raw:
            refuse(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        if raw not in self._by_raw:
            refuse(-1121, "Invalid symbol.")
        return self.market.coin(self._by_raw[raw])

    def _kline_body(self, request: Request, limit: int) -> bytes:
        unread = set(request.query_params) - KLINE_PARAMETERS
        history = self.history(request)
        if unread:
            read = len(request.query_params) - len(unread)
            refuse(-1104, f"Not all sent parameters were read; read '{read}' parameter(s) but was sent "
                          f"'{len(request.query_params)}'.")  # fmt: skip
        span = BINANCE.get(request.query_params.get("interval", ""))
        if span is None:
            refuse(-1120, "Invalid interval.")
        start, end = self.moment(request, "startTime"), self.moment(request, "endTime")
        if start is not None and end is not None and start > end:
            refuse(-1128, "Combination of optional parameters invalid.")
        micros = not self.venue.futures and request.headers.get("x-mbx-time-unit", "").upper() == "MICROSECOND"
        first, after = window(span, history.start, start, end, limit, self.market.now())
        interval = request.query_params["interval"]
        return listed(self.candles(history, interval, first, after, unit=1000 if micros else 1))

    def moment(self, request: Request, name: str) -> int | None:
        """A parameter that is a time, in ms; None when it is not given."""
        value = whole_number(request, name, None)
        return value // 1000 if value is not None and value >= FIRST_MICROSECOND else value

    def candles(self, history: CoinHistory, interval: str, first: int, after: int, unit: int = 1) -> bytes:
        """Rows of candles that open in [first, after), each followed by a comma; times in 1/``unit`` ms."""
        span, now = BINANCE[interval], self.market.now()
        closed = min(after, span.floor_one(now))
        pieces = []
        if unit == 1 and span.unit in CHUNK:
            length = CHUNK[span.unit]
            starts = range(first // length * length, closed, length)
            pieces += [self._chunk(history, interval, at, length).between(first, closed) for at in starts]
        elif first < closed:
            past = self._block(history, span, first, closed, now)
            pieces.append(self._text(history, past, span, unit).between(0, now))
        if after > closed and first <= closed:
            forming = self._block(history, span, closed, span.after(closed), now)
            pieces.append(self._text(history, forming, span, unit).between(0, now))
        return b"".join(pieces)

    def _block(self, history: CoinHistory, span: Span, start: int, end: int, now: int) -> Block:
        finer = history.finest(span.unit, start, end, now)
        return aggregated(finer, span.floor(finer.time))

    def _chunk(self, history: CoinHistory, interval: str, at: int, length: int) -> Rows:
        span, later = BINANCE[interval], at + length
        return self.market.texts.get(
            (self.venue.name, history.coin.symbol, interval, at),
            lambda: self._text(history, self._block(history, span, at, later, later), span, 1),
        )

    def _text(self, history: CoinHistory, block: Block, span: Span, unit: int) -> Rows:
        price, volume = self.venue.decimals(history.coin)
        ends = block.time + span.length
        if span.months:
            ends = np.array([span.after(int(opened)) for opened in block.time], np.int64)
        columns = {
            "t": block.time * unit, "e": ends * unit - 1,
            "o": block.values[0], "h": block.values[1], "l": block.values[2], "c": block.values[3],
            "v": block.volume, "q": block.quote, "n": block.values[8], "b": block.values[4], "y": block.values[6],
        }  # fmt: skip
        texts = [
            decimal("t", 0), *(decimal(name, price) for name in "ohlc"), decimal("v", volume), decimal("e", 0),
            decimal("q", price + volume), decimal("n", 0), decimal("b", volume), decimal("y", price + volume),
        ]  # fmt: skip
        return rows(block.time, columns, '[{},"{}","{}","{}","{}","{}",{},"{}",{},"{}","{}","0"],', texts)

    async def exchange_info(self, request: Request) -> Response:
        """Limits and instruments."""
        refused = self.weights.spend(1 if self.venue.futures else 20)
        if refused:
            return refused
        describe = self._contract if self.venue.futures else self._pair
        wanted = request.query_params.get("symbol")
        if wanted and wanted not in self._by_raw and not self.venue.futures:
            return JSONResponse({"code": -1121, "msg": "Invalid symbol."}, 400, headers=self.weights.headers())
        chosen = [wanted] if wanted and not self.venue.futures else list(self._by_raw)
        body = {
            "timezone": "UTC",
            "serverTime": self.market.now(),
            "rateLimits": [
                {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1,
                 "limit": self.venue.weight_limit},
            ],
            "exchangeFilters": [],
            "symbols": [describe(raw, self.market.coins[self._by_raw[raw]]) for raw in chosen],
        }  # fmt: skip
        return JSONResponse(body, headers=self.weights.headers())

    def _filters(self, coin: Coin) -> list[dict[str, str]]:
        price, volume = self.venue.decimals(coin)
        tick, step = f"{10.0**-price:.{price}f}", f"{10.0**-volume:.{volume}f}"
        return [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000", "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "1000000000", "stepSize": step},
        ]

    def _contract(self, raw: str, coin: Coin) -> dict[str, object]:
        price, volume = self.venue.decimals(coin)
        base = raw.removesuffix("USDT")
        return {
            "symbol": raw, "pair": raw, "contractType": "PERPETUAL", "deliveryDate": 4133404800000,
            "onboardDate": self.market.coin(coin.symbol).start, "status": "TRADING", "baseAsset": base,
            "quoteAsset": "USDT", "marginAsset": "USDT", "pricePrecision": price, "quantityPrecision": volume,
            "underlyingType": "COIN", "underlyingSubType": [], "filters": self._filters(coin),
        }  # fmt: skip

    def _pair(self, raw: str, coin: Coin) -> dict[str, object]:
        return {
            "symbol": raw, "status": "TRADING", "baseAsset": coin.symbol, "baseAssetPrecision": 8,
            "quoteAsset": "USDT", "quotePrecision": 8, "quoteAssetPrecision": 8, "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": True, "filters": self._filters(coin), "permissions": [],
            "permissionSets": [["SPOT"]],
        }  # fmt: skip


def window(span: Span, listed_at: int, start: int | None, end: int | None, limit: int, now: int) -> tuple[int, int]:
    """[first, after): opens of the candles asked for, by Binance's rule.

    From ``start`` the oldest; without it the newest up to ``end`` (inclusive) or the present.
    """
    last = span.floor_one(min(end, now) if end is not None else now)
    oldest = span.floor_one(listed_at)
    if start is None:
        return max(span.after(last, 1 - limit), oldest), span.after(last)
    first = span.floor_one(start)
    first = max(first if first >= start else span.after(first), oldest)
    return first, min(span.after(first, limit), span.after(last))
