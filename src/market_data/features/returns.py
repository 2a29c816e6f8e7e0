"""Returns over an hour and a day of the clock."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from market_data.model.feature import feature
from market_data.model.instrument import Series
from market_data.model.rolling import FloatArray
from market_data.model.session import ALWAYS_OPEN, DAY_MICROS, sessions
from market_data.model.timeframe import Timeframe
from market_data.model.window import Window

HOUR_MICROS = 3_600_000_000
# The regular session of the exchanges we know; early closes are shorter.
SESSION_MICROS = 23_400_000_000
# Longer than any run of days without a session since 1990 (seven, in September 2001).
LONGEST_CLOSURE_MICROS = 14 * DAY_MICROS


def within_an_hour(series: Series) -> bool:
    """Whether an hour is made of whole candles of the series."""
    return series.timeframe.micros <= HOUR_MICROS


def candles_before_in_hour(series: Series) -> int:
    """Candles of the trailing hour before its last one."""
    return HOUR_MICROS // series.timeframe.micros - 1


def at_most_a_day(series: Series) -> bool:
    """Whether a day is at least one candle of the series."""
    return series.timeframe is not Timeframe.W1


def candles_to_previous_close(series: Series) -> int:
    """Candles back to the one whose close a day's return starts from, at most."""
    if series.asset_class.calendar == ALWAYS_OPEN:
        return DAY_MICROS // series.timeframe.micros
    return 1 if series.timeframe is Timeframe.D1 else -(-SESSION_MICROS // series.timeframe.micros)


def follows_a_whole_hour(window: Window) -> NDArray[np.bool_]:
    """Whether the trailing hour's candles are there: not in a session's first hour, nor across a gap."""
    return window.consecutive(candles_before_in_hour(window.series))


@feature(
    lookback=candles_before_in_hour,
    inputs=("open", "close"),
    unit="%",
    where=within_an_hour,
    possible=follows_a_whole_hour,
)
def return_1h(window: Window) -> FloatArray:
    """Return over the trailing hour.

    Formula: (close - open of the first candle of the trailing hour) / that open * 100; for 1h it is the candle's.
    Null: until the hour's candles (1m 60, 5m 12, 15m 4, 30m 2, 1h 1) are all present and consecutive; when that open is
    0; for 4h, 1d and 1w, whose candles have no last hour.
    Source: simple return of the series' own candles.
    """
    back = candles_before_in_hour(window.series)
    if not back:
        return (window.close - window.open) / window.open * 100.0
    first = window.earlier(window.open, back)
    change = (window.close - first) / first * 100.0
    change[~window.consecutive(back)] = np.nan
    return change


@feature(lookback=candles_to_previous_close, inputs=("close",), unit="%", where=at_most_a_day)
def return_1d(window: Window) -> FloatArray:
    """Return over the last day.

    Formula: (close - reference) / reference * 100. The reference is, for 1d, the previous day's or session's close; for
    crypto below 1d the close 24 hours earlier; for stocks and ETFs below 1d the close of the previous session's last
    candle.
    Null: when the reference candle is absent or its close is 0; for 1w.
    Source: simple return of the series' own candles; sessions of the exchange's calendar.
    """
    reference = _reference(window)
    change = window.close - reference
    change /= reference
    change *= 100.0
    return change


def _reference(window: Window) -> FloatArray:
    back = candles_to_previous_close(window.series)
    if window.series.asset_class.calendar == ALWAYS_OPEN:
        return window.earlier_by(window.close, back)
    return window.of_row_opening_at(window.close, _reference_opens(window), back)


def _reference_opens(window: Window) -> NDArray[np.int64]:
    series = window.series
    if len(window) == 0:
        return window.ends
    first, last = int(window.opens.min()) - LONGEST_CLOSURE_MICROS, int(window.opens.max()) + 1
    opens, closes = sessions(series.asset_class.calendar, first, last)
    if len(opens) == 0:
        return window.ends
    session = np.searchsorted(opens, window.opens, side="right") - 1
    known = session > 0
    previous = opens[session - 1]
    if series.timeframe is Timeframe.D1:
        known &= opens[session] == window.opens
    else:
        step = series.timeframe.micros
        previous = previous + (closes[session - 1] - previous - 1) // step * step
    # A candle before the calendar begins has no previous session: its own end is no candle's open before it.
    return np.where(known, previous, window.ends)
