"""Cuts: where a series goes on in other shares or as another contract, and what was before, said in what comes after.

Each part of a cut series is evaluated as a window of its own. The rows a window looks back on from before a split are
converted, each by one exact rational factor, rounded once; before a change of contract there is nothing to convert.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

import numpy as np
import polars as pl

from market_data.model.evaluation import Patch, evaluate
from market_data.model.feature import Feature
from market_data.model.observation import IntArray
from market_data.model.rolling import FloatArray
from market_data.model.window import Window

# Money per share: divided by how many shares one became.
PRICES: Final = ("open", "high", "low", "close", "vwap")
# Counted in shares: multiplied.
SHARES: Final = (
    *("volume", "taker_buy_volume", "taker_sell_volume"),
    *("open_interest", "liquidations_long", "liquidations_short"),
)
Number = Decimal | float | None
# Rows [begin, end) of a frame, and how many shares of later rows one of theirs is; None: it cannot be said.
Factor = tuple[int, int, Fraction | None]


@dataclass(frozen=True, slots=True)
class Cut:
    """From `moment` (int64 microseconds UTC) on one share is `ratio` shares; None: nothing of before can be said so.

    The first candle of the new part is the first that ends after the moment.
    """

    moment: int
    ratio: Fraction | None


@dataclass(frozen=True, slots=True)
class Zone:
    """The rows [start, stop) of a frame that look back over a cut, as far as `first`.

    Attributes:
        factors: of the rows from `first` up to `start` those that are in other shares, in order.
    """

    first: int
    start: int
    stop: int
    factors: tuple[Factor, ...]

    def put(self, whole: pl.Series, part: pl.Series) -> pl.Series:
        """`whole` with the rows of the zone from `part`, which begins at `first`."""
        return pl.concat([whole[: self.start], part[self.start - self.first :], whole[self.stop :]])

    def columns(
        self, window: Window, exact: pl.DataFrame | None = None, names: Collection[str] | None = None
    ) -> dict[str, FloatArray]:
        """The columns of rows [first, stop) that differ from the window's, in the shares of the zone.

        Args:
            window: all rows.
            exact: the same rows with decimals where they are known; what is not there is taken from the window.
            names: only these columns; else all that were given.
        """
        own: dict[str, FloatArray] = {}
        for name in window.given if names is None else names:
            for begin, end, ratio in self.factors:
                if ratio is not None and name not in PRICES and name not in SHARES:
                    continue
                if name not in own:
                    own[name] = window.column(name)[self.first : self.stop].copy()
                place = slice(begin - self.first, end - self.first)
                if ratio is None:
                    own[name][place] = np.nan
                elif exact is not None and name in exact.columns:
                    values = exact[name][begin:end].to_list()
                    own[name][place] = [converted(name, value, ratio) for value in values]
                else:
                    own[name][place] = _doubles_converted(name, window.column(name)[begin:end], ratio)
        return own

    def frame(self, doubles: pl.DataFrame, columns: Mapping[str, FloatArray]) -> pl.DataFrame:
        """Rows [first, stop) in the shares of the zone."""
        own = (pl.Series(name, values, nan_to_null=True) for name, values in columns.items())
        return doubles[self.first : self.stop].with_columns(own)

    def window(self, whole: Window, columns: Mapping[str, FloatArray]) -> Window:
        """Rows [first, stop) of a window in the shares of the zone."""
        return whole.rows(self.first, self.stop).with_columns(columns)


def converted(name: str, value: Number, ratio: Fraction) -> float:
    """A value of a column after one share became `ratio`, rounded once to the nearest double; NaN where absent."""
    if value is None or value - value != 0:  # type: ignore[operator]  # of one kind of number
        return np.nan if value is None else float(value)
    numerator, denominator = value.as_integer_ratio()
    if name in PRICES:
        return numerator * ratio.denominator / (denominator * ratio.numerator)
    return numerator * ratio.numerator / (denominator * ratio.denominator)


def _doubles_converted(name: str, values: FloatArray, ratio: Fraction) -> FloatArray:
    if 1 not in (ratio.numerator, ratio.denominator):
        return np.array([converted(name, value, ratio) for value in values.tolist()], np.float64)
    # One operation of doubles is rounded once already.
    whole = float(max(ratio.numerator, ratio.denominator))
    return values / whole if (ratio > 1) == (name in PRICES) else values * whole


def zones(cuts: Sequence[Cut], ends: IntArray, lookback: int) -> list[Zone]:
    """The rows whose look-back of so many rows crosses a cut, part by part.

    Args:
        cuts: in any order.
        ends: when each row of the frame ends, int64 microseconds UTC, increasing.
        lookback: rows before a row that its values may depend on.
    """
    ratios = _by_row(cuts, ends)
    begins = [*ratios, len(ends)]
    found = []
    for place, start in enumerate(begins[:-1] if lookback else []):
        first, stop = max(0, start - lookback), min(start + lookback, begins[place + 1])
        factors: list[Factor] = []
        ratio: Fraction | None = Fraction(1)
        for earlier in reversed(range(place + 1)):
            end = begins[earlier]
            if end <= first:
                break
            step = ratios[end]
            ratio = None if ratio is None or step is None else ratio * step
            factors.append((max(first, begins[earlier - 1] if earlier else 0), end, ratio))
        found.append(Zone(first, start, stop, tuple(f for f in reversed(factors) if f[2] != 1)))
    return found


def rows_of_one_kind(cuts: Sequence[Cut], ends: IntArray) -> IntArray:
    """By row how many rows before it can be said in its shares: those since its contract began, or since the first."""
    place = np.arange(len(ends))
    breaks = [row for row, ratio in _by_row(cuts, ends).items() if ratio is None]
    if not breaks:
        return place
    begins = np.array([0, *breaks], np.int64)
    return place - begins[np.searchsorted(begins, place, side="right") - 1]


def evaluate_in_own_shares(
    features: Sequence[Feature], window: Window, cuts: Sequence[Cut], exact: pl.DataFrame | None = None
) -> pl.DataFrame:
    """`evaluate` of a window with cuts.

    Args:
        features: to evaluate.
        window: the rows as they are, each in the shares of its time.
        cuts: where they change.
        exact: the same rows with decimals where they are known.
    """

    def patches(lookback: int, group: Sequence[Feature]) -> list[Patch]:
        inputs = {name for each in group if each.lookback_for(window.series) for name in each.inputs}
        return [
            Patch(zone.first, zone.start, zone.stop, zone.window(window, zone.columns(window, exact, inputs)))
            for zone in zones(cuts, window.ends, lookback)
        ]

    return evaluate(features, window, patches) if cuts else evaluate(features, window)


def _by_row(cuts: Sequence[Cut], ends: IntArray) -> dict[int, Fraction | None]:
    """By the first row of each new part, in order, what one share of the part before became."""
    ratios: dict[int, Fraction | None] = {}
    for cut in sorted(cuts, key=lambda each: each.moment):
        row = int(np.searchsorted(ends, cut.moment, side="right"))
        if 0 < row < len(ends):
            earlier = ratios.get(row, Fraction(1))
            ratios[row] = None if earlier is None or cut.ratio is None else earlier * cut.ratio
    return {row: ratio for row, ratio in ratios.items() if ratio != 1}
