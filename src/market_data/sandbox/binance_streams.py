"""Binance's stream names and their events (PROVIDERS §1.6–1.7)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from market_data.sandbox.binance import Venue
from market_data.sandbox.block import MINUTE, SECOND, Block
from market_data.sandbox.buckets import BINANCE
from market_data.sandbox.feed import Feed, Liquidation, boundaries
from market_data.sandbox.symbols import Coin

Event = dict[str, Any]
NAME = re.compile(
    r"(?P<symbol>[^@!]+)@(?P<kind>aggTrade|trade|bookTicker|forceOrder|kline_(?P<interval>\w+)|markPrice(?P<fast>@1s)?)"
    r"|!(?P<all>forceOrder|markPrice|bookTicker)(?:@arr)?(?P<all_fast>@1s)?"
)
# Which of the two futures paths a stream belongs to.
PUBLIC_KINDS = ("bookTicker", "trade")
KLINE_EVERY_MS = {True: 250, False: 2 * SECOND}


@dataclass(frozen=True, slots=True)
class Stream:
    """One subscription: its name, coin (None for all) and kind."""

    name: str
    symbol: str | None
    kind: str
    interval: str = ""
    fast: bool = False

    @property
    def public(self) -> bool:
        """Whether the futures' ``/public`` path serves it, else ``/market``."""
        return self.kind in PUBLIC_KINDS


class StreamTeller:
    """Events of one house's streams."""

    def __init__(self, feed: Feed, venue: Venue) -> None:
        self._feed = feed
        self._venue = venue
        self._by_name = {venue.raw_symbol(coin).lower(): coin for coin in feed.market.coins.values()}

    def parse(self, name: str) -> Stream | None:
        """The stream of a name; None for a name that will never send anything."""
        found = NAME.fullmatch(name)
        if not found:
            return None
        if found["all"]:
            return Stream(name, None, found["all"], fast=bool(found["all_fast"]))
        coin = self._by_name.get(found["symbol"])
        kind = found["kind"].split("_")[0].split("@")[0]
        interval = found["interval"] or ""
        futures_only = kind in ("forceOrder", "markPrice")
        if coin is None or (interval and interval not in BINANCE) or (futures_only and not self._venue.futures):
            return None
        return Stream(name, coin.symbol, kind, interval, bool(found["fast"]))

    def events(self, stream: Stream, start: int, end: int) -> Iterator[Any]:
        """What the stream sends for (start, end], ms; an all-market stream sends arrays or one event per coin."""
        if stream.symbol is None:
            yield from self._of_all(stream, start, end)
            return
        coin = self._feed.market.coins[stream.symbol]
        if stream.kind in ("aggTrade", "trade", "bookTicker"):
            yield from self._ticks(stream.kind, coin, start, end)
        elif stream.kind == "kline":
            yield from self._candles(stream, coin, start, end)
        elif stream.kind == "markPrice":
            if _due(start, end, SECOND if stream.fast else 3 * SECOND):
                yield self._mark(coin, end)
        else:
            orders = self._feed.liquidations(coin.symbol, start + 1, end + 1)
            yield from (self._forced(coin, order) for order in orders)

    def _of_all(self, stream: Stream, start: int, end: int) -> Iterator[Any]:
        coins = self._feed.market.coins.values()
        if stream.kind == "markPrice" and self._venue.futures:
            if _due(start, end, SECOND if stream.fast else 3 * SECOND):
                yield [self._mark(coin, end) for coin in coins]
        elif stream.kind == "forceOrder" and self._venue.futures:
            for coin in coins:
                for order in self._feed.liquidations(coin.symbol, start + 1, end + 1):
                    event = self._forced(coin, order)
                    yield event | {"o": event["o"] | {"ps": event["o"]["s"]}, "st": 1}
        elif stream.kind == "bookTicker":
            for coin in coins:
                yield from self._ticks("bookTicker", coin, start, end)

    def _ticks(self, kind: str, coin: Coin, start: int, end: int) -> Iterator[Event]:
        trades = self._feed.coin_tape(coin.symbol).between(start + 1, end + 1)
        price, volume = self._venue.decimals(coin)
        raw, futures = self._venue.raw_symbol(coin), self._venue.futures
        columns = (trades.id.tolist(), trades.time.tolist(), trades.price.tolist(), trades.quantity.tolist(),
                   trades.sold.tolist())  # fmt: skip
        for number, at, paid, amount, sold in zip(*columns, strict=True):
            text, size = fixed(paid, price), fixed(amount, volume)
            if kind == "bookTicker":
                bid = paid if sold else paid - 1
                book: Event = {"u": number, "s": raw, "b": fixed(bid, price), "B": size, "a": fixed(bid + 1, price),
                               "A": size}  # fmt: skip
                # Spot's has neither type nor time.
                yield {"e": "bookTicker", "E": at, "T": at, "ps": raw, "st": 1} | book if futures else book
            elif kind == "aggTrade":
                more: Event = {"nq": size, "st": 1} if futures else {"M": True}
                yield {"e": kind, "E": at, "s": raw, "a": number, "p": text, "q": size, "f": number, "l": number,
                       "T": at, "m": sold, **more}  # fmt: skip
            else:
                more = {"X": "MARKET"} if futures else {"M": True}
                yield {"e": kind, "E": at, "T": at, "s": raw, "t": number, "p": text, "q": size, "m": sold, **more}

    def _candles(self, stream: Stream, coin: Coin, start: int, end: int) -> Iterator[Event]:
        span, history = BINANCE[stream.interval], self._feed.market.coin(coin.symbol)
        for opened in boundaries(span, start, end):
            block = self._feed.closed(history, span, opened)
            if len(block):
                yield self._candle(coin, stream.interval, block, span.after(opened), closed=True)
        if _due(start, end, KLINE_EVERY_MS[self._venue.futures]):
            block = self._feed.forming(coin.symbol, span, span.floor_one(end), end)
            if len(block):
                yield self._candle(coin, stream.interval, block, end, closed=False)

    def _candle(self, coin: Coin, interval: str, block: Block, at: int, *, closed: bool) -> Event:
        raw, values = self._venue.raw_symbol(coin), block.values[:, 0].tolist()
        opened = int(block.time[0])
        price, volume = self._venue.decimals(coin)
        first = self._feed.market.coin(coin.symbol).trades_before(opened // MINUTE * MINUTE)
        k = {
            "t": opened, "T": BINANCE[interval].after(opened) - 1, "s": raw, "i": interval, "f": first,
            "L": first + values[8] - 1, "o": fixed(values[0], price), "c": fixed(values[3], price),
            "h": fixed(values[1], price), "l": fixed(values[2], price), "v": fixed(values[4] + values[5], volume),
            "n": values[8], "x": closed, "q": fixed(values[6] + values[7], price + volume),
            "V": fixed(values[4], volume), "Q": fixed(values[6], price + volume), "B": "0",
        }  # fmt: skip
        return {"e": "kline", "E": at, "s": raw, "k": k}

    def _mark(self, coin: Coin, at: int) -> Event:
        known = self._feed.derivatives(coin.symbol)
        rate = known.funding(at - 9 * 60 * MINUTE, at + 1).rate
        price, _ = self._venue.decimals(coin)
        mark = fixed(self._feed.last_price(coin.symbol, at + 1), price)
        return {
            "e": "markPriceUpdate", "E": at, "s": self._venue.raw_symbol(coin), "p": mark, "ap": mark, "i": mark,
            "P": mark, "r": fixed(int(rate[-1]), 8), "T": known.next_funding(at), "st": 1,
        }  # fmt: skip

    def _forced(self, coin: Coin, order: Liquidation) -> Event:
        price, volume = self._venue.decimals(coin)
        size, text = fixed(order.quantity, volume), fixed(order.price, price)
        return {"e": "forceOrder", "E": order.time, "o": {
            "s": self._venue.raw_symbol(coin), "S": "SELL" if order.sold else "BUY", "o": "LIMIT", "f": "IOC",
            "q": size, "p": text, "ap": text, "X": "FILLED", "l": size, "z": size, "T": order.time,
        }}  # fmt: skip


def fixed(ticks: int, decimals: int) -> str:
    """Whole 10^-``decimals`` as plain decimal text."""
    sign, digits = ("-" if ticks < 0 else ""), str(abs(ticks)).rjust(decimals + 1, "0")
    return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}" if decimals > 0 else f"{sign}{digits}"


def _due(start: int, end: int, every: int) -> bool:
    """Whether a beat of ``every`` ms falls into (start, end]."""
    return end // every > start // every
