"""Joins values that have their own clock onto candles as of each candle's close: nothing before it was published."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import polars as pl

from market_data.model.dataset import EXACT, FUNDING_RATES, LIQUIDATIONS, OPEN_INTEREST

# A value older than this at the close is no longer the state of the market: funding is paid at least every 8 hours,
# open interest published every 5 minutes.
STALE_AFTER: Final = {OPEN_INTEREST.name: timedelta(hours=1), FUNDING_RATES.name: timedelta(hours=9)}
# A value that was published so much later than what it speaks of never was the state of the market; and an instrument
# of which a value was published within this time before a candle's end should have one for that candle too.
LATEST: Final = timedelta(days=7)
# How far before a candle's open its derived columns look, besides what features declare.
OBSERVED_SPANS: Final = {
    OPEN_INTEREST.name: LATEST + STALE_AFTER[OPEN_INTEREST.name],
    FUNDING_RATES.name: LATEST + STALE_AFTER[FUNDING_RATES.name],
    LIQUIDATIONS.name: timedelta(0),
}

SOURCE_VALUES: Final = ("open_interest", "funding_rate", "liquidations_long", "liquidations_short")


def join_observations(rows: pl.DataFrame, observations: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """`rows` with SOURCE_VALUES as exact decimals.

    `open_interest` and `funding_rate` are the newest known at the candle's end and not stale; `liquidations_*` the sum
    of sizes in [timestamp, end), null where none was recorded: the stream that would prove a zero is not replayable.
    """
    rows = _as_of(rows, observations.get(OPEN_INTEREST.name), OPEN_INTEREST.name, "value", "open_interest")
    rows = _as_of(rows, observations.get(FUNDING_RATES.name), FUNDING_RATES.name, "rate", "funding_rate")
    return _liquidations(rows, observations.get(LIQUIDATIONS.name))


def expected_values(rows: pl.DataFrame, observations: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Whether each row should have `open_interest` and `funding_rate`: columns of these names, true or false.

    It should where a value is known at its end that speaks of a moment within LATEST before it: so it does not matter
    which other rows are looked at.
    """
    expected = {}
    for name, dataset in (("open_interest", OPEN_INTEREST.name), ("funding_rate", FUNDING_RATES.name)):
        seen = observations.get(dataset)
        if seen is None or seen.is_empty():
            expected[name] = pl.repeat(value=False, n=rows.height, dtype=pl.Boolean, eager=True)
            continue
        newest = seen.sort("known_at").select(end="known_at", newest=pl.col("timestamp").cum_max())
        found = rows.select("end").join_asof(newest, on="end", strategy="backward", coalesce=True)
        expected[name] = found.select((pl.col("newest") >= pl.col("end") - LATEST).fill_null(value=False)).to_series()
    return pl.DataFrame(expected)


def _as_of(rows: pl.DataFrame, seen: pl.DataFrame | None, dataset: str, value: str, name: str) -> pl.DataFrame:
    if seen is not None and dataset == FUNDING_RATES.name:
        seen = seen.filter(pl.col("rate_type") == "Regular")
    if seen is None or seen.is_empty():
        return rows.with_columns(pl.lit(None, EXACT).alias(name))
    # A value that became known after one of a later moment never was current.
    current = (
        seen.filter(pl.col("timestamp") >= pl.col("known_at") - LATEST)
        .sort("known_at", "timestamp")
        .filter((pl.col("timestamp") > pl.col("timestamp").cum_max().shift(1)).fill_null(value=True))
    )
    newest = current.select(pl.col("known_at").alias("end"), pl.col(value).alias(name))
    newest = newest.unique("end", keep="last", maintain_order=True)
    # join_asof wants both sides ordered; candles are ordered by timestamp and so by end.
    return rows.join_asof(newest, on="end", strategy="backward", tolerance=STALE_AFTER[dataset], coalesce=True)


def _liquidations(rows: pl.DataFrame, seen: pl.DataFrame | None) -> pl.DataFrame:
    sides = ("long", "short")
    if seen is None or seen.is_empty():
        return rows.with_columns(pl.lit(None, EXACT).alias(f"liquidations_{side}") for side in sides)
    opens = rows.select("timestamp", "end", open_time="timestamp")
    placed = seen.sort("timestamp").join_asof(opens, on="timestamp", strategy="backward", coalesce=True)
    sums = (
        placed.filter(pl.col("timestamp") < pl.col("end"))
        .group_by("open_time")
        .agg(
            pl.when(pl.col("side").eq(side).any())
            .then(pl.col("size").filter(pl.col("side") == side).sum())
            .cast(EXACT)
            .alias(f"liquidations_{side}")
            for side in sides
        )
    )
    return rows.join(sums, left_on="timestamp", right_on="open_time", how="left", maintain_order="left")
