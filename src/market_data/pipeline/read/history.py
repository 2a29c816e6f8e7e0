"""Enriched candles as stored now, or as they were known at a past moment, computed again from what was known then."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import polars as pl

from market_data.model.errors import UsageError
from market_data.model.instrument import AssetClass, Series
from market_data.model.session import lookback_start
from market_data.model.timeframe import TimeRange
from market_data.pipeline.read.adjust import Adjustment, View, require_asked, view_of
from market_data.pipeline.write.derive import Shelves
from market_data.pipeline.write.ripple import COLUMNS, computed, extent_of
from market_data.storage.series.present import PRESENT_VALUES
from market_data.storage.series.reader import Reader

# Rows computed at a time, so that memory is bounded.
CHUNK_ROWS: Final = 100_000


def enriched(
    reader: Reader,
    shelves: Shelves,
    series: Series,
    span: TimeRange | None = None,
    *,
    limit: int | None = None,
    as_of: datetime | None = None,
    adjustment: Adjustment = Adjustment.NONE,
    now: datetime | None = None,
) -> pl.DataFrame:
    """Enriched candles of [start, end), in order; the newest `limit` of them when given.

    Args:
        reader: reads the database.
        shelves: the features and rules.
        series: whose candles.
        span: open times wanted; None is everything stored.
        limit: at most so many.
        as_of: a past moment: what a system that had stopped then would answer, with features as they are defined now.
        adjustment: for which corporate actions to adjust, those known and in effect by then; features follow from the
            adjusted prices.
        now: the present moment; needed to adjust without `as_of`.

    Returns:
        The columns of market_data_v2 but `id`, then the user's own features. With `as_of`, `computed_at` and
        `updated_at` are null: nothing of that answer was stored.
    """
    if as_of is None and adjustment is Adjustment.NONE:
        return reader.features(series, span, limit=limit, own=shelves.own)
    as_of = as_of or now
    if as_of is None:
        raise UsageError("Adjusting needs to know what day it is.")
    standing = reader.standing(series, span, as_of, limit=limit)
    if adjustment is not Adjustment.NONE and series.asset_class is not AssetClass.CRYPTO and standing.height:
        first, last = standing["timestamp"][0].date(), standing["timestamp"][-1].date()
        require_asked(reader, series.instrument, adjustment, first, last, as_of.date())
    since = lookback_start(series.asset_class, series.timeframe, _first(standing, as_of), shelves.lookback(series))
    view = view_of(reader, series, since, adjustment, as_of)
    parts = [
        _as_known(reader, shelves, series, standing[start : start + CHUNK_ROWS], as_of, view)
        for start in range(0, max(standing.height, 1), CHUNK_ROWS)
    ]
    return pl.concat(parts)


def _first(standing: pl.DataFrame, as_of: datetime) -> datetime:
    first: datetime = standing["timestamp"][0] if standing.height else as_of
    return first


def _as_known(
    reader: Reader,
    shelves: Shelves,
    series: Series,
    standing: pl.DataFrame,
    as_of: datetime,
    view: View,
) -> pl.DataFrame:
    shape = reader.features(series, limit=1, own=shelves.own).clear()
    if standing.is_empty():
        return shape
    lookback = shelves.lookback(series)
    extent = extent_of(standing["timestamp"])
    rows = reader.candles(series, extent, before=lookback, as_of=as_of).select(COLUMNS)
    rows, standing = view.adjusted(rows), view.adjusted(standing)
    adjusted = view.adjustment is not Adjustment.NONE
    derived = computed(reader, shelves, series, rows, as_of=as_of, adjusted=adjusted)
    symbol, asset_class, timeframe = series.key
    standing = standing.drop(name for name in PRESENT_VALUES if name in derived.columns)
    found = standing.join(derived, on="timestamp", how="left", maintain_order="left").with_columns(
        symbol=pl.lit(symbol),
        asset_class=pl.lit(asset_class),
        timeframe=pl.lit(timeframe),
        taker_sell_volume=pl.col("volume") - pl.col("taker_buy_volume"),
        amended_from=pl.when(pl.col("revision") > 1).then(pl.col("revision") - 1),
    )
    return found.select(
        pl.col(name).cast(dtype) if name in found.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in shape.schema.items()
    )
