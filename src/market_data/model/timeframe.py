"""Timeframe (1m … 1w) and TimeRange, the half-open UTC interval [start, end)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from market_data.model.errors import UsageError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC of an aware datetime, exactly."""
    return (moment - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """The UTC datetime of a count of microseconds since 1970-01-01, exactly."""
    return EPOCH + timedelta(microseconds=int(micros))


class Timeframe(StrEnum):
    """Length of a candle."""

    M1 = "1m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H4 = "4h"
    D1 = "1d"
    W1 = "1w"

    @property
    def duration(self) -> timedelta:
        """Nominal length: a stock's daily candle covers its session, which is shorter."""
        return _DURATIONS[self]

    @property
    def micros(self) -> int:
        """Nominal length in microseconds."""
        return self.duration // MICROSECOND

    @property
    def intraday(self) -> bool:
        """True below one day."""
        return self.duration < timedelta(days=1)

    @classmethod
    def parse_many(cls, names: Iterable[str]) -> tuple[Timeframe, ...]:
        """Timeframes by name, in the order given and each once.

        Raises:
            UsageError: naming every unknown one and all that are valid.
        """
        wanted = list(dict.fromkeys(names))
        unknown = [name for name in wanted if name not in _BY_NAME]
        if unknown:
            raise UsageError(f"Invalid timeframes: {unknown}. Valid: {', '.join(_BY_NAME)}")
        return tuple(_BY_NAME[name] for name in wanted)


_DURATIONS = {
    Timeframe.M1: timedelta(minutes=1),
    Timeframe.M5: timedelta(minutes=5),
    Timeframe.M15: timedelta(minutes=15),
    Timeframe.M30: timedelta(minutes=30),
    Timeframe.H1: timedelta(hours=1),
    Timeframe.H4: timedelta(hours=4),
    Timeframe.D1: timedelta(days=1),
    Timeframe.W1: timedelta(weeks=1),
}
_BY_NAME = {timeframe.value: timeframe for timeframe in Timeframe}


@dataclass(frozen=True, slots=True)
class TimeRange:
    """[start, end), UTC.

    Raises:
        UsageError: when a bound has no time zone or start is not before end.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            if getattr(self, name).utcoffset() is None:
                raise UsageError(f"{name} {getattr(self, name)} has no time zone: give UTC, e.g. 2026-01-31T00:00:00Z")
            object.__setattr__(self, name, getattr(self, name).astimezone(UTC))
        if self.start >= self.end:
            raise UsageError(f"start {self.start:%Y-%m-%dT%H:%M:%SZ} is not before end {self.end:%Y-%m-%dT%H:%M:%SZ}")

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    def split(self, step: timedelta) -> Iterator[TimeRange]:
        """Consecutive ranges of at most `step` that together are this one."""
        start = self.start
        while start < self.end:
            end = min(start + step, self.end)
            yield TimeRange(start, end)
            start = end
