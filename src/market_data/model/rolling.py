"""Numeric kernels whose result for a row depends on its window alone, to the last bit.

Only +, -, *, / and sqrt of IEEE 754 are used, each rounded the same on every machine, in an order fixed by the window's
length. So a value does not depend on where an array began, how it was cut, its alignment, or the processor: np.log is
avoided for the last reason. NaN contaminates exactly the windows that contain it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import combinations
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]

# log((1 + s) / (1 - s)) = 2 s + s R(s * s) with |error of R| < 2^-58.45 for |s| <= 3 - 2 sqrt(2); coefficients, highest
# power first, from FreeBSD's e_log.c ("freely granted" by Sun Microsystems, 1993).
_LOG_COEFFICIENTS: Final = (
    1.479819860511658591e-01,
    1.531383769920937332e-01,
    1.818357216161805012e-01,
    2.222219843214978396e-01,
    2.857142874366239149e-01,
    3.999999999940941908e-01,
    6.666666666666735130e-01,
)
_LOG_REACH_SQUARED: Final = (3 - 2 * 2**0.5) ** 2
_LN2_HIGH: Final = 6.93147180369123816490e-01
_LN2_LOW: Final = 1.90821492927058770002e-10
# Above it the sum of two prices would overflow.
_LARGEST_PRICE: Final = 1e300


def shifted(values: FloatArray, rows: int) -> FloatArray:
    """The value `rows` rows earlier; NaN where there is no such row."""
    out = np.empty_like(values)
    out[:rows] = np.nan
    out[rows:] = values[: max(0, len(values) - rows)]
    return out


def log_ratio(later: FloatArray, earlier: FloatArray) -> FloatArray:
    """Natural logarithm of later / earlier, within 2 units in the last place; 0 exactly when they are equal.

    NaN where either is not a positive number below 1e300.
    """
    return _log_ratio(_prices(later), _prices(earlier))


def log_steps(prices: FloatArray) -> FloatArray:
    """`log_ratio` of each price and the one before it; NaN for the first."""
    out = np.empty_like(prices)
    out[:1] = np.nan
    prices = _prices(prices)
    out[1:] = _log_ratio(prices[1:], prices[:-1])
    return out


def _log_ratio(later: FloatArray, earlier: FloatArray) -> FloatArray:
    s = later - earlier
    s /= later + earlier
    z = s * s
    far = z > _LOG_REACH_SQUARED
    out = _log_of_near(s, z)
    if far.any():
        out[far] = _log_of_far(later[far], earlier[far])
    return out


def _prices(values: FloatArray) -> FloatArray:
    if len(values) == 0 or (values.min() > 0 and values.max() < _LARGEST_PRICE):
        return values
    return np.where((values > 0) & (values < _LARGEST_PRICE), values, np.nan)


def _log_of_near(s: FloatArray, z: FloatArray) -> FloatArray:
    r = z * _LOG_COEFFICIENTS[0]
    for coefficient in _LOG_COEFFICIENTS[1:-1]:
        r += coefficient
        r *= z
    r += _LOG_COEFFICIENTS[-1]
    r *= z
    r += 2.0
    r *= s
    return r


def _log_of_far(later: FloatArray, earlier: FloatArray) -> FloatArray:
    later, later_exponent = np.frexp(later)
    earlier, earlier_exponent = np.frexp(earlier)
    exponent = (later_exponent - earlier_exponent).astype(np.float64)
    # Bring later / earlier, now between 1/2 and 2, between sqrt(1/2) and sqrt(2).
    large, small = later > earlier * 2**0.5, later * 2**0.5 < earlier
    later = np.where(large, later * 0.5, np.where(small, later * 2, later))
    exponent += large
    exponent -= small
    s = (later - earlier) / (later + earlier)
    near = _log_of_near(s, s * s)
    return exponent * _LN2_HIGH + (near + exponent * _LN2_LOW)


class Doublings:
    """Sums and squared deviations of the last 1, 2, 4, 8 … values, each level made of two of the level below.

    A level's array begins at the first row that has so many values: its entry 0 belongs to row 2^level - 1.
    """

    __slots__ = ("_squares", "_sums")

    def __init__(self, values: FloatArray) -> None:
        self._sums: list[FloatArray] = [values]
        # Level 0 has no deviation; its place is never read.
        self._squares: list[FloatArray] = [values]

    def sum_of_last(self, rows: int) -> FloatArray:
        """Sum of the last `rows` values; NaN until there are so many."""
        out, full = _room(len(self._sums[0]), rows)
        if len(full):
            newest, *older = self._pieces(rows, len(full), self._sum)
            if not older:
                full[:] = newest
            for piece in older:
                newest = np.add(newest, piece, out=full)
        return out

    def deviation_of_last(self, rows: int) -> FloatArray:
        """Sample standard deviation (divisor rows - 1) of the last `rows` values; NaN until there are so many.

        The pieces' squared deviations are added, and those between the pieces' means (Chan, Golub, LeVeque 1979). The
        pieces are powers of two long, so their means are exact multiples: a constant window gives exactly 0.
        """
        out, full = _room(len(self._sums[0]), rows)
        if len(full):
            newest, *older = self._pieces(rows, len(full), self._square)
            if not older:
                full[:] = newest
            for piece in older:
                newest = np.add(newest, piece, out=full)
            self._add_between(rows, full)
            full /= rows - 1
            np.sqrt(full, out=full)
        return out

    def _add_between(self, rows: int, out: FloatArray) -> None:
        """Add the squared deviations between the means of the pieces."""
        sizes = [1 << level for level in _levels(rows)]
        means = [piece * (1 / size) for size, piece in zip(sizes, self._pieces(rows, len(out), self._sum), strict=True)]
        for (size, mean), (other_size, other_mean) in combinations(zip(sizes, means, strict=True), 2):
            between = mean - other_mean
            between *= between
            between *= size * other_size / rows
            out += between

    def _pieces(self, rows: int, count: int, of_level: Callable[[int], FloatArray]) -> list[FloatArray]:
        """For the last `count` rows, the levels that together make up `rows` values, the newest values first."""
        pieces = []
        older = rows
        for level in _levels(rows):
            older -= 1 << level
            values = of_level(level)
            if level or of_level != self._square:
                pieces.append(values[older : older + count])
        return pieces

    def _sum(self, level: int) -> FloatArray:
        while len(self._sums) <= level:
            size = 1 << (len(self._sums) - 1)
            half = self._sums[-1]
            self._sums.append(half[size:] + half[:-size])
        return self._sums[level]

    def _square(self, level: int) -> FloatArray:
        while len(self._squares) <= level:
            below = len(self._squares) - 1
            size = 1 << below
            half = self._sum(below)
            whole = half[size:] - half[:-size]
            whole *= whole
            whole *= 0.5 / size
            if below:
                squares = self._squares[below]
                whole += squares[size:]
                whole += squares[:-size]
            self._squares.append(whole)
        return self._squares[level]


@cache
def _levels(rows: int) -> tuple[int, ...]:
    return tuple(level for level in reversed(range(rows.bit_length())) if rows >> level & 1)


def _room(length: int, rows: int) -> tuple[FloatArray, FloatArray]:
    """A new array whose first rows - 1 entries are NaN, and the rest of it."""
    out = np.empty(length)
    out[: rows - 1] = np.nan
    return out, out[rows - 1 :]
