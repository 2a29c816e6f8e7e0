"""Splits known early, late or amended: every window ends up in the shares of its own candle, as of any moment."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest
from history_desk import Desk, content
from polars.testing import assert_frame_equal

from asking_sources import asking
from market_data.model.contract import Listing
from market_data.model.dataset import SPLITS, UTC_MICROS, Dataset
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.provider import Capability, Page, Provider
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.fetch.facts import Collector
from market_data.pipeline.read.explain import explain
from market_data.pipeline.write.recompute import Recomputation
from market_data.storage.server.database import Database

ACME = Instrument("ACME", AssetClass.STOCK)
DAYS, HALVES = Series(ACME, Timeframe.D1), Series(ACME, Timeframe.M30)
FIRST, LAST = datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 7, 1, tzinfo=UTC)
TIMES = ("fetched_at", "computed_at", "updated_at", "created_at")


class Telling(Provider):
    """A provider that knows some splits."""

    name = "telling"
    capabilities = (Capability(dataset=SPLITS, asset_classes=frozenset({AssetClass.STOCK})),)

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    async def resolve(self, instrument: Instrument) -> Listing:
        return Listing(instrument, self.name, instrument.symbol)

    async def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        raise AssertionError(f"nobody asks for {timeframe} of {instrument} from {start} to {end} at {now}")
        yield

    async def fetch(
        self, dataset: Dataset, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        assert (dataset, instrument, start < end) == (SPLITS, ACME, True)
        yield Page(frame=self.frame, source=self.name, fetched_at=now, response_ms=1.0)


def tell(desk: Desk, splits: dict[date, tuple[str, str]]) -> int:
    """Collect splits (from, to) and renew what follows from them; returns how many candles changed."""
    rows = [
        {"execution_date": day, "split_from": Decimal(of), "split_to": Decimal(to)} for day, (of, to) in splits.items()
    ]
    sources = asking(desk.database, {AssetClass.STOCK: [Telling(pl.DataFrame(rows))]}, lambda: desk.now)
    collector = Collector(sources, desk.shelves)
    collected = asyncio.run(collector.collect(SPLITS, ACME, TimeRange(FIRST, LAST)))
    assert collected.error is None
    return renew(desk)


def renew(desk: Desk) -> int:
    changed = sum(step.changed for step in Recomputation(desk.database, desk.shelves, lambda: desk.now).run())
    desk.now += timedelta(minutes=1)
    return changed


def candles(series: Series, splits: dict[date, tuple[str, str]], count: int, seed: int = 5) -> pl.DataFrame:
    """A walk in cents and whole shares, as it is traded when splits happen."""
    rng = np.random.default_rng(seed)
    opens = pl.Series(grid(series.asset_class, series.timeframe, TimeRange(FIRST, LAST)).opens[:count]).cast(UTC_MICROS)
    close, volume = 300 * np.exp(np.cumsum(rng.normal(0, 0.01, count))), rng.uniform(2e6, 9e6, count)
    rows = []
    for moment, price, shares in zip(opens, close, volume, strict=True):
        factor = math.prod(float(to) / float(of) for day, (of, to) in splits.items() if moment.date() >= day)
        rows.append({"timestamp": moment, **prices(price / factor), "volume": Decimal(round(shares * factor))})
    return pl.DataFrame(rows).with_columns(pl.col("timestamp").cast(UTC_MICROS))


def prices(close: float) -> dict[str, Decimal]:
    cents = Decimal(round(close, 2)).quantize(Decimal("0.01"))
    spread = (cents / 200).quantize(Decimal("0.01"))
    return {"open": cents - spread / 2, "high": cents + spread, "low": cents - spread, "close": cents}


def session(number: int) -> date:
    opens = grid(DAYS.asset_class, DAYS.timeframe, TimeRange(FIRST, LAST)).opens
    return datetime.fromtimestamp(int(opens[number]) / 1e6, UTC).date()


def test_a_split_learned_late_rewrites_exactly_the_windows_that_span_it(
    new_desk: Callable[..., Desk], database: Database
) -> None:
    split = {session(60): ("3", "7")}
    desk = new_desk(database, DAYS)
    desk.offer(candles(DAYS, split, 120), "yahoo")
    before = desk.present()
    assert "price_jump" in before["validation_notes"][60]
    assert before["volatility_20"][61] > 15
    tell(desk, split)
    after = desk.present()
    assert (after["volatility_20"].drop_nulls() < 2).all()
    assert after["validation_notes"].null_count() == after.height
    assert (before["trend_direction"][61], after["trend_direction"][61]) == ("down", "up")
    rewritten = (after["updated_at"] != before["updated_at"]).arg_true().to_list()
    # The longest look-back is 50 rows: the 51st of the new shares sees nothing of before.
    assert rewritten == list(range(60, 110))
    source = ["open", "high", "low", "close", "volume", "revision", "amended_from", "fetched_at", "created_at"]
    assert after.select(source).equals(before.select(source))
    assert desk.table("data_corrections", "count(*)", "1") == [(0,)]
    assert_frame_equal(content(desk.known(desk.now)), content(after), check_exact=True)


@pytest.mark.parametrize("series", [DAYS, HALVES], ids=str)
def test_known_early_or_late_at_once_or_candle_by_candle(
    new_desk: Callable[..., Desk], database: Database, series: Series
) -> None:
    split = {session(24): ("1", "3"), session(27): ("7", "5")}
    rows = candles(series, split, 90 if series is DAYS else 13 * 32)
    desk = new_desk(database, series)
    desk.offer(rows, "yahoo")
    tell(desk, split)
    late = desk.present()
    database.rows("TRUNCATE candles, market_data_v2, series_moments, coverage, stock_splits, split_beliefs")
    desk.offer(rows[: rows.height // 4], "yahoo")
    early = desk.present()
    assert tell(desk, split | {session(100): ("1", "2")}) == 0  # an announcement rewrites nothing
    assert desk.present().equals(early)
    for row in range(rows.height // 4, rows.height // 4 + 12):
        desk.offer(rows[row : row + 1], "yahoo")
    desk.offer(rows[rows.height // 4 + 12 :], "yahoo")
    renew(desk)
    assert_frame_equal(desk.present().drop(TIMES), late.drop(TIMES), check_exact=True)


def test_an_announced_split_rewrites_nothing(new_desk: Callable[..., Desk], database: Database) -> None:
    split = {session(60): ("1", "4")}
    rows = candles(DAYS, split, 90)
    desk = new_desk(database, DAYS)
    desk.offer(rows[:60], "yahoo")
    before = desk.present()
    assert tell(desk, split) == 0
    assert desk.present().equals(before)
    outcome = desk.offer(rows[60:], "yahoo")
    assert (outcome.counts.inserted, outcome.refreshed) == (30, 0)
    assert desk.present()["validation_notes"].null_count() == 90


def test_what_was_known_when(new_desk: Callable[..., Desk], database: Database) -> None:
    history(new_desk(database, DAYS), seed=3, events=8)


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(4, 44))
def test_what_was_known_when_in_many_orders(new_desk: Callable[..., Desk], database: Database, seed: int) -> None:
    history(new_desk(database, DAYS), seed, events=30)


def history(desk: Desk, seed: int, events: int) -> None:
    """Candles and splits, right and wrong, told and told anew in any order; then every state is asked for again."""
    rng = random.Random(seed)
    true = {session(30): ("1", "2"), session(55): ("10", "1")}
    rows = candles(DAYS, true, 90, seed)
    remembered, differing = [], 0
    for _ in range(events):
        if rng.random() < 0.5:
            first, last = sorted((rng.randrange(90), rng.randrange(90)))
            some = rows[first : last + 1]
            desk.offer(some.with_columns(close=pl.col("high")) if rng.random() < 0.3 else some, "yahoo")
            # New prices may have confirmed or contradicted a split.
            differing += renew(desk)
        else:
            wrong = {session(rng.randrange(95)): rng.choice([("1", "2"), ("100", "101"), ("10", "1")])}
            differing += tell(desk, rng.choice([true, true, wrong, wrong | true]))
        remembered.append((desk.now - timedelta(minutes=1), desk.present()))
    for moment, then in remembered:
        if then.height:
            assert_frame_equal(content(desk.known(moment)), content(then), check_exact=True)
    assert differing


@pytest.mark.parametrize(
    ("timeframe", "first_hour"), [(Timeframe.M30, ["14:30"]), (Timeframe.M15, ["14:30", "14:45", "15:00"])]
)
def test_a_sessions_first_hour_lowers_no_score(
    new_desk: Callable[..., Desk], database: Database, timeframe: Timeframe, first_hour: list[str]
) -> None:
    """No candle before the session can make its first hour whole: what cannot exist is not missing."""
    desk = new_desk(database, Series(ACME, timeframe))
    desk.offer(candles(desk.series, {}, 200), "yahoo")
    found = desk.present()[60:]
    without = found.filter(pl.col("return_1h").is_null())["timestamp"].dt.strftime("%H:%M")
    assert without.unique().sort().to_list() == first_hour
    assert found["quality_score"].n_unique() == 1


def test_the_factor_is_explained(new_desk: Callable[..., Desk], database: Database) -> None:
    split = {session(60): ("3", "7")}
    desk = new_desk(database, DAYS)
    desk.offer(candles(DAYS, split, 70), "yahoo")
    tell(desk, split)
    at = desk.present()["timestamp"][65]
    found: dict[str, Any] = {each.feature: each for each in explain(desk.reader, desk.shelves, DAYS, at)}
    (conversion,) = found["sma_20"].conversions
    assert (conversion.before.date(), conversion.rows, conversion.factor) == (session(60), 14, "7/3")
    assert "14 rows before" in str(found["sma_20"])
    closes = found["sma_20"].rows["close"].to_list()
    raw = desk.present()["close"]
    assert closes == [*(float(Fraction(raw[row]) / Fraction(7, 3)) for row in range(46, 60)), *map(float, raw[60:66])]
    (row,) = desk.present().filter(pl.col("timestamp") == at).rows(named=True)
    assert {name: each.value for name, each in found.items()} == {name: row[name] for name in found}
    assert all(
        not each.conversions for each in explain(desk.reader, desk.shelves, DAYS, desk.present()["timestamp"][59])
    )
