"""A change reaches exactly the rows that look back to it, and the way a series came makes no difference to any bit."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from history_desk import Desk

from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe
from market_data.pipeline.write import ripple
from market_data.pipeline.write.ripple import clusters, reached
from market_data.storage.series.present import Counts
from market_data.storage.server.database import Database

TIMES = ("fetched_at", "computed_at", "updated_at", "created_at")
numbers = iter(range(1000))


def series(timeframe: Timeframe) -> Series:
    return Series(Instrument(f"R{next(numbers)}", AssetClass.CRYPTO), timeframe)


def content(desk: Desk) -> pl.DataFrame:
    return desk.present().drop(*TIMES, "symbol")


def minutes(count: int, seed: int = 1) -> pl.DataFrame:
    """A random walk of one-minute candles with two decimals."""
    rng = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 1e-3, count))), 2)
    volume = np.round(rng.uniform(1, 9, count), 3)
    price = pl.Series(close).cast(pl.String).cast(pl.Decimal(38, 18))
    cent = pl.lit("0.05").cast(pl.Decimal(38, 18))
    times = pl.datetime_range(
        pl.datetime(2024, 1, 1, time_zone="UTC"), pl.datetime(2026, 6, 1, time_zone="UTC"), "1m", eager=True
    ).head(count)
    return pl.DataFrame(
        {"timestamp": times.cast(pl.Datetime("us", "UTC")), "open": price, "close": price}
    ).with_columns(
        high=pl.col("close") + cent,
        low=pl.col("close") - cent,
        volume=pl.Series(volume).cast(pl.String).cast(pl.Decimal(38, 18)),
        taker_buy_volume=pl.Series(np.round(volume / 3, 3)).cast(pl.String).cast(pl.Decimal(38, 18)),
    )


def ways_agree(new_desk: Callable[..., Desk], database: Database, rows: pl.DataFrame, single: int) -> None:
    whole = new_desk(database, series(Timeframe.H1))
    assert whole.offer(rows).counts == Counts(inserted=rows.height)
    shuffled = random.Random(37)
    pieces = new_desk(database, series(Timeframe.H1))
    cuts = [0, *sorted(shuffled.sample(range(1, rows.height), 36)), rows.height]
    parts = [rows[a:b] for a, b in pairwise(cuts)]
    shuffled.shuffle(parts)
    assert sum(pieces.offer(part).counts.inserted for part in parts) == rows.height
    assert content(pieces).equals(content(whole))
    one_by_one = new_desk(database, series(Timeframe.H1))
    for position in range(single):
        one_by_one.offer(rows[position : position + 1])
    assert content(one_by_one).equals(content(whole).head(single))


def test_in_one_piece_in_37_or_candle_by_candle(
    new_desk: Callable[..., Desk], database: Database, bitcoin_hours: pl.DataFrame
) -> None:
    # With the recording's own gaps.
    ways_agree(new_desk, database, bitcoin_hours[3000:5000], single=120)


@pytest.mark.prove
def test_all_hours_in_one_piece_in_37_or_candle_by_candle(
    new_desk: Callable[..., Desk], database: Database, bitcoin_hours: pl.DataFrame
) -> None:
    ways_agree(new_desk, database, bitcoin_hours, single=2000)


def test_a_late_candle_reaches_exactly_its_lookback(desk: Desk) -> None:
    rows = [desk.candle(i, str(100 + i % 7), volume=str(5 + i * 3 % 11)) for i in range(200)]
    desk.offer(rows[:90] + rows[91:])
    before = desk.present()
    outcome = desk.offer(rows[90:91])
    after = desk.present()
    rewritten = after.filter(pl.col("updated_at") > before["updated_at"].max())["timestamp"].to_list()
    assert set(rewritten) <= {desk.at(i) for i in range(90, 141)}
    assert outcome.refreshed == len(rewritten) - 1
    untouched = pl.col("timestamp").is_between(desk.at(90), desk.at(140)).not_()
    assert after.filter(untouched).equals(before.filter(untouched))


def test_a_correction_far_back_in_minutes(new_desk: Callable[..., Desk], database: Database) -> None:
    desk = new_desk(database, series(Timeframe.M1))
    rows = minutes(30_000)
    desk.offer(rows)
    lookback = desk.shelves.lookback(desk.series)
    before = desk.present()
    changed = rows[2000:2001].with_columns(close=pl.col("high"))
    started = time.perf_counter()
    outcome = desk.offer(changed)
    seconds = time.perf_counter() - started
    assert outcome.counts == Counts(updated=1)
    # The rows whose lookback reaches it are computed; of them those whose values differ are written.
    after = desk.present()
    rewritten = after.filter(pl.col("updated_at") > before["updated_at"].max())
    assert lookback == 1440
    assert rewritten["timestamp"].to_list() == sorted(
        {after["timestamp"][i] for i in range(2000, 2051)} | {after["timestamp"][2000 + 1440]}
    )
    assert outcome.refreshed == rewritten.height - 1
    untouched = ~pl.col("timestamp").is_in(rewritten["timestamp"].implode())
    assert after.filter(untouched).equals(before.filter(untouched))
    fresh = new_desk(database, series(Timeframe.M1))
    fresh.offer(rows.with_columns(close=pl.when(pl.int_range(pl.len()) == 2000).then("high").otherwise("close")))
    derived = [name for name in after.columns if name not in (*TIMES, "symbol", "revision", "amended_from")]
    assert after.select(derived).equals(fresh.present().select(derived))
    assert seconds < 5  # the measured time is printed by `make bench`; this only guards against reading it all


def test_changes_far_apart_are_not_read_as_one(
    new_desk: Callable[..., Desk], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = new_desk(database, series(Timeframe.M1))
    rows = minutes(40_000)
    desk.offer(rows)
    read: list[int] = []
    candles = type(desk.reader).candles

    def counted(*arguments: Any, **options: Any) -> pl.DataFrame:
        frame = candles(*arguments, **options)
        read.append(frame.height)
        return frame

    monkeypatch.setattr(type(desk.reader), "candles", counted)
    scattered = pl.concat([rows[i : i + 1] for i in (10, 15_000, 39_990)]).with_columns(close=pl.col("high"))
    assert desk.offer(scattered).counts == Counts(updated=3)
    assert len(read) == 3
    assert max(read) <= 2 * 1440 + 1
    monkeypatch.undo()
    assert (
        desk.known(desk.now).drop("computed_at", "updated_at").equals(desk.present().drop("computed_at", "updated_at"))
    )


def test_clusters_part_where_much_lies_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ripple, "WORTH_READING", 10)
    monkeypatch.setattr(ripple, "CLUSTER_CANDLES", 8)
    hours = Series(Instrument("BTC", AssetClass.CRYPTO), Timeframe.H1)
    times = pl.Series([0, 1, 2, 17, 18, 40, 47, 48, 49]) * 3_600_000_000
    parts = clusters(times.cast(pl.Datetime("us", "UTC")), hours, lookback=2)
    hours_of = [(part.to_physical() // 3_600_000_000).to_list() for part in parts]
    # 2 to 17 is more than 2 * 2 + 10 candles; 40 to 49 is more than 8 candles long.
    assert hours_of == [[0, 1, 2], [17, 18], [40, 47], [48, 49]]
    assert clusters(times.head(0).cast(pl.Datetime("us", "UTC")), hours, 2) == []


def test_reached_rows() -> None:
    rows = pl.Series([1, 2, 3, 4, 5, 6, 7, 8]).cast(pl.Datetime("us", "UTC"))
    changed = pl.Series([2, 6]).cast(pl.Datetime("us", "UTC"))
    assert reached(rows, changed, 2).to_list() == [False, True, True, True, False, True, True, True]
    assert reached(rows, changed, 0).to_list() == [False, True, False, False, False, True, False, False]


def test_the_score_of_a_row_does_not_depend_on_the_rows_beside_it(desk: Desk) -> None:
    # Polars divides many rows by multiplying with the reciprocal, a single one by dividing: 5 of 6 fields told.
    rows = [desk.candle(i, taker_buy_volume=None) for i in range(4)]
    desk.offer(rows[:1], "binance")
    desk.offer(rows[1:], "binance")
    assert desk.table("candles", "DISTINCT quality_score", "1") == [((40 * (5 / 6) + 30 + 20 + 10) / 100,)]


@pytest.mark.prove
def test_a_correction_a_year_back_in_minutes(new_desk: Callable[..., Desk], database: Database) -> None:
    desk = new_desk(database, series(Timeframe.M1))
    rows = minutes(366 * 1440)
    desk.now = datetime(2026, 1, 1, tzinfo=UTC)
    for start in range(0, rows.height, 50_000):
        desk.offer(rows[start : start + 50_000])
    taken = []
    for position in (3000, 6000, 9000):
        started = time.perf_counter()
        outcome = desk.offer(rows[position : position + 1].with_columns(close=pl.col("high")))
        taken.append(time.perf_counter() - started)
        assert outcome.counts == Counts(updated=1)
        assert outcome.refreshed <= 51
    seconds = sorted(taken)[len(taken) // 2]
    print(f"{rows.height} minutes; a correction a year back: {seconds:.3f} s, {outcome.refreshed} later rows written")
    assert seconds < 1
