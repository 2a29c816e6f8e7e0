"""What is left of a backfill, and how fast it may ask."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from market_data.jobs.wanted import unasked, uncollected
from market_data.model.dataset import DIVIDENDS, SPLITS
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.storage.server.database import Database

KO = Instrument("KO", AssetClass.STOCK)
HOURS = Series(Instrument("BTC", AssetClass.CRYPTO), Timeframe.H1)


def day(number: int) -> datetime:
    return datetime(2024, 3, number, tzinfo=UTC)


def went_through(database: Database, start: datetime, until: datetime, at: datetime | None = None) -> None:
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO backfill_state (symbol, asset_class, dataset, backfill_job_id, start_date, end_date, "
            "last_successful_date, updated_at) VALUES ('KO', 'stock', 'dividends', %s, %s, %s, %s, %s)",
            [uuid4(), start, until, until, at or until],
        )


@pytest.mark.parametrize(
    ("been", "left"),
    [
        ([], (1, 20)),
        ([(1, 20)], None),
        ([(1, 5)], (5, 20)),
        ([(10, 25)], (1, 10)),
        ([(1, 5), (4, 9)], (9, 20)),
        ([(1, 5), (10, 20)], (5, 10)),
        # In the middle only: the whole is asked for again.
        ([(5, 10)], (1, 20)),
    ],
)
def test_a_dataset_is_asked_for_where_nobody_asked(
    database: Database, been: list[tuple[int, int]], left: tuple[int, int] | None
) -> None:
    for start, until in been:
        went_through(database, day(start), day(until))
    span = TimeRange(day(1), day(20))
    assert uncollected(database, DIVIDENDS, KO, span) == (left and TimeRange(day(left[0]), day(left[1])))
    assert uncollected(database, SPLITS, KO, span) == span


def test_what_lay_ahead_is_asked_for_again(database: Database) -> None:
    went_through(database, day(1), day(20), at=day(8))
    assert uncollected(database, DIVIDENDS, KO, TimeRange(day(1), day(25))) == TimeRange(day(8), day(25))
    # One that has begun and noted nothing yet.
    with database.transaction() as connection:
        connection.execute("UPDATE backfill_state SET last_successful_date = NULL")
    assert uncollected(database, DIVIDENDS, KO, TimeRange(day(1), day(25))) == TimeRange(day(1), day(25))
    # All of it lay ahead.
    went_through(database, day(10), day(30), at=day(9))
    assert uncollected(database, DIVIDENDS, KO, TimeRange(day(10), day(30))) == TimeRange(day(10), day(30))


def test_candles_are_asked_for_where_the_ledger_is_silent(database: Database) -> None:
    span, now = TimeRange(day(1), day(3)), day(2) + timedelta(hours=12, minutes=30)
    # 36 hours are closed by then.
    assert unasked(database, HOURS, span, now) == TimeRange(day(1), day(2) + timedelta(hours=12))
    with database.transaction() as connection:
        for start, end, known in ((0, 6, "present"), (6, 8, "missing"), (30, 36, "no_trade")):
            connection.execute(
                "INSERT INTO coverage (symbol, asset_class, timeframe, start_time, end_time, state, detected_at) "
                "VALUES ('BTC', 'crypto', '1h', %s, %s, %s, %s)",
                [day(1) + timedelta(hours=start), day(1) + timedelta(hours=end), known, now],
            )
    assert unasked(database, HOURS, span, now) == TimeRange(day(1) + timedelta(hours=8), day(1) + timedelta(hours=30))
    assert unasked(database, HOURS, TimeRange(day(1), day(1) + timedelta(hours=8)), now) is None
