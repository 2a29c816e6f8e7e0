"""Trading sessions and the canonical grid: when a candle of a timeframe opens and ends."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from market_data.model.instrument import AssetClass
from market_data.model.timeframe import Timeframe, TimeRange, from_micros, to_micros

if TYPE_CHECKING:
    from numpy.typing import NDArray

DAY_MICROS = 86_400_000_000
WEEK_MICROS = 7 * DAY_MICROS
# 1970-01-01 was a Thursday; crypto weeks start on Monday.
FIRST_MONDAY_MICROS = 4 * DAY_MICROS
ALWAYS_OPEN = "24/7"
# Before this year exchange_calendars has days that were none: of 1969 it lists 258 sessions, New York held 250.
FIRST_SESSION = "1970-01-01"
# Weekdays are counted where no calendar is warranted.
CALENDAR_YEARS = (1990, 2040)


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Expected candles in order: `opens` and `ends`, int64 microseconds since 1970 UTC, of equal length."""

    opens: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.opens)

    def closed_by(self, now: datetime) -> Grid:
        """The candles whose end is not after `now`."""
        closed = self.ends <= to_micros(now)
        return Grid(self.opens[closed], self.ends[closed])


def grid(asset_class: AssetClass, timeframe: Timeframe, span: TimeRange) -> Grid:
    """Every candle the calendar expects whose open lies in `span`.

    Crypto: multiples of the timeframe from 00:00 UTC, weeks from Monday 00:00 UTC. Stocks and ETFs: the regular session
    only, anchored at its open; a session's last intraday candle ends at the session's close; a daily candle opens and
    ends with the session, a weekly one opens with the week's first session and ends with its last.
    """
    start, end = to_micros(span.start), to_micros(span.end)
    if asset_class.calendar == ALWAYS_OPEN:
        return _continuous(timeframe, start, end)
    # A week may have begun before the range and a session may have opened before it.
    opens, closes = sessions(asset_class.calendar, start - WEEK_MICROS, end + WEEK_MICROS)
    if timeframe is Timeframe.W1:
        opens, ends = _weeks(opens, closes)
    elif timeframe is Timeframe.D1:
        ends = closes
    else:
        opens, ends = _within_sessions(opens, closes, timeframe.micros)
    inside = (opens >= start) & (opens < end)
    return Grid(opens[inside], ends[inside])


def begins(asset_class: AssetClass) -> datetime | None:
    """Before when no candle is expected, since no calendar knows the sessions; None where there are none."""
    return None if asset_class.calendar == ALWAYS_OPEN else datetime.fromisoformat(FIRST_SESSION).replace(tzinfo=UTC)


def sessions(calendar: str, start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Opens and closes of the regular sessions that open in [start, end), int64 microseconds UTC."""
    opens, closes = _schedule(calendar, _horizon_year(end))
    first, last = np.searchsorted(opens, (start, end))
    return opens[first:last], closes[first:last]


def sessions_apart(calendar: str, first: date, second: date) -> int:
    """How many sessions later than the one date the other is; negative when it is earlier."""
    if calendar == ALWAYS_OPEN:
        return (second - first).days
    if min(first, second).year < CALENDAR_YEARS[0] or max(first, second).year > CALENDAR_YEARS[1]:
        return int(np.busday_count(first, second))
    ends = [datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1) for day in (first, second)]
    opens, _ = _schedule(calendar, _horizon_year(to_micros(max(ends))))
    before, after = np.searchsorted(opens, [to_micros(end) for end in ends])
    return int(after - before)


def session_of(calendar: str, day: date) -> tuple[datetime, datetime] | None:
    """Open and close of the session of a day; None when there is none."""
    midnight = to_micros(datetime(day.year, day.month, day.day, tzinfo=UTC))
    opens, closes = sessions(calendar, midnight, midnight + DAY_MICROS)
    return (from_micros(opens[0]), from_micros(closes[0])) if len(opens) else None


def last_close(calendar: str, day: date) -> datetime | None:
    """The close of the session of a day, or of the last one before it within a week; None without any."""
    midnight = to_micros(datetime(day.year, day.month, day.day, tzinfo=UTC))
    _, closes = sessions(calendar, midnight - 7 * DAY_MICROS, midnight + DAY_MICROS)
    return from_micros(closes[-1]) if len(closes) else None


def session_date(calendar: str, moment: datetime) -> str:
    """The exchange-local date, YYYY-MM-DD, of a moment; the label of the session it belongs to."""
    if calendar == ALWAYS_OPEN:
        return moment.astimezone(UTC).strftime("%Y-%m-%d")
    return moment.astimezone(_calendar(calendar, _horizon_year(to_micros(moment))).tz).strftime("%Y-%m-%d")


def lookback_start(asset_class: AssetClass, timeframe: Timeframe, before: datetime, candles: int) -> datetime:
    """A moment early enough that at least `candles` expected candles open in [it, before).

    Generous by design: holidays make sessions rarer than days.
    """
    if asset_class.calendar == ALWAYS_OPEN:
        return before - timeframe.duration * (candles + 1)
    if not timeframe.intraday:
        return before - timeframe.duration * (2 * candles + 7)
    per_session = max(1, int(timedelta(hours=3.5) / timeframe.duration))
    return before - timedelta(days=2 * (candles // per_session + 1) + 7)


def _continuous(timeframe: Timeframe, start: int, end: int) -> Grid:
    step = timeframe.micros
    anchor = FIRST_MONDAY_MICROS if timeframe is Timeframe.W1 else 0
    first = anchor + -(-(start - anchor) // step) * step
    opens = np.arange(first, end, step, dtype=np.int64)
    return Grid(opens, opens + step)


def _weeks(opens: NDArray[np.int64], closes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    # A regular session lies within one UTC day, so UTC weeks are the exchange's weeks.
    week = (opens - FIRST_MONDAY_MICROS) // WEEK_MICROS
    starts = np.flatnonzero(np.r_[True, week[1:] != week[:-1]]) if len(week) else np.empty(0, np.int64)
    lasts = np.r_[starts[1:] - 1, len(week) - 1] if len(week) else starts
    # The widened range cuts its first and last week; they lie outside the range asked for.
    return opens[starts], closes[lasts]


def _within_sessions(
    opens: NDArray[np.int64], closes: NDArray[np.int64], step: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    counts = -(-(closes - opens) // step)
    session = np.repeat(np.arange(len(opens)), counts)
    position = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = opens[session] + position * step
    return starts, np.minimum(starts + step, closes[session])


def _horizon_year(end: int) -> int:
    # In steps of five years, so that a long backfill builds one calendar and not one a year.
    return max(2030, (1970 + end // (365 * DAY_MICROS)) // 5 * 5 + 5)


@cache
def _calendar(name: str, until_year: int) -> Any:
    # Imported here: it brings pandas, which no command needs that does not touch a stock.
    import exchange_calendars

    with warnings.catch_warnings():
        # exchange_calendars 4.13 uses what pandas 3.1 deprecates; neither is ours to change.
        warnings.simplefilter("ignore", DeprecationWarning)
        return exchange_calendars.get_calendar(name, start=FIRST_SESSION, end=f"{until_year}-12-31")


@lru_cache(maxsize=16)
def _schedule(name: str, until_year: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    calendar = _calendar(name, until_year)
    opens = calendar.opens.to_numpy("datetime64[us]").astype(np.int64)
    closes = calendar.closes.to_numpy("datetime64[us]").astype(np.int64)
    for bound in (opens, closes):
        bound.setflags(write=False)
    return opens, closes
