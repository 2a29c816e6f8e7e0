"""The coverage ledger: which stretches of a series are present, proved without trades, missing or beyond recovery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import polars as pl

from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.wire.gathered import Writes


class State(StrEnum):
    """What is known of a candle the calendar expects."""

    PRESENT = "present"
    NO_TRADE = "no_trade"
    MISSING = "missing"
    UNRECOVERABLE = "unrecoverable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Consecutive expected candles in the same state: [open of the first, end of the last).

    Attributes:
        detected_at: When the ledger first learned of it; for a filled gap, when the gap was found.
        filled_at: When the gap was closed; None for what was never a gap.
        filled_by: The source that closed it.
        tries: How often healing asked for it.
        next_try_at: When healing asks again; None unless missing.
        last_error: Why the last try failed, or for no_trade and unrecoverable: the proof or the reason.
    """

    start: datetime
    end: datetime
    state: State
    detected_at: datetime
    filled_at: datetime | None = None
    filled_by: str | None = None
    tries: int = 0
    next_try_at: datetime | None = None
    last_error: str | None = None

    @property
    def span(self) -> TimeRange:
        """The stretch as a range."""
        return TimeRange(self.start, self.end)


_COLUMNS: Final = (
    "start_time, end_time, state, detected_at, filled_at, filled_by, tries, next_try_at, last_error"  # as in Stretch
)
_VALUES: Final = _COLUMNS.removeprefix("start_time, ")
_OF_SERIES: Final = "symbol = %(symbol)s AND asset_class = %(asset_class)s AND timeframe = %(timeframe)s"
# One bound is strict so that the neighbour of a stretch that begins just at the span's start is found too.
_AROUND: Final = f"""
SELECT {_COLUMNS} FROM coverage WHERE {_OF_SERIES}
AND start_time >= coalesce(
    (SELECT max(start_time) FROM coverage WHERE {_OF_SERIES} AND start_time < %(start)s), '-infinity')
AND start_time <= coalesce(
    (SELECT min(start_time) FROM coverage WHERE {_OF_SERIES} AND start_time >= %(end)s), 'infinity')
ORDER BY start_time
"""


def stretches_around(connection: Connection, series: Series, span: TimeRange) -> list[Stretch]:
    """The stretches that touch a span, with the nearest one before and after it, in order."""
    parameters = _key(series) | {"start": span.start, "end": span.end}
    return [_stretch(row) for row in connection.execute(_AROUND, parameters)]


def around(rows: pl.DataFrame) -> list[Stretch]:
    """Stretches from rows of the ledger."""
    return [_stretch(row) for row in rows.iter_rows()]


def stretches(
    connection: Connection, series: Series, span: TimeRange | None = None, state: State | None = None
) -> list[Stretch]:
    """The stretches of a series in order; only those that overlap `span` or are in `state` when given."""
    where, parameters = _OF_SERIES, _key(series)
    if span is not None:
        where += " AND start_time < %(end)s AND end_time > %(start)s"
        parameters |= {"start": span.start, "end": span.end}
    if state is not None:
        where += " AND state = %(state)s"
        parameters |= {"state": state.value}
    found = connection.execute(f"SELECT {_COLUMNS} FROM coverage WHERE {where} ORDER BY start_time", parameters)
    return [_stretch(row) for row in found]


def replace_stretches(connection: Writes, series: Series, before: Sequence[Stretch], after: Sequence[Stretch]) -> int:
    """Turn the stretches `before` into `after`, writing only what differs; returns how many rows were written."""
    kept = set(before) & set(after)
    new = [stretch for stretch in after if stretch not in kept]
    gone = [stretch.start for stretch in before if stretch not in kept]
    renewed = {stretch.start for stretch in new}
    if left := [start for start in gone if start not in renewed]:
        connection.execute(
            f"DELETE FROM coverage WHERE {_OF_SERIES} AND start_time = ANY(%(gone)s)", _key(series) | {"gone": left}
        )
    if new:
        columns = zip(*((s.start, s.end, s.state.value, s.detected_at, s.filled_at, s.filled_by, s.tries,
                         s.next_try_at, s.last_error) for s in new), strict=True)  # fmt: skip
        connection.execute(
            f"INSERT INTO coverage (symbol, asset_class, timeframe, {_COLUMNS}) SELECT %s, %s, %s, * FROM unnest("
            "%s::timestamptz[], %s::timestamptz[], %s::text[], %s::timestamptz[], %s::timestamptz[], %s::text[], "
            "%s::integer[], %s::timestamptz[], %s::text[]) ON CONFLICT (symbol, asset_class, timeframe, start_time) "
            f"DO UPDATE SET ({_VALUES}) = ROW ({', '.join(f'excluded.{name}' for name in _VALUES.split(', '))})",
            [*series.key, *map(list, columns)],
        )
    return len(gone) + len(new)


def try_again(connection: Connection, now: datetime) -> None:
    """Let every gap be asked for again at once, whenever its next try was to be."""
    connection.execute(
        "UPDATE coverage SET next_try_at = %(now)s WHERE state = 'missing' AND next_try_at > %(now)s", {"now": now}
    )


def due(database: Database, now: datetime, series: Series | None = None) -> dict[Series, list[Stretch]]:
    """Missing stretches whose next try has come, by series, oldest try first."""
    parameters: dict[str, object] = {"now": now}
    where = "state = 'missing' AND next_try_at <= %(now)s"
    if series is not None:
        where, parameters = f"{where} AND {_OF_SERIES}", parameters | _key(series)
    found: dict[Series, list[Stretch]] = {}
    with database.transaction() as connection:
        rows = connection.execute(
            f"SELECT symbol, asset_class, timeframe, {_COLUMNS} FROM coverage WHERE {where} "
            "ORDER BY symbol, asset_class, timeframe, start_time",
            parameters,
        )
        for symbol, asset_class, timeframe, *columns in rows:
            owner = Series(Instrument(symbol, AssetClass(asset_class)), Timeframe(timeframe))
            found.setdefault(owner, []).append(_stretch(columns))
    return found


def known_series(database: Database, instrument: Instrument | None = None) -> list[Series]:
    """Every series with stored candles or a ledger, in order; of one instrument when given.

    The index is walked from series to series, since counting through all candles would take minutes.
    """
    where, parameters = "", dict[str, object]()
    if instrument is not None:
        where = "WHERE symbol = %(symbol)s AND asset_class = %(asset_class)s"
        parameters = {"symbol": instrument.symbol, "asset_class": instrument.asset_class.value}
    rows = database.rows(f"{_EVERY_SERIES} {where} ORDER BY symbol, asset_class, timeframe", parameters)
    return [
        Series(Instrument(row["symbol"], AssetClass(row["asset_class"])), Timeframe(row["timeframe"])) for row in rows
    ]


_EVERY_SERIES: Final = """
WITH RECURSIVE stored AS (
    (SELECT symbol, asset_class, timeframe FROM market_data_v2 ORDER BY symbol, asset_class, timeframe LIMIT 1)
    UNION ALL
    SELECT next.symbol, next.asset_class, next.timeframe FROM stored s CROSS JOIN LATERAL (
        SELECT m.symbol, m.asset_class, m.timeframe FROM market_data_v2 m
        WHERE (m.symbol, m.asset_class, m.timeframe) > (s.symbol, s.asset_class, s.timeframe)
        ORDER BY m.symbol, m.asset_class, m.timeframe LIMIT 1
    ) next
)
SELECT * FROM (
    SELECT symbol, asset_class, timeframe FROM stored UNION SELECT symbol, asset_class, timeframe FROM coverage
) every_series
"""


def _key(series: Series) -> dict[str, object]:
    return {"symbol": series.symbol, "asset_class": series.asset_class.value, "timeframe": series.timeframe.value}


def _stretch(row: Sequence[Any]) -> Stretch:
    start, end, state, detected_at, filled_at, filled_by, tries, next_try_at, last_error = row
    return Stretch(
        start=start,
        end=end,
        state=State(state),
        detected_at=detected_at,
        filled_at=filled_at,
        filled_by=filled_by,
        tries=tries,
        next_try_at=next_try_at,
        last_error=last_error,
    )
