"""The normal distribution on arrays, to a few ulp: W. J. Cody's rational approximations (Math. Comp. 23, 1969)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

SQRT_HALF: Final = 0.7071067811865476
DENSITY_AT_ZERO: Final = 0.3989422804014327  # 1 / √(2π)
_INVERSE_SQRT_PI: Final = 0.5641895835477563
_SMALL: Final = 0.46875
_LARGE: Final = 4.0
# Numerators and denominators, highest power first: of erf(y)/y in y² up to 0.46875, of erfcx(y) in y up to 4, and of
# its distance from 1/(y √π) in 1/y² beyond.
_NEAR: Final = (
    (0.185777706184603153, 3.1611237438705656, 113.864154151050156, 377.485237685302021, 3209.37758913846947),
    (1.0, 23.6012909523441209, 244.024637934444173, 1282.61652607737228, 2844.23683343917062),
)
_MIDDLE: Final = (
    (
        *(2.15311535474403846e-8, 0.564188496988670089, 8.88314979438837594, 66.1191906371416295, 298.635138197400131),
        *(881.95222124176909, 1712.04761263407058, 2051.07837782607147, 1230.33935479799725),
    ),
    (
        *(1.0, 15.7449261107098347, 117.693950891312499, 537.181101862009858, 1621.38957456669019),
        *(3290.79923573345963, 4362.61909014324716, 3439.36767414372164, 1230.33935480374942),
    ),
)
_FAR: Final = (
    (
        *(0.0163153871373020978, 0.305326634961232344, 0.360344899949804439, 0.125781726111229246),
        *(0.0160837851487422766, 6.58749161529837803e-4),
    ),
    (
        *(1.0, 2.56852019228982242, 1.87295284992346725, 0.527905102951428412),
        *(0.0605183413124413191, 0.00233520497626869185),
    ),
)


def erfcx(values: Doubles) -> Doubles:
    """exp(y²) · erfc(y) for y ≥ 0, which neither overflows nor loses its digits; NaN for NaN."""
    result = np.full_like(values, np.nan)
    near, far = values <= _SMALL, values > _LARGE
    if near.any():
        y = values[near]
        square = y * y
        result[near] = np.exp(square) * (1.0 - y * _ratio(_NEAR, square))
    middle = (values > _SMALL) & (values <= _LARGE)
    if middle.any():
        result[middle] = _ratio(_MIDDLE, values[middle])
    if far.any():
        y = values[far]
        with np.errstate(under="ignore"):
            inverse = 1.0 / (y * y)
            result[far] = (_INVERSE_SQRT_PI - inverse * _ratio(_FAR, inverse)) / y
    return result


def cdf(values: Doubles) -> Doubles:
    """The share of the standard normal distribution below each value; full relative precision in the lower tail."""
    with np.errstate(under="ignore"):
        tail = 0.5 * np.exp(-0.5 * values * values) * erfcx(np.abs(values) * SQRT_HALF)
    return np.where(values > 0.0, 1.0 - tail, tail)


def log_cdf(values: Doubles) -> Doubles:
    """The logarithm of `cdf`, also where that itself is too small for a double."""
    tail, square = erfcx(np.abs(values) * SQRT_HALF), 0.5 * values * values
    with np.errstate(under="ignore"):
        return np.where(values < 0.0, np.log(0.5 * tail) - square, np.log1p(-0.5 * tail * np.exp(-square)))


def density(values: Doubles) -> Doubles:
    """The standard normal density at each value."""
    with np.errstate(under="ignore"):
        result: Doubles = DENSITY_AT_ZERO * np.exp(-0.5 * values * values)
    return result


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], at: Doubles) -> Doubles:
    above, below = (_polynomial(each, at) for each in coefficients)
    return above / below


def _polynomial(coefficients: tuple[float, ...], at: Doubles) -> Doubles:
    result = np.full_like(at, coefficients[0])
    for coefficient in coefficients[1:]:
        result *= at
        result += coefficient
    return result
