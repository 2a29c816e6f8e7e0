"""What is believed of splits, stored: as the claims and prices have it at every moment, and as it was before."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
from history_desk import Desk

from market_data.model.dataset import SPLITS
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe
from market_data.pipeline.write.believe import believed_splits, settle
from market_data.storage.facts.append import Provenance, append
from market_data.storage.facts.reads import newest_versions
from market_data.storage.server.database import Database

DAYS = Series(Instrument("ZZZ", AssetClass.STOCK), Timeframe.D1)
JUNE = [datetime(2024, 6, day, 13, 30, tzinfo=UTC) for day in (3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 17, 18, 20, 21)]


@pytest.fixture
def desk(database: Database, new_desk: Callable[..., Desk]) -> Desk:
    found = new_desk(database, DAYS)
    found.now = datetime(2024, 7, 1, tzinfo=UTC)
    return found


def days(*, ratio: int, at: int, upto: int = 30) -> list[dict[str, Any]]:
    rows = []
    for moment in JUNE:
        if moment.day < upto:
            price = Decimal(400) / (ratio if moment.day >= at else 1)
            values = dict.fromkeys(("open", "high", "low", "close"), price)
            rows.append({"timestamp": moment, **values, "volume": "100"})
    return rows


def tell(desk: Desk, day: int, to: int, source: str = "polygon", component: int = 1) -> datetime:
    row = {"execution_date": date(2024, 6, day), "split_from": 1, "split_to": to, "component": component}
    desk.now += timedelta(minutes=1)
    with desk.database.transaction() as connection:
        origin = Provenance(source=source, now=desk.now, run_id=uuid4())
        append(connection, desk.database, SPLITS, DAYS.instrument, SPLITS.conform(pl.DataFrame([row])), origin)
    return desk.now


def believed(desk: Desk, moment: datetime) -> list[tuple[int, int, str]]:
    found = believed_splits(desk.reader, DAYS.instrument, moment)
    return [(split.date.day, int(split.ratio), split.state.value) for split in found]


def settled(desk: Desk) -> date | None:
    desk.now += timedelta(minutes=1)
    with desk.database.transaction() as connection:
        return settle(connection, desk.reader, desk.shelves, DAYS.instrument, desk.now)


def test_a_belief_follows_claims_and_prices_and_its_past_stands(desk: Desk) -> None:
    told = tell(desk, 11, 4)
    assert believed(desk, told) == [(11, 4, "unconfirmed")]
    assert settled(desk) == date(2024, 6, 11)
    assert settled(desk) is None
    # Prices until the day before say nothing; the whole month says that it was on the 13th.
    desk.offer(days(ratio=4, at=13, upto=11), "polygon")
    assert believed(desk, desk.now) == [(11, 4, "unconfirmed")]
    before = desk.now - timedelta(seconds=1)
    desk.offer(days(ratio=4, at=13), "polygon")
    assert believed(desk, desk.now) == [(13, 4, "confirmed")]
    assert believed(desk, before) == believed(desk, told) == [(11, 4, "unconfirmed")]
    assert believed(desk, told - timedelta(seconds=1)) == []


def test_prices_that_do_not_jump_contradict_it(desk: Desk) -> None:
    desk.offer(days(ratio=1, at=11), "polygon")
    tell(desk, 11, 4)
    assert believed(desk, desk.now) == [(11, 4, "contradicted")]
    assert settled(desk) is None
    assert believed(desk, desk.now) == [(11, 4, "contradicted")]


def test_the_price_before_was_in_minutes_and_the_one_after_in_days(desk: Desk, new_desk: Callable[..., Desk]) -> None:
    minutes = new_desk(desk.database, Series(DAYS.instrument, Timeframe.M1))
    minutes.now = desk.now
    last = JUNE[5] + timedelta(hours=6, minutes=29)
    values = dict.fromkeys(("open", "high", "low", "close"), Decimal(400))
    minutes.offer([{"timestamp": last, **values, "volume": "5"}], "polygon")
    desk.now = minutes.now
    desk.offer([row for row in days(ratio=4, at=11) if row["timestamp"].day >= 11], "polygon")
    tell(desk, 11, 4)
    assert believed(desk, desk.now) == [(11, 4, "confirmed")]


def test_two_ratios_of_one_source_for_one_day_are_both_kept(desk: Desk) -> None:
    desk.offer(days(ratio=4, at=11), "polygon")
    tell(desk, 11, 10)
    tell(desk, 11, 4, component=2)
    assert believed(desk, desk.now) == [(11, 4, "confirmed"), (11, 10, "contradicted")]
    assert newest_versions(desk.database, SPLITS, DAYS.instrument).height == 2
