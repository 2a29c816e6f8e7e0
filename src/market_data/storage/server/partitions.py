"""Partitions of the tables that grow, made ahead of the writes that need them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from psycopg import sql

from market_data.model.dataset import DATASETS
from market_data.model.errors import UsageError
from market_data.storage.wire.connection import Connection
from market_data.storage.wire.errors import translated

# Length of a partition, by table.
PARTITIONED: Final[dict[str, str]] = {
    **{dataset.table: dataset.partition for dataset in DATASETS.values() if dataset.partition},
    "market_data_v2": "year",
    "trades_raw": "day",
}

# Partitioned by a column of days, not of moments.
_OF_DAYS: Final = frozenset(dataset.table for dataset in DATASETS.values() if dataset.of_contracts)


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition: [start, end) of the column its table is partitioned by, a moment or a day."""

    table: str
    name: str
    start: datetime
    end: datetime


def partitions_of(table: str, start: datetime, end: datetime) -> Iterator[Partition]:
    """The partitions that [start, end) touches, in order.

    Raises:
        UsageError: when the table is not partitioned.
    """
    if table not in PARTITIONED:
        raise UsageError(f"{table} is not partitioned; these are: {', '.join(PARTITIONED)}")
    moment = start.astimezone(UTC)
    while moment < end:
        partition = _partition_at(table, moment)
        yield partition
        moment = partition.end


def ensure_partitions(connection: Connection, table: str, start: datetime, end: datetime) -> list[str]:
    """Make the partitions that rows in [start, end) need, in the connection's transaction; nothing when all are there.

    Writers of other partitions are not blocked. Who makes one holds a lock until the transaction ends for which others
    that need a new one of the same table wait: call it in a short transaction of its own ahead of a long write.

    Returns:
        Names of the partitions made.

    Raises:
        UsageError: when the table is not partitioned.
        MissingPrivilege: when the user may not make tables.
    """
    wanted = list(partitions_of(table, start, end))
    with translated(connection.info.dsn):
        if not _absent(connection, wanted):
            return []
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"partitions of {table}",))
        made = _absent(connection, wanted)
        for partition in made:
            _make(connection, partition)
    return [partition.name for partition in made]


def _absent(connection: Connection, wanted: list[Partition]) -> list[Partition]:
    found = connection.execute(
        "SELECT relname FROM pg_class WHERE relname = ANY(%s) AND relispartition AND pg_table_is_visible(oid)",
        ([partition.name for partition in wanted],),
    )
    present = {name for (name,) in found}
    return [partition for partition in wanted if partition.name not in present]


def _make(connection: Connection, partition: Partition) -> None:
    """Attached rather than made in place, because that does not lock the table against readers and writers."""
    name, table = sql.Identifier(partition.name), sql.Identifier(partition.table)
    connection.execute(
        sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)").format(name, table)
    )
    connection.execute(
        sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            table, name, *(sql.Literal(_bound(partition.table, moment)) for moment in (partition.start, partition.end))
        )
    )


def _bound(table: str, moment: datetime) -> datetime | date:
    return moment.date() if table in _OF_DAYS else moment


def _partition_at(table: str, moment: datetime) -> Partition:
    length = PARTITIONED[table]
    if length == "year":
        start = datetime(moment.year, 1, 1, tzinfo=UTC)
        return Partition(table, f"{table}_y{start:%Y}", start, datetime(moment.year + 1, 1, 1, tzinfo=UTC))
    if length == "quarter":
        quarter = (moment.month - 1) // 3
        start = datetime(moment.year, 3 * quarter + 1, 1, tzinfo=UTC)
        after = datetime(moment.year + quarter // 3, (3 * quarter + 3) % 12 + 1, 1, tzinfo=UTC)
        return Partition(table, f"{table}_y{start:%Y}q{quarter + 1}", start, after)
    start = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    return Partition(table, f"{table}_d{start:%Y%m%d}", start, start + timedelta(days=1))
