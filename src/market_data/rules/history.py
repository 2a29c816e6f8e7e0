"""Rules that look back along the series and note what is unusual: the candle is stored, its score is lower."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from market_data.model.rolling import log_ratio, shifted
from market_data.model.rule import Severity, rule

# Windows hold an odd number of values, so that their median is one of them and no rounding can differ.
JUMP_RETURNS: Final = 31
# In robust standard deviations. Returns have fat tails: at 12, 3 of 1000 hours of Bitcoin in 2017 to 2019 are noted and
# at most 1 of 1000 days of four large stocks (splits among them); at 6 it would be 13 and 8.
JUMP_DEVIATIONS: Final = 12.0
# However quiet the window, a smaller move is no jump: many one-minute candles do not move at all.
JUMP_LEAST_LOG_RETURN: Final = 0.005
# The median absolute deviation of a normal distribution times this is its standard deviation.
NORMAL_DEVIATIONS_PER_MAD: Final = 1.4826

VOLUME_CANDLES: Final = 21
# The opening minutes of a stock's session trade 5 to 8 times the median; a halt or an outage trades next to nothing.
VOLUME_MANY_TIMES: Final = 10.0
VOLUME_SMALL_SHARE: Final = 0.02

FROZEN_CANDLES: Final = 10

# Rows per step of the median kernel: its working copy stays within the processor's cache.
_ROWS_AT_ONCE: Final = 4096


def _no_jump(closes: pl.Series) -> pl.Series:
    close = closes.cast(pl.Float64).fill_null(np.nan).to_numpy()
    returns = log_ratio(close, shifted(close, 1))
    center, spread = _median_and_mad(returns)
    distance = np.abs(returns - center)
    limit = np.maximum(JUMP_DEVIATIONS * NORMAL_DEVIATIONS_PER_MAD * spread, JUMP_LEAST_LOG_RETURN)
    # A comparison with NaN is false: where the window is not full nothing is a jump.
    return pl.Series(closes.name, ~(distance > limit))


def _median_and_mad(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median and median absolute deviation from it of the JUMP_RETURNS values before each; NaN where one is missing."""
    medians = np.full(len(values), np.nan)
    deviations = np.full(len(values), np.nan)
    if len(values) <= JUMP_RETURNS:
        return medians, deviations
    # Sorting puts NaN last, where a median would pass it by: windows with one are told apart by counting.
    missing = np.concatenate([[0], np.cumsum(np.isnan(values))])
    whole = missing[JUMP_RETURNS:-1] == missing[: -1 - JUMP_RETURNS]
    windows = np.lib.stride_tricks.sliding_window_view(values[:-1], JUMP_RETURNS)
    middle = JUMP_RETURNS // 2
    for start in range(0, len(windows), _ROWS_AT_ONCE):
        window = windows[start : start + _ROWS_AT_ONCE]
        kept = whole[start : start + _ROWS_AT_ONCE]
        center = np.partition(window, middle, axis=1)[:, middle]
        spread = np.partition(np.abs(window - center[:, None]), middle, axis=1)[:, middle]
        rows = slice(start + JUMP_RETURNS, start + JUMP_RETURNS + len(window))
        medians[rows] = np.where(kept, center, np.nan)
        deviations[rows] = np.where(kept, spread, np.nan)
    return medians, deviations


@rule(Severity.NOTE, lookback=JUMP_RETURNS + 1)
def price_jump() -> pl.Expr:
    """The log return lies within 12 robust deviations of the median of the 31 before it, or within 0.5 % of it."""
    return pl.col("close").map_batches(_no_jump, return_dtype=pl.Boolean)


@rule(Severity.NOTE, lookback=VOLUME_CANDLES)
def volume_anomaly() -> pl.Expr:
    """Volume is at most 10 times and at least a fiftieth of the median of the 21 candles before."""
    before = pl.col("volume").shift(1).rolling_median(VOLUME_CANDLES, min_samples=VOLUME_CANDLES)
    usual = pl.col("volume").is_between(VOLUME_SMALL_SHARE * before, VOLUME_MANY_TIMES * before)
    # Where half of the candles have no trades, one that has some is no anomaly.
    return usual | (before == 0)


@rule(Severity.NOTE, lookback=FROZEN_CANDLES - 1)
def frozen_price() -> pl.Expr:
    """The price moved at least once within this candle and the 9 before it."""
    highest = pl.col("high").rolling_max(FROZEN_CANDLES, min_samples=FROZEN_CANDLES)
    lowest = pl.col("low").rolling_min(FROZEN_CANDLES, min_samples=FROZEN_CANDLES)
    return highest > lowest


@rule(Severity.NOTE, lookback=1)
def gap() -> pl.Expr:
    """The candle the calendar expects just before this one is stored."""
    return pl.col("timestamp").shift(1) >= pl.col("previous_expected")


@rule(Severity.NOTE)
def source_disagreement() -> pl.Expr:
    """No other source gave different values for this candle."""
    return ~pl.col("disagrees")


@rule(Severity.NOTE)
def source_in_doubt() -> pl.Expr:
    """The provider could make sure of what it gave: none of its remarks names something unknown.

    Other remarks (what it repaired, what its volumes include) are provenance: they stand in the notes and cost nothing.
    """
    return ~pl.col("notes").str.contains("_unknown", literal=True)
