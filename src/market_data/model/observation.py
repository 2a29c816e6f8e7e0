"""Observations: values on their own clock, joined to candles as of the candle's end and never earlier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from market_data.model.rolling import FloatArray
from market_data.model.timeframe import MICROSECOND

IntArray: TypeAlias = NDArray[np.int64]
Computed = TypeVar("Computed")


@dataclass(frozen=True, slots=True)
class Observations:
    """Values of one dataset on their own clock, in order of time.

    `timestamp` (strictly increasing) and `known_at` are int64 microseconds UTC, `values` float64 columns of the same
    length. Mostly observations become known in order; `arrival` is None then, else the order in which they did.
    """

    timestamp: IntArray
    known_at: IntArray
    values: Mapping[str, FloatArray]
    arrival: IntArray | None = None

    @classmethod
    def of(
        cls, frame: pl.DataFrame, *columns: str, kinds: Mapping[str, str] | None = None, move: IntArray | None = None
    ) -> Observations:
        """The observations of a frame with `timestamp`, `known_at` and the columns; rows with a null are left out.

        `kinds` restricts to rows with these texts; `move` is added to both times, row by row.
        """
        timestamp, known_at = micros(frame["timestamp"]), micros(frame["known_at"])
        if move is not None:
            timestamp, known_at = timestamp + move, known_at + move
        values = {name: _doubles(frame[name]) for name in columns}
        for name, text in (kinds or {}).items():
            same = (frame[name] == text).fill_null(value=False).to_numpy()
            timestamp, known_at, frame = timestamp[same], known_at[same], frame.filter(same)
            values = {column: array[same] for column, array in values.items()}
        absent = [np.isnan(column) for column in values.values()]
        if any(column.any() for column in absent):
            kept = ~np.logical_or.reduce(absent)
            timestamp, known_at = timestamp[kept], known_at[kept]
            values = {name: column[kept] for name, column in values.items()}
        if not (timestamp[1:] > timestamp[:-1]).all():
            # Of several that speak of the same moment the one that became known first stands.
            order = np.lexsort((known_at, timestamp))
            order = order[np.append([True], np.diff(timestamp[order]) > 0)]
            timestamp, known_at = timestamp[order], known_at[order]
            values = {name: column[order] for name, column in values.items()}
        in_order = bool((known_at[1:] >= known_at[:-1]).all())
        return cls(timestamp, known_at, values, None if in_order else known_at.argsort(kind="stable"))

    @classmethod
    def none(cls, *columns: str) -> Observations:
        """No observations."""
        empty = np.empty(0, np.int64)
        return cls(empty, empty, {name: np.empty(0) for name in columns})

    def __len__(self) -> int:
        return len(self.timestamp)

    def runs(self, moments: IntArray, max_age: timedelta) -> Runs:
        """The newest observation known at each of increasing moments, unless it is older than `max_age` by then."""
        if not len(moments) or not len(self):
            return Runs(np.full(1, -1), np.full(1, len(moments)), np.full(1, -1))
        known_at = self.known_at if self.arrival is None else self.known_at[self.arrival]
        first = int(known_at.searchsorted(moments[0], side="right")) - 1
        if len(moments) == 1 and self.arrival is None:
            # The live case, without a table.
            old = first >= 0 and moments[0] - self.timestamp[first] > max_age // MICROSECOND
            only = np.array([-1 if old else first])
            return Runs(only, np.ones(1, np.int64), only)
        last = first if len(moments) == 1 else int(known_at.searchsorted(moments[-1], side="right")) - 1
        event = np.arange(first, last + 1)
        index = event
        if self.arrival is not None:
            # The newest of those known so far: the last in time, not the last to arrive.
            newest = np.maximum.accumulate(self.arrival[: last + 1])
            index = np.where(event >= 0, newest[np.maximum(event, 0)], -1) if last >= 0 else event
        # Each arrival opens a stretch of rows, which ends with the next one or when the newest is too old.
        begins = np.empty(len(event) + 1, np.int64)
        begins[0], begins[-1] = 0, len(moments)
        begins[1:-1] = _places(moments, known_at[first + 1 : last + 1])
        counts = begins[1:] - begins[:-1]
        age = moments[begins[1:] - 1] - self.timestamp[index]
        if first >= 0 and not (age[counts > 0] > max_age // MICROSECOND).any():
            some = counts > 0
            return Runs(index[some], counts[some], event[some])
        expires = moments.searchsorted(self.timestamp[index] + max_age // MICROSECOND, side="right")
        lasting = np.where(index >= 0, expires.clip(begins[:-1], begins[1:]), begins[:-1])
        counts = np.empty(2 * len(event), np.int64)
        counts[::2], counts[1::2] = lasting - begins[:-1], begins[1:] - lasting
        both = np.full((2, 2 * len(event)), -1)
        both[0, ::2], both[1, ::2] = index, event
        some = counts > 0
        return Runs(both[0, some], counts[some], both[1, some])

    def at(self, moments: IntArray, values: FloatArray, known_at: IntArray) -> FloatArray:
        """The value at each of increasing moments, one per observation, if it was known by then; NaN without one."""
        if not len(moments) or not len(self):
            return np.full(len(moments), np.nan)
        first = int(self.timestamp.searchsorted(moments[0]))
        if len(moments) == 1:
            there = first < len(self) and self.timestamp[first] == moments[0] and known_at[first] <= moments[0]
            return values[first : first + 1] if there else np.full(1, np.nan)
        place: slice | IntArray = slice(first, first + len(moments))
        absent: NDArray[np.bool_] | None = None
        if len(self) < first + len(moments) or (self.timestamp[place] != moments).any():
            place = np.minimum(self.timestamp.searchsorted(moments), len(self) - 1)
            absent = self.timestamp[place] != moments
        late = known_at[place] > moments
        if absent is not None:
            late |= absent
        found: FloatArray = values[place]
        return np.where(late, np.nan, found) if late.any() else found


@dataclass(frozen=True, slots=True)
class Runs:
    """Which observation belongs to consecutive rows: its index, -1 for none, and for how many rows.

    `event` is the number of arrivals before the one that opened the run: what was known is that one and those before.
    """

    index: IntArray
    counts: IntArray
    event: IntArray

    def spread(self, values: FloatArray) -> FloatArray:
        """One value per run, repeated for its rows; NaN where the run has no observation."""
        known = np.where(self.index >= 0, values, np.nan)
        return known.repeat(self.counts)

    def of(self, values: FloatArray) -> FloatArray:
        """The values of the observations, by row; NaN where there is none."""
        return self.spread(values[self.index] if len(values) else np.full(len(self.index), np.nan))


class ObservationFrames:
    """The frames of observations a window may use, by dataset, and what features took from them so far."""

    __slots__ = ("_computed", "_kinds", "_moves", "_taken", "frames")

    def __init__(self, frames: Mapping[str, pl.DataFrame], moves: Mapping[str, IntArray] | None = None) -> None:
        self.frames = frames
        # In a panel: how far the rows of each frame stand from their own time on the panel's axis.
        self._moves = moves or {}
        self._taken: dict[object, Observations] = {}
        self._kinds: dict[tuple[str, str], tuple[str, ...]] = {}
        self._computed: dict[object, Any] = {}

    def take(self, dataset: str, *columns: str, **kinds: str) -> Observations:
        """The observations of a dataset; `kinds` restricts to rows whose column has that text, e.g. period="5m"."""
        key = (dataset, columns, *kinds.items())
        found = self._taken.get(key)
        if found is None:
            frame = self.frames.get(dataset)
            if frame is None:
                found = Observations.none(*columns)
            else:
                # Mostly a column has one kind, which is known by then: nothing to leave out.
                some = {name: text for name, text in kinds.items() if self.kinds(dataset, name) != (text,)}
                found = Observations.of(frame, *columns, kinds=some, move=self._moves.get(dataset))
            self._taken[key] = found
        return found

    def kinds(self, dataset: str, column: str) -> tuple[str, ...]:
        """The different texts in a column of a dataset, in alphabetical order."""
        key = (dataset, column)
        found = self._kinds.get(key)
        if found is None:
            frame = self.frames.get(dataset)
            if frame is None or frame.is_empty():
                found = ()
            else:
                texts = frame[column]
                # Mostly there is one kind: a comparison is much cheaper than a set.
                found = (texts[0],) if (texts == texts[0]).all() else tuple(sorted(texts.unique()))
            self._kinds[key] = found
        return found

    def once(self, key: object, compute: Callable[[], Computed]) -> Computed:
        """What was computed on the first call with this key, shared by all parts of the window."""
        if key not in self._computed:
            self._computed[key] = compute()
        found: Computed = self._computed[key]
        return found


def _places(moments: IntArray, wanted: IntArray) -> IntArray:
    """For each of the wanted, all in (first, last moment], the first of increasing moments that is not before it."""
    if len(moments) > 1 and len(wanted) > 1:
        # Mostly moments are evenly spaced, so that a division tells the place; else they have to be searched.
        step = (moments[-1] - moments[0]) // (len(moments) - 1)
        guess: IntArray = (wanted - moments[0] + (step - 1)) // step
        if (guess < len(moments)).all() and ((moments[guess] >= wanted) & (moments[guess - 1] < wanted)).all():
            return guess
    return moments.searchsorted(wanted, side="left")


def _doubles(column: pl.Series) -> FloatArray:
    return (column if column.dtype == pl.Float64 else column.cast(pl.Float64)).to_numpy()


def micros(column: pl.Series) -> IntArray:
    """A column of moments as microseconds since 1970 UTC."""
    # Series methods of Polars start its query engine, which costs more than the work: NumPy's view does not.
    return column.to_numpy().astype("datetime64[us]", copy=False).view(np.int64)
