"""Where prices stand: moving averages, trend, market structure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from market_data.model.feature import feature
from market_data.model.rolling import FloatArray
from market_data.model.window import Window

UP_FACTOR = 1.01
DOWN_FACTOR = 0.99
STRUCTURE_ROWS = 20


@feature(lookback=19, inputs=("close",), unit="price")
def sma_20(window: Window) -> FloatArray:
    """Simple moving average of 20 closes.

    Formula: mean of the last 20 closes.
    Null: until there are 20 closes; while one of them is absent.
    Source: arithmetic mean.
    """
    return window.mean_of_last(window.close, 20)


@feature(lookback=49, inputs=("close",), unit="price")
def sma_50(window: Window) -> FloatArray:
    """Simple moving average of 50 closes.

    Formula: mean of the last 50 closes.
    Null: until there are 50 closes; while one of them is absent.
    Source: arithmetic mean.
    """
    return window.mean_of_last(window.close, 50)


@feature(lookback=19, inputs=("close",), unit="text", labels=("down", "neutral", "up"))
def trend_direction(window: Window) -> NDArray[np.int8]:
    """Side of the 20-candle average that the close is on, with a band of 1 % in between.

    Formula: up if close > 1.01 * sma_20, down if close < 0.99 * sma_20, else neutral.
    Null: until there are 20 closes; while one of them is absent.
    Source: price against its moving average.
    """
    average = window.mean_of_last(window.close, 20)
    above, below = window.close > average * UP_FACTOR, window.close < average * DOWN_FACTOR
    codes = above.view(np.int8) - below.view(np.int8)
    codes += 1
    codes[~np.isfinite(average)] = -1
    return codes


@feature(lookback=STRUCTURE_ROWS, inputs=("high", "low"), unit="text", labels=("bearish", "range", "bullish"))
def market_structure(window: Window) -> NDArray[np.int8]:
    """Higher highs with higher lows, or lower ones, against the candle 20 earlier.

    Formula: bullish if high and low are both higher than 20 candles earlier, bearish if both are lower, else range.
    Null: for the first 20 candles; when one of the four prices is absent.
    Source: Dow's definition of a trend by highs and lows.
    """
    higher_high = window.high - window.earlier(window.high, STRUCTURE_ROWS)
    higher_low = window.low - window.earlier(window.low, STRUCTURE_ROWS)
    # Both are higher when the smaller difference is, and both lower when the larger one is; NaN passes through.
    smaller, larger = np.minimum(higher_high, higher_low), np.maximum(higher_high, higher_low, out=higher_high)
    codes = (smaller > 0).view(np.int8) - (larger < 0).view(np.int8)
    codes += 1
    codes[np.isnan(smaller)] = -1
    return codes
