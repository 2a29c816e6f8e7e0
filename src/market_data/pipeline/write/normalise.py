"""Puts a provider's page into the shape the rules see: canonical types, order, and each candle's canonical end."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from market_data.model.dataset import CANDLES, UTC_MICROS, Dataset, nearest_double
from market_data.model.instrument import Series
from market_data.model.session import grid
from market_data.model.timeframe import TimeRange


def normalise(series: Series, frame: pl.DataFrame) -> pl.DataFrame:
    """Sorted by timestamp, in CANDLES' types, with two more columns.

    Returns:
        CANDLES' columns and `end` (canonical end of the candle; null when its timestamp is off the grid) and
        `first_of_timestamp` (false for the second and later of rows that share a timestamp).
    """
    rows = CANDLES.conform(frame).sort("timestamp", maintain_order=True)
    return with_ends(series, rows).with_columns(first_of_timestamp=pl.col("timestamp").is_first_distinct())


def with_ends(series: Series, rows: pl.DataFrame) -> pl.DataFrame:
    """`rows`, sorted by timestamp, with `end`: the canonical end of each candle, null off the grid."""
    times = rows["timestamp"].drop_nulls()
    if times.is_empty():
        return rows.with_columns(end=pl.lit(None, UTC_MICROS))
    span = TimeRange(times[0], times[-1] + timedelta(microseconds=1))
    expected = grid(series.asset_class, series.timeframe, span)
    ends = pl.DataFrame({"timestamp": expected.opens, "end": expected.ends}).cast(pl.Int64).cast(UTC_MICROS)
    return rows.join(ends, on="timestamp", how="left", maintain_order="left")


def as_doubles(rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` with every exact number as the nearest double; what rules and features see."""
    exact = [name for name, dtype in rows.schema.items() if dtype.is_decimal()]
    return rows.with_columns(nearest_double(name) for name in exact)


def closed_by(rows: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """`rows` without those that end after `now`: an open candle is not a candle yet."""
    return rows.filter(pl.col("end").is_null() | (pl.col("end") <= now))


def numbered(dataset: Dataset, frame: pl.DataFrame) -> pl.DataFrame:
    """Rows of an answer, `component` counting those that share the rest of their key; the same row told twice is one.

    Two rows are the same when all that matters to a reader agrees: the amount or ratio, its kind and its currency.
    """
    if "component" not in dataset.key:
        return frame
    rest = [name for name in dataset.key if name != "component"]
    told = [name for name in ("amount", "currency", "split_from", "split_to") if name in frame.columns]
    once = frame.unique([*rest, *told], keep="first", maintain_order=True)
    return once.with_columns(component=pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over(rest))
