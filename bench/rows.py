"""Candles to measure with: a random walk of minutes with all that an exchange reports of them."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl

from market_data.model.dataset import CANDLES, UTC_MICROS
from market_data.model.timeframe import to_micros

ORIGIN = datetime(2024, 3, 1, tzinfo=UTC)


def minutes(count: int, *, seed: int = 7) -> pl.DataFrame:
    """`count` consecutive one-minute candles in the schema of CANDLES."""
    rng = np.random.default_rng(seed)
    close = np.round(60_000 * np.exp(np.cumsum(rng.normal(0, 5e-4, count))), 2)
    opened = np.r_[60_000.0, close[:-1]]
    high = np.maximum(opened, close) + np.round(rng.uniform(0, 20, count), 2)
    low = np.minimum(opened, close) - np.round(rng.uniform(0, 20, count), 2)
    volume = np.round(rng.lognormal(3, 1, count), 3) + 0.001
    taker = np.round(volume * rng.uniform(0.2, 0.8, count), 3)
    texts = {
        "open": opened, "high": high, "low": low, "close": close, "volume": volume, "taker_buy_volume": taker,
        "quote_volume": volume * close, "taker_buy_quote_volume": taker * close,
    }  # fmt: skip
    places = {"volume": 3, "taker_buy_volume": 3, "quote_volume": 5, "taker_buy_quote_volume": 5}
    exact = {name: [f"{value:.{places.get(name, 2)}f}" for value in values] for name, values in texts.items()}
    times = to_micros(ORIGIN) + np.arange(count) * 60_000_000
    frame = pl.DataFrame(exact | {"trade_count": rng.integers(1, 5_000, count)})
    return CANDLES.conform(
        frame.with_columns(timestamp=pl.Series(times).cast(UTC_MICROS)).with_columns(
            pl.col(name).cast(CANDLES.schema[name]) for name in texts
        )
    )
