"""When the schedule was to fetch a candle: what is missing before that is early, after it overdue."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from market_data.jobs.timetable import Line, Occasion, Timetable, every_occasion
from market_data.model.instrument import AssetClass
from market_data.model.timeframe import MICROSECOND
from market_data.pipeline.read.status import Standing
from market_data.storage.work.tracked import Tracked

# Every asset class is fetched more often than this.
HORIZON: Final = timedelta(days=8)


def overdue(standing: Standing, tracked: Tracked, timetable: Timetable, now: datetime) -> timedelta | None:
    """How long the first missing candle of a tracked instrument has been missing since it was to be fetched.

    The longest of its tracked timeframes that are stored; zero when nothing is missing or expected; None when nothing
    is stored.
    """
    if standing.quiet and standing.reaches:
        return timedelta(0)
    asset_class = standing.instrument.asset_class
    late = [
        now - fetched_by(timetable, asset_class, reach.next_end) if reach.next_end < now else timedelta(0)
        for reach in standing.reaches
        if reach.timeframe in tracked.timeframes
    ]
    return max(timedelta(0), *late) if late else None


@lru_cache(maxsize=4096)
def fetched_by(timetable: Timetable, asset_class: AssetClass, moment: datetime) -> datetime:
    """When the schedule fetches candles of the asset class first at or after a moment; at once without a schedule."""
    if not timetable.enriching:
        return moment
    occasions = every_occasion(moment - MICROSECOND, moment + HORIZON, timetable)
    return next((occasion.at for occasion in occasions if _fetches(occasion, asset_class)), moment)


def _fetches(occasion: Occasion, asset_class: AssetClass) -> bool:
    if asset_class is AssetClass.CRYPTO:
        return occasion.line is Line.CRYPTO
    after_close = occasion.line is Line.AFTER_CLOSE and occasion.calendar == asset_class.calendar
    return occasion.line is Line.DAILY or after_close
