"""Implied volatilities on arrays: Halley's method on Jäckel's transformed prices, inside a bracket that always shrinks.

The total volatility s = σ√T solves b(x, s) = β for normalised prices. b is convex in s up to s = √(2|x|) and concave
beyond; 1/ln b on the first part and −ln(b_max − b) on the last are close to straight lines, so that a few steps do.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from market_data.model.normal import DENSITY_AT_ZERO, Doubles, cdf
from market_data.model.options import Contracts, normalised

# No total volatility beyond this moves a price any more.
_LARGEST_TOTAL: Final = 40.0
_STEPS: Final = 80
_TOLERANCE: Final = 4e-16
# Each of Halley's steps triples the digits that are right: after one this small there are none left to gain.
_LAST_STEP: Final = 1e-7
_TINY: Final = np.finfo(np.float64).tiny


def implied_volatility(contracts: Contracts, prices: Doubles) -> Doubles:
    """The volatility at which each price is the model's.

    Returns:
        NaN where there is none: a price at or under intrinsic, at or over the ceiling, or not a number; an option that
        is expired.
    """
    excess = (prices - contracts.intrinsic) / contracts.scale
    moneyness = -np.abs(contracts.moneyness)
    # The option out of the money on the other side is worth the same in excess of its intrinsic value of none.
    solvable = (excess > 0.0) & (excess < np.exp(0.5 * moneyness)) & (contracts.years > 0.0)
    result = np.full(len(contracts), np.nan)
    if solvable.any():
        total = _solve(moneyness[solvable], excess[solvable])
        result[solvable] = total / np.sqrt(contracts.years[solvable])
    return result


def _solve(moneyness: Doubles, target: Doubles) -> Doubles:
    """Total volatilities, by steps that leave out what is solved."""
    ceiling = np.exp(0.5 * moneyness)
    inflection = np.sqrt(2.0 * np.abs(moneyness))
    at_inflection = np.where(inflection > 0.0, normalised(moneyness, np.maximum(inflection, _TINY)), 0.0)
    lower = target < at_inflection
    upper = target > 0.5 * (at_inflection + ceiling)
    low = np.where(lower, 0.0, inflection)
    high = np.where(lower, inflection, _LARGEST_TOTAL)
    # Below: where the exponential alone would give the price. Above: the tangent at the inflection, or the flank.
    guess = np.where(
        lower,
        np.abs(moneyness) / np.sqrt(-2.0 * np.log(np.maximum(target, _TINY))),
        inflection + (target - at_inflection) / (DENSITY_AT_ZERO * np.exp(0.5 * moneyness)),
    )
    total = np.clip(guess, low + 1e-12 * (high - low), high)
    open_ = np.arange(len(total))
    for _ in range(_STEPS):
        at = total[open_]
        value = normalised(moneyness[open_], at)
        short = value < target[open_]
        low[open_] = np.where(short, at, low[open_])
        high[open_] = np.where(short, high[open_], at)
        step = _step(moneyness[open_], at, value, target[open_], ceiling[open_], lower[open_], upper[open_])
        following = at + step
        inside = (following > low[open_]) & (following < high[open_])
        settled = (np.abs(step) <= _LAST_STEP * at) | (high[open_] - low[open_] <= _TOLERANCE * at)
        # A step out of the bracket, or none at all, is replaced by halving it.
        halved = np.where(settled, at, 0.5 * (low[open_] + high[open_]))
        total[open_] = np.where(inside, following, halved)
        open_ = open_[~settled]
        if not len(open_):
            break
    return total


def _step(
    moneyness: Doubles,
    at: Doubles,
    value: Doubles,
    target: Doubles,
    ceiling: Doubles,
    lower: NDArray[np.bool_],
    upper: NDArray[np.bool_],
) -> Doubles:
    """Halley's step towards the target, on whichever transform of the price is nearly straight there."""
    with np.errstate(all="ignore"):
        center, half = moneyness / at, 0.5 * at
        slope = DENSITY_AT_ZERO * np.exp(-0.5 * (center * center + half * half))
        bend = center * center / at - 0.25 * at
        newton = (target - value) / slope
        if lower.any():
            logarithm, goal = np.log(np.maximum(value, _TINY)), np.log(np.maximum(target, _TINY))
            newton = np.where(lower, (goal - logarithm) * logarithm / goal * value / slope, newton)
            bend = np.where(lower, bend - slope / value * (1.0 + 2.0 / logarithm), bend)
        if upper.any():
            # What is left to the ceiling, as a sum of two shares that do not cancel.
            left = ceiling * cdf(-(center + half)) + cdf(center - half) / ceiling
            newton = np.where(upper, np.log(left / (ceiling - target)) * left / slope, newton)
            bend = np.where(upper, bend + slope / left, bend)
        halley = newton / np.maximum(1.0 + 0.5 * newton * bend, 0.5)
    return np.where(np.isfinite(halley), halley, np.nan)
