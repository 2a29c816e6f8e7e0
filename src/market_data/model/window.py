"""Window: what a feature function sees of a series, with the shared intermediates computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from market_data.model.errors import UsageError
from market_data.model.instrument import Series
from market_data.model.rolling import Doublings, FloatArray, log_ratio, shifted
from market_data.model.timeframe import MICROSECOND

IntArray: TypeAlias = NDArray[np.int64]
# Part of every feature's version: raise it when a change here or in rolling.py changes a bit of any result.
ENGINE_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Observations:
    """Values of one dataset on their own clock, in the order in which they became known.

    `timestamp` and `known_at` are int64 microseconds UTC, both increasing; `values` are float64 columns of the same
    length. A value that became known after one with a later or the same timestamp is left out: it never was current.
    """

    timestamp: IntArray
    known_at: IntArray
    values: Mapping[str, FloatArray]

    @classmethod
    def of(cls, frame: pl.DataFrame, *columns: str) -> Observations:
        """The observations of a frame with `timestamp`, `known_at` and the columns; rows with a null are left out."""
        known = (
            frame.select("timestamp", "known_at", *(pl.col(name).cast(pl.Float64) for name in columns))
            .drop_nulls()
            .sort("known_at", "timestamp")
        )
        timestamp = _micros(known["timestamp"])
        current = np.ones(len(timestamp), np.bool_)
        current[1:] = timestamp[1:] > np.maximum.accumulate(timestamp)[:-1]
        known = known.filter(current)
        values = {name: _readonly(known[name].to_numpy()) for name in columns}
        return cls(timestamp[current], _micros(known["known_at"]), values)

    def __len__(self) -> int:
        return len(self.timestamp)

    def current(self, moments: IntArray, max_age: timedelta) -> IntArray:
        """Index of the newest observation known at each moment; -1 where none is, or it is older than `max_age`."""
        index = np.searchsorted(self.known_at, moments, side="right") - 1
        if not len(self):
            return index
        index[moments - self.timestamp[index] > max_age // MICROSECOND] = -1
        return index


class Window:
    """A run of one series' candles in order, as arrays; what a feature function is given.

    Arrays are shared between features and read-only. Absent values are NaN. `opens` and `ends` are int64 microseconds
    UTC. A feature's value for a row may use that row and the feature's `lookback` rows before it, and observations;
    the methods here keep to that, to the bit, wherever the window begins.
    """

    def __init__(
        self,
        series: Series,
        opens: IntArray,
        ends: IntArray,
        columns: Mapping[str, FloatArray],
        observations: Mapping[str, pl.DataFrame],
        observed: dict[object, Observations] | None = None,
    ) -> None:
        self.series = series
        self.opens = opens
        self.ends = ends
        self.observations = observations
        self._columns = dict(columns)
        self._memo: dict[object, object] = {}
        # Shared by all parts of a window, which see the same observations.
        self._observed = {} if observed is None else observed

    @classmethod
    def of(cls, series: Series, frame: pl.DataFrame, observations: Mapping[str, pl.DataFrame] | None = None) -> Window:
        """The window of a frame.

        Args:
            series: whose candles they are.
            frame: sorted by `timestamp` (open time, Datetime us UTC), with `end` (Datetime us UTC) and Float64 columns
                open, high, low, close, volume and, where known, those that features of derivatives read.
            observations: dataset name to frame with `timestamp`, `known_at` and values.

        Raises:
            UsageError: when timestamps do not strictly increase.
        """
        opens = _micros(frame["timestamp"])
        if len(opens) > 1 and not (opens[1:] > opens[:-1]).all():
            raise UsageError(f"{series}: timestamps of a window must strictly increase")
        columns = {
            column.name: _readonly(column.to_numpy()) for column in frame.iter_columns() if column.dtype == pl.Float64
        }
        return cls(series, opens, _micros(frame["end"]), columns, observations or {})

    def __len__(self) -> int:
        return len(self.opens)

    def rows(self, start: int, stop: int) -> Window:
        """The part [start, stop), counted in rows from 0, with the same observations; no array is copied."""
        columns = {name: values[start:stop] for name, values in self._columns.items()}
        return Window(
            self.series, self.opens[start:stop], self.ends[start:stop], columns, self.observations, self._observed
        )

    def restricted(self, columns: frozenset[str]) -> Window:
        """The same rows with only these columns known; the others read as absent."""
        kept = {name: values for name, values in self._columns.items() if name in columns}
        return Window(self.series, self.opens, self.ends, kept, self.observations, self._observed)

    def observing(self, observations: Mapping[str, pl.DataFrame]) -> Window:
        """The same rows with other observations."""
        return Window(self.series, self.opens, self.ends, self._columns, observations)

    def column(self, name: str) -> FloatArray:
        """A column of the frame, NaN where null; all NaN when the frame lacks it."""
        if name not in self._columns:
            self._columns[name] = _readonly(np.full(len(self), np.nan))
        return self._columns[name]

    @property
    def open(self) -> FloatArray:
        """Opening prices."""
        return self.column("open")

    @property
    def high(self) -> FloatArray:
        """Highest prices."""
        return self.column("high")

    @property
    def low(self) -> FloatArray:
        """Lowest prices."""
        return self.column("low")

    @property
    def close(self) -> FloatArray:
        """Closing prices."""
        return self.column("close")

    @property
    def volume(self) -> FloatArray:
        """Volumes in base units."""
        return self.column("volume")

    @cached_property
    def log_returns(self) -> FloatArray:
        """Logarithm of close over the previous row's close; NaN for the first row and for prices not above 0."""
        return _readonly(log_ratio(self.close, self.earlier(self.close, 1)))

    @cached_property
    def true_range(self) -> FloatArray:
        """max(high - low, |high - previous close|, |low - previous close|); NaN for the first row."""
        previous = self.earlier(self.close, 1)
        # The three-way maximum, in one subtraction: the day's range stretched to reach the previous close.
        top = np.maximum(self.high, previous)
        top -= np.minimum(self.low, previous)
        return _readonly(top)

    def earlier(self, values: FloatArray, rows: int) -> FloatArray:
        """The values `rows` rows earlier; NaN where there is no such row."""
        return self.once((id(values), "earlier", rows), values, lambda: shifted(values, rows))

    def sum_of_last(self, values: FloatArray, rows: int) -> FloatArray:
        """Sum of this and the rows - 1 values before it; NaN until there are so many."""
        doublings = self._doublings(values)
        return self.once((id(values), "sum", rows), values, lambda: doublings.sum_of_last(rows))

    def mean_of_last(self, values: FloatArray, rows: int) -> FloatArray:
        """Mean of this and the rows - 1 values before it; NaN until there are so many."""
        return self.once((id(values), "mean", rows), values, lambda: self.sum_of_last(values, rows) / rows)

    def deviation_of_last(self, values: FloatArray, rows: int) -> FloatArray:
        """Sample standard deviation (divisor rows - 1) of this and the rows - 1 values before it."""
        doublings = self._doublings(values)
        return self.once((id(values), "deviation", rows), values, lambda: doublings.deviation_of_last(rows))

    def observed(self, dataset: str, *columns: str, **kinds: str) -> Observations:
        """The observations of a dataset; `kinds` restricts to rows whose column has that text, e.g. period="5m"."""
        key = (dataset, columns, tuple(kinds.items()))
        if key not in self._observed:
            frame = self.observations.get(dataset)
            if frame is None:
                none = np.empty(0, np.int64)
                self._observed[key] = Observations(none, none, {name: np.empty(0) for name in columns})
            else:
                wanted = pl.all_horizontal(pl.lit(True), *(pl.col(name) == text for name, text in kinds.items()))
                self._observed[key] = Observations.of(frame.filter(wanted), *columns)
        return self._observed[key]

    def row_opening_at(self, moments: IntArray, lookback: int) -> IntArray:
        """Index of the row that opens at each row's moment, at most `lookback` rows before it; -1 without one."""
        here = np.arange(len(self))
        index = np.maximum(here - lookback, 0)
        # Without gaps the wanted row is exactly `lookback` rows back: look there first.
        missed = np.flatnonzero(self.opens[index] != moments)
        if len(missed):
            found = np.minimum(np.searchsorted(self.opens, moments[missed]), len(self) - 1)
            near = (self.opens[found] == moments[missed]) & (found >= missed - lookback) & (found <= missed)
            index[missed] = np.where(near, found, -1)
        return index

    def once(self, key: object, owner: object, compute: Callable[[], FloatArray]) -> FloatArray:
        """The array computed on the first call with this key; `owner` is kept alive, since the key names its id."""
        held = self._memo.get(key)
        if held is None:
            held = (owner, _readonly(compute()))
            self._memo[key] = held
        value: FloatArray = held[1]  # type: ignore[index]  # the memo holds (owner, array) under array keys
        return value

    def _doublings(self, values: FloatArray) -> Doublings:
        key = (id(values), "doublings")
        held = self._memo.get(key)
        if held is None:
            held = (values, Doublings(values))
            self._memo[key] = held
        value: Doublings = held[1]  # type: ignore[index]  # the memo holds (owner, doublings) under this key
        return value


def _micros(column: pl.Series) -> IntArray:
    return column.cast(pl.Datetime("us", "UTC")).to_physical().to_numpy()


def picked(values: FloatArray, index: IntArray) -> FloatArray:
    """The values at the indices; NaN where the index is -1."""
    if not len(values):
        return np.full(len(index), np.nan)
    return np.where(index >= 0, values[index], np.nan)


def _readonly(values: FloatArray) -> FloatArray:
    values.setflags(write=False)
    return values
