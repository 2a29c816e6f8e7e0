"""What happens on a coin or stock between two moments, as every socket of the sandbox tells it in its own words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from market_data.sandbox.block import (
    BUY,
    BUY_QUOTE,
    CLOSE,
    FIELDS,
    HIGH,
    LOW,
    MINUTE,
    OPEN,
    SECOND,
    SELL,
    SELL_QUOTE,
    TRADES,
    Block,
    aggregated,
    joined,
)
from market_data.sandbox.buckets import Span
from market_data.sandbox.coins import CoinHistory
from market_data.sandbox.derivatives import Derivatives
from market_data.sandbox.marketplace import Marketplace
from market_data.sandbox.massive_ticks import StockTapeSource
from market_data.sandbox.noise import normal, seed_of, uniform
from market_data.sandbox.tape import Tape, Trades

# On how many of a hundred seconds somebody is liquidated.
LIQUIDATION_SHARE = 0.04


@dataclass(frozen=True, slots=True)
class Liquidation:
    """A forced order filled at ``time`` ms; price and quantity in ticks; a sale closes a long."""

    time: int
    sold: bool
    price: int
    quantity: int


class Feed:
    """Live views of a marketplace's instruments."""

    def __init__(self, market: Marketplace) -> None:
        self.market = market
        self._tapes: dict[str, Tape] = {}
        self._derivatives: dict[str, Derivatives] = {}

    def coin_tape(self, symbol: str) -> Tape:
        """The trades of a coin."""
        if symbol not in self._tapes:
            self._tapes[symbol] = Tape(self.market.coin(symbol), symbol, self.market.seed)
        return self._tapes[symbol]

    def stock_tape(self, symbol: str) -> Tape:
        """The trades of a stock, extended hours included."""
        source = StockTapeSource(self.market.stock(symbol))
        if symbol not in self._tapes or self._tapes[symbol].history.start != source.start:
            self._tapes[symbol] = Tape(source, symbol, self.market.seed)
        return self._tapes[symbol]

    def derivatives(self, symbol: str) -> Derivatives:
        """What surrounds a coin's perpetual."""
        if symbol not in self._derivatives:
            self._derivatives[symbol] = Derivatives(self.market.coin(symbol), self.market.seed)
        return self._derivatives[symbol]

    def forming(self, symbol: str, span: Span, opened: int, now: int) -> Block:
        """The coin's candle that opened at ``opened`` as far as trades before ``now`` make it; empty without any.

        Whole minutes come from the history and the last from its trades, so what is told live ends as what is stored.
        """
        history = self.market.coin(symbol)
        minute = now // MINUTE * MINUTE
        pieces = [history.finest(span.unit, opened, minute, minute)] if minute > opened else []
        trades = self.coin_tape(symbol).between(max(minute, opened), now)
        if len(trades):
            pieces.append(candle_of(trades, minute))
        whole = joined(pieces)
        return aggregated(whole, np.full(len(whole), opened, np.int64))

    def closed(self, history: CoinHistory, span: Span, opened: int) -> Block:
        """The whole candle that opened at ``opened``."""
        end = span.after(opened)
        finer = history.finest(span.unit, opened, end, end)
        return aggregated(finer, np.full(len(finer), opened, np.int64))

    def liquidations(self, symbol: str, start: int, end: int) -> list[Liquidation]:
        """Forced orders filled in [start, end), at most one a second."""
        history = self.market.coin(symbol)
        seed = seed_of(self.market.seed, symbol, "liquidations")
        seconds = np.arange(-(-start // SECOND), -(-end // SECOND), dtype=np.int64) * SECOND
        found = []
        for second in seconds[uniform(seed, seconds, 1) < LIQUIDATION_SHARE].tolist():
            key = np.array([second], np.int64)
            minute = history.minutes(second // MINUTE * MINUTE, second // MINUTE * MINUTE + MINUTE)
            if not len(minute) or not minute.volume[0]:
                continue
            falling = minute.values[CLOSE, 0] < minute.values[OPEN, 0]
            sold = bool(uniform(seed, key, 2)[0] < (0.75 if falling else 0.25))
            price = int(minute.values[LOW if sold else HIGH, 0])
            share = 0.02 * (0.1 + float(normal(seed, key, 3)[0]) ** 2)
            found.append(Liquidation(second, sold, price, max(int(minute.volume[0] * share), 1)))
        return found

    def last_price(self, symbol: str, now: int) -> int:
        """The coin's last traded price before ``now``, in ticks."""
        return int(self.coin_tape(symbol).newest(1, now).price[-1])


def candle_of(trades: Trades, opened: int) -> Block:
    """One candle made of trades, which must be at least one."""
    values = np.zeros((FIELDS, 1), np.int64)
    values[OPEN], values[CLOSE] = trades.price[0], trades.price[-1]
    values[HIGH], values[LOW] = trades.price.max(), trades.price.min()
    worth = trades.price * trades.quantity
    values[BUY], values[SELL] = trades.quantity[~trades.sold].sum(), trades.quantity[trades.sold].sum()
    values[BUY_QUOTE], values[SELL_QUOTE] = worth[~trades.sold].sum(), worth[trades.sold].sum()
    values[TRADES] = len(trades)
    return Block(np.array([opened], np.int64), values)


def boundaries(span: Span, start: int, end: int) -> list[int]:
    """Opens of the candles whose end lies in (start, end]."""
    opened = span.floor_one(start)
    found = []
    while span.after(opened) <= end:
        if span.after(opened) > start:
            found.append(opened)
        opened = span.after(opened)
    return found
