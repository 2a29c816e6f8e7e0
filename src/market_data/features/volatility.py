"""How much prices move: deviation of returns, average true range."""

from __future__ import annotations

from market_data.model.feature import feature
from market_data.model.rolling import FloatArray
from market_data.model.window import Window


@feature(lookback=20, inputs=("close",), unit="%")
def volatility_20(window: Window) -> FloatArray:
    """Volatility of the last 20 returns, per candle, not annualised.

    Formula: sample standard deviation (divisor 19) of the last 20 values of ln(close / previous close) * 100.
    Null: until there are 21 closes; while one of them is absent or not above 0.
    Source: close-to-close estimator; two-pass precision by merging halves (Chan, Golub, LeVeque 1979).
    """
    return window.deviation_of_last(window.log_returns, 20) * 100.0


@feature(lookback=50, inputs=("close",), unit="%")
def volatility_50(window: Window) -> FloatArray:
    """Volatility of the last 50 returns, per candle, not annualised.

    Formula: sample standard deviation (divisor 49) of the last 50 values of ln(close / previous close) * 100.
    Null: until there are 51 closes; while one of them is absent or not above 0.
    Source: close-to-close estimator; two-pass precision by merging halves (Chan, Golub, LeVeque 1979).
    """
    return window.deviation_of_last(window.log_returns, 50) * 100.0


@feature(lookback=14, inputs=("high", "low", "close"), unit="price")
def atr(window: Window) -> FloatArray:
    """Average true range of the last 14 candles, by simple mean: not Wilder's smoothing, which never forgets its start.

    Formula: mean of the last 14 of max(high - low, |high - previous close|, |low - previous close|).
    Null: until there are 14 candles that have a predecessor.
    Source: true range of J. Welles Wilder, New Concepts in Technical Trading Systems, 1978.
    """
    return window.mean_of_last(window.true_range, 14)
