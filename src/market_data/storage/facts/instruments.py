"""Instruments and what the sources call them during which time; intervals are added and closed, never deleted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import polars as pl

from market_data.model.instrument import AssetClass, Instrument
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.wire.copy_in import copy_in

_INTERVAL: Final = "symbol, asset_class, provider, raw_symbol, venue, valid_from, valid_to"


@dataclass(frozen=True, slots=True)
class Interval:
    """What a source calls an instrument during [valid_from, valid_to); None: since ever, until further notice."""

    source: str
    raw_symbol: str
    instrument: Instrument
    venue: str | None
    valid_from: datetime | None
    valid_to: datetime | None
    key: tuple[str, str, datetime | None] | None = None
    """What a stored row meant and when it began, to find it again once that was changed; None for a new one."""

    @property
    def open(self) -> bool:
        """Whether it lasts."""
        return self.valid_to is None

    @classmethod
    def of(cls, source: str, row: Mapping[str, Any]) -> Interval:
        """A row of an instrument list."""
        instrument = Instrument(row["symbol"], AssetClass(row["asset_class"]))
        return cls(source, row["raw_symbol"], instrument, row["venue"], row["valid_from"], row["valid_to"])


def lock_source(connection: Connection, source: str) -> None:
    """Wait until no other writer is at this source's names; held until the transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"instruments/{source}"])


def intervals_of(connection: Connection, source: str, classes: Collection[AssetClass]) -> list[Interval]:
    """All intervals of a source, of these asset classes, oldest first."""
    rows = connection.execute(
        f"SELECT {_INTERVAL} FROM instrument_symbols WHERE provider = %s AND asset_class = ANY(%s) "
        "ORDER BY raw_symbol, valid_from NULLS FIRST",
        [source, [each.value for each in classes]],
    ).fetchall()
    return [
        Interval(provider, raw_symbol, Instrument(symbol, AssetClass(name)), venue, start, end, (symbol, name, start))
        for symbol, name, provider, raw_symbol, venue, start, end in rows
    ]


def write(connection: Connection, added: Sequence[Interval], changed: Sequence[Interval], now: datetime) -> None:
    """Change stored intervals, then add new ones, in the caller's transaction and under `lock_source`."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE instrument_symbols SET venue = %s, valid_from = %s, valid_to = %s WHERE provider = %s "
            "AND raw_symbol = %s AND symbol = %s AND asset_class = %s AND valid_from IS NOT DISTINCT FROM %s",
            [
                (each.venue, each.valid_from, each.valid_to, each.source, each.raw_symbol, *each.key)
                for each in changed
                if each.key is not None
            ],
        )
    if not added:
        return
    times = {"valid_from": pl.Datetime("us", "UTC"), "valid_to": pl.Datetime("us", "UTC")}
    rows = [
        {
            "symbol": each.instrument.symbol,
            "asset_class": each.instrument.asset_class.value,
            "provider": each.source,
            "raw_symbol": each.raw_symbol,
            "venue": each.venue,
            "valid_from": each.valid_from,
            "valid_to": each.valid_to,
            "created_at": now,
        }
        for each in added
    ]
    frame = pl.DataFrame(rows, schema_overrides=times, infer_schema_length=None)
    copy_in(connection, "instrument_symbols", frame)


def describe(connection: Connection, listed: pl.DataFrame, now: datetime) -> None:
    """Keep `instruments` in step with the intervals of the symbols listed; rows that stay the same are not written.

    Name, currency and venue are those of the first source that told them. An instrument is active while any source
    has an open interval for it.
    """
    columns = ["symbol", "asset_class", "name", "currency", "venue"]
    rows = listed.sort(pl.col("valid_to").is_not_null()).select(columns).unique(columns[:2], keep="first")
    connection.execute("DROP TABLE IF EXISTS pg_temp.listed")
    connection.execute(
        f"CREATE TEMP TABLE listed ON COMMIT DROP AS SELECT {', '.join(columns)} FROM instruments WITH NO DATA"
    )
    copy_in(connection, "listed", rows)
    connection.execute(
        "INSERT INTO instruments AS known (symbol, asset_class, name, currency, venue, active, listed_on, delisted_on, "
        "created_at, updated_at) SELECT symbol, asset_class, l.name, l.currency, l.venue, found.active, "
        "found.listed_on, found.delisted_on, %(now)s, %(now)s "
        f"FROM ({_TOUCHED}) AS found LEFT JOIN listed l USING (symbol, asset_class) "
        "ON CONFLICT (symbol, asset_class) DO UPDATE SET name = coalesce(known.name, excluded.name), "
        "currency = coalesce(known.currency, excluded.currency), venue = coalesce(known.venue, excluded.venue), "
        "active = excluded.active, listed_on = excluded.listed_on, delisted_on = excluded.delisted_on, "
        "updated_at = excluded.updated_at WHERE (known.active, known.listed_on, known.delisted_on) "
        "IS DISTINCT FROM (excluded.active, excluded.listed_on, excluded.delisted_on) "
        "OR known.name IS NULL AND excluded.name IS NOT NULL "
        "OR known.currency IS NULL AND excluded.currency IS NOT NULL "
        "OR known.venue IS NULL AND excluded.venue IS NOT NULL",
        {"now": now},
    )


# Listed since the earliest start any source knows, unless one only knows that it was there before.
_TOUCHED: Final = (
    "SELECT symbol, asset_class, bool_or(valid_to IS NULL) AS active, "
    "(min(valid_from) AT TIME ZONE 'UTC')::date AS listed_on, "
    "CASE WHEN NOT bool_or(valid_to IS NULL) THEN (max(valid_to) AT TIME ZONE 'UTC')::date END AS delisted_on "
    "FROM instrument_symbols GROUP BY symbol, asset_class"
)


def names_of(database: Database, symbol: str, asset_class: AssetClass | None = None) -> list[dict[str, Any]]:
    """What every source calls a symbol, or called it, newest last; with the instrument's own name."""
    return database.rows(
        "SELECT s.symbol, s.asset_class, s.provider, s.raw_symbol, s.venue, s.valid_from, s.valid_to, i.name, "
        "i.currency, i.active FROM instrument_symbols s JOIN instruments i USING (symbol, asset_class) "
        "WHERE s.symbol = %s AND (%s::text IS NULL OR s.asset_class = %s) "
        "ORDER BY s.asset_class, s.provider, s.valid_from NULLS FIRST, s.raw_symbol",
        [symbol, asset_class and asset_class.value, asset_class and asset_class.value],
    )


def listed_since(connection: Connection, instrument: Instrument) -> tuple[str, datetime] | None:
    """The source that knows the earliest start of an instrument, and that start; None when none knows one.

    A source that once called it something else since we know not when does not know its start.
    """
    row: tuple[str, datetime] | None = connection.execute(
        "SELECT provider, min(valid_from) FROM instrument_symbols WHERE symbol = %s AND asset_class = %s "
        "GROUP BY provider HAVING bool_and(valid_from IS NOT NULL) ORDER BY min(valid_from), provider LIMIT 1",
        [instrument.symbol, instrument.asset_class.value],
    ).fetchone()
    return row


def sources_listed(database: Database) -> list[str]:
    """Every source whose names are stored."""
    return [row["provider"] for row in database.rows("SELECT DISTINCT provider FROM instrument_symbols ORDER BY 1")]


def known_symbols(database: Database) -> dict[str, str | None]:
    """Every symbol with its name, for finding what was meant."""
    rows = database.rows("SELECT symbol, max(name) AS name FROM instruments GROUP BY symbol ORDER BY symbol")
    return {row["symbol"]: row["name"] for row in rows}
