"""Which servers are let in: new enough, in UTF-8, with a schema to work in, and no pooler that shares sessions."""

from __future__ import annotations

from typing import Final

import psycopg

from market_data.model.errors import ConfigError
from market_data.storage.wire.connection import Connection, dial

OLDEST_SERVER: Final = 150000
# A pooler between hands a connection of the server to whoever comes next; looked at so often, it shows.
LOOKS: Final = 3


def check_server(connection: Connection, name: str, conninfo: str) -> None:
    """Refuse at once what would fail later in words nobody could place.

    Raises:
        ConfigError: saying what to do.
    """
    if connection.info.server_version < OLDEST_SERVER:
        raise ConfigError(f"{name} is PostgreSQL {connection.info.server_version // 10000}; 15 is needed.")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in (None, "UTF8"):
        raise ConfigError(
            f"{name} keeps its text in {encoding}; UTF8 is needed: make another with "
            "CREATE DATABASE market_data ENCODING 'UTF8' TEMPLATE template0, and name it in DATABASE_URL."
        )
    row = connection.execute("SELECT pg_backend_pid(), current_schema()").fetchone()
    assert row is not None
    own, schema = row
    # A server tells each client the number of its process; a pooler, who stands in between, tells one of its own.
    if own != connection.info.backend_pid and _shares_sessions(connection, conninfo):
        raise ConfigError(
            f"{name} is reached through a pooler in transaction mode (PgBouncer or alike), where locks and "
            "notifications do not work: name the server's own port in DATABASE_URL, or set pool_mode = session for it."
        )
    if schema is None:
        raise ConfigError(
            f"{name} has no schema to work in (its search_path leads nowhere): CREATE SCHEMA, or correct search_path."
        )


def _shares_sessions(connection: Connection, conninfo: str) -> bool:
    """Whether two clients at once get the same session of the server, or one client gets another one in between."""
    for _ in range(LOOKS):
        before = _process(connection)
        with dial(conninfo) as other, other.transaction():
            theirs = _process(other)
            after = _process(connection)
        if theirs == before or after != before:
            return True
    return False


def _process(connection: psycopg.Connection[tuple[object, ...]]) -> object:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return row[0]
