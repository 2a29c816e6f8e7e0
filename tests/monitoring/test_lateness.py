"""Overdue is what the schedule should have brought: not on Sunday, not during the session, not before five past."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data.jobs.timetable import Timetable
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import Timeframe
from market_data.monitoring.lateness import fetched_by, overdue
from market_data.pipeline.read.status import Reach, Standing
from market_data.storage.work.tracked import Tracked

TIMETABLE = Timetable()
HOURLY, DAILY = Timeframe.H1, Timeframe.D1


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def late(asset_class: AssetClass, missing: str, now: str, timeframe: Timeframe = HOURLY) -> timedelta | None:
    """How overdue an instrument is whose first missing candle ends at `missing`."""
    instrument = Instrument("X", asset_class)
    reach = Reach(timeframe, utc(missing) - timeframe.duration, utc(missing))
    standing = Standing(
        instrument=instrument, enrichment={}, records=1, quality_score=1.0, validation_rate=100.0, reaches=(reach,)
    )
    return overdue(standing, Tracked(instrument, (HOURLY, DAILY), "settings"), TIMETABLE, utc(now))


@pytest.mark.parametrize(
    ("asset_class", "missing", "now", "minutes"),
    [
        # 2026-03-06 was a Friday; New York closed at 21:00 UTC, and closes are followed after 15 minutes.
        (AssetClass.STOCK, "2026-03-06T21:00", "2026-03-06T21:10", 0),
        (AssetClass.STOCK, "2026-03-06T21:00", "2026-03-06T21:15", 0),
        (AssetClass.STOCK, "2026-03-06T21:00", "2026-03-06T21:25", 10),
        # An hour of the session itself: fetched after the close too.
        (AssetClass.STOCK, "2026-03-06T15:30", "2026-03-06T20:59", 0),
        # Monday's first hour is not due on Sunday.
        (AssetClass.STOCK, "2026-03-09T14:30", "2026-03-08T12:00", 0),
        # Half a day, closed at 18:00 UTC on the day after Thanksgiving 2025.
        (AssetClass.ETF, "2025-11-28T18:00", "2025-11-28T18:16", 1),
        # Crypto is fetched at five past.
        (AssetClass.CRYPTO, "2026-03-08T12:00", "2026-03-08T12:05", 0),
        (AssetClass.CRYPTO, "2026-03-08T12:00", "2026-03-08T12:07", 2),
        (AssetClass.CRYPTO, "2026-03-08T12:00", "2026-03-08T14:05", 120),
    ],
)
def test_examples(asset_class: AssetClass, missing: str, now: str, minutes: int) -> None:
    assert late(asset_class, missing, now) == timedelta(minutes=minutes)


def test_only_tracked_timeframes_count() -> None:
    assert late(AssetClass.CRYPTO, "2026-03-08T12:00", "2026-03-09T12:00", Timeframe.W1) is None


def test_without_a_schedule_a_candle_is_due_at_once() -> None:
    moment = utc("2026-03-08T12:00")
    assert fetched_by(Timetable(enriching=False), AssetClass.CRYPTO, moment) == moment


@given(
    st.sampled_from(list(AssetClass)),
    st.datetimes(datetime(2024, 1, 1), datetime(2026, 10, 1)).map(lambda moment: moment.replace(tzinfo=UTC)),
)
def test_the_schedule_comes_round_within_a_day(asset_class: AssetClass, moment: datetime) -> None:
    at = fetched_by(TIMETABLE, asset_class, moment)
    assert timedelta(0) <= at - moment <= timedelta(days=1)
    assert fetched_by(TIMETABLE, asset_class, at) == at
