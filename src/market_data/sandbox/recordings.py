"""The bundled recordings, as blocks in whole ticks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from market_data.sandbox.block import DAY, Int
from market_data.sandbox.symbols import Coin, Stock

FOLDER = Path(__file__).parent / "recordings"
PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True, slots=True, eq=False)
class RecordedHours:
    """Hours of a coin: open times in ms, prices (4, n), base volume and quote value, all in ticks."""

    time: Int
    prices: Int
    volume: Int
    quote: Int


@dataclass(frozen=True, slots=True, eq=False)
class RecordedDays:
    """Days of a stock: UTC midnight of the date in ms, prices (4, n) in ticks, shares, and what happened that day."""

    midnight: Int
    prices: Int
    volume: Int
    dividends: tuple[tuple[date, str], ...]
    splits: tuple[tuple[date, int, int], ...]


def _ticks(frame: pl.DataFrame, name: str, decimals: int) -> Int:
    """A decimal column as whole numbers of 10^-decimals, exactly."""
    column = frame[name].cast(pl.Decimal(38, decimals), strict=True)
    return column.to_physical().cast(pl.Int64).to_numpy()


@cache
def recorded_hours(coin: Coin) -> RecordedHours:
    """The recording of a coin that has one."""
    frame = pl.read_parquet(FOLDER / f"{coin.symbol}.parquet")
    return RecordedHours(
        time=frame["timestamp"].to_physical().to_numpy(),
        prices=np.array([_ticks(frame, name, coin.price_decimals) for name in PRICES]),
        volume=_ticks(frame, "volume", coin.volume_decimals),
        quote=_ticks(frame, "quote_volume", coin.price_decimals + coin.volume_decimals),
    )


@cache
def recorded_days(stock: Stock) -> RecordedDays:
    """The recording of a stock that has one."""
    frame = pl.read_parquet(FOLDER / f"{stock.symbol}.parquet")
    paid = frame.filter(pl.col("dividend") > 0)
    split = frame.filter(pl.col("split_to") != pl.col("split_from"))
    return RecordedDays(
        midnight=frame["date"].to_physical().to_numpy().astype(np.int64) * DAY,
        prices=np.array([_ticks(frame, name, stock.price_decimals) for name in PRICES]),
        volume=frame["volume"].to_numpy(),
        dividends=tuple((day, str(amount)) for day, amount in paid.select("date", "dividend").iter_rows()),
        splits=tuple(split.select("date", "split_from", "split_to").iter_rows()),
    )
