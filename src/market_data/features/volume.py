"""Volume against its own recent past."""

from __future__ import annotations

from market_data.model.feature import feature
from market_data.model.rolling import FloatArray
from market_data.model.window import Window


@feature(lookback=19, inputs=("volume",), unit="base units")
def rolling_volume_20(window: Window) -> FloatArray:
    """Mean volume of the last 20 candles.

    Formula: mean of the last 20 volumes.
    Null: until there are 20 volumes; while one of them is absent.
    Source: arithmetic mean.
    """
    return window.mean_of_last(window.volume, 20)


@feature(lookback=19, inputs=("volume",), unit="ratio")
def volume_spike_score(window: Window) -> FloatArray:
    """Volume as a multiple of what is usual.

    Formula: volume / mean of the last 20 volumes, this one included; between 0 and 20.
    Null: until there are 20 volumes; while one of them is absent; when all 20 are 0.
    Source: relative volume.
    """
    return window.volume / window.mean_of_last(window.volume, 20)
