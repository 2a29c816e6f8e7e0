"""The features of each new candle from the rows in memory, by the same functions and with the same bits as in batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from typing import Final, TypeVar

import numpy as np
import polars as pl

from market_data.model.cuts import PRICES, SHARES, Number, converted
from market_data.model.errors import UsageError
from market_data.model.evaluation import NEAR_ROWS
from market_data.model.feature import Feature
from market_data.model.observation import IntArray, ObservationFrames
from market_data.model.rolling import FloatArray
from market_data.model.timeframe import from_micros, to_micros
from market_data.model.window import Window

Value = float | str | None
Values = TypeVar("Values", IntArray, FloatArray)
_SAME: Final = Fraction(1)


class LiveSeries:
    """The last rows of a series, and the features of the newest.

    Memory is fixed: twice the lookback of each feature's inputs. Not safe for use by several threads at once.
    """

    def __init__(
        self, features: Sequence[Feature], window: Window, told: Mapping[str, Sequence[Number]] | None = None
    ) -> None:
        """Begin with what is known.

        Args:
            features: what to compute for each new candle.
            window: the rows so far, at least the longest lookback where there are so many, and the observations so far.
            told: the window's prices and volumes as exact numbers, by column: what a later cut converts. Without them
                it converts the window's own.
        """
        self._names = [each.name for each in features]
        self._observations = window.observations
        self._series = window.series
        told = told or {}
        self._groups = [
            (_Recent(window, lookback, group, told), group) for lookback, group in _grouped(features, window)
        ]
        self._last = int(window.opens[-1]) if len(window) else None

    def observe(self, observations: Mapping[str, pl.DataFrame]) -> None:
        """Replace the observations; give the declared history of each dataset and whatever is new."""
        self._observations = ObservationFrames(observations)

    def cut(self, ratio: Fraction | None) -> None:
        """Go on in other shares: `ratio` for each of before; None as another contract, of which nothing is known yet.

        Call it before the first candle that ends after the cut. Where an older cut becomes known, or one falls away,
        begin anew with a window of the stored rows.
        """
        for recent, _ in self._groups:
            recent.cut(ratio)

    def close(self, timestamp: datetime, end: datetime, candle: Mapping[str, Number]) -> dict[str, Value]:
        """Take in a closed candle and give its features; columns that `candle` lacks are null.

        Exact numbers are kept as such, so that a later cut rounds them once.

        Raises:
            UsageError: when the candle is not after the last one.
        """
        opens, ends = to_micros(timestamp), to_micros(end)
        if self._last is not None and opens <= self._last:
            raise UsageError(f"{self._series}: a candle of {timestamp} is not after {from_micros(self._last)}")
        self._last = opens
        for recent, _ in self._groups:
            recent.append(opens, ends, candle)
        return self.latest()

    def latest(self) -> dict[str, Value]:
        """The features of the last row."""
        out: dict[str, Value] = dict.fromkeys(self._names)
        if self._last is not None:
            with np.errstate(all="ignore"):
                for recent, group in self._groups:
                    window = recent.window(self._observations)
                    for each in group:
                        out[each.name] = _last_value(each, window)
        return out


class _Recent:
    """The rows a group of features needs for the newest row, in arrays twice as long as that."""

    __slots__ = ("_columns", "_ends", "_keep", "_opens", "_ratios", "_rows", "_series", "_told")

    def __init__(
        self, window: Window, lookback: int, features: Sequence[Feature], told: Mapping[str, Sequence[Number]]
    ) -> None:
        self._series = window.series
        self._keep = lookback + 1
        first = max(0, len(window) - self._keep)
        kept = window.rows(first, len(window))
        self._rows = len(kept)
        self._opens, self._ends = self._with_room(kept.opens), self._with_room(kept.ends)
        inputs = sorted({name for each in features for name in each.inputs})
        self._columns = {name: self._with_room(kept.column(name)) for name in inputs}
        # As they were told, in the shares of their own time, and how many of today's one of those is.
        self._told = {
            name: list(told[name][first:] if name in told else kept.column(name).tolist())
            for name in inputs
            if name in PRICES or name in SHARES
        }
        self._ratios = [_SAME] * self._rows

    def append(self, opens: int, ends: int, candle: Mapping[str, Number]) -> None:
        if self._rows == len(self._opens):
            kept = slice(self._rows - self._keep + 1, self._rows)
            for values in (self._opens, self._ends, *self._columns.values()):
                values[: self._keep - 1] = values[kept]
            for told in (self._ratios, *self._told.values()):
                del told[: kept.start]
            self._rows = self._keep - 1
        row = self._rows
        self._opens[row], self._ends[row] = opens, ends
        for name, values in self._columns.items():
            value = candle.get(name)
            values[row] = np.nan if value is None else value
            if name in self._told:
                self._told[name].append(value)
        self._ratios.append(_SAME)
        self._rows = row + 1

    def cut(self, ratio: Fraction | None) -> None:
        if ratio is None:
            for values in self._columns.values():
                values[: self._rows] = np.nan
            self._told = {name: [None] * self._rows for name in self._told}
            return
        self._ratios = [before * ratio for before in self._ratios]
        for name, told in self._told.items():
            rows = zip(told, self._ratios, strict=True)
            self._columns[name][: self._rows] = [converted(name, value, before) for value, before in rows]

    def window(self, observations: ObservationFrames) -> Window:
        part = slice(max(0, self._rows - self._keep), self._rows)
        columns = {name: values[part] for name, values in self._columns.items()}
        return Window(self._series, self._opens[part], self._ends[part], columns, observations)

    def _with_room(self, values: Values) -> Values:
        room = np.empty(2 * self._keep, values.dtype)
        room[: len(values)] = values
        return room


def _grouped(features: Sequence[Feature], window: Window) -> list[tuple[int, list[Feature]]]:
    """The features that apply, those of no, a near and a far lookback apart, each group with its largest."""
    series = window.series
    groups: list[list[tuple[int, Feature]]] = [[], [], []]
    for each in features:
        if each.applies(series):
            reach = each.lookback_for(series)
            groups[(reach > 0) + (reach > NEAR_ROWS)].append((reach, each))
    return [(max(reach for reach, _ in group), [each for _, each in group]) for group in groups if group]


def _last_value(each: Feature, window: Window) -> Value:
    """A feature's value in the window's last row; null where it is not known or not finite."""
    value = each.function(window)[-1].item()
    if each.labels is not None:
        return each.labels[value] if value >= 0 else None
    # Arithmetic of one number is much cheaper in Python than in NumPy.
    return value if math.isfinite(value) else None
