"""Massive's REST: aggregates and the list of instruments, with its keys, pages and errors (PROVIDERS §2)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from market_data.sandbox.block import DAY, HOUR, MINUTE, SECOND, WEEK, Block, aggregated
from market_data.sandbox.buckets import NEW_YORK, SUNDAY, Span, new_york_midnight
from market_data.sandbox.marketplace import Marketplace
from market_data.sandbox.massive_gate import (
    NEXT_HOST,
    BadRequest,
    cursor_at,
    guarded,
    limit_of,
    paged,
    request_id,
    resumed,
)
from market_data.sandbox.stocks import millis
from market_data.sandbox.text import decimal, listed, rows

MOST_BASE_CANDLES = 50_000
DEFAULT_BASE_CANDLES = 5_000
# Digits added to a split-adjusted price.
ADJUSTED_PLACES = 4
TIMESPANS = {"minute": MINUTE, "hour": HOUR, "day": DAY, "week": WEEK, "month": 1, "quarter": 3, "year": 12}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for aggregates, parsed; ``start`` and ``end`` in ms, end exclusive."""

    raw: str
    multiplier: int
    timespan: str
    start: int
    end: int
    adjusted: bool
    newest_first: bool
    limit: int

    @property
    def crypto(self) -> bool:
        """True for a coin."""
        return self.raw.startswith("X:")

    @property
    def span(self) -> Span:
        """How its candles are cut: coins by UTC, stocks by New York's clock; weeks from Sunday."""
        length = TIMESPANS[self.timespan]
        if self.timespan in ("month", "quarter", "year"):
            return Span(0, months=length * self.multiplier, local=not self.crypto)
        anchor = SUNDAY if self.timespan == "week" else 0
        # Within the hour both clocks agree, and the simple arithmetic serves.
        return Span(length * self.multiplier, anchor, local=not self.crypto and length * self.multiplier > HOUR)


@dataclass(slots=True)
class MassiveHouse:
    """The routes over a marketplace."""

    market: Marketplace
    _coins: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._coins = {f"X:{symbol}USD": symbol for symbol in self.market.coins}

    def routes(self) -> list[Route]:
        """Every path answered."""
        return [
            Route("/v2/aggs/ticker/{raw}/range/{multiplier}/{timespan}/{start}/{end}", guarded(self.aggregates)),
            Route("/v3/reference/tickers", guarded(self.tickers)),
            Route("/v3/reference/tickers/{raw}", guarded(self.ticker)),
        ]

    async def aggregates(self, request: Request) -> Response:
        """Candles of any whole number of minutes to years."""
        asked = self._asked(request)
        head: dict[str, Any] = {"ticker": asked.raw, "adjusted": asked.adjusted, "queryCount": 0, "resultsCount": 0}
        tail: dict[str, Any] = {"status": "OK", "request_id": request_id(request)}
        if asked.raw not in self._coins and asked.raw not in self.market.stocks:
            return JSONResponse(head | tail)
        base, block, resume = self._page(asked)
        head |= {"queryCount": base, "resultsCount": len(block)}
        if not len(block):
            return JSONResponse(head | tail)
        text = self._text(asked, block)
        if resume is not None:
            tail["next_url"] = _next_url(asked, resume)
        body = json.dumps(head)[:-1].encode() + b',"results":' + text + b"," + json.dumps(tail)[1:].encode()
        return Response(body, media_type="application/json")

    def _asked(self, request: Request) -> Asked:
        path, query = request.path_params, request.query_params
        if path["timespan"] not in TIMESPANS:
            raise BadRequest(f"Could not parse the timespan: {path['timespan']}")
        if not path["multiplier"].isdigit() or int(path["multiplier"]) < 1:
            raise BadRequest("The parameter 'multiplier' must be a positive integer")
        limit = limit_of(request, DEFAULT_BASE_CANDLES, MOST_BASE_CANDLES)
        if query.get("sort", "asc") not in ("asc", "desc"):
            raise BadRequest("The parameter 'sort' must be 'asc' or 'desc'")
        crypto = path["raw"].startswith("X:")
        start, end = _moment(path["start"], crypto, last=False), _moment(path["end"], crypto, last=True)
        if start >= end:
            raise BadRequest("The parameter 'to' cannot be a time that occurs before 'from'")
        cursor = query.get("cursor")
        newest_first = query.get("sort") == "desc"
        if cursor is not None:
            at = resumed(cursor)
            start, end = (start, at) if newest_first else (at, end)
        return Asked(path["raw"], int(path["multiplier"]), path["timespan"], start, end,
                     query.get("adjusted", "true") != "false", newest_first, int(limit))  # fmt: skip

    def _page(self, asked: Asked) -> tuple[int, Block, int | None]:
        """Base candles counted, the candles of this page oldest first, and where the next page begins."""
        span, now = asked.span, self.market.now()
        # A candle is served whole when any of it is asked for.
        start, end = span.floor_one(asked.start), min(asked.end, now)
        base = self._base(asked, span, start, end, now)
        opens = span.floor(base.time)
        resume = None
        if len(base) > asked.limit:
            resume = int(opens[-asked.limit - 1] if asked.newest_first else opens[asked.limit])
            edge = span.after(resume) if asked.newest_first else resume
            kept = opens >= edge if asked.newest_first else opens < edge
            if not kept.any():
                raise BadRequest("The parameter 'limit' is too small for one candle")
            base, opens = base.where(kept), opens[kept]
            resume = edge
        return len(base), aggregated(base, opens), resume

    def _base(self, asked: Asked, span: Span, start: int, end: int, now: int) -> Block:
        """Base candles of the range, at least one more than the limit when there are more."""
        if asked.crypto:
            history = self.market.coin(self._coins[asked.raw])
            unit = DAY if span.unit == DAY else MINUTE
            start = max(start, history.start // unit * unit)
            reach = (asked.limit + 1) * unit + span.length + span.months * 31 * DAY
            start, end = (max(start, end - reach), end) if asked.newest_first else (start, min(end, start + reach))
            block = history.finest(unit, start, end, now)
            whole = aggregated(block, block.time // unit * unit)
            return whole.where(whole.volume > 0)
        stock = self.market.stock(asked.raw)
        if span.unit == DAY:
            days = stock.finest(DAY, start, end, now)
            return Block(new_york_midnight(days.time), days.values)
        # At most 960 minutes trade in a day, and seven days hold five sessions or fewer.
        reach = (asked.limit // 150 + 8) * DAY * 7 // 4
        start, end = (max(start, end - reach), end) if asked.newest_first else (start, min(end, start + reach))
        start = max(start, stock.start - DAY)
        minutes = stock.finest(MINUTE, start, end, now, extended=True)
        return aggregated(minutes, minutes.time // MINUTE * MINUTE)

    def _text(self, asked: Asked, block: Block) -> bytes:
        values = block.values
        if asked.crypto:
            coin = self.market.coins[self._coins[asked.raw]]
            price, places, volume, factor = coin.price_decimals, coin.price_decimals, coin.volume_decimals, None
        else:
            stock = self.market.stock(asked.raw)
            price, places, volume = stock.stock.price_decimals, stock.stock.price_decimals, 0
            factor = stock.factor(block.time, self.market.now()) if asked.adjusted else None
        amount, prices = block.volume, values[:4]
        average = block.quote / np.maximum(amount, 1) * 10.0**-price
        if factor is not None and (factor != 1).any():
            places = price + ADJUSTED_PLACES
            prices = np.rint(prices * 10.0**ADJUSTED_PLACES / factor).astype(np.int64)
            average, amount = average / factor, amount * factor
        columns = {"t": block.time, "v": amount, "w": np.round(average, places + 2), "n": values[8]}
        columns |= dict(zip("ohlc", prices, strict=True))
        texts: list[pl.Expr] = [decimal("v", volume), pl.col("w"), *(decimal(name, places) for name in "oclh")]
        texts += [pl.col("t"), pl.col("n")]
        lines = rows(block.time, columns, '{{"v":{},"vw":{},"o":{},"c":{},"l":{},"h":{},"t":{},"n":{}}},', texts)
        if not asked.newest_first:
            return listed(bytes(lines.data[: lines.offsets[len(block)]]))
        cuts = lines.offsets
        return listed(b"".join(bytes(lines.data[cuts[i] : cuts[i + 1]]) for i in reversed(range(len(block)))))

    async def tickers(self, request: Request) -> Response:
        """Instruments by name, market or search text."""
        query = request.query_params
        wanted, market = query.get("ticker"), query.get("market")
        search, kind = query.get("search", "").lower(), query.get("type")
        found = [
            entry
            for entry in map(self._described, [*self.market.stocks, *self._coins])
            if (wanted is None or entry["ticker"] == wanted)
            and (market is None or entry["market"] == market)
            and (kind is None or entry.get("type") == kind)
            and (search in entry["ticker"].lower() or search in entry["name"].lower())
        ]
        return paged(request, found, 100, 1000)

    async def ticker(self, request: Request) -> Response:
        """One instrument."""
        raw = request.path_params["raw"]
        if raw not in self.market.stocks and raw not in self._coins:
            body = {"status": "NOT_FOUND", "request_id": request_id(request), "message": "Ticker not found."}
            return JSONResponse(body, 404)
        return JSONResponse({"request_id": request_id(request), "status": "OK", "results": self._described(raw)})

    def _described(self, raw: str) -> dict[str, Any]:
        if raw in self._coins:
            coin = self.market.coins[self._coins[raw]]
            return {
                "ticker": raw, "name": f"{coin.name} - United States dollar", "market": "crypto", "locale": "global",
                "active": True, "currency_symbol": "USD", "currency_name": "United States dollar",
                "base_currency_symbol": coin.symbol, "base_currency_name": coin.name,
                "last_updated_utc": "2026-01-01T00:00:00Z",
            }  # fmt: skip
        stock = self.market.stocks[raw]
        return {
            "ticker": raw, "name": stock.name, "market": "stocks", "locale": "us", "type": "ETF" if stock.etf else "CS",
            "active": True, "primary_exchange": stock.exchange, "currency_name": "usd",
            "list_date": stock.listed.isoformat(), "last_updated_utc": "2026-01-01T00:00:00Z",
        }  # fmt: skip


def _moment(text: str, crypto: bool, *, last: bool) -> int:
    """First moment of a range, or the one after its last, ms: a date means its whole day, a number its millisecond."""
    if text.isdigit() and len(text) > 8:
        return int(text) + (1 if last else 0)
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise BadRequest(f"Could not parse the time parameter: '{'to' if last else 'from'}'. Use YYYY-MM-DD or a Unix "
                         "MS timestamp") from None  # fmt: skip
    day += timedelta(days=1 if last else 0)
    if crypto:
        return millis(day)
    return int(datetime(day.year, day.month, day.day, tzinfo=NEW_YORK).timestamp()) * SECOND


def _next_url(asked: Asked, resume: int) -> str:
    order, adjusted = ("desc" if asked.newest_first else "asc"), str(asked.adjusted).lower()
    path = f"/v2/aggs/ticker/{asked.raw}/range/{asked.multiplier}/{asked.timespan}/{asked.start}/{asked.end - 1}"
    return f"{NEXT_HOST}{path}?cursor={cursor_at(resume)}&limit={asked.limit}&sort={order}&adjusted={adjusted}"
