"""The features of each new candle from the rows in memory, by the same functions and with the same bits as in batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeVar

import numpy as np
import polars as pl

from market_data.model.errors import UsageError
from market_data.model.evaluation import NEAR_ROWS
from market_data.model.feature import Feature
from market_data.model.observation import IntArray, ObservationFrames
from market_data.model.rolling import FloatArray
from market_data.model.timeframe import to_micros
from market_data.model.window import Window

Value = float | str | None
Values = TypeVar("Values", IntArray, FloatArray)


class LiveSeries:
    """The last rows of a series, and the features of the newest.

    Memory is fixed: twice the longest lookback. Not safe for use by several threads at once.
    """

    def __init__(self, features: Sequence[Feature], window: Window) -> None:
        """Begin with what is known.

        Args:
            features: what to compute for each new candle.
            window: the rows so far, at least the longest lookback where there are so many, and the observations so far.
        """
        self._names = [each.name for each in features]
        self._groups = grouped(features, window)
        self._keep = max([lookback for lookback, _ in self._groups], default=0) + 1
        self._series, self._observations = window.series, window.observations
        kept = window.rows(max(0, len(window) - self._keep), len(window))
        self._rows = len(kept)
        self._opens, self._ends = self._grown(kept.opens), self._grown(kept.ends)
        inputs = {name for each in features for name in each.inputs}
        self._columns = {name: self._grown(kept.column(name)) for name in sorted(inputs)}

    def observe(self, observations: Mapping[str, pl.DataFrame]) -> None:
        """Replace the observations; give the declared history of each dataset and whatever is new."""
        self._observations = ObservationFrames(observations)

    def close(self, timestamp: datetime, end: datetime, candle: Mapping[str, float | None]) -> dict[str, Value]:
        """Take in a closed candle and give its features; columns that `candle` lacks are null.

        Raises:
            UsageError: when the candle is not after the last one.
        """
        opens = to_micros(timestamp)
        if self._rows and opens <= self._opens[self._rows - 1]:
            raise UsageError(f"{self._series}: candle {timestamp:%Y-%m-%dT%H:%M:%SZ} is not after the last one")
        if self._rows == len(self._opens):
            self._drop_oldest()
        row = self._rows
        self._opens[row], self._ends[row] = opens, to_micros(end)
        for name, values in self._columns.items():
            value = candle.get(name)
            values[row] = np.nan if value is None else value
        self._rows += 1
        return self.latest()

    def latest(self) -> dict[str, Value]:
        """The features of the last row."""
        out: dict[str, Value] = dict.fromkeys(self._names)
        if self._rows:
            with np.errstate(all="ignore"):
                for lookback, group in self._groups:
                    window = self._window(max(0, self._rows - 1 - lookback))
                    for each in group:
                        out[each.name] = last_value(each, window)
        return out

    def _window(self, start: int) -> Window:
        part = slice(start, self._rows)
        columns = {name: values[part] for name, values in self._columns.items()}
        return Window(self._series, self._opens[part], self._ends[part], columns, self._observations)

    def _drop_oldest(self) -> None:
        kept = slice(self._rows - self._keep + 1, self._rows)
        for values in (self._opens, self._ends, *self._columns.values()):
            values[: self._keep - 1] = values[kept]
        self._rows = self._keep - 1

    def _grown(self, values: Values) -> Values:
        room = np.empty(2 * self._keep, values.dtype)
        room[: len(values)] = values
        return room


def grouped(features: Sequence[Feature], window: Window) -> list[tuple[int, list[Feature]]]:
    """The features that apply, those of no, a near and a far lookback apart, each group with its largest."""
    series = window.series
    reach = {each.name: each.lookback_for(series) for each in features if each.applies(series)}
    groups: list[list[Feature]] = [[], [], []]
    for each in features:
        if each.name in reach:
            groups[(reach[each.name] > 0) + (reach[each.name] > NEAR_ROWS)].append(each)
    return [(max(reach[each.name] for each in group), group) for group in groups if group]


def last_value(each: Feature, window: Window) -> Value:
    """A feature's value in the window's last row; null where it is not known or not finite."""
    value = each.function(window)[-1]
    if each.labels is not None:
        return each.labels[value] if value >= 0 else None
    return float(value) if np.isfinite(value) else None
