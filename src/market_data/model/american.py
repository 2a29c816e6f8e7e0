"""American options on arrays: prices by Bjerksund and Stensland (1993), greeks by differences, implied volatilities.

The approximation exercises at one flat boundary, so that it is a lower bound, usually within half a per cent. Units are
those of `options`. Where early exercise is never worth while (calls that pay no dividends, puts without interest) the
European formula is exact and is used.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from market_data.model import options
from market_data.model.implied import implied_volatility as european_volatility
from market_data.model.normal import Doubles, cdf, log_cdf
from market_data.model.options import DAYS_A_YEAR, POINTS, Contracts, Greeks

# Steps of the differences: of spot in shares of it, of volatility and rate per year, of time in shares of it.
_SPOT_STEP: Final = 1e-3
_VOLATILITY_STEP: Final = 1e-3
_RATE_STEP: Final = 1e-4
_TIME_STEP: Final = 1e-3
_STEPS: Final = 60
# Of the price, in shares of the spot.
_TOLERANCE: Final = 1e-9
# No total volatility beyond this moves a price any more.
_LARGEST: Final = 20.0


def exercised_early(contracts: Contracts) -> NDArray[np.bool_]:
    """Whether early exercise may be worth while."""
    return np.where(contracts.call, contracts.dividend_yield > 0.0, contracts.rate > 0.0)


def price(contracts: Contracts, volatility: Doubles) -> Doubles:
    """What each is worth, at least as much as at once and as the European one."""
    worth = options.price(contracts, volatility)
    early = np.flatnonzero(exercised_early(contracts))
    if len(early):
        chosen = contracts[early]
        # A put is a call on the strike, paid in stock, with rate and dividend yield exchanged.
        call = chosen.call
        spot, strike = np.where(call, chosen.spot, chosen.strike), np.where(call, chosen.strike, chosen.spot)
        rate = np.where(call, chosen.rate, chosen.dividend_yield)
        dividends = np.where(call, chosen.dividend_yield, chosen.rate)
        value = _call(spot, strike, chosen.years, rate, rate - dividends, volatility[early])
        floor = np.maximum(spot - strike, worth[early])
        worth[early] = np.fmax(value, floor)
    return worth


def greeks(contracts: Contracts, volatility: Doubles) -> Greeks:
    """The sensitivities of each, by central differences of `price` where early exercise matters."""
    exact = options.greeks(contracts, volatility)
    early = np.flatnonzero(exercised_early(contracts))
    if not len(early):
        return exact
    at, sigma = contracts[early], volatility[early]
    middle, step = price(at, sigma), _SPOT_STEP * at.spot
    up, down = (price(replace(at, spot=at.spot + side * step), sigma) for side in (1, -1))
    time = _TIME_STEP * at.years
    later, sooner = (price(replace(at, years=at.years + side * time), sigma) for side in (1, -1))
    more, less = (price(at, sigma + side * _VOLATILITY_STEP * sigma) for side in (1, -1))
    dear, cheap = (price(replace(at, rate=at.rate + side * _RATE_STEP), sigma) for side in (1, -1))
    found = {
        "delta": (up - down) / (2 * step),
        "gamma": (up - 2 * middle + down) / step**2,
        "theta": -(later - sooner) / (2 * time) / DAYS_A_YEAR,
        "vega": (more - less) / (2 * _VOLATILITY_STEP * sigma) / POINTS,
        "rho": (dear - cheap) / (2 * _RATE_STEP) / POINTS,
    }
    for name, values in found.items():
        getattr(exact, name)[early] = values
    return exact


def implied_volatility(contracts: Contracts, prices: Doubles) -> Doubles:
    """The volatility at which each price is the model's.

    Returns:
        NaN where there is none: a price at or under what exercise at once brings, or beyond what any volatility gives.
    """
    at_once = contracts.sign * (contracts.spot - contracts.strike)
    sold = (prices > np.maximum(at_once, 0.0)) & (prices < np.where(contracts.call, contracts.spot, contracts.strike))
    # An American option is worth more at the same volatility: the European answer is never too low.
    result = np.where(sold, european_volatility(contracts, prices), np.nan)
    early = exercised_early(contracts)
    # Dearer than any European one.
    beyond = sold & early & (prices >= contracts.ceiling) & (contracts.years > 0.0)
    result[beyond] = _LARGEST / np.sqrt(contracts.years[beyond])
    open_ = np.flatnonzero(early & ~np.isnan(result))
    if len(open_):
        result[open_] = _solve(contracts[open_], prices[open_], result[open_])
    return result


def _solve(contracts: Contracts, prices: Doubles, highest: Doubles) -> Doubles:
    """Volatilities by secants inside a bracket that begins at `highest` and always shrinks."""
    low, high, result = np.zeros_like(highest), highest.copy(), highest.copy()
    # The first secant leans on the European slope, taken where the search begins.
    before, excess_before = highest, np.full_like(highest, np.nan)
    slope = POINTS * options.greeks(contracts, highest).vega
    open_ = np.arange(len(highest))
    for _ in range(_STEPS):
        at, sigma, goal = contracts[open_], result[open_], prices[open_]
        excess = price(at, sigma) - goal
        under = excess < 0.0
        low[open_], high[open_] = np.where(under, sigma, low[open_]), np.where(under, high[open_], sigma)
        with np.errstate(divide="ignore", invalid="ignore"):
            secant = (excess - excess_before) / (sigma - before)
            following = sigma - excess / np.where(np.isfinite(secant) & (secant > 0.0), secant, slope)
        inside = (following > low[open_]) & (following < high[open_])
        settled = (np.abs(excess) <= _TOLERANCE * at.spot) | (high[open_] - low[open_] <= 1e-12 * high[open_])
        halved = 0.5 * (low[open_] + high[open_])
        result[open_] = np.where(settled, sigma, np.where(inside, following, halved))
        left = ~settled
        if not left.any():
            break
        open_, before, excess_before, slope = open_[left], sigma[left], excess[left], slope[left]
    return result


def _call(
    spot: Doubles, strike: Doubles, years: Doubles, rate: Doubles, carry: Doubles, volatility: Doubles
) -> Doubles:
    """A call that costs `carry` a year to hold, exercised where the spot reaches one flat boundary."""
    variance = volatility * volatility
    total = volatility * np.sqrt(years)
    with np.errstate(all="ignore"):
        ratio = carry / variance
        power = 0.5 - ratio + np.sqrt((ratio - 0.5) ** 2 + 2.0 * rate / variance)
        perpetual = power / (power - 1.0) * strike
        final = np.maximum(strike, rate / (rate - carry) * strike)
        growth = -(carry * years + 2.0 * total) * final / (perpetual - final)
        boundary = final + (perpetual - final) * (-np.expm1(growth))
        gain = boundary - strike

        def share(exponent: Doubles | float, target: Doubles) -> Doubles:
            """The part of spot^exponent that is met before the boundary is, and ends beyond `target`."""
            drift = (-rate + exponent * carry + 0.5 * exponent * (exponent - 1.0) * variance) * years
            kappa = 2.0 * ratio + 2.0 * exponent - 1.0
            d = -(np.log(spot / target) + (carry + (exponent - 0.5) * variance) * years) / total
            away = np.log(boundary / spot)
            # Both factors of the reflected part may leave the range of doubles, their product does not.
            reflected = np.exp(kappa * away + log_cdf(d - 2.0 * away / total))
            result: Doubles = np.exp(drift) * (cdf(d) - reflected)
            return result

        paid = gain * np.exp(power * np.log(spot / boundary)) * (1.0 - share(power, boundary))
        value: Doubles = (
            paid
            + spot * (share(1.0, boundary) - share(1.0, strike))
            - strike * (share(0.0, boundary) - share(0.0, strike))
        )
        return np.where(spot >= boundary, spot - strike, np.where(np.isfinite(value), value, np.nan))
