"""European options by Black, Scholes and Merton on arrays: prices and greeks; volatilities are in `implied`.

Units everywhere: time in years of 365 days, volatility, rate and dividend yield per year as fractions, the latter two
continuously compounded. Theta is per calendar day, vega and rho are per percentage point, delta and gamma per 1.00.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from market_data.model.normal import SQRT_HALF, Doubles, cdf, density, erfcx

DAYS_A_YEAR: Final = 365.0
POINTS: Final = 100.0


@dataclass(frozen=True, slots=True)
class Contracts:
    """Options beside one another: arrays of one length.

    `years` is the time to expiry; everything but `rate` and `dividend_yield` is above zero.
    """

    call: NDArray[np.bool_]
    spot: Doubles
    strike: Doubles
    years: Doubles
    rate: Doubles
    dividend_yield: Doubles

    @classmethod
    def of(
        cls,
        call: ArrayLike,
        spot: ArrayLike,
        strike: ArrayLike,
        years: ArrayLike,
        rate: ArrayLike = 0.0,
        dividend_yield: ArrayLike = 0.0,
    ) -> Contracts:
        """Contracts from anything NumPy takes for an array; single values hold for all."""
        numbers = (np.asarray(each, np.float64) for each in (spot, strike, years, rate, dividend_yield))
        flags, *others = np.broadcast_arrays(np.atleast_1d(np.asarray(call, np.bool_)), *numbers)
        return cls(flags, *others)

    def __len__(self) -> int:
        return len(self.strike)

    def __getitem__(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Contracts:
        """Some of them."""
        return Contracts(
            self.call[chosen],
            self.spot[chosen],
            self.strike[chosen],
            self.years[chosen],
            self.rate[chosen],
            self.dividend_yield[chosen],
        )

    @property
    def sign(self) -> Doubles:
        """1 for calls, −1 for puts."""
        return np.where(self.call, 1.0, -1.0)

    @property
    def discounted_spot(self) -> Doubles:
        """What the forward is worth today."""
        return self.spot * np.exp(-self.dividend_yield * self.years)

    @property
    def discounted_strike(self) -> Doubles:
        """What the strike is worth today."""
        return self.strike * np.exp(-self.rate * self.years)

    @property
    def moneyness(self) -> Doubles:
        """Logarithm of forward over strike."""
        return np.log(self.spot / self.strike) + (self.rate - self.dividend_yield) * self.years

    @property
    def scale(self) -> Doubles:
        """What a normalised price is in units of: the geometric mean of discounted spot and strike."""
        return np.sqrt(self.discounted_spot * self.discounted_strike)

    @property
    def intrinsic(self) -> Doubles:
        """The least a European option can be worth."""
        return np.maximum(self.sign * (self.discounted_spot - self.discounted_strike), 0.0)

    @property
    def ceiling(self) -> Doubles:
        """What a European option is worth less than."""
        return np.where(self.call, self.discounted_spot, self.discounted_strike)


@dataclass(frozen=True, slots=True)
class Greeks:
    """Sensitivities in the units of the module."""

    delta: Doubles
    gamma: Doubles
    theta: Doubles
    vega: Doubles
    rho: Doubles


def price(contracts: Contracts, volatility: Doubles) -> Doubles:
    """What each is worth; precise relative to the value over the intrinsic one, however small."""
    total = volatility * np.sqrt(contracts.years)
    return contracts.intrinsic + contracts.scale * normalised(-np.abs(contracts.moneyness), total)


def greeks(contracts: Contracts, volatility: Doubles) -> Greeks:
    """The sensitivities of each."""
    root = np.sqrt(contracts.years)
    total = volatility * root
    d1 = contracts.moneyness / total + 0.5 * total
    sign, spot, strike = contracts.sign, contracts.discounted_spot, contracts.discounted_strike
    of_spot, of_strike = cdf(sign * d1), cdf(sign * (d1 - total))
    dense = density(d1)
    decay = -spot * dense * volatility / (2.0 * root)
    carry = sign * (contracts.dividend_yield * spot * of_spot - contracts.rate * strike * of_strike)
    return Greeks(
        delta=sign * spot / contracts.spot * of_spot,
        gamma=spot / contracts.spot * dense / (contracts.spot * total),
        theta=(decay + carry) / DAYS_A_YEAR,
        vega=spot * dense * root / POINTS,
        rho=sign * contracts.years * strike * of_strike / POINTS,
    )


def normalised(moneyness: Doubles, total: Doubles) -> Doubles:
    """A call out of the money in units of `Contracts.scale`; after P. Jäckel, "Let's be rational" (2015).

    Args:
        moneyness: logarithm of forward over strike, at most 0.
        total: volatility times the root of time, above 0.
    """
    center, half = moneyness / total, 0.5 * total
    result = np.empty_like(center)
    low = center + half <= 0.0
    # Out in the tail both terms nearly cancel: what they share is taken out before they are subtracted.
    far, near = center[low], half[low]
    with np.errstate(under="ignore"):
        shared = 0.5 * np.exp(-0.5 * (far * far + near * near))
        result[low] = shared * (erfcx(-(far + near) * SQRT_HALF) - erfcx(-(far - near) * SQRT_HALF))
    high = ~low
    grown = np.exp(0.5 * moneyness[high])
    result[high] = grown * cdf(center[high] + half[high]) - cdf(center[high] - half[high]) / grown
    return np.maximum(result, 0.0)
