"""Statements that write, told one by one and run as one: fewer round trips where many small ones belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import psycopg

from market_data.storage.wire.connection import Connection


class Gathered:
    """Takes statements as a connection does, and keeps them until `run`.

    They all see the database as it was before the first of them, and no two may write the same row.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cursor = psycopg.ClientCursor(connection)
        self._told: list[str] = []

    def execute(self, query: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> None:
        """Keep an INSERT, UPDATE or DELETE, its values written into it."""
        self._told.append(self._cursor.mogrify(query, parameters or None))

    def run(self) -> None:
        """Run what was told, as one statement."""
        if self._told:
            parts = ", ".join(f"told_{place} AS ({each})" for place, each in enumerate(self._told))
            self._cursor.execute(f"WITH {parts} SELECT")
            self._told.clear()


# What takes a statement that writes.
Writes: TypeAlias = Connection | Gathered
