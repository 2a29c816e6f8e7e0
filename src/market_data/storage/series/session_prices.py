"""First and last raw price of each session's date, from whatever timeframes are stored."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final

import polars as pl

from market_data.model.instrument import Instrument, Series
from market_data.model.jumps import SessionPrice
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange, from_micros
from market_data.storage.series.reader import Reader

# Coarse ones first: they tell the same in fewer rows. Of weeks only the outer sessions are known.
_ORDER: Final = (
    Timeframe.H4, Timeframe.H1, Timeframe.M30, Timeframe.M15, Timeframe.M5, Timeframe.M1, Timeframe.W1,
)  # fmt: skip
_DAY: Final = timedelta(days=1)
AROUND: Final = timedelta(days=60)
NEAR: Final = timedelta(days=10)


def prices_around(
    reader: Reader, instrument: Instrument, days: Iterable[date], as_of: datetime
) -> dict[date, SessionPrice]:
    """Session prices known by then around each of some days: two months of daily ones, and ten days of any other."""
    found: dict[date, SessionPrice] = {}
    for day in sorted(set(days)):
        moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
        wide = TimeRange(moment - AROUND, moment + AROUND + _DAY)
        _add(found, _intraday(reader, Series(instrument, Timeframe.D1), wide, as_of))
        near = TimeRange(moment - NEAR, moment + NEAR)
        wanted = {from_micros(open_).date() for open_ in grid(instrument.asset_class, Timeframe.D1, near).opens}
        for timeframe in _ORDER:
            if wanted <= found.keys():
                break
            series = Series(instrument, timeframe)
            of_series = _weeks if timeframe is Timeframe.W1 else _intraday
            _add(found, of_series(reader, series, near, as_of))
    return found


def _add(found: dict[date, SessionPrice], prices: Iterable[SessionPrice]) -> None:
    for price in prices:
        found.setdefault(price.date, price)


def _intraday(reader: Reader, series: Series, span: TimeRange, as_of: datetime) -> list[SessionPrice]:
    # A regular session lies within one UTC day.
    rows = (
        reader.candles(series, span, as_of=as_of)
        .select(pl.col("timestamp").dt.date().alias("date"), "open", "close")
        .group_by("date", maintain_order=True)
        .agg(pl.col("open").first().cast(pl.Float64), pl.col("close").last().cast(pl.Float64))
    )
    return [SessionPrice(*row) for row in rows.iter_rows()]


def _weeks(reader: Reader, series: Series, span: TimeRange, as_of: datetime) -> list[SessionPrice]:
    rows = reader.candles(series, TimeRange(span.start - 7 * _DAY, span.end), as_of=as_of)
    weeks = grid(series.asset_class, Timeframe.W1, TimeRange(span.start - 8 * _DAY, span.end))
    ends = {from_micros(start): from_micros(end) for start, end in zip(weeks.opens, weeks.ends, strict=True)}
    found = []
    for opened, first, last in rows.select("timestamp", "open", "close").iter_rows():
        ended = (ends.get(opened, opened) - timedelta(microseconds=1)).date()
        whole = ended == opened.date()
        found.append(SessionPrice(opened.date(), float(first), float(last) if whole else None))
        if not whole:
            found.append(SessionPrice(ended, None, float(last)))
    return found
