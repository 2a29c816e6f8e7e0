"""What is due when: a pure function from two moments to the occasions between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final

from market_data.model.instrument import AssetClass
from market_data.model.session import ALWAYS_OPEN, sessions
from market_data.model.timeframe import from_micros, to_micros

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
SATURDAY, SUNDAY = 5, 6
# Sessions are shorter than this: one that closes in a range opened this much before it at the earliest.
_LONGEST_SESSION: Final = _DAY
# How far ahead the next occasions are looked for; weekly ones and long holidays lie within.
HORIZON: Final = timedelta(days=15)
CALENDARS: Final = tuple(sorted({asset_class.calendar for asset_class in AssetClass} - {ALWAYS_OPEN}))


class Line(StrEnum):
    """One line of the timetable: what comes round again and again."""

    DAILY = "daily"
    AFTER_CLOSE = "after_close"
    CRYPTO = "crypto"
    REFERENCE = "reference"
    HEAL = "heal"
    RECOMPUTE = "recompute"
    RECONCILE = "reconcile"
    EVENTS = "events"
    RETENTION = "retention"
    LISTS = "lists"


@dataclass(frozen=True, slots=True, order=True)
class Occasion:
    """A moment at which a line of the timetable is due."""

    at: datetime
    line: Line
    calendar: str | None = None
    """The exchange whose close it follows."""

    @property
    def name(self) -> str:
        """The same for everybody who computes it, so that it is stored once."""
        of = f"/{self.calendar}" if self.calendar else ""
        return f"{self.line}{of}@{self.at:%Y-%m-%dT%H:%MZ}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """When scheduled work runs, UTC.

    Attributes:
        enriching: whether tracked symbols are enriched by the schedule at all.
        daily_at: the daily cycle of stocks and ETFs.
        crypto_minute: of every hour: crypto.
        after_close: how long after a session's close its candles are fetched.
        reference_at: daily: dividends, splits, earnings, news, options.
        heal_minute, recompute_minute: of every hour.
        reconcile_at: on Sundays: the past week against another source.
        events_at: on Saturdays: the lists of events, whole: what a source took back or forgot is found so.
        retention_at: daily.
        lists_at: daily: what the sources list.
    """

    enriching: bool = True
    daily_at: time = time(1, 30)
    crypto_minute: int = 5
    after_close: timedelta = timedelta(minutes=15)
    reference_at: time = time(2, 30)
    heal_minute: int = 20
    recompute_minute: int = 40
    reconcile_at: time = time(5, 0)
    events_at: time = time(4, 0)
    retention_at: time = time(3, 15)
    lists_at: time = time(0, 45)

    def next_candles(self, asset_class: AssetClass, now: datetime) -> datetime | None:
        """When tracked candles of an asset class are fetched next; None when the schedule fetches none."""
        return _next_candles(self, asset_class, now.replace(second=0, microsecond=0))


def due_between(
    last: datetime, now: datetime, timetable: Timetable, calendars: Sequence[str] = CALENDARS
) -> list[Occasion]:
    """The occasions of (last, now], in order; of a line that was missed more than once only the newest.

    Args:
        last: up to which moment occasions were dealt with; not after `now`, else nothing is due.
        calendars: exchanges whose closes are followed.
    """
    newest: dict[tuple[Line, str | None], Occasion] = {}
    for occasion in every_occasion(last, now, timetable, calendars):
        newest[occasion.line, occasion.calendar] = occasion
    return sorted(newest.values())


def every_occasion(
    last: datetime, now: datetime, timetable: Timetable, calendars: Sequence[str] = CALENDARS
) -> list[Occasion]:
    """All occasions of (last, now], in order."""
    found = [
        *(Occasion(at, Line.REFERENCE) for at in _daily(last, now, timetable.reference_at)),
        *(Occasion(at, Line.HEAL) for at in _hourly(last, now, timetable.heal_minute)),
        *(Occasion(at, Line.RECOMPUTE) for at in _hourly(last, now, timetable.recompute_minute)),
        *(
            Occasion(at, Line.EVENTS)
            for at in _daily(last, now, timetable.events_at)
            if at.weekday() == SATURDAY
        ),
        *(
            Occasion(at, Line.RECONCILE)
            for at in _daily(last, now, timetable.reconcile_at)
            if at.weekday() == SUNDAY
        ),
        *(Occasion(at, Line.RETENTION) for at in _daily(last, now, timetable.retention_at)),
        *(Occasion(at, Line.LISTS) for at in _daily(last, now, timetable.lists_at)),
    ]  # fmt: skip
    if timetable.enriching:
        found += (Occasion(at, Line.DAILY) for at in _daily(last, now, timetable.daily_at))
        found += (Occasion(at, Line.CRYPTO) for at in _hourly(last, now, timetable.crypto_minute))
        for calendar in calendars:
            closes = _closes(calendar, last - timetable.after_close, now - timetable.after_close)
            found += (Occasion(at + timetable.after_close, Line.AFTER_CLOSE, calendar) for at in closes)
    return sorted(found)


def next_occasions(now: datetime, timetable: Timetable, calendars: Sequence[str] = CALENDARS) -> list[Occasion]:
    """The next occasion of every line, soonest first."""
    first: dict[tuple[Line, str | None], Occasion] = {}
    for occasion in every_occasion(now, now + HORIZON, timetable, calendars):
        first.setdefault((occasion.line, occasion.calendar), occasion)
    return sorted(first.values())


@lru_cache(maxsize=64)
def _next_candles(timetable: Timetable, asset_class: AssetClass, minute: datetime) -> datetime | None:
    crypto = asset_class is AssetClass.CRYPTO
    lines = (Line.CRYPTO,) if crypto else (Line.DAILY, Line.AFTER_CLOSE)
    found = next_occasions(minute, timetable, () if crypto else (asset_class.calendar,))
    return min((occasion.at for occasion in found if occasion.line in lines), default=None)


def _daily(last: datetime, now: datetime, at: time) -> Iterator[datetime]:
    moment = datetime.combine(last.astimezone(UTC).date(), at, UTC)
    while moment <= now:
        if moment > last:
            yield moment
        moment += _DAY


def _hourly(last: datetime, now: datetime, minute: int) -> Iterator[datetime]:
    moment = last.astimezone(UTC).replace(minute=minute, second=0, microsecond=0)
    while moment <= now:
        if moment > last:
            yield moment
        moment += _HOUR


def _closes(calendar: str, last: datetime, now: datetime) -> list[datetime]:
    """Closes of regular sessions in (last, now]; half days and changes of the clock are in the calendar."""
    if last >= now:
        return []
    _, closes = sessions(calendar, to_micros(last - _LONGEST_SESSION), to_micros(now) + 1)
    return [moment for moment in map(from_micros, closes) if last < moment <= now]
