"""Block: a run of candles in whole numbers of ticks, so that coarser candles are exact sums of finer ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Int: TypeAlias = NDArray[np.int64]

OPEN, HIGH, LOW, CLOSE, BUY, SELL, BUY_QUOTE, SELL_QUOTE, TRADES = range(9)
FIELDS = 9
ADDITIVE = slice(BUY, FIELDS)

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Candles in time order.

    ``time``: open times, int64 milliseconds UTC, shape (n,). ``values``: int64, shape (9, n), rows OPEN … TRADES:
    prices in price ticks, volumes taken by buyers and by sellers in volume ticks, their quote value in price tick ×
    volume tick, number of trades.
    """

    time: Int
    values: Int

    def __len__(self) -> int:
        return len(self.time)

    @property
    def volume(self) -> Int:
        """Base volume in volume ticks."""
        total: Int = self.values[BUY] + self.values[SELL]
        return total

    @property
    def quote(self) -> Int:
        """Quote volume in price tick × volume tick."""
        total: Int = self.values[BUY_QUOTE] + self.values[SELL_QUOTE]
        return total

    def where(self, chosen: NDArray[np.bool_] | slice) -> Block:
        """The candles chosen by a mask or a slice."""
        return Block(self.time[chosen], self.values[:, chosen])

    def between(self, start: int, end: int) -> Block:
        """The candles that open in [start, end), milliseconds."""
        first, last = np.searchsorted(self.time, (start, end))
        return self.where(slice(first, last))


EMPTY = Block(np.empty(0, np.int64), np.empty((FIELDS, 0), np.int64))


def joined(blocks: Sequence[Block]) -> Block:
    """Blocks one after another, which must be in time order already."""
    filled = [block for block in blocks if len(block)]
    if len(filled) <= 1:
        return filled[0] if filled else EMPTY
    return Block(np.concatenate([b.time for b in filled]), np.concatenate([b.values for b in filled], axis=1))


def aggregated(block: Block, bucket: Int) -> Block:
    """One candle per run of equal ``bucket`` (the open time each finer candle belongs to, ascending)."""
    if not len(block):
        return EMPTY
    starts = np.flatnonzero(np.r_[True, bucket[1:] != bucket[:-1]])
    lasts = np.r_[starts[1:], len(bucket)] - 1
    values = np.empty((FIELDS, len(starts)), np.int64)
    values[OPEN] = block.values[OPEN, starts]
    values[HIGH] = np.maximum.reduceat(block.values[HIGH], starts)
    values[LOW] = np.minimum.reduceat(block.values[LOW], starts)
    values[CLOSE] = block.values[CLOSE, lasts]
    values[ADDITIVE] = np.add.reduceat(block.values[ADDITIVE], starts, axis=1)
    return Block(bucket[starts], values)
