"""Single trades that make up the minutes: candle, volumes and count of a minute follow from them exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from market_data.sandbox.block import BUY, CLOSE, HIGH, LOW, MINUTE, OPEN, SELL, TRADES, Block, Int
from market_data.sandbox.chunks import Chunks
from market_data.sandbox.noise import normal, seed_of, uniform
from market_data.sandbox.refine import shared

TAPES_KEPT = 512


@dataclass(frozen=True, slots=True, eq=False)
class Trades:
    """Trades in order: ids, ms, price and quantity in ticks, whether the taker sold."""

    id: Int
    time: Int
    price: Int
    quantity: Int
    sold: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.id)

    def where(self, chosen: NDArray[np.bool_] | slice) -> Trades:
        """The trades chosen by a mask or a slice."""
        return Trades(self.id[chosen], self.time[chosen], self.price[chosen], self.quantity[chosen], self.sold[chosen])


def joined_trades(pieces: list[Trades]) -> Trades:
    """Pieces one after another."""
    names = ("id", "time", "price", "quantity", "sold")
    if not pieces:
        none = np.empty(0, np.int64)
        return Trades(none, none, none, none, np.empty(0, np.bool_))
    return Trades(*(np.concatenate([getattr(piece, name) for piece in pieces]) for name in names))


class TapeSource(Protocol):
    """What trades are made of: minutes, and how trades are numbered."""

    start: int

    def minutes(self, start: int, end: int) -> Block:
        """Minutes that open in [start, end)."""

    def trades_before(self, minute: int) -> int:
        """The number given to the first trade of a minute."""

    def minute_of_trade(self, wanted: int, now: int) -> int:
        """The minute that holds the trade of a number."""


class Tape:
    """The trades of one instrument."""

    def __init__(self, history: TapeSource, symbol: str, seed: int) -> None:
        self.history = history
        self._seed = seed_of(seed, symbol, "tape")
        self._minutes: Chunks[Trades] = Chunks(TAPES_KEPT)

    def between(self, start: int, end: int, most: int | None = None) -> Trades:
        """Trades in [start, end) ms, oldest first; the first ``most`` of them."""
        start = max(start, self.history.start)
        pieces, count = [], 0
        for minute in range(start // MINUTE * MINUTE, end, MINUTE):
            trades = self.minute(minute)
            trades = trades.where((trades.time >= start) & (trades.time < end))
            pieces.append(trades)
            count += len(trades)
            if most is not None and count >= most:
                break
        return joined_trades(pieces).where(slice(0, most))

    def newest(self, most: int, now: int) -> Trades:
        """The last ``most`` trades before ``now``, oldest first."""
        pieces: list[Trades] = []
        minute = now // MINUTE * MINUTE
        while sum(map(len, pieces)) < most and minute >= self.history.start:
            trades = self.minute(minute)
            pieces.insert(0, trades.where(trades.time < now))
            minute -= MINUTE
        return joined_trades(pieces).where(slice(-most, None))

    def from_id(self, first: int, most: int, now: int) -> Trades:
        """At most ``most`` trades from id ``first`` on, before ``now``."""
        minute = self.history.minute_of_trade(first, now)
        pieces: list[Trades] = []
        while sum(map(len, pieces)) < most and minute < now:
            trades = self.minute(minute)
            pieces.append(trades.where((trades.id >= first) & (trades.time < now)))
            minute += MINUTE
        return joined_trades(pieces).where(slice(0, most))

    def minute(self, opened: int) -> Trades:
        """The trades of the minute that opens at ``opened``."""
        return self._minutes.get(opened, lambda: self._make(opened))

    def _make(self, opened: int) -> Trades:
        block = self.history.minutes(opened, opened + MINUTE)
        count = int(block.values[TRADES, 0]) if len(block) else 0
        if not count:
            return joined_trades([])
        values = block.values[:, 0]
        keys = opened * 1000 + np.arange(count, dtype=np.int64)
        time = opened + ((np.arange(count) + uniform(self._seed, keys, 1)) * (MINUTE / count)).astype(np.int64)
        sold = self._sides(values, keys)
        quantity = np.empty(count, np.int64)
        for side, total in ((~sold, int(values[BUY])), (sold, int(values[SELL]))):
            trades = int(side.sum())
            if trades:
                weight = 0.1 + normal(self._seed, keys[side], 3) ** 2
                quantity[side] = 1 + shared(np.array([total - trades]), weight[None, :])[0]
        return Trades(
            self.history.trades_before(opened) + np.arange(count), time, self._path(values, keys), quantity, sold
        )

    def _sides(self, values: Int, keys: Int) -> NDArray[np.bool_]:
        """Which trades the seller took: at least one of each side that traded, none more than it has ticks."""
        count, bought, sold = len(keys), int(values[BUY]), int(values[SELL])
        wanted = round(count * sold / (bought + sold))
        sellers = min(max(wanted, int(sold > 0), count - bought), sold, count - int(bought > 0))
        order = np.argsort(uniform(self._seed, keys, 2), kind="stable")
        taken = np.zeros(count, np.bool_)
        taken[order[:sellers]] = True
        return taken

    def _path(self, values: Int, keys: Int) -> Int:
        """Prices from the open to the close that reach the high and the low and pass neither."""
        count = len(keys)
        first, high, low, last = (int(values[row]) for row in (OPEN, HIGH, LOW, CLOSE))
        done = np.arange(count) / max(count - 1, 1)
        sway = (high - low) * 0.4 * normal(self._seed, keys // 7, 4) * np.sqrt(done * (1 - done))
        price = np.clip(np.rint(first + (last - first) * done + sway), low, high).astype(np.int64)
        price[0], price[-1] = first, last
        inner = 1 + (uniform(self._seed, keys[:2], 5) * max(count - 2, 0)).astype(np.int64)
        spots = [int(spot) for spot in inner if spot < count - 1]
        if high > max(first, last) and spots:
            price[spots[0]] = high
        if low < min(first, last) and spots:
            other = spots[-1] if spots[-1] != spots[0] else (spots[0] + 1 if spots[0] + 1 < count - 1 else spots[0] - 1)
            if 0 < other < count - 1:
                price[other] = low
        return price
