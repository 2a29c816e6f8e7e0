"""Rules that look back along the series and note what is unusual: the candle is stored, its score is lower."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from market_data.model.rolling import log_ratio, shifted
from market_data.model.rows import NOTE_CUT_SHORT
from market_data.model.rule import Severity, rule

# Windows hold an odd number of values, so that their median is one of them and no rounding can differ.
JUMP_RETURNS: Final = 31
# In robust standard deviations. Returns have fat tails: at 12, 3 of 1000 hours of Bitcoin in 2017 to 2019 are noted and
# at most 2 of 1000 days of four large stocks (splits among them); at 6 it would be 13 and 8.
JUMP_DEVIATIONS: Final = 12.0
# However quiet the window, a smaller move is no jump: many one-minute candles do not move at all.
JUMP_LEAST_LOG_RETURN: Final = 0.01
# Where the price moves in few, coarse ticks, more than half of the returns may be equal and their spread 0: a jump is
# then three times what one return in ten exceeds.
JUMP_TIMES_LARGE_RETURNS: Final = 3.0
LARGE_RETURN_RANK: Final = 27
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
    fine = np.ones(len(returns), np.bool_)
    # Whole windows only: sorting puts NaN last, where a median would pass it by.
    missing = np.concatenate([[0], np.cumsum(np.isnan(returns))])
    rows = np.arange(JUMP_RETURNS, len(returns))
    rows = rows[missing[rows + 1] == missing[rows - JUMP_RETURNS]]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        fine[some] = _near_the_usual(returns[some], _windows_before(returns, some))
    return pl.Series(closes.name, fine)


def _windows_before(values: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """One row each: the JUMP_RETURNS values before those at `rows`."""
    return np.lib.stride_tricks.sliding_window_view(values, JUMP_RETURNS)[rows - JUMP_RETURNS]


def _near_the_usual(returns: NDArray[np.float64], windows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each return is as usual in its window of earlier ones."""
    middle = JUMP_RETURNS // 2
    center = np.partition(windows, middle, axis=1)[:, middle]
    move = np.abs(returns - center)
    fine = move <= JUMP_LEAST_LOG_RETURN
    # Few moves are that large: only their windows are looked at again.
    large = ~fine
    distance = np.sort(np.abs(windows[large] - center[large, None]), axis=1)
    spread = JUMP_DEVIATIONS * NORMAL_DEVIATIONS_PER_MAD * distance[:, middle]
    fine[large] = move[large] <= np.maximum(spread, JUMP_TIMES_LARGE_RETURNS * distance[:, LARGE_RETURN_RANK])
    return fine


@rule(Severity.NOTE, lookback=JUMP_RETURNS + 1)
def price_jump() -> pl.Expr:
    """The log return lies within 12 robust deviations of the median of the 31 before it, or within 1 % of it."""
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
def ended_early() -> pl.Expr:
    """The source did not cut the candle short, as an outage or the end of a listing does: it is of its whole length."""
    return ~pl.col("notes").str.contains(NOTE_CUT_SHORT, literal=True)


@rule(Severity.NOTE)
def source_in_doubt() -> pl.Expr:
    """The provider could make sure of what it gave: none of its remarks names something unknown.

    Other remarks (what it repaired, what its volumes include) are provenance: they stand in the notes and cost nothing.
    """
    return ~pl.col("notes").str.contains("_unknown", literal=True)
