"""Binance's trades over REST: aggregated, recent and historical, with the reach each house allows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import polars as pl
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from market_data.sandbox.binance import BinanceHouse
from market_data.sandbox.block import HOUR
from market_data.sandbox.refusals import Refused, refuse, whole_number
from market_data.sandbox.symbols import Coin
from market_data.sandbox.tape import Tape, Trades
from market_data.sandbox.text import decimal, listed, rows

Answer = Callable[[Request], Awaitable[Response]]
MOST_TRADES = 1000
# Futures serve aggregated trades of the last 48 hours only, and at most an hour per request.
FUTURES_REACH = 48 * HOUR
AGGREGATED = '{{"a":{},"p":"{}","q":"{}","f":{},"l":{},"T":{},"m":{}%s}},'
SINGLE = '{{"id":{},"price":"{}","qty":"{}","quoteQty":"{}","time":{},"isBuyerMaker":{}%s}},'


class TradesCounter:
    """The trade routes of one house."""

    def __init__(self, house: BinanceHouse) -> None:
        self._house = house
        self._market, self._venue = house.market, house.venue
        self._tapes: dict[str, Tape] = {}

    def routes(self) -> list[Route]:
        """Every path answered."""
        prefix, futures = self._venue.prefix, self._venue.futures
        return [
            Route(f"{prefix}/aggTrades", self._weighed(20 if futures else 4, self._aggregated)),
            Route(f"{prefix}/trades", self._weighed(5 if futures else 25, self._recent)),
            Route(f"{prefix}/historicalTrades", self._weighed(200 if futures else 25, self._historical)),
        ]

    def tape(self, symbol: str) -> Tape:
        """The trades of a coin."""
        if symbol not in self._tapes:
            self._tapes[symbol] = Tape(self._market.coin(symbol), symbol, self._market.seed)
        return self._tapes[symbol]

    def _weighed(self, weight: int, answer: Callable[[Request], bytes | Response]) -> Answer:
        async def weighed(request: Request) -> Response:
            """Count the weight, then answer."""
            refused = self._house.weights.spend(weight)
            if refused:
                return refused
            headers = self._house.weights.headers()
            try:
                body = answer(request)
            except Refused as refusal:
                return JSONResponse(refusal.body, 400, headers=headers)
            if isinstance(body, Response):
                return body
            return Response(body, media_type="application/json", headers=headers)

        return weighed

    def _asked(self, request: Request) -> tuple[Coin, Tape, int]:
        history = self._house.history(request)
        limit = whole_number(request, "limit", 500)
        if limit < 1 or (limit > MOST_TRADES and self._venue.futures):
            refuse(-1130, "Data sent for parameter 'limit' is not valid.")
        return history.coin, self.tape(history.coin.symbol), min(limit, MOST_TRADES)

    def _aggregated(self, request: Request) -> bytes:
        coin, tape, limit = self._asked(request)
        first, now = whole_number(request, "fromId", None), self._market.now()
        start, end = whole_number(request, "startTime", None), whole_number(request, "endTime", None)
        if first is not None and (start is not None or end is not None):
            refuse(-1128, "Combination of optional parameters invalid.")
        if start is not None and end is not None:
            self._check_span(start, end)
        reach = now - FUTURES_REACH
        if self._venue.futures and start is not None and start < reach:
            refuse(-1130, "parameter 'startTime' is invalid.")
        if first is not None:
            trades = tape.from_id(first, limit, now)
            if self._venue.futures and len(trades) and trades.time[0] < reach:
                refuse(-1130, "parameter 'fromId' is invalid.")
        elif start is not None:
            trades = tape.between(start, min(now, end + 1 if end is not None else now), limit)
        else:
            trades = tape.newest(limit, min(now, end + 1 if end is not None else now))
        return self._text(coin, trades, aggregated=True)

    def _check_span(self, start: int, end: int) -> None:
        if start > end:
            refuse(-1128, "Combination of optional parameters invalid.")
        if self._venue.futures and end - start >= HOUR:
            refuse(-1127, "More than 1 hours between startTime and endTime.")

    def _recent(self, request: Request) -> bytes:
        coin, tape, limit = self._asked(request)
        return self._text(coin, tape.newest(limit, self._market.now()), aggregated=False)

    def _historical(self, request: Request) -> bytes | Response:
        if self._venue.futures and not request.headers.get("x-mbx-apikey"):
            body = {"code": -2014, "msg": "API-key format invalid."}
            return JSONResponse(body, 401, headers=self._house.weights.headers())
        coin, tape, limit = self._asked(request)
        first, now = whole_number(request, "fromId", None), self._market.now()
        trades = tape.newest(limit, now) if first is None else tape.from_id(first, limit, now)
        return self._text(coin, trades, aggregated=False)

    def _text(self, coin: Coin, trades: Trades, *, aggregated: bool) -> bytes:
        if not len(trades):
            return b"[]"
        price, volume = self._venue.decimals(coin)
        columns = {
            "i": trades.id, "p": trades.price, "q": trades.quantity, "t": trades.time, "m": trades.sold,
            "v": trades.price * trades.quantity,
        }  # fmt: skip
        number, at = decimal("i", 0), decimal("t", 0)
        side = pl.when(pl.col("m")).then(pl.lit("true")).otherwise(pl.lit("false"))
        paid = [decimal("p", price), decimal("q", volume)]
        if aggregated:
            more = ',"nq":"{}"' if self._venue.futures else ',"M":true'
            texts = [number, *paid, number, number, at, side]
            texts += [decimal("q", volume)] if self._venue.futures else []
            return listed(bytes(rows(trades.time, columns, AGGREGATED % more, texts).data))
        more = ',"isRPITrade":false' if self._venue.futures else ',"isBestMatch":true'
        texts = [number, *paid, decimal("v", price + volume), at, side]
        return listed(bytes(rows(trades.time, columns, SINGLE % more, texts).data))
