"""Yahoo's chart and search: split-adjusted single-precision prices, live rows, lookback limits (PROVIDERS §3)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from market_data.sandbox.block import DAY, MINUTE, SECOND, Block, Int, aggregated
from market_data.sandbox.buckets import Span, offsets
from market_data.sandbox.coins import CoinHistory
from market_data.sandbox.marketplace import Marketplace
from market_data.sandbox.noise import Float
from market_data.sandbox.stocks import StockHistory, millis
from market_data.sandbox.yahoo_request import INTRADAY, VALID_RANGES, Asked, YahooError, parsed

# Names that Yahoo tells apart with a number of its own.
COIN_NAMES = {"PEPE": "PEPE24478"}
EXCHANGES = {"XNAS": ("NMS", "NasdaqGS"), "XNYS": ("NYQ", "NYSE"), "ARCX": ("PCX", "NYSEArca")}


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """Rows of a chart: stamps in ms, float64 prices split adjusted (4, n), whole volumes, and adjusted closes."""

    time: Int
    prices: Float
    volume: Int
    adjusted: Float


class YahooHouse:
    """The routes over a marketplace."""

    def __init__(self, market: Marketplace) -> None:
        self.market = market
        self._coins = {f"{COIN_NAMES.get(symbol, symbol)}-USD": symbol for symbol in market.coins}
        self._stocks = {symbol.replace(".", "-"): symbol for symbol in market.stocks}

    def routes(self) -> list[Route]:
        """Every path answered."""
        return [Route("/v8/finance/chart/{raw}", self.chart), Route("/v1/finance/search", self.search)]

    async def chart(self, request: Request) -> Response:
        """Candles with events."""
        if not request.headers.get("user-agent"):
            return PlainTextResponse("Edge: Too Many Requests", 429)
        raw, now = request.path_params["raw"], self.market.now()
        try:
            history = self._history(raw)
            asked = parsed(request.query_params, now, history.start)
        except YahooError as wrong:
            error = {"code": wrong.code, "description": wrong.description}
            return JSONResponse({"chart": {"result": None, "error": error}}, wrong.status)
        chart = self._coin_chart(history, asked, now) if isinstance(history, CoinHistory) else (
            self._stock_chart(history, asked, now))  # fmt: skip
        meta = self._meta(raw, history, asked, now)
        events = {} if isinstance(history, CoinHistory) else _events(history, asked, now)
        return Response(_body(meta, chart, events, daily=asked.interval not in INTRADAY), media_type="application/json")

    async def search(self, request: Request) -> Response:
        """Instruments whose symbol or name contains the text."""
        text = request.query_params.get("q", "").lower()
        names = [(raw, self.market.stocks[s].name, "ETF" if self.market.stocks[s].etf else "EQUITY",
                  EXCHANGES[self.market.stocks[s].exchange]) for raw, s in self._stocks.items()]  # fmt: skip
        names += [(raw, f"{self.market.coins[s].name} USD", "CRYPTOCURRENCY", ("CCC", "CCC"))
                  for raw, s in self._coins.items()]  # fmt: skip
        quotes: list[dict[str, Any]] = [
            {"symbol": raw, "shortname": name, "longname": name, "quoteType": kind, "exchange": exchange[0],
             "exchDisp": exchange[1], "typeDisp": kind.title(), "score": 20000.0, "isYahooFinance": True}
            for raw, name, kind, exchange in names
            if text and (text in raw.lower() or text in name.lower())
        ]  # fmt: skip
        quotes.sort(key=lambda quote: (quote["symbol"].lower() != text, len(quote["symbol"])))
        count = int(request.query_params.get("quotesCount", "6"))
        return JSONResponse({"explains": [], "count": len(quotes[:count]), "quotes": quotes[:count], "news": []})

    def _history(self, raw: str) -> CoinHistory | StockHistory:
        if raw not in self._coins and raw not in self._stocks:
            raise YahooError(404, "Not Found", "No data found, symbol may be delisted")
        return self.market.coin(self._coins[raw]) if raw in self._coins else self.market.stock(self._stocks[raw])

    def _coin_chart(self, history: CoinHistory, asked: Asked, now: int) -> Chart:
        span = asked.span
        start = max(span.floor_one(asked.start), span.floor_one(history.start))
        finer = history.finest(span.unit, start, min(asked.end, span.after(span.floor_one(now))), now)
        block = aggregated(finer, span.floor(finer.time))
        prices: Float = np.multiply(block.values[:4], history.price_tick, dtype=np.float64)
        # Yahoo states a coin's volume in dollars, not in coins.
        volume = block.quote // 10 ** (history.coin.price_decimals + history.coin.volume_decimals)
        chart = Chart(block.time, prices, volume, prices[3])
        live = asked.interval in INTRADAY and asked.end > now and len(block) > 0
        return _with_live_row(chart, now // SECOND * SECOND) if live else chart

    def _stock_chart(self, history: StockHistory, asked: Asked, now: int) -> Chart:
        block, factor = self._stock_block(history, asked, now)
        prices = block.values[:4] * 10.0**-history.stock.price_decimals / factor
        chart = Chart(block.time, prices, block.volume * factor, prices[3] * dividend_factor(history, block.time, now))
        last = int(np.searchsorted(history.opens, now, side="right")) - 1
        if not len(block) or last < 0 or block.time[-1] < history.opens[last]:
            return chart
        stamp = min(now // SECOND * SECOND, int(history.closes[last]))
        if asked.interval in INTRADAY:
            return _with_live_row(chart, stamp) if stamp < asked.end else chart
        if asked.interval == "1d":
            # The newest session's row carries the moment of its last price until the next session opens.
            return Chart(np.r_[chart.time[:-1], stamp], chart.prices, chart.volume, chart.adjusted)
        return chart

    def _stock_block(self, history: StockHistory, asked: Asked, now: int) -> tuple[Block, Int]:
        """Raw candles and what to divide their prices by."""
        span, start = asked.span, max(asked.start, history.start)
        if asked.interval in INTRADAY:
            if asked.range == "1d":
                start = int(history.opens[max(int(np.searchsorted(history.opens, now, side="right")) - 1, 0)])
            finer = history.finest(MINUTE, start, asked.end, now, extended=asked.extended)
            session = history.opens[np.maximum(np.searchsorted(history.opens, finer.time, side="right") - 1, 0)]
            block = aggregated(finer, session + (finer.time - session) // span.length * span.length)
            return block, history.factor(block.time, now)
        if asked.interval == "1d":
            block = history.finest(DAY, start, asked.end, now)
            return block, history.factor(block.time, now)
        local = Span(span.length, span.anchor, span.months, local=True)
        days = history.finest(DAY, local.floor_one(start), asked.end, now)
        factor = history.factor(days.time, now)
        block = aggregated(_in_last_shares(days, factor), local.floor(days.time))
        return block, np.full(len(block), factor[-1] if len(factor) else 1)

    def _meta(self, raw: str, history: CoinHistory | StockHistory, asked: Asked, now: int) -> dict[str, Any]:
        coin = isinstance(history, CoinHistory)
        if isinstance(history, CoinHistory):
            exchange, kind, name = ("CCC", "CCC"), "CRYPTOCURRENCY", f"{history.coin.name} USD"
            offset, zone, abbreviation, scale = 0, "UTC", "UTC", history.price_tick
            trading = (now // DAY * DAY, now // DAY * DAY + DAY)
            recent, last_trade = history.finest(MINUTE, now - 2 * MINUTE, now, now), now
        else:
            stock = history.stock
            exchange, kind = EXCHANGES[stock.exchange], "ETF" if stock.etf else "EQUITY"
            name, zone, scale = stock.name, "America/New_York", 10.0**-stock.price_decimals
            offset = int(offsets(np.array([now]))[0]) // SECOND
            abbreviation = "EDT" if offset == -4 * 3600 else "EST"
            at = min(int(np.searchsorted(history.closes, now, side="right")), len(history.opens) - 1)
            trading = (int(history.opens[at]), int(history.closes[at]))
            recent = history.finest(DAY, now - 10 * DAY, now, now)
            begun = int(np.searchsorted(history.opens, now, side="right")) - 1
            last_trade = min(now, int(history.closes[begun]))
        price = _single(recent.values[3, -1] * scale) if len(recent) else None
        period = {"timezone": abbreviation, "gmtoffset": offset}
        # From 04:00 to 20:00 New York around a session that opens at 09:30; a coin has neither before nor after.
        early, late = (trading[0], trading[1]) if coin else (trading[0] - 330 * MINUTE, trading[0] + 630 * MINUTE)
        pre, post = (early, trading[0]), (trading[1], late)
        periods = {label: period | {"start": start // SECOND, "end": end // SECOND}
                   for label, (start, end) in (("pre", pre), ("regular", trading), ("post", post))}  # fmt: skip
        return {
            "currency": "USD", "symbol": raw, "exchangeName": exchange[0], "fullExchangeName": exchange[1],
            "instrumentType": kind, "firstTradeDate": history.start // SECOND,
            "regularMarketTime": last_trade // SECOND,
            "hasPrePostMarketData": not coin, "gmtoffset": offset, "timezone": abbreviation,
            "exchangeTimezoneName": zone, "regularMarketPrice": price, "longName": name, "shortName": name,
            "priceHint": 2 if scale >= 1e-4 else 8, "currentTradingPeriod": periods,
            "dataGranularity": "1h" if asked.interval == "60m" else asked.interval, "range": asked.range,
            "validRanges": list(VALID_RANGES),
        }  # fmt: skip


def dividend_factor(history: StockHistory, time: Int, now: int) -> Float:
    """What each close is multiplied by for the dividends that came after it: 1 − amount / the close before."""
    factor = np.ones(len(time))
    for fact in history.dividends:
        ex = millis(fact.day)
        at = int(np.searchsorted(history.opens, ex))
        if ex > now or at == 0:
            continue
        before = history.days(int(history.opens[at - 1]), int(history.opens[at]))
        close = before.values[3, -1] * 10.0**-history.stock.price_decimals
        factor = np.where(time < ex, factor * (1 - float(fact.amount) / close), factor)
    return factor


def _in_last_shares(days: Block, factor: Int) -> Block:
    """Days in the shares of the last of them, so that a week across a split is one scale."""
    if not len(days) or (factor == factor[-1]).all():
        return days
    relative = factor // factor[-1]
    values = days.values.copy()
    values[:4] = np.rint(values[:4] / relative)
    values[4:6] *= relative
    return Block(days.time, values)


def _with_live_row(chart: Chart, stamp: int) -> Chart:
    """The chart with Yahoo's last row: the latest price at its own moment, without volume."""
    if not len(chart.time) or chart.time[-1] >= stamp:
        return chart
    price = chart.prices[3, -1]
    return Chart(
        np.r_[chart.time, stamp], np.c_[chart.prices, np.full(4, price)], np.r_[chart.volume, 0],
        np.r_[chart.adjusted, price],
    )  # fmt: skip


def _events(history: StockHistory, asked: Asked, now: int) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def stamp(day: Any) -> int | None:
        at = int(np.searchsorted(history.opens, millis(day)))
        opened = int(history.opens[at])
        return opened // SECOND if asked.start <= opened < min(asked.end, now) else None

    if "div" in asked.events:
        paid = {}
        for fact in history.dividends:
            at = stamp(fact.day)
            if at is not None:
                ratio = int(history.factor(np.array([at * SECOND]), now)[0])
                paid[str(at)] = {"amount": _single(float(fact.amount) / ratio), "date": at}
        found |= {"dividends": paid} if paid else {}
    if asked.events & {"split", "splits"}:
        split = {}
        for one in history.splits:
            at = stamp(one.day)
            if at is not None:
                split[str(at)] = {"date": at, "numerator": float(one.into), "denominator": float(one.of),
                                  "splitRatio": f"{one.into}:{one.of}"}  # fmt: skip
        found |= {"splits": split} if split else {}
    return found


def _single(price: float) -> float:
    """The number as Yahoo sends it: rounded to single precision, printed as double."""
    return float(np.float32(price))


def _column(values: Iterable[Any] | Float) -> str:
    # Prices pass through single precision at the source: 26.55 arrives as 26.549999237060547.
    rounded = np.asarray(values, np.float64).astype(np.float32).astype(np.float64)
    return ",".join(pl.Series(rounded).cast(pl.String).to_list())


def _whole(values: Int) -> str:
    return ",".join(pl.Series(values).cast(pl.String).to_list())


def _body(meta: dict[str, Any], chart: Chart, events: dict[str, Any], *, daily: bool) -> bytes:
    parts = [f'"meta":{json.dumps(meta)}']
    if not len(chart.time):
        empty = '"indicators":{"quote":[{}]' + (',"adjclose":[{}]' if daily else "") + "}"
        return ('{"chart":{"result":[{' + parts[0] + "," + empty + '}],"error":null}}').encode()
    parts.append(f'"timestamp":[{_whole(chart.time // SECOND)}]')
    if events:
        parts.append(f'"events":{json.dumps(events)}')
    rows = zip(("open", "high", "low", "close"), chart.prices, strict=True)
    quote = ",".join(f'"{name}":[{_column(row)}]' for name, row in rows)
    adjusted = f',"adjclose":[{{"adjclose":[{_column(chart.adjusted)}]}}]' if daily else ""
    parts.append(f'"indicators":{{"quote":[{{{quote},"volume":[{_whole(chart.volume)}]}}]{adjusted}}}')
    return ('{"chart":{"result":[{' + ",".join(parts) + '}],"error":null}}').encode()
