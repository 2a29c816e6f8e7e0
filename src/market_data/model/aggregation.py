"""Candles against the grid: finer ones combined exactly, open ones left out, long grids cut into runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from market_data.model.dataset import CANDLES
from market_data.model.rows import PARTS_CONTRADICT, Rows, rejections
from market_data.model.session import Grid
from market_data.model.timeframe import MICROSECOND, Timeframe, to_micros

NOTE_SEPARATOR = "; "
# Whether it was quiet then or the source lacks a part, nobody can tell.
NOTE_PARTS_UNKNOWN = "parts_unknown"
# Unknown in one part makes the whole unknown.
_SUMS = ("quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume")


def aggregate(frame: pl.DataFrame, grid: Grid, expected: Grid | None = None) -> pl.DataFrame:
    """Candles of `grid` made of the finer candles that open within each; the schema is that of CANDLES.

    Open and close are the first's and last's, high and low the extremes, volume and counts the sums, vwap the mean of
    the parts' vwaps weighted by volume. A sum or mean of which one part is unknown is null. A grid candle without parts
    gets no row; parts outside every grid candle (extended hours) are left out. A candle that lacks an expected part
    says so in its notes: its extremes and sums are of what there is. All parts must be closed: the caller asks for
    whole grid candles.

    Args:
        frame: candles in the schema of CANDLES, unique timestamps, any order.
        grid: the candles to make.
        expected: the calendar's parts, of the whole span of `grid`; None where nothing says which there should be.
    """
    parts = frame.sort("timestamp", maintain_order=True)
    opens = parts["timestamp"].cast(pl.Int64).to_numpy()
    place = np.searchsorted(grid.opens, opens, side="right") - 1
    inside = place >= 0
    inside[inside] = opens[inside] < grid.ends[place[inside]]
    parts = parts.with_columns(
        timestamp=pl.Series(grid.opens[place] if len(grid) else opens).cast(CANDLES.schema["timestamp"])
    )
    made = (
        parts.filter(pl.Series(inside))
        .group_by("timestamp", maintain_order=True)
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
            _weighted_price(),
            *(_known_sum(name) for name in _SUMS),
            _joined_notes(),
        )
    )
    return CANDLES.conform(made if expected is None else _doubted(made, grid, opens, expected))


def agreeing(rows: Rows) -> Rows:
    """Candles that others are to be made of, each once: those that contradict one another are all set aside.

    Nobody can tell which of them is right. What is made of the rest says that it lacks a part, by `aggregate`.
    """
    unique = rows.frame.unique(maintain_order=True)
    twice = unique["timestamp"].is_duplicated()
    if not twice.any():
        return Rows(unique, rows.rejected)
    return Rows(unique.filter(~twice), rows.rejected).rejecting(rejections(PARTS_CONTRADICT, unique.filter(twice)))


def candles_of_trades(trades: pl.DataFrame, grid: Grid) -> pl.DataFrame:
    """Candles of `grid` made of the trades within each; the schema is that of CANDLES.

    Taker volumes are null where one trade does not say who crossed the spread. A grid candle without trades gets no
    row.

    Args:
        trades: in the schema of TRADES; those of one moment in the order they were made.
        grid: the candles to make.
    """
    price, size = pl.col("price"), pl.col("size")
    side = pl.col("aggressor_side")
    bought = pl.when(side == "buy").then(size).when(side == "sell").then(size * 0)
    each = trades.select(
        "timestamp",
        *(price.alias(name) for name in ("open", "high", "low", "close", "vwap")),
        volume=size,
        quote_volume=price * size,
        trade_count=pl.lit(1, pl.Int64),
        taker_buy_volume=bought,
        taker_buy_quote_volume=price * bought,
    )
    return aggregate(CANDLES.conform(each), grid)


def closed(frame: pl.DataFrame, grid: Grid, timeframe: Timeframe, by: datetime) -> pl.DataFrame:
    """The candles of `frame` whose end is not after `by`; one that is off the grid ends its nominal length later."""
    times = frame["timestamp"].cast(pl.Int64).to_numpy()
    ends = times + timeframe.micros
    place = np.searchsorted(grid.opens, times)
    found = place < len(grid)
    found[found] = grid.opens[place[found]] == times[found]
    ends[found] = grid.ends[place[found]]
    return frame.filter(pl.Series(ends <= to_micros(by)))


def runs(grid: Grid, longest: timedelta) -> Iterator[Grid]:
    """The grid's candles in consecutive runs whose opens lie less than `longest` apart."""
    first = 0
    while first < len(grid):
        after = int(np.searchsorted(grid.opens, grid.opens[first] + longest // MICROSECOND))
        yield Grid(grid.opens[first:after], grid.ends[first:after])
        first = after


def _known_sum(name: str) -> pl.Expr:
    return pl.when(pl.col(name).null_count() == 0).then(pl.col(name).sum()).alias(name)


def _weighted_price() -> pl.Expr:
    price, volume = pl.col("vwap"), pl.col("volume")
    known = (price.is_not_null() | (volume == 0)).all()
    weight = volume.filter(price.is_not_null()).sum()
    # Null, not zero, where it is of no use: dividing by zero fails even in a branch not taken.
    usable = pl.when(known & (weight > 0)).then(weight)
    return ((price * volume).sum() / usable).alias("vwap")


def _doubted(made: pl.DataFrame, grid: Grid, opens: NDArray[np.int64], expected: Grid) -> pl.DataFrame:
    """Candles with a note where a part that is expected within is none of `opens`."""
    absent = expected.opens[~np.isin(expected.opens, opens)]
    lacking = np.searchsorted(absent, grid.ends) > np.searchsorted(absent, grid.opens)
    doubted = np.isin(made["timestamp"].cast(pl.Int64).to_numpy(), grid.opens[lacking])
    note = pl.when(pl.Series(doubted)).then(pl.lit(NOTE_PARTS_UNKNOWN))
    return made.with_columns(
        notes=pl.concat_str("notes", note, separator=NOTE_SEPARATOR, ignore_nulls=True).replace("", None)
    )


def _joined_notes() -> pl.Expr:
    notes = pl.col("notes").drop_nulls().unique(maintain_order=True)
    return pl.when(notes.len() > 0).then(notes.str.join(NOTE_SEPARATOR)).alias("notes")
