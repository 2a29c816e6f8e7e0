"""Stretches of series to compute again: noted with the change that calls for it, deleted with the renewal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection

_NOTE_AFTER: Final = """
INSERT INTO recompute_due (symbol, asset_class, timeframe, start_time, end_time, reason, created_at)
SELECT %(symbol)s, %(asset_class)s, r.timeframe, first.timestamp, last.timestamp + interval '1 microsecond',
    %(reason)s, %(now)s
FROM (SELECT day::timestamp AT TIME ZONE 'UTC' AS moment FROM unnest(%(days)s::date[]) AS d (day)) d
CROSS JOIN unnest(%(timeframes)s::text[], %(rows)s::integer[]) AS r (timeframe, rows)
CROSS JOIN LATERAL (
    SELECT m.timestamp FROM market_data_v2 m
    WHERE (m.symbol, m.asset_class, m.timeframe) = (%(symbol)s, %(asset_class)s, r.timeframe)
        AND m.timestamp >= d.moment - CASE r.timeframe WHEN '1w' THEN interval '6 days' ELSE interval '0' END
    ORDER BY m.timestamp LIMIT 1
) AS first
CROSS JOIN LATERAL (
    SELECT max(reached.timestamp) AS timestamp FROM (
        SELECT m.timestamp FROM market_data_v2 m
        WHERE (m.symbol, m.asset_class, m.timeframe) = (%(symbol)s, %(asset_class)s, r.timeframe)
            AND m.timestamp >= first.timestamp
        ORDER BY m.timestamp LIMIT r.rows + 1
    ) AS reached
) AS last
"""


@dataclass(frozen=True, slots=True)
class Due:
    """A stretch of a series whose derived columns are to be renewed."""

    number: int
    series: Series
    span: TimeRange
    reason: str


def lock_instrument(connection: Connection, instrument: Instrument, *, exclusive: bool) -> None:
    """Part those who write candles of an instrument (shared) from those who change what candles are derived from.

    Held until the transaction ends. Thereby a candle is either there when its stretch is noted as due, or derived
    after what made it due was committed.
    """
    kind = "" if exclusive else "_shared"
    name = f"observations/{instrument.symbol}/{instrument.asset_class}"
    connection.execute(f"SELECT pg_advisory_xact_lock{kind}(hashtextextended(%s, 0))", [name])


def note_due(connection: Connection, instrument: Instrument, span: TimeRange, reason: str, now: datetime) -> None:
    """Note `span` of every stored timeframe of the instrument as due, where candles lie in it."""
    connection.execute(
        "INSERT INTO recompute_due (symbol, asset_class, timeframe, start_time, end_time, reason, created_at) "
        "SELECT symbol, asset_class, timeframe, %(start)s, %(end)s, %(reason)s, %(now)s FROM market_data_v2 "
        "WHERE symbol = %(symbol)s AND asset_class = %(asset_class)s "
        "AND timestamp >= %(start)s AND timestamp < %(end)s GROUP BY 1, 2, 3",
        {
            "symbol": instrument.symbol,
            "asset_class": instrument.asset_class.value,
            "start": span.start,
            "end": span.end,
            "reason": reason,
            "now": now,
        },
    )


def note_due_after(
    connection: Connection,
    instrument: Instrument,
    days: Iterable[date],
    reach: Mapping[Timeframe, int],
    reason: str,
    now: datetime,
) -> int:
    """Note as due, by timeframe, so many candles from each day on; returns how many stretches were noted.

    A candle counts from the day on when its week holds the day.
    """
    return connection.execute(
        _NOTE_AFTER,
        {
            "symbol": instrument.symbol,
            "asset_class": instrument.asset_class.value,
            "timeframes": [timeframe.value for timeframe in reach],
            "rows": list(reach.values()),
            "days": list(days),
            "reason": reason,
            "now": now,
        },
    ).rowcount


def note_stale_versions(connection: Connection, version: str, now: datetime) -> int:
    """Note every stretch whose features were computed under another definition; returns how many series have one."""
    return connection.execute(
        "INSERT INTO recompute_due (symbol, asset_class, timeframe, start_time, end_time, reason, created_at) "
        "SELECT symbol, asset_class, timeframe, min(timestamp), max(timestamp) + interval '1 microsecond', "
        "'feature definitions changed', %(now)s FROM market_data_v2 m "
        "WHERE feature_version IS DISTINCT FROM %(version)s GROUP BY 1, 2, 3 "
        "HAVING NOT EXISTS (SELECT FROM recompute_due d "
        "WHERE (d.symbol, d.asset_class, d.timeframe) = (m.symbol, m.asset_class, m.timeframe) "
        "AND d.start_time <= min(m.timestamp) AND d.end_time > max(m.timestamp))",
        {"version": version, "now": now},
    ).rowcount


def all_due(database: Database) -> list[Due]:
    """What is due, overlapping stretches of a series next to each other."""
    rows = database.rows("SELECT * FROM recompute_due ORDER BY symbol, asset_class, timeframe, start_time, id")
    return [
        Due(
            row["id"],
            Series(Instrument(row["symbol"], AssetClass(row["asset_class"])), Timeframe(row["timeframe"])),
            TimeRange(row["start_time"], row["end_time"]),
            row["reason"],
        )
        for row in rows
    ]


def advance(connection: Connection, due: Due, until: datetime) -> None:
    """Shorten every note of the series that begins in the renewed stretch to begin at `until`, or delete it."""
    symbol, asset_class, timeframe = due.series.key
    parameters = {
        "symbol": symbol,
        "asset_class": asset_class,
        "timeframe": timeframe,
        "start": due.span.start,
        "until": until,
        "number": due.number,
    }
    # Notes made after this one was read (a higher number) may speak of newer changes: they stay whole.
    same = (
        "symbol = %(symbol)s AND asset_class = %(asset_class)s AND timeframe = %(timeframe)s "
        "AND start_time >= %(start)s AND id <= %(number)s"
    )
    connection.execute(f"DELETE FROM recompute_due WHERE {same} AND end_time <= %(until)s", parameters)
    connection.execute(
        f"UPDATE recompute_due SET start_time = %(until)s WHERE {same} AND start_time < %(until)s", parameters
    )
