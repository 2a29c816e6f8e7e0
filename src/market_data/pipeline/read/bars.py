"""Bars of any kind from the stored trades of an instrument, a stretch of a day at a time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from re import fullmatch
from typing import Final

import polars as pl

from market_data.model.bars import Cut, bars_of_trades
from market_data.model.errors import UsageError
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.ticks import counting
from market_data.model.timeframe import TimeRange
from market_data.storage.facts.ticks import contracts_with_trades, days_with_trades, trades_of
from market_data.storage.server.database import Database

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_UNITS: Final = {"h": _HOUR, "m": timedelta(minutes=1), "s": timedelta(seconds=1), "ms": timedelta(milliseconds=1)}


def parse_cut(every: str | None, volume: str | None, money: str | None) -> Cut:
    """Where bars end, as typed: a length such as 90s or 7m30s, a volume, or an amount of money.

    Raises:
        UsageError: when it is none, or not exactly one is given.
    """
    return Cut(every=None if every is None else _length(every), volume=_amount(volume), money=_amount(money))


def bars(database: Database, instrument: Instrument, span: TimeRange, cut: Cut) -> Iterator[pl.DataFrame]:
    """Bars that begin in [start, end), in order of time; frames without rows are left out.

    Raises:
        UsageError: when trades of several contracts go by the name.
    """
    found = contracts_with_trades(database, instrument)
    if len(found) > 1:
        raise UsageError(f"{instrument} names several contracts with trades: say which of {', '.join(found.values())}")
    if not found:
        return
    (contract_id,) = found
    shares = instrument.asset_class is not AssetClass.CRYPTO
    # Bars of an amount begin anew each day; an hour holds a whole number of the short ones.
    step = _HOUR if cut.every is not None and not _HOUR % cut.every else _DAY
    stored = days_with_trades(database, contract_id, span)
    if stored is None:
        return
    for part in _parts(stored[:2], span, step):
        made = bars_of_trades(counting(trades_of(database, contract_id, part), shares=shares), cut)
        if cut.every is not None:
            # More of a stretch may come until a trade behind it was seen.
            made = made.with_columns(complete=pl.col("end") <= stored[2])
        inside = made.filter(pl.col("timestamp").is_between(span.start, span.end, closed="left"))
        if inside.height:
            yield inside


def _parts(days: tuple[date, date], span: TimeRange, step: timedelta) -> Iterator[TimeRange]:
    """Whole hours or days of the range, as far as there are trades."""
    first, last = (datetime.combine(day, time(), UTC) for day in days)
    begin = max(span.start.replace(minute=0, second=0, microsecond=0), first)
    begin = begin if step == _HOUR else begin.replace(hour=0)
    end = min(span.end, last + _DAY)
    while begin < end:
        yield TimeRange(begin, begin + step)
        begin += step


def _length(text: str) -> timedelta:
    found = fullmatch(r"(?:(\d{1,3})h)?(?:(\d{1,5})m)?(?:(\d{1,6})s)?(?:(\d{1,6})ms)?", text.strip())
    if not text.strip() or found is None:
        raise UsageError(f"{text!r} is no length: write 90s, 7m30s, 2h or 250ms")
    return sum(
        (int(count) * unit for count, unit in zip(found.groups(), _UNITS.values(), strict=True) if count), timedelta(0)
    )


def _amount(text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        amount = Decimal(text.replace("_", ""))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite():
        raise UsageError(f"{text!r} is no amount: write a number, e.g. 1000 or 0.5")
    return amount
