"""Window: what a feature function sees of a series, with the shared intermediates computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from market_data.model.errors import UsageError
from market_data.model.instrument import Series
from market_data.model.observation import IntArray, ObservationFrames, Observations, Runs, micros
from market_data.model.rolling import Doublings, FloatArray, log_steps, shifted

# Part of every feature's version: raise it when a change here or in rolling.py changes a bit of any result.
ENGINE_VERSION: Final = 1
_NOWHERE: Final = np.empty(0, np.int64)


class Window:
    """A run of one series' candles in order, as arrays; what a feature function is given.

    Arrays are shared between features and read-only. Absent values are NaN. `opens` and `ends` are int64 microseconds
    UTC. A feature's value for a row may use that row and the feature's `lookback` rows before it, and observations;
    the methods here keep to that, to the bit, wherever the window begins.

    In a panel the rows of many series stand one after the other: `begins` are the rows at which another one begins, and
    `axis_opens` and `axis_ends` are the times moved so far apart for each that nothing of one series is in the reach of
    the next. The methods know; a feature that reads earlier rows only by them works in panels unchanged.
    """

    def __init__(
        self,
        series: Series,
        opens: IntArray,
        ends: IntArray,
        columns: Mapping[str, FloatArray],
        observations: ObservationFrames,
        *,
        begins: IntArray = _NOWHERE,
        axis: tuple[IntArray, IntArray] | None = None,
    ) -> None:
        self.series = series
        self.opens = opens
        self.ends = ends
        self.begins = begins
        self.axis_opens, self.axis_ends = axis or (opens, ends)
        self.observations = observations
        self._columns = dict(columns)
        self._memo: dict[tuple[str, int, int], tuple[FloatArray, FloatArray]] = {}
        self._doubled: dict[int, tuple[FloatArray, Doublings]] = {}

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
        opens = micros(frame["timestamp"])
        ends = micros(frame["end"])
        if not ((opens[1:] > opens[:-1]) & (ends[1:] > ends[:-1])).all():
            raise UsageError(f"{series}: timestamps and ends of a window must strictly increase")
        columns = {
            column.name: _readonly(column.to_numpy()) for column in frame.iter_columns() if column.dtype == pl.Float64
        }
        return cls(series, opens, ends, columns, ObservationFrames(observations or {}))

    def __len__(self) -> int:
        return len(self.opens)

    def rows(self, start: int, stop: int) -> Window:
        """The part [start, stop), counted in rows from 0, with the same observations; no array is copied."""
        return self._like(
            {name: values[start:stop] for name, values in self._columns.items()}, self.observations, slice(start, stop)
        )

    def restricted(self, columns: frozenset[str]) -> Window:
        """The same rows with only these columns known; the others read as absent."""
        kept = {name: values for name, values in self._columns.items() if name in columns}
        return self._like(kept, self.observations)

    def with_columns(self, columns: Mapping[str, FloatArray]) -> Window:
        """The same rows with other values in some columns."""
        changed = {name: _readonly(values) for name, values in columns.items()}
        return self._like({**self._columns, **changed}, self.observations)

    def observing(self, observations: Mapping[str, pl.DataFrame]) -> Window:
        """The same rows with other observations."""
        return self._like(self._columns, ObservationFrames(observations))

    def _like(
        self, columns: Mapping[str, FloatArray], observations: ObservationFrames, part: slice = slice(None)
    ) -> Window:
        begins = self.begins
        if len(begins):
            begins = begins - (part.start or 0)
            begins = begins[(begins > 0) & (begins < len(self.opens[part]))]
        axis = (self.axis_opens[part], self.axis_ends[part])
        return Window(self.series, self.opens[part], self.ends[part], columns, observations, begins=begins, axis=axis)

    @property
    def given(self) -> list[str]:
        """The names of the columns there are."""
        return list(self._columns)

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
        return _readonly(self._blanked(log_steps(self.close), 1))

    @cached_property
    def true_range(self) -> FloatArray:
        """max(high - low, |high - previous close|, |low - previous close|); NaN for the first row."""
        out = np.empty(len(self))
        out[:1] = np.nan
        previous = self.close[:-1]
        # The three-way maximum, in one subtraction: the candle's range stretched to reach the previous close.
        top = np.maximum(self.high[1:], previous, out=out[1:])
        top -= np.minimum(self.low[1:], previous)
        return _readonly(self._blanked(out, 1))

    def earlier(self, values: FloatArray, rows: int) -> FloatArray:
        """The values `rows` rows earlier; NaN where there is no such row."""
        return self._once("earlier", values, rows, lambda: self._blanked(shifted(values, rows), rows))

    def sum_of_last(self, values: FloatArray, rows: int) -> FloatArray:
        """Sum of this and the rows - 1 values before it; NaN until there are so many."""
        doublings = self._doublings(values)
        return self._once("sum", values, rows, lambda: self._blanked(doublings.sum_of_last(rows), rows - 1))

    def mean_of_last(self, values: FloatArray, rows: int) -> FloatArray:
        """Mean of this and the rows - 1 values before it; NaN until there are so many."""
        return self._once("mean", values, rows, lambda: self._mean_of_last(values, rows))

    def deviation_of_last(self, values: FloatArray, rows: int) -> FloatArray:
        """Sample standard deviation (divisor rows - 1) of this and the rows - 1 values before it."""
        doublings = self._doublings(values)
        return self._once("deviation", values, rows, lambda: self._blanked(doublings.deviation_of_last(rows), rows - 1))

    def earlier_by(self, values: FloatArray, rows: int) -> FloatArray:
        """The values of the candle that opened `rows` candles' time earlier; NaN where that candle is absent.

        For evenly spaced candles: unlike `earlier`, it never reaches over a gap.
        """
        if self._gapless:
            return self.earlier(values, rows)
        return self.of_row_opening_at(values, self.opens - rows * self.series.timeframe.micros, rows)

    def consecutive(self, rows: int) -> NDArray[np.bool_]:
        """Whether a row and the `rows` rows before it follow on each other without a gap; for evenly spaced candles."""
        out = np.zeros(len(self), np.bool_)
        if self._gapless:
            out[rows:] = True
            out[self._first_rows(rows)] = False
            return out
        # Timestamps strictly increase on the grid, so the right distance means that none is absent.
        distance = self.axis_opens[rows:] - self.axis_opens[: max(0, len(self) - rows)]
        np.equal(distance, rows * self.series.timeframe.micros, out=out[rows:])
        return out

    def newest(self, observations: Observations, max_age: timedelta) -> Runs:
        """By row the newest observation known at the candle's end, unless it is older than `max_age` by then."""
        return observations.runs(self.axis_ends, max_age)

    def observed_at_end(self, observations: Observations, values: FloatArray, known_at: IntArray) -> FloatArray:
        """By row the value of the observation that speaks of the candle's end, if it was known by then.

        `values` and `known_at` hold one entry per observation.
        """
        return observations.at(self.axis_ends, values, known_at)

    def of_row_opening_at(self, values: FloatArray, moments: IntArray, lookback: int) -> FloatArray:
        """The value of the row that opens at each row's moment, at most `lookback` rows before it; NaN without one."""
        if len(self.begins):
            moments = moments + (self.axis_opens - self.opens)
        # Without gaps the wanted row is exactly `lookback` rows back: look there first.
        out = shifted(values, lookback)
        head = min(lookback, len(self))
        elsewhere = self.axis_opens[: len(self) - head] != moments[head:]
        missed = np.flatnonzero(elsewhere) + head if elsewhere.any() else _NOWHERE
        if head and moments[:head].max() >= self.axis_opens[0]:
            missed = np.concatenate([np.arange(head), missed])
        out[missed] = np.nan
        if len(self.begins) and len(missed):
            # Nothing opens before a series' first row: no need to look for it.
            first = self.axis_opens[np.append(0, self.begins)]
            missed = missed[moments[missed] >= first[self.begins.searchsorted(missed, side="right")]]
        if len(missed):
            found = np.minimum(np.searchsorted(self.axis_opens, moments[missed]), len(self) - 1)
            near = (self.axis_opens[found] == moments[missed]) & (found >= missed - lookback) & (found <= missed)
            out[missed[near]] = values[found[near]]
        return out

    @cached_property
    def _gapless(self) -> bool:
        """Whether every candle of a series opens one timeframe after the one before it."""
        steps = self.axis_opens[1:] - self.axis_opens[:-1]
        # Where another series begins, the distance is that of the axis.
        return bool(np.count_nonzero(steps != self.series.timeframe.micros) == len(self.begins))

    def _mean_of_last(self, values: FloatArray, rows: int) -> FloatArray:
        total = self._doublings(values).sum_of_last(rows)
        total /= rows
        return self._blanked(total, rows - 1)

    def _once(self, what: str, values: FloatArray, rows: int, compute: Callable[[], FloatArray]) -> FloatArray:
        """The array computed on the first call for these values and rows."""
        key = (what, id(values), rows)
        held = self._memo.get(key)
        if held is None:
            # The values are kept alive, since the key names their id.
            held = self._memo[key] = (values, _readonly(compute()))
        return held[1]

    def _blanked(self, values: FloatArray, rows: int) -> FloatArray:
        """The new array, with NaN in the first `rows` rows of every series that begins within the window."""
        if len(self.begins) and rows:
            values[self._first_rows(rows)] = np.nan
        return values

    def _first_rows(self, rows: int) -> IntArray:
        places = (self.begins[:, None] + np.arange(rows)).ravel()
        # Beyond a series shorter than that, the next one's first rows are meant anyway.
        return places[places < len(self)]

    def _doublings(self, values: FloatArray) -> Doublings:
        held = self._doubled.get(id(values))
        if held is None:
            held = self._doubled[id(values)] = (values, Doublings(values))
        return held[1]


def _readonly(values: FloatArray) -> FloatArray:
    values.setflags(write=False)
    return values
