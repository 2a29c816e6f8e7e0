"""Split candles into finer ones that aggregate back to them exactly, in whole ticks."""

from __future__ import annotations

import numpy as np

from market_data.sandbox.block import (
    BUY,
    BUY_QUOTE,
    CLOSE,
    FIELDS,
    HIGH,
    LOW,
    OPEN,
    SELL,
    SELL_QUOTE,
    TRADES,
    Block,
    Int,
)
from market_data.sandbox.noise import Float, normal, uniform

# A Brownian bridge of unit deviation ranges over about 1.25: this scale makes the path fill the parent's range.
PATH_SCALE = 0.7
WICK_SCALE = 0.5
FEWEST_TRADES = 4
# Solving for an average price: a few steps suffice, and no child's weight falls below exp(-LEAN_LIMIT) of its own.
NEWTON_STEPS = 3
LEAN_LIMIT = 3.0
LEAN_MAX = 12.0


def refined(parents: Block, parts: int, step: int, seed: int, profile: Float | None = None) -> Block:
    """Each candle of ``parents`` as ``parts`` candles of ``step`` milliseconds.

    The children open and close where the parent does, reach its high and its low, and their volumes, quote values and
    trades sum to its own, exactly. They depend on the parent, the seed and their own time, on nothing else.

    Args:
        parents: what to split; each covers ``parts`` × ``step`` milliseconds.
        parts: children per parent.
        step: length of a child.
        seed: of this symbol and level.
        profile: relative activity of each part, shape (parts,); even when None.
    """
    if not len(parents):
        return parents
    time = parents.time[:, None] + np.arange(parts, dtype=np.int64) * step
    prices = _prices(parents, time, seed)
    volumes = _volumes(parents, time, prices, seed, profile)
    values = np.concatenate([prices, volumes]).reshape(FIELDS, -1)
    return Block(time.reshape(-1), values)


def _prices(parents: Block, time: Int, seed: int) -> Int:
    """Open, high, low, close of the children, shape (4, parents, parts)."""
    count, parts = time.shape
    first, high, low, last = (parents.values[row][:, None] for row in (OPEN, HIGH, LOW, CLOSE))
    span = (high - low).astype(np.float64)
    done = np.arange(1, parts + 1) / parts
    walk = np.cumsum(normal(seed, time, 1), axis=1)
    bridge = (walk - walk[:, -1:] * done) * (PATH_SCALE / np.sqrt(parts)) * span
    path = first + (last - first) * done + bridge
    # An arch brings the mean of the path near the parent's average price, which the volumes then meet exactly.
    total = (parents.values[BUY] + parents.values[SELL])[:, None]
    vwap = (parents.values[BUY_QUOTE] + parents.values[SELL_QUOTE])[:, None] / np.maximum(total, 1)
    miss = np.where(total > 0, np.clip(vwap, low, high) - path.mean(axis=1, keepdims=True), 0.0)
    path = path + miss * 6.0 * done * (1.0 - done)
    path = _folded(path - low, span) + low
    prices = np.empty((4, count, parts), np.int64)
    opens, highs, lows, closes = prices
    closes[:] = np.rint(path)
    closes[:, -1:] = last
    opens[:, :1] = first
    opens[:, 1:] = closes[:, :-1]
    np.maximum(opens, closes, out=highs)
    np.minimum(opens, closes, out=lows)
    # The child that comes nearest to an extreme of the parent is the one that reaches it.
    every = np.arange(count)
    top, bottom = highs.argmax(axis=1), lows.argmin(axis=1)
    wick = span * (WICK_SCALE / np.sqrt(parts))
    highs += np.rint(uniform(seed, time, 2) ** 2 * wick).astype(np.int64)
    lows -= np.rint(uniform(seed, time, 3) ** 2 * wick).astype(np.int64)
    np.minimum(highs, high, out=highs)
    np.maximum(lows, low, out=lows)
    highs[every, top] = high[:, 0]
    lows[every, bottom] = low[:, 0]
    return prices


def _folded(distance: Float, span: Float) -> Float:
    """Distance from the low, reflected at both ends of [0, span] until it lies inside."""
    width = np.maximum(span, 1.0)
    wrapped = np.abs(distance) % (2 * width)
    folded: Float = np.minimum(np.where(wrapped > width, 2 * width - wrapped, wrapped), span)
    return folded


def _volumes(parents: Block, time: Int, prices: Int, seed: int, profile: Float | None) -> Int:
    """Bought, sold, their quote values and trades of the children, shape (5, parents, parts)."""
    opens, highs, lows, closes = prices
    bought, sold, bought_quote, sold_quote, trades = (parents.values[row] for row in range(BUY, FIELDS))
    total = bought + sold
    typical = (opens + highs + lows + closes) / 4.0
    spread = np.maximum(highs - lows, 1)
    weight = (0.7 + normal(seed, time, 4) ** 2) * (0.5 + spread / spread.mean(axis=1, keepdims=True))
    if profile is not None:
        weight = weight * profile
    vwap = (bought_quote + sold_quote) / np.maximum(total, 1)
    span = np.maximum(parents.values[HIGH] - parents.values[LOW], 1)[:, None].astype(np.float64)
    weight = _tilted(weight, typical, np.where(total > 0, vwap, typical.mean(axis=1)), span)
    buyers = np.clip(0.5 + 0.07 * normal(seed, time, 5) + 0.12 * (closes - opens) / spread, 0.1, 0.9)
    volumes = np.empty((FIELDS - BUY, *time.shape), np.int64)
    volumes[BUY - BUY] = shared(bought, weight * buyers)
    volumes[SELL - BUY] = shared(sold, weight * (1.0 - buyers))
    amount = volumes[0] + volumes[1]
    value = _valued(bought_quote + sold_quote, amount, prices, typical)
    volumes[BUY_QUOTE - BUY] = _bought_part(bought_quote, value, volumes[0], amount)
    volumes[SELL_QUOTE - BUY] = value - volumes[BUY_QUOTE - BUY]
    # Where volume changed hands there were trades: enough to show four prices, where the parent has as many.
    few = np.minimum(amount, FEWEST_TRADES)
    least = np.where((trades >= few.sum(axis=1))[:, None], few, np.minimum(few, 1))
    least = np.where((trades >= least.sum(axis=1))[:, None], least, 0)
    volumes[TRADES - BUY] = shared(trades - least.sum(axis=1), amount.astype(np.float64)) + least
    return volumes


def _valued(total: Int, amount: Int, prices: Int, typical: Float) -> Int:
    """Quote values summing to ``total``, each between its amount at the child's low and at its high if that can be."""
    ceiling, floor = amount * prices[HIGH], amount * prices[LOW]
    # Kept off the edges first, so that the child's own children find prices on both sides of its average.
    margin = (ceiling - floor) // 4
    value: Int = np.clip(shared(total, amount * typical), floor + margin, ceiling - margin)
    rest = total - value.sum(axis=1)
    room = np.where(rest[:, None] > 0, ceiling - value, value - floor)
    inside = np.minimum(np.abs(rest), room.sum(axis=1))
    value += np.sign(rest)[:, None] * shared(inside, room.astype(np.float64))
    # Left over only where a recording values a candle outside its own prices.
    rest = total - value.sum(axis=1)
    if rest.any():
        weight = np.where(rest[:, None] > 0, amount, value).astype(np.float64)
        value += np.sign(rest)[:, None] * shared(np.abs(rest), weight)
    return value


def _bought_part(total: Int, value: Int, bought: Int, amount: Int) -> Int:
    """What buyers paid of each child's ``value``: in proportion to what they took, summing to ``total``."""
    part: Int = np.floor(value * (bought / np.maximum(amount, 1))).astype(np.int64)
    part = np.minimum(part, value)
    rest = total - part.sum(axis=1)
    room = np.where(rest[:, None] > 0, value - part, part)
    part += np.sign(rest)[:, None] * shared(np.abs(rest), room.astype(np.float64))
    return part


def _tilted(weight: Float, price: Float, target: Float, span: Float) -> Float:
    """Weights leaning to higher or lower prices until their mean price is ``target``, the parent's average price."""
    away = (price - target[:, None]) / span
    lean = np.zeros((len(price), 1))
    for _ in range(NEWTON_STEPS):
        leaning = weight * np.exp(np.clip(lean * away, -LEAN_LIMIT, LEAN_LIMIT))
        total = leaning.sum(axis=1, keepdims=True)
        mean = (leaning * away).sum(axis=1, keepdims=True) / total
        variance = (leaning * away**2).sum(axis=1, keepdims=True) / total - mean**2
        lean = np.clip(lean - mean / np.maximum(variance, 1e-4), -LEAN_MAX, LEAN_MAX)
    return weight * np.exp(np.clip(lean * away, -LEAN_LIMIT, LEAN_LIMIT))


def shared(total: Int, weight: Float) -> Int:
    """Whole numbers in proportion to ``weight`` (parents, parts) that sum to ``total`` (parents,) exactly."""
    edges = np.cumsum(weight, axis=1)
    whole = edges[:, -1:]
    even = np.arange(1, weight.shape[1] + 1) / weight.shape[1]
    share = np.where(whole > 0, edges / np.where(whole > 0, whole, 1.0), even)
    cuts = np.minimum(np.floor(total[:, None] * share).astype(np.int64), total[:, None])
    cuts[:, -1] = total
    return np.diff(cuts, axis=1, prepend=0)
