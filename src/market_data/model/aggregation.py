"""aggregate: candles of a fine timeframe combined into those of a coarser grid, exactly."""

from __future__ import annotations

import numpy as np
import polars as pl

from market_data.model.dataset import CANDLES
from market_data.model.session import Grid

NOTE_SEPARATOR = "; "
# Unknown in one part makes the whole unknown.
_SUMS = ("quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume")


def aggregate(frame: pl.DataFrame, grid: Grid) -> pl.DataFrame:
    """Candles of `grid` made of the finer candles that open within each; the schema is that of CANDLES.

    Open and close are the first's and last's, high and low the extremes, volume and counts the sums, vwap the mean of
    the parts' vwaps weighted by volume. A sum or mean of which one part is unknown is null. A grid candle without parts
    gets no row; parts outside every grid candle (extended hours) are left out. All parts must be closed and complete:
    the caller asks for whole grid candles.

    Args:
        frame: candles in the schema of CANDLES, unique timestamps, any order.
        grid: the candles to make.
    """
    parts = frame.sort("timestamp")
    opens = parts["timestamp"].cast(pl.Int64).to_numpy()
    place = np.searchsorted(grid.opens, opens, side="right") - 1
    inside = place >= 0
    inside[inside] = opens[inside] < grid.ends[place[inside]]
    parts = parts.with_columns(
        timestamp=pl.Series(grid.opens[place] if len(grid) else opens).cast(CANDLES.schema["timestamp"])
    )
    return CANDLES.conform(
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


def _known_sum(name: str) -> pl.Expr:
    return pl.when(pl.col(name).null_count() == 0).then(pl.col(name).sum()).alias(name)


def _weighted_price() -> pl.Expr:
    price, volume = pl.col("vwap"), pl.col("volume")
    known = (price.is_not_null() | (volume == 0)).all()
    weight = volume.filter(price.is_not_null()).sum()
    # Null, not zero, where it is of no use: dividing by zero fails even in a branch not taken.
    usable = pl.when(known & (weight > 0)).then(weight)
    return ((price * volume).sum() / usable).alias("vwap")


def _joined_notes() -> pl.Expr:
    notes = pl.col("notes").drop_nulls().unique(maintain_order=True)
    return pl.when(notes.len() > 0).then(notes.str.join(NOTE_SEPARATOR)).alias("notes")
