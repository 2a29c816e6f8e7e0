"""Forgetting an instrument: what is stored of it, table by table, and its removal in one transaction."""

from __future__ import annotations

from typing import Final

from psycopg import sql

from market_data.model.instrument import Instrument
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection

# Lists of sources stay, and which jobs there were.
KEPT: Final = ("contracts", "instruments", "instrument_symbols", "job_parts")
_TABLES: Final = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND (
    SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname IN ('symbol', 'asset_class')
) = 2 ORDER BY c.relname
"""


def holdings(database: Database, instrument: Instrument) -> dict[str, int]:
    """Rows by table that are stored of an instrument; tables without any are left out."""
    with database.transaction() as connection:
        return _each(connection, instrument, "SELECT count(*) FROM {} WHERE (symbol, asset_class) = (%s, %s)")


def forget(database: Database, instrument: Instrument) -> dict[str, int]:
    """Remove all that is stored of an instrument; returns how many rows of each table went."""
    statement = (
        "WITH gone AS (DELETE FROM {} WHERE (symbol, asset_class) = (%s, %s) RETURNING 1) SELECT count(*) FROM gone"
    )
    with database.transaction() as connection:
        # Nobody writes it meanwhile.
        name = f"{instrument.symbol}/{instrument.asset_class}"
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])
        return _each(connection, instrument, statement)


def _each(connection: Connection, instrument: Instrument, statement: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for (table,) in connection.execute(_TABLES).fetchall():
        if table in KEPT:
            continue
        query = sql.SQL(statement).format(sql.Identifier(table))
        row = connection.execute(query, [instrument.symbol, instrument.asset_class.value]).fetchone()
        if row is not None and row[0]:
            found[table] = row[0]
    return found
