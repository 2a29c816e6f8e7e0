"""Old partitions of a dataset, packed: the same rows, a compressed line per moment of an instrument, read as before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import polars as pl
from psycopg import sql

from market_data.model.dataset import Dataset
from market_data.model.errors import StorageError
from market_data.model.timeframe import MICROSECOND
from market_data.storage.server.database import Database
from market_data.storage.server.growth import partitions_ended
from market_data.storage.server.partitions import ensure_partitions
from market_data.storage.wire.connection import Connection
from market_data.storage.wire.copy_in import copy_in

# What a line of the packed table says of all its rows; the rest is in its content.
_OF_LINE: Final = ("symbol", "asset_class", "source", "timestamp", "known_from")


def relation(dataset: Dataset, columns: Iterable[str]) -> str:
    """What a dataset is read from: its table, and beside it what was packed, as if it were still there.

    A condition on what a line says of its rows reaches the lines, so that only those that may fit are unpacked.
    """
    if not dataset.packed:
        return dataset.table
    names = list(dict.fromkeys([*_OF_LINE, *columns]))
    unpacked = ", ".join(f"{'p' if name in _OF_LINE else 'r'}.{name}" for name in names)
    return (
        f"(SELECT {', '.join(names)} FROM {dataset.table} UNION ALL SELECT {unpacked} FROM {dataset.table}_packed p, "
        f"LATERAL jsonb_populate_recordset(NULL::{dataset.table}, p.content) r) AS {dataset.table}"
    )


def pack(database: Database, dataset: Dataset, before: datetime, now: datetime) -> list[str]:
    """Pack the partitions that end by `before` and drop them, each in a transaction; returns their names.

    Raises:
        StorageError: when what was packed does not unpack to the same rows; the partition stays then.
    """
    packed = []
    for name in partitions_ended(database, dataset.table, before):
        with database.transaction() as connection:
            _pack(connection, dataset, name, now)
        packed.append(name)
    return packed


def _pack(connection: Connection, dataset: Dataset, name: str, now: datetime) -> None:
    part, table, packed = (sql.Identifier(each) for each in (name, dataset.table, f"{dataset.table}_packed"))
    line = sql.SQL(", ").join(map(sql.Identifier, _OF_LINE))
    # Whoever writes waits; whoever reads goes on until the partition is dropped.
    connection.execute(sql.SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(part))
    connection.execute(
        sql.SQL(
            "INSERT INTO {packed} ({line}, packed_at, row_count, content) SELECT {line}, %s, count(*), "
            "jsonb_agg(jsonb_strip_nulls(to_jsonb(o) - %s::text[]) ORDER BY revision) FROM {part} o GROUP BY {line}"
        ).format(packed=packed, line=line, part=part),
        [now, list(_OF_LINE)],
    )
    different = connection.execute(
        sql.SQL(
            "SELECT count(*) FROM (SELECT o FROM {part} o EXCEPT ALL SELECT jsonb_populate_record(NULL::{table}, "
            "r.value || to_jsonb(l)) FROM {packed} p, LATERAL (SELECT {lines}) l, jsonb_array_elements(p.content) r "
            "WHERE p.packed_at = %s) AS lost"
        ).format(
            part=part, table=table, packed=packed,
            lines=sql.SQL(", ").join(sql.SQL("p.{}").format(sql.Identifier(each)) for each in _OF_LINE),
        ),
        [now],
    ).fetchone()  # fmt: skip
    if different is None or different[0]:
        raise StorageError(f"{name} did not unpack to the rows that were packed; nothing was dropped")
    connection.execute(sql.SQL("DROP TABLE {}").format(part))


def take_back(database: Database, dataset: Dataset, folder: Path) -> list[Path]:
    """Rows that an earlier version moved into files, back in the database; a file is renamed once they are there."""
    taken = []
    for path in sorted(folder.glob(f"{dataset.table}_*.parquet")) if folder.is_dir() else ():
        frame = pl.read_parquet(path)
        with database.transaction() as connection:
            times: Sequence[datetime] = frame.select(
                first=pl.col("timestamp").min(), last=pl.col("timestamp").max()
            ).row(0)
            ensure_partitions(connection, dataset.table, times[0], times[1] + MICROSECOND)
            connection.execute(f"CREATE TEMP TABLE taken_back (LIKE {dataset.table} INCLUDING DEFAULTS) ON COMMIT DROP")
            copy_in(connection, "taken_back", frame)
            connection.execute(f"INSERT INTO {dataset.table} SELECT * FROM taken_back ON CONFLICT DO NOTHING")
        taken.append(path.rename(path.with_suffix(".restored")))
    return taken
