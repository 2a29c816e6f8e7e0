"""Growth: how large every table and partition is, what retention drops, and old options moved to Parquet files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import polars as pl
from psycopg import sql

from market_data.model.dataset import DATASETS
from market_data.model.errors import StorageError
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


@dataclass(frozen=True, slots=True)
class Pruned:
    """Partitions that were dropped, and files that options were moved into."""

    dropped: list[str]
    archived: list[Path]


def prune(database: Database, ages: Mapping[str, timedelta], folder: Path, now: datetime) -> Pruned:
    """Apply retention: drop what is too old, move options older than theirs into `folder`."""
    kept = {table: age for table, age in ages.items() if table != "options_iv"}
    archived = archive_options(database, folder, now - ages["options_iv"]) if "options_iv" in ages else []
    return Pruned(drop_expired(database, kept, now), archived)


def drop_expired(database: Database, keep: Mapping[str, timedelta], now: datetime) -> list[str]:
    """Drop the partitions whose every row is older than its table's retention; returns their names.

    Args:
        keep: retention by table (trades, quotes, trades_raw); tables that are not named are kept for ever.
    """
    dropped = []
    for table, age in keep.items():
        for name, end in _partitions_of(database, table):
            if end <= now - age:
                with database.transaction() as connection:
                    connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
                dropped.append(name)
    return dropped


def archive_options(database: Database, folder: Path, before: datetime) -> list[Path]:
    """Move the quarters of options_iv that end by `before` into Parquet files, one each, and drop their partitions.

    A file is read back and compared before its partition goes; `archived_options` reads them.

    Raises:
        StorageError: when what was written does not read back equal, or the partition changed meanwhile; it stays then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, end in _partitions_of(database, "options_iv"):
        if end > before:
            continue
        path = folder / f"{name}.parquet"
        frame = database.frame(f"SELECT * FROM {name} ORDER BY symbol, timestamp, contract, source, known_from")
        moved = frame.height
        if path.exists():
            # Rows that came after their quarter was archived.
            frame = pl.concat([pl.read_parquet(path), frame]).unique(maintain_order=True)
        _write_checked(frame, path)
        with database.transaction() as connection:
            connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(name)))
            row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))).fetchone()
            if row is None or row[0] != moved:
                raise StorageError(f"{name} grew while it was archived; run it again")
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
        written.append(path)
    return written


def archived_options(folder: Path) -> pl.LazyFrame | None:
    """All archived options, None when there are none."""
    files = sorted(folder.glob("options_iv_*.parquet"))
    return pl.scan_parquet(files) if files else None


def _write_checked(frame: pl.DataFrame, path: Path) -> None:
    part = path.with_suffix(".part")
    frame.write_parquet(part, compression="zstd")
    if not pl.read_parquet(part).equals(frame):
        part.unlink()
        raise StorageError(f"{path} did not read back as it was written; nothing was dropped")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


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
