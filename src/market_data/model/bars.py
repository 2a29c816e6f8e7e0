"""Bars made of trades at read: of any length, of so many units traded, or of so much money."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

import polars as pl

from market_data.model.dataset import EXACT, UTC_MICROS
from market_data.model.errors import UsageError
from market_data.model.timeframe import MICROSECOND

DAY: Final = timedelta(days=1)
COLUMNS: Final = (
    "timestamp", "end", "open", "high", "low", "close", "volume", "quote_volume", "vwap", "trade_count",
    "taker_buy_volume", "complete",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Where one bar ends and the next begins; exactly one of these is given.

    Attributes:
        every: after so much time, counted from 1970-01-01 UTC; a day has a whole number of them.
        volume: with the trade by which so many units were traded.
        money: with the trade by which so much money, in the quote currency, changed hands.
    """

    every: timedelta | None = None
    volume: Decimal | None = None
    money: Decimal | None = None

    def __post_init__(self) -> None:
        given = [value for value in (self.every, self.volume, self.money) if value is not None]
        if len(given) != 1:
            raise UsageError("say how bars are cut by one of: a length, a volume, an amount of money")
        if self.every is not None and (self.every <= timedelta(0) or DAY % self.every):
            raise UsageError(f"a day is no multiple of {self.every}: give a length such as 90s, 7m30s, 2h")
        if self.every is None and given[0] <= 0:  # type: ignore[operator]  # a decimal then
            raise UsageError("bars are cut by a volume or an amount above zero")


def bars_of_trades(trades: pl.DataFrame, cut: Cut) -> pl.DataFrame:
    """Bars in order of time; stretches without trades have none.

    Bars of volume or money begin anew each day at 00:00 UTC, so that they do not depend on where the range was cut; the
    last of a day is mostly not complete. A trade that reaches the mark ends its bar, whole. Prices are null where no
    trade of the bar may move one.

    Args:
        trades: as `ticks.counting` gives them, in order; of whole days where bars are of volume or money.
        cut: where bars end.
    """
    if trades.is_empty():
        return pl.DataFrame(schema=SCHEMA)
    if cut.every is not None:
        length = cut.every // MICROSECOND
        begin = trades["timestamp"].cast(UTC_MICROS).cast(pl.Int64) // length * length
        made = _aggregated(trades, begin.cast(UTC_MICROS).alias("place"))
        return made.select(timestamp="place", end=pl.col("place") + cut.every, **_VALUES, complete=pl.lit(value=True))
    mark, amount = (cut.volume, pl.col("size")) if cut.volume is not None else (cut.money, _MONEY)
    counted = pl.when("moves_volume").then(amount).otherwise(amount * 0)
    place = _marked(trades.select(day=pl.col("timestamp").dt.date(), amount=counted), mark)  # type: ignore[arg-type]
    made = _aggregated(trades, place["place"])
    return made.select(timestamp="first", end="last", **_VALUES, complete=made["place"].is_in(place["whole"].unique()))


_MONEY: Final = pl.col("price") * pl.col("size")
_VALUES: Final = {name: name for name in COLUMNS[2:-1]}
SCHEMA: Final = {
    "timestamp": UTC_MICROS, "end": UTC_MICROS,
    **dict.fromkeys(("open", "high", "low", "close", "volume", "quote_volume", "vwap"), EXACT),
    "trade_count": pl.Int64(), "taker_buy_volume": EXACT, "complete": pl.Boolean(),
}  # fmt: skip


def _aggregated(trades: pl.DataFrame, place: pl.Series) -> pl.DataFrame:
    price, size, side = pl.col("price"), pl.col("size"), pl.col("aggressor_side")
    moving, ranging, counted = price.filter("moves_price"), price.filter("moves_range"), size.filter("moves_volume")
    volume, money = counted.sum(), _MONEY.filter("moves_volume").sum()
    bought = size.filter(pl.col("moves_volume") & (side == "buy")).sum()
    return (
        trades.with_columns(place.alias("place"))
        .group_by("place", maintain_order=True)
        .agg(
            pl.col("timestamp").first().alias("first"),
            pl.col("timestamp").last().alias("last"),
            # Where no trade may move the price, one that is late or priced otherwise has to stand for it.
            pl.coalesce(moving.first(), ranging.first()).alias("open"),
            ranging.max().alias("high"),
            ranging.min().alias("low"),
            pl.coalesce(moving.last(), ranging.last()).alias("close"),
            volume.alias("volume"),
            money.alias("quote_volume"),
            pl.when(volume > 0).then(money / pl.when(volume > 0).then(volume)).alias("vwap"),
            counted.count().cast(pl.Int64).alias("trade_count"),
            pl.when(side.null_count() == 0).then(bought).alias("taker_buy_volume"),
        )
    )


def _marked(amounts: pl.DataFrame, mark: Decimal) -> pl.DataFrame:
    """Per trade the number of its bar (`place`), and that number again where the bar reached its mark (`whole`)."""
    places: list[int] = []
    whole: list[int | None] = []
    bar = 0
    for (_,), day in amounts.group_by("day", maintain_order=True):
        sums = day["amount"].cum_sum().to_list()
        start, before = 0, Decimal(0)
        while start < len(sums):
            last = bisect_left(sums, before + mark, start)
            reached = last < len(sums)
            after = last + 1 if reached else len(sums)
            places += [bar] * (after - start)
            whole += [bar if reached else None] * (after - start)
            start, before, bar = after, sums[after - 1], bar + 1
    return pl.DataFrame({"place": places, "whole": pl.Series(whole, dtype=pl.Int64)})
