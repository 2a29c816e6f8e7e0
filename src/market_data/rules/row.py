"""Rules that look at a candle alone and reject it: what no market can have printed. A name says what is wrong."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from market_data.model.instrument import AssetClass
from market_data.model.rule import Severity, rule
from market_data.model.session import ALWAYS_OPEN, DAY_MICROS, sessions

PRICES: Final = ("open", "high", "low", "close")
AMOUNTS: Final = ("volume", "quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume")


def _within_session(rows: pl.Series) -> pl.Series:
    """Per row of {timestamp, asset_class}, all of one class, whether a session holds the timestamp."""
    known = rows.struct.field("timestamp").drop_nulls()
    classes = rows.struct.field("asset_class").drop_nulls()
    calendar = AssetClass(classes[0]).calendar if len(classes) else ALWAYS_OPEN
    if calendar == ALWAYS_OPEN or known.is_empty():
        return pl.repeat(value=True, n=len(rows), dtype=pl.Boolean, eager=True)
    moments = rows.struct.field("timestamp").dt.timestamp("us")
    first, last = known.dt.timestamp("us").min(), known.dt.timestamp("us").max()
    assert isinstance(first, int)
    assert isinstance(last, int)
    # A session is shorter than a day: the one that holds the first moment opened within the day before it.
    opens, closes = sessions(calendar, first - DAY_MICROS, last + 1)
    if not len(opens):
        return moments.is_null()
    found = np.searchsorted(opens, moments.fill_null(first).to_numpy(), side="right") - 1
    inside = (found >= 0) & (moments.fill_null(first).to_numpy() < closes[np.maximum(found, 0)])
    return pl.Series(inside) | moments.is_null()


@rule(Severity.REJECT)
def price_not_positive() -> pl.Expr:
    """Open, high, low and close are above zero."""
    return pl.all_horizontal(pl.col(name) > 0 for name in PRICES)


@rule(Severity.REJECT)
def value_not_finite() -> pl.Expr:
    """Prices and volumes are numbers, neither infinite nor NaN."""
    return pl.all_horizontal(pl.col(name).cast(pl.Float64).is_finite() for name in (*PRICES, *AMOUNTS, "vwap"))


@rule(Severity.REJECT)
def high_too_low() -> pl.Expr:
    """The high is at least the open, the close and the low."""
    return pl.all_horizontal(pl.col("high") >= pl.col(name) for name in ("open", "close", "low"))


@rule(Severity.REJECT)
def low_too_high() -> pl.Expr:
    """The low is at most the open and the close."""
    return pl.all_horizontal(pl.col("low") <= pl.col(name) for name in ("open", "close"))


@rule(Severity.REJECT)
def negative_volume() -> pl.Expr:
    """Volumes, traded values and the count of trades are not below zero."""
    return pl.all_horizontal(pl.col(name) >= 0 for name in AMOUNTS)


@rule(Severity.REJECT)
def taker_volume_too_high() -> pl.Expr:
    """Takers bought no more than was traded."""
    return pl.col("taker_buy_volume") <= pl.col("volume")


@rule(Severity.REJECT)
def off_grid() -> pl.Expr:
    """The candle opens where the calendar's grid has a candle of its timeframe."""
    return pl.col("end").is_not_null()


@rule(Severity.REJECT)
def outside_session() -> pl.Expr:
    """The candle opens within a regular session; crypto trades always."""
    return pl.struct("timestamp", "asset_class").map_batches(_within_session, return_dtype=pl.Boolean)


@rule(Severity.REJECT)
def duplicate_timestamp() -> pl.Expr:
    """The candle is the first of its timestamp in the batch; batches are sorted, so timestamps then increase."""
    return pl.col("first_of_timestamp")
