"""Which candle a moment belongs to: spans of UTC or New York time, weeks and months, as the three sources cut them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np

from market_data.sandbox.block import DAY, HOUR, MINUTE, WEEK, Int

NEW_YORK = ZoneInfo("America/New_York")
# 1970-01-01 was a Thursday.
MONDAY = 4 * DAY
SUNDAY = 3 * DAY


@dataclass(frozen=True, slots=True)
class Span:
    """Candles of ``length`` ms from ``anchor`` on, or of ``months``; by New York's clock when ``local``."""

    length: int
    anchor: int = 0
    months: int = 0
    local: bool = False

    @property
    def unit(self) -> int:
        """The coarsest of DAY, HOUR and MINUTE that these candles are whole numbers of."""
        if self.months or self.length % DAY == 0:
            return DAY
        return HOUR if self.length % HOUR == 0 else MINUTE

    def floor(self, time: Int) -> Int:
        """Open time of the candle each moment lies in."""
        clock = time + offsets(time) if self.local else time
        if self.months:
            month = clock.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
            opened = (month // self.months * self.months).astype("datetime64[M]").astype("datetime64[ms]")
            start = opened.astype(np.int64)
        else:
            start = (clock - self.anchor) // self.length * self.length + self.anchor
        return to_utc(start) if self.local else start

    def floor_one(self, time: int) -> int:
        """As ``floor``, of one moment."""
        return int(self.floor(np.array([time], np.int64))[0])

    def after(self, start: int, count: int = 1) -> int:
        """Open time of the candle ``count`` after the one that opens at ``start``; ``count`` may be negative."""
        if not self.months and not self.local:
            return start + count * self.length
        # A step of a nominal length lands within a day or so of the right boundary, in either direction.
        step = self.months * 30.436875 * DAY if self.months else self.length
        return self.floor_one(int(start + count * step + (DAY if self.months else 2 * HOUR) * 3 / 2))


@cache
def _transitions() -> tuple[Int, Int]:
    """Moments (ms UTC) from which an offset of New York holds, and the offsets (ms), 1990 to 2060."""
    moments, values = [], []
    last = None
    day = datetime(1990, 1, 1, tzinfo=UTC)
    while day.year < 2060:
        offset = day.astimezone(NEW_YORK).utcoffset()
        if offset != last:
            at = day
            while last is not None and (at - timedelta(hours=1)).astimezone(NEW_YORK).utcoffset() == offset:
                at -= timedelta(hours=1)
            moments.append(int(at.timestamp()) * 1000)
            values.append(int((offset or timedelta()).total_seconds()) * 1000)
            last = offset
        day += timedelta(days=1)
    return np.array(moments, np.int64), np.array(values, np.int64)


def offsets(time: Int) -> Int:
    """New York's offset from UTC at each moment, ms."""
    moments, values = _transitions()
    return values[np.maximum(np.searchsorted(moments, time, side="right") - 1, 0)]


def to_utc(clock: Int) -> Int:
    """UTC moments of New York wall-clock times, ms; no candle of ours opens in the hour that repeats."""
    return clock - offsets(clock - offsets(clock + 5 * HOUR))


def new_york_midnight(time: Int) -> Int:
    """UTC moment of the New York midnight that began each moment's day."""
    return Span(DAY, local=True).floor(time)


BINANCE = {
    "1m": Span(MINUTE),
    "3m": Span(3 * MINUTE),
    "5m": Span(5 * MINUTE),
    "15m": Span(15 * MINUTE),
    "30m": Span(30 * MINUTE),
    "1h": Span(HOUR),
    "2h": Span(2 * HOUR),
    "4h": Span(4 * HOUR),
    "6h": Span(6 * HOUR),
    "8h": Span(8 * HOUR),
    "12h": Span(12 * HOUR),
    "1d": Span(DAY),
    "3d": Span(3 * DAY),
    "1w": Span(WEEK, MONDAY),
    "1M": Span(0, months=1),
}
