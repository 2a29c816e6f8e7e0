"""Candles of the premium index, as Binance's futures market and its archive write them: no volumes, other digits."""

from __future__ import annotations

import numpy as np

from market_data.sandbox.block import MINUTE
from market_data.sandbox.buckets import Span
from market_data.sandbox.derivatives import Derivatives

DIGITS = 8
# The index is published every five seconds; a candle says how many times it was.
PUBLISHED_MS = 5000
# The model's curve bends slowly: a look every minute, at least so many a candle, finds its extremes.
LEAST_LOOKS = 6


def premium_rows(known: Derivatives, span: Span, first: int, after: int, now: int) -> list[list[object]]:
    """Rows of candles that open in [first, after), those that opened by ``now``; the forming one ends at ``now``."""
    opens = np.arange(first, min(after, now + 1), span.length, dtype=np.int64)
    if not len(opens):
        return []
    looks = max(LEAST_LOOKS, min(span.length // MINUTE, 60) + 1)
    steps = np.linspace(0, span.length - 1, looks).astype(np.int64)
    moments = np.minimum(opens[:, None] + steps, now)
    index = np.round(known.premium(moments.ravel()).reshape(moments.shape), DIGITS)
    values = (index[:, 0], index.max(axis=1), index.min(axis=1), index[:, -1])
    return [
        [opened, *(f"{value:.{DIGITS}f}" for value in row), "0", opened + span.length - 1, "0",
         span.length // PUBLISHED_MS, "0", "0", "0"]
        for opened, row in zip(opens.tolist(), zip(*(column.tolist() for column in values), strict=True), strict=True)
    ]  # fmt: skip
