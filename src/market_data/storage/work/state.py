"""Small facts about the whole system, by name: values of `system_state`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from psycopg.types.json import Jsonb

from market_data.model.errors import ConfigError
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection

_KIND: Final = "SELECT value #>> '{}' AS kind FROM system_state WHERE key = 'kind'"


def read_state(connection: Connection, key: str, *, lock: bool = False) -> dict[str, Any]:
    """The value of a key, empty when there is none.

    Args:
        lock: let others who lock it wait until the transaction ends, also when there is no value yet.
    """
    if lock:
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 2))", [f"state {key}"])
    row = connection.execute("SELECT value FROM system_state WHERE key = %s", [key]).fetchone()
    return dict(row[0]) if row else {}


def write_state(connection: Connection, key: str, value: Mapping[str, Any], now: datetime) -> None:
    """Replace the value of a key."""
    connection.execute(
        "INSERT INTO system_state (key, value, updated_at) VALUES (%s, %s, %s) "
        "ON CONFLICT (key) DO UPDATE SET (value, updated_at) = (excluded.value, excluded.updated_at)",
        [key, Jsonb(dict(value)), now],
    )


def keep_apart(database: Database, *, sandbox: bool, now: datetime) -> None:
    """Mark a new database as one of sandbox or of live data.

    Raises:
        ConfigError: when it was marked as the other.
    """
    kind = "sandbox" if sandbox else "live"
    if not (found := database.rows(_KIND)):  # only then is anything written: a standby may be read from
        with database.transaction() as connection:
            connection.execute(
                "INSERT INTO system_state (key, value, updated_at) VALUES ('kind', to_jsonb(%s::text), %s) "
                "ON CONFLICT (key) DO NOTHING",
                [kind, now],
            )
        found = database.rows(_KIND)
    marked = found[0]["kind"]
    if marked != kind:
        raise ConfigError(
            f"{database.name} holds {marked} data and cannot be opened as {kind}: "
            f"{'leave out' if marked == 'live' else 'add'} --sandbox, or name another --data-dir"
        )
