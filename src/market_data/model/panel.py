"""Evaluates features over many series that stand in one frame, as one long window, on all processors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
import polars as pl

from market_data.model.errors import UsageError
from market_data.model.evaluation import BLOCK_ROWS, evaluate_alone, in_threads
from market_data.model.feature import Feature
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.observation import IntArray, ObservationFrames, micros
from market_data.model.session import WEEK_MICROS
from market_data.model.timeframe import MICROSECOND, Timeframe
from market_data.model.window import Window

# Between two series on the axis: more than any candle looks back by the clock.
SMALLEST_DISTANCE: Final = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class _Grouped:
    """A frame whose rows of a symbol stand together: where each symbol's rows are."""

    frame: pl.DataFrame
    symbols: tuple[str, ...]
    begins: IntArray
    lengths: IntArray

    @classmethod
    def of(cls, frame: pl.DataFrame) -> _Grouped:
        runs = frame["symbol"].rle().struct.unnest()
        symbols, lengths = tuple(runs["value"].to_list()), runs["len"].to_numpy().astype(np.int64)
        if len(set(symbols)) < len(symbols):
            raise UsageError("the rows of a symbol must stand together")
        return cls(frame, symbols, np.cumsum(lengths) - lengths, lengths)

    def part(self, symbols: Sequence[str]) -> _Grouped:
        """The rows of some symbols, in their order; those it lacks are left out."""
        places = {symbol: place for place, symbol in enumerate(self.symbols)}
        found = [places[symbol] for symbol in symbols if symbol in places]
        names, lengths = tuple(self.symbols[place] for place in found), self.lengths[found]
        if found == list(range(found[0], found[0] + len(found))) if found else False:
            frame = self.frame.slice(int(self.begins[found[0]]), int(lengths.sum()))
        else:
            pieces = [self.frame.slice(int(self.begins[place]), int(self.lengths[place])) for place in found]
            frame = pl.concat([self.frame.clear(), *pieces])
        return _Grouped(frame, names, np.cumsum(lengths) - lengths, lengths)


def evaluate_panel(
    features: Sequence[Feature],
    asset_class: AssetClass,
    timeframe: Timeframe,
    frame: pl.DataFrame,
    observations: Mapping[str, pl.DataFrame] | None = None,
) -> pl.DataFrame:
    """One column per feature, as high as the frame; each series' values are those it has by itself, to the bit.

    Args:
        features: to evaluate; which exist, and their lookbacks, must not differ between the symbols.
        asset_class: of all series.
        timeframe: of all series.
        frame: as `Window.of` takes it, with a column `symbol`; each symbol's rows together and in order.
        observations: dataset name to frame with `symbol`, `timestamp`, `known_at` and values; each symbol's together.

    Raises:
        UsageError: when a symbol's rows are not together or not in order, or symbols differ in their features.
    """
    parts = list(evaluate_panel_parts(features, asset_class, timeframe, frame, observations))
    return pl.concat(parts)


def evaluate_panel_parts(
    features: Sequence[Feature],
    asset_class: AssetClass,
    timeframe: Timeframe,
    frame: pl.DataFrame,
    observations: Mapping[str, pl.DataFrame] | None = None,
) -> Iterator[pl.DataFrame]:
    """`evaluate_panel` in parts that together are the whole, in order; only a few are in memory at a time."""
    rows = _Grouped.of(frame)
    seen = {name: _Grouped.of(each) for name, each in (observations or {}).items()}
    _check_alike(features, [Series(Instrument(symbol, asset_class), timeframe) for symbol in rows.symbols])

    def compute(symbols: Sequence[str]) -> pl.DataFrame:
        part = rows.part(symbols)
        series = Series(Instrument(symbols[0] if symbols else "", asset_class), timeframe)
        window = _window(features, series, part, {name: each.part(symbols) for name, each in seen.items()})
        return evaluate_alone(features, window)

    return in_threads(compute, _cut(rows))


def _cut(rows: _Grouped) -> list[Sequence[str]]:
    """Groups of symbols with about a block of rows each."""
    if not rows.symbols:
        return [()]
    group = rows.begins // BLOCK_ROWS
    begins = np.flatnonzero(np.diff(group, prepend=-1))
    ends = [*begins[1:], len(rows.symbols)]
    return [rows.symbols[begin:end] for begin, end in zip(begins, ends, strict=True)]


def _window(
    features: Sequence[Feature], series: Series, rows: _Grouped, observations: Mapping[str, _Grouped]
) -> Window:
    """The rows of several series as one window."""
    opens, ends = micros(rows.frame["timestamp"]), micros(rows.frame["end"])
    shift = _shift(features, opens, ends, observations, len(rows.symbols))
    by_row = np.repeat(np.arange(len(rows.symbols)) * shift, rows.lengths)
    axis = opens + by_row, ends + by_row
    if not ((axis[0][1:] > axis[0][:-1]).all() and (axis[1][1:] > axis[1][:-1]).all()):
        raise UsageError("timestamps and ends must strictly increase within each symbol")
    columns = {column.name: column.to_numpy() for column in rows.frame.iter_columns() if column.dtype == pl.Float64}
    places = {symbol: place for place, symbol in enumerate(rows.symbols)}
    moves = {name: _moves(seen, places, shift) for name, seen in observations.items()}
    frames = ObservationFrames({name: seen.frame for name, seen in observations.items()}, moves)
    return Window(series, opens, ends, columns, frames, begins=rows.begins[1:], axis=axis)


def _check_alike(features: Sequence[Feature], series: Sequence[Series]) -> None:
    def shape(one: Series) -> list[tuple[str, int]]:
        return [(each.name, each.lookback_for(one)) for each in features if each.applies(one)]

    shapes = [shape(one) for one in series]
    for one, found in zip(series, shapes, strict=True):
        if found != shapes[0]:
            raise UsageError(f"{one.symbol} has other features or lookbacks than {series[0].symbol}: evaluate it apart")


def _shift(
    features: Sequence[Feature], opens: IntArray, ends: IntArray, observations: Mapping[str, _Grouped], count: int
) -> int:
    """How far to move each series behind the one before.

    Whole weeks, so that weekdays and the grids of all timeframes stay in place.
    """
    firsts, lasts = [opens], [ends]
    for seen in observations.values():
        firsts.append(micros(seen.frame["timestamp"]))
        lasts.append(micros(seen.frame["known_at"]))
    if not len(opens):
        return 0
    history = max([SMALLEST_DISTANCE, *(2 * span for each in features for span in each.observations.values())])
    first = min(int(moments.min()) for moments in firsts if len(moments))
    last = max(int(moments.max()) for moments in lasts if len(moments))
    shift = ((last - first + history // MICROSECOND) // WEEK_MICROS + 1) * WEEK_MICROS
    if last + shift * count > np.iinfo(np.int64).max:
        raise UsageError(f"{count} series over so long a time are too many for one panel: evaluate fewer at once")
    return shift


def _moves(seen: _Grouped, places: Mapping[str, int], shift: int) -> IntArray:
    """By row of the observations, how far their series is moved."""
    return np.repeat(np.array([places[symbol] for symbol in seen.symbols], np.int64) * shift, seen.lengths)
