"""The day-level model: prices that wander, return to a level, and continue where a recording ends."""

from __future__ import annotations

import numpy as np

from market_data.sandbox.block import FIELDS, TRADES, Block, Int
from market_data.sandbox.noise import Float, normal, uniform

# How strongly a day pulls the price back to its level: half the distance in about 250 days.
PULL = 1 / 360


def walked(first: float, level: float, deviation: float, time: Int, seed: int) -> Float:
    """Close of each day: a mean-reverting walk of the logarithm that starts at ``first`` the day before ``time[0]``."""
    shocks = deviation * normal(seed, time, 11)
    home, at = float(np.log(level)), float(np.log(first))
    path = np.empty(len(time))
    for day, shock in enumerate(shocks.tolist()):
        at += PULL * (home - at) + shock
        path[day] = at
    return np.exp(path)


def candles_around(
    opens: Float, closes: Float, volume: Float, deviation: float, trade_size: float | Float, time: Int, seed: int
) -> Block:
    """Whole-tick day candles around a walk.

    ``opens`` and ``closes`` are in price ticks, ``volume`` and ``trade_size`` in volume ticks.
    """
    values = np.empty((FIELDS, len(time)), np.int64)
    values[0] = np.maximum(np.rint(opens), 1)
    values[3] = np.maximum(np.rint(closes), 1)
    reach = 0.8 * deviation
    values[1] = np.rint(np.maximum(values[0], values[3]) * (1 + reach * uniform(seed, time, 12)))
    values[2] = np.maximum(np.rint(np.minimum(values[0], values[3]) * (1 - reach * uniform(seed, time, 13))), 1)
    amount = np.rint(volume * np.exp(0.35 * normal(seed, time, 14))).astype(np.int64)
    return with_flow(Block(time, values), amount, None, trade_size, seed)


def with_flow(prices: Block, volume: Int, quote: Int | None, trade_size: float | Float, seed: int) -> Block:
    """Fill the rows below the prices: who took the volume, for how much, in how many trades.

    ``quote`` is the recorded quote value; None puts it at the candle's typical price.
    """
    values, time = prices.values, prices.time
    span = np.maximum(values[1] - values[2], 1)
    lean = 0.5 + 0.05 * normal(seed, time, 15) + 0.08 * (values[3] - values[0]) / span
    bought = np.rint(volume * np.clip(lean, 0.2, 0.8)).astype(np.int64)
    if quote is None:
        quote = np.rint(volume * (values[0] + values[1] + values[2] + values[3]) / 4.0).astype(np.int64)
    bought_quote = np.rint(quote * (bought / np.maximum(volume, 1))).astype(np.int64)
    values[4:8] = bought, volume - bought, bought_quote, quote - bought_quote
    trades = np.ceil(volume / trade_size * (0.8 + 0.4 * uniform(seed, time, 16)))
    values[TRADES] = np.where(volume > 0, np.maximum(trades, 1), 0)
    return prices
