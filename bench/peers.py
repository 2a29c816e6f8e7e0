"""The formulas of the features by other people's libraries, written as their users would write them fast."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray


def by_pandas(frame: pl.DataFrame, observations: Mapping[str, pl.DataFrame]) -> Callable[[], object]:
    """A function that computes all features of one-minute crypto candles with pandas, from pandas frames."""
    import pandas as pd

    candles = pd.DataFrame({name: frame[name].to_numpy() for name in frame.columns})
    seen = {
        dataset: pd.DataFrame({name: each[name].to_numpy() for name in each.columns})
        for dataset, each in observations.items()
    }
    for each in (candles, *seen.values()):
        each.columns = each.columns.astype(object)
    return lambda: _all(pd, candles, seen)


def _all(pd: Any, candles: Any, seen: Mapping[str, Any]) -> Any:
    close, opens, high, low, volume = (candles[name] for name in ("close", "open", "high", "low", "volume"))
    buy, sell, ended = candles["taker_buy_volume"], candles["taker_sell_volume"], candles["timestamp"]
    out = pd.DataFrame(index=candles.index)
    whole = ended.diff(59) == pd.Timedelta(minutes=59)
    out["return_1h"] = ((close / opens.shift(59) - 1) * 100).where(whole)
    # Present minutes only, found by label.
    day_before = pd.Series(close.to_numpy(), index=ended + pd.Timedelta(days=1)).reindex(ended).to_numpy()
    out["return_1d"] = (close / day_before - 1) * 100
    log_returns = np.log(close / close.shift())
    out["volatility_20"] = log_returns.rolling(20).std() * 100
    out["volatility_50"] = log_returns.rolling(50).std() * 100
    previous = close.shift()
    ranges = np.maximum(high - low, np.maximum((high - previous).abs(), (low - previous).abs()))
    out["atr"] = ranges.rolling(14).mean()
    sma = out["sma_20"] = close.rolling(20).mean()
    out["sma_50"] = close.rolling(50).mean()
    trend = np.select([sma.isna(), close > 1.01 * sma, close < 0.99 * sma], [None, "up", "down"], "neutral")
    out["trend_direction"] = trend
    earlier_high, earlier_low = high.shift(20), low.shift(20)
    bullish, bearish = (high > earlier_high) & (low > earlier_low), (high < earlier_high) & (low < earlier_low)
    out["market_structure"] = np.select([earlier_high.isna(), bullish, bearish], [None, "bullish", "bearish"], "range")
    mean_volume = out["rolling_volume_20"] = volume.rolling(20).mean()
    out["volume_spike_score"] = volume / mean_volume
    out["delta"] = buy - sell
    out["buy_sell_ratio"] = buy / (buy + sell)
    out["liquidation_intensity"] = (candles["liquidations_long"] + candles["liquidations_short"]) / volume
    consecutive = ended.diff() == pd.Timedelta(minutes=1)
    out["open_interest_change"] = (candles["open_interest"].pct_change() * 100).where(consecutive)
    _observed(pd, out, candles, seen)
    return out


def _observed(pd: Any, out: Any, candles: Any, seen: Mapping[str, Any]) -> None:
    day = pd.Timedelta(days=1)
    rates = seen["funding_rates"]
    trailing = rates.set_index("timestamp")["rate"].rolling("90D")
    count = trailing.count()
    percentile = ((trailing.rank(method="min") - 1) / count * 100).where(count >= 30)
    known = pd.DataFrame({"known_at": rates["known_at"].to_numpy(), "value": percentile.to_numpy()})
    ends = candles[["end"]]
    joined = pd.merge_asof(ends, known, left_on="end", right_on="known_at", tolerance=day)
    out["funding_rate_percentile"] = joined["value"].to_numpy()
    ratios = seen["long_short_ratios"][["known_at", "ratio"]]
    joined = pd.merge_asof(ends, ratios, left_on="end", right_on="known_at", tolerance=day)
    out["long_short_ratio"] = joined["ratio"].to_numpy()
    flow = seen["spot_flow"].set_index("timestamp")
    out["exchange_inflow"] = (flow["buy_quote"] - flow["sell_quote"]).reindex(candles["end"]).to_numpy()


def by_talib(arrays: Mapping[str, NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """The five features that TA-Lib has, from arrays to arrays."""
    import talib

    close = arrays["close"]
    returns = talib.LN(close[1:] / close[:-1])
    ranges = talib.TRANGE(arrays["high"], arrays["low"], close)
    return [
        talib.SMA(close, 20),
        talib.SMA(close, 50),
        talib.STDDEV(returns, 20, (20 / 19) ** 0.5) * 100,
        talib.STDDEV(returns, 50, (50 / 49) ** 0.5) * 100,
        talib.SMA(ranges[1:], 14),
    ]
