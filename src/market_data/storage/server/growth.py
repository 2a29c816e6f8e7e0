"""Growth: how large every table and partition is, and dropping what is too old."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from psycopg import sql

from market_data.model.dataset import DATASETS
from market_data.storage.server.database import Database
from market_data.storage.server.migration_files import declared_columns
from market_data.storage.server.partitions import PARTITIONED
from market_data.storage.wire.connection import Connection

# The column that says how old a row is; tables that are not here have none worth telling.
TIME_COLUMNS: Final[dict[str, str]] = {
    **{dataset.table: dataset.time for dataset in DATASETS.values() if not dataset.dated},
    "market_data_v2": "timestamp",
    "user_features": "timestamp",
    "trades_raw": "received_at",
    "data_corrections": "correction_timestamp",
    "enrichment_fetch_log": "created_at",
    "enrichment_compute_log": "created_at",
    "quarantine": "created_at",
    "runs": "started_at",
}
# Larger tables are not read through for a figure: their rows are PostgreSQL's estimate, oldest and newest unknown.
COUNTED_ROWS: Final = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSize:
    """A table, or one partition of it.

    Attributes:
        rows: exact up to COUNTED_ROWS, else PostgreSQL's estimate.
        bytes: with indexes and overlong values.
        oldest, newest: of the table's time column; None where it has none, is empty or too large to look through.
    """

    table: str
    partition: str | None
    rows: int
    bytes: int
    oldest: datetime | None
    newest: datetime | None


def table_sizes(database: Database, *, partitions: bool = True) -> list[TableSize]:
    """Every table of ours, largest first, each followed by its partitions that hold rows."""
    found = database.rows(
        "SELECT coalesce(p.relname, c.relname) AS table, CASE WHEN p.oid IS NOT NULL THEN c.relname END AS partition, "
        "c.reltuples::bigint AS estimate, pg_total_relation_size(c.oid) AS bytes, c.relpages > 0 OR "
        "pg_relation_size(c.oid) > 0 AS filled FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid "
        "LEFT JOIN pg_class p ON p.oid = i.inhparent WHERE c.relkind = 'r' AND pg_table_is_visible(c.oid) "
        "AND coalesce(p.relname, c.relname) = ANY(%s)",
        (list(declared_columns()),),
    )
    with database.transaction() as connection:
        parts = [
            _size(connection, row["table"], row["partition"], row["estimate"], row["bytes"], filled=row["filled"])
            for row in found
        ]
    wholes = [_sum(table, [part for part in parts if part.table == table]) for table in {part.table for part in parts}]
    wholes.sort(key=lambda size: (-size.bytes, size.table))
    if not partitions:
        return wholes
    return [
        size
        for whole in wholes
        for size in (
            whole,
            *sorted(
                (part for part in parts if part.table == whole.table and part.partition and part.rows),
                key=lambda part: part.partition or "",
            ),
        )
    ]


def drop_expired(database: Database, keep: Mapping[str, timedelta], now: datetime) -> list[str]:
    """Drop the partitions whose every row is older than its table's retention; returns their names.

    Args:
        keep: retention by table (trades, quotes, trades_raw); tables that are not named are kept for ever.
    """
    dropped = []
    for table, age in keep.items():
        for name in partitions_ended(database, table, now - age):
            with database.transaction() as connection:
                connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
            dropped.append(name)
    return dropped


def partitions_ended(database: Database, table: str, before: datetime) -> list[str]:
    """Names of a table's partitions whose every row is older than a moment, oldest first."""
    return [name for name, end in _partitions_of(database, table) if end <= before]


def _partitions_of(database: Database, table: str) -> list[tuple[str, datetime]]:
    """Names and ends of a table's partitions, oldest first."""
    assert table in PARTITIONED, table
    rows = database.rows(
        "SELECT c.relname AS name, (regexp_match(pg_get_expr(c.relpartbound, c.oid), "
        "$$TO \\('([^']+)'\\)$$))[1]::timestamptz AS ends FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = %s::regclass ORDER BY 2",
        (table,),
    )
    return [(row["name"], row["ends"]) for row in rows]


def _size(
    connection: Connection, table: str, partition: str | None, estimate: int, size: int, *, filled: bool
) -> TableSize:
    rows, oldest, newest = max(estimate, 0), None, None
    if not filled:
        rows = 0
    elif estimate <= COUNTED_ROWS:
        column = TIME_COLUMNS.get(table)
        bounds = sql.SQL("min({0}), max({0})").format(sql.Identifier(column)) if column else sql.SQL("NULL, NULL")
        query = sql.SQL("SELECT count(*), {} FROM {}").format(bounds, sql.Identifier(partition or table))
        found = connection.execute(query).fetchone()
        assert found is not None
        rows, oldest, newest = found
    return TableSize(table=table, partition=partition, rows=rows, bytes=size, oldest=oldest, newest=newest)


def _sum(table: str, parts: list[TableSize]) -> TableSize:
    return TableSize(
        table=table,
        partition=None,
        rows=sum(part.rows for part in parts),
        bytes=sum(part.bytes for part in parts),
        oldest=min((part.oldest for part in parts if part.oldest), default=None),
        newest=max((part.newest for part in parts if part.newest), default=None),
    )
