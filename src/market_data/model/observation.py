"""Observations: values on their own clock, joined to candles as of the candle's end and never earlier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from market_data.model.rolling import FloatArray
from market_data.model.timeframe import MICROSECOND

IntArray: TypeAlias = NDArray[np.int64]


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
        timestamp = micros(known["timestamp"])
        current = np.ones(len(timestamp), np.bool_)
        current[1:] = timestamp[1:] > np.maximum.accumulate(timestamp)[:-1]
        values = {name: known[name].to_numpy()[current] for name in columns}
        return cls(timestamp[current], micros(known["known_at"])[current], values)

    @classmethod
    def none(cls, *columns: str) -> Observations:
        """No observations."""
        empty = np.empty(0, np.int64)
        return cls(empty, empty, {name: np.empty(0) for name in columns})

    def __len__(self) -> int:
        return len(self.timestamp)

    def current(self, moments: IntArray, max_age: timedelta) -> IntArray:
        """Index of the newest observation known at each moment; -1 where none is, or it is older than `max_age`."""
        index = newest(self.known_at, moments)
        if len(self):
            index[moments - self.timestamp[index] > max_age // MICROSECOND] = -1
        return index


class ObservationFrames:
    """The frames of observations a window may use, by dataset, and what features took from them so far."""

    __slots__ = ("_kinds", "_taken", "frames")

    def __init__(self, frames: Mapping[str, pl.DataFrame]) -> None:
        self.frames = frames
        self._taken: dict[object, Observations] = {}
        self._kinds: dict[tuple[str, str], tuple[str, ...]] = {}

    def take(self, dataset: str, *columns: str, **kinds: str) -> Observations:
        """The observations of a dataset; `kinds` restricts to rows whose column has that text, e.g. period="5m"."""
        key = (dataset, columns, *kinds.items())
        found = self._taken.get(key)
        if found is None:
            frame = self.frames.get(dataset)
            if frame is None:
                found = Observations.none(*columns)
            else:
                wanted = pl.all_horizontal(pl.lit(value=True), *(pl.col(name) == text for name, text in kinds.items()))
                found = Observations.of(frame.filter(wanted), *columns)
            self._taken[key] = found
        return found

    def kinds(self, dataset: str, column: str) -> tuple[str, ...]:
        """The different texts in a column of a dataset, in alphabetical order."""
        key = (dataset, column)
        found = self._kinds.get(key)
        if found is None:
            frame = self.frames.get(dataset)
            found = () if frame is None else tuple(sorted(frame[column].unique()))
            self._kinds[key] = found
        return found


def picked(values: FloatArray, index: IntArray) -> FloatArray:
    """The values at the indices; NaN where the index is -1."""
    if not len(values):
        return np.full(len(index), np.nan)
    out = values[index]
    out[index < 0] = np.nan
    return out


def micros(column: pl.Series) -> IntArray:
    """A column of moments as microseconds since 1970 UTC."""
    return column.cast(pl.Datetime("us", "UTC")).to_physical().to_numpy()


def newest(known: IntArray, moments: IntArray) -> IntArray:
    """Index of the last of the increasing `known` that is not above each moment; -1 where there is none."""
    index: IntArray
    if not len(moments) or not (moments[1:] >= moments[:-1]).all():
        index = np.searchsorted(known, moments, side="right") - 1
        return index
    first, last = (int(place) for place in np.searchsorted(known, moments[[0, -1]], side="right") - 1)
    if first >= 0 and last - first == len(moments) - 1 and (known[first : last + 1] == moments).all():
        # One observation a moment, as for candles of the same clock.
        return np.arange(first, last + 1)
    # Moments are in order: find where each observation begins to be the newest, and repeat it until the next does.
    begins = np.searchsorted(moments, known[first + 1 : last + 1], side="left")
    index = np.repeat(np.arange(first, last + 1), np.diff(begins, prepend=0, append=len(moments)))
    return index
