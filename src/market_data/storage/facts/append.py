"""Facts besides candles: derivatives values, corporate actions, earnings, options, news; appended, never changed.

Each source's entries stand beside one another; a source that amends an entry adds a version with its own `known_from`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import polars as pl

from market_data.model.contract import Contract
from market_data.model.dataset import UTC_MICROS, Dataset
from market_data.model.instrument import Instrument
from market_data.model.timeframe import TimeRange
from market_data.storage.facts.packed import relation
from market_data.storage.facts.ticks import store_ticks, unlisted
from market_data.storage.series.present import Counts, plain_text
from market_data.storage.server.database import Database
from market_data.storage.server.partitions import PARTITIONED, ensure_partitions
from market_data.storage.wire.connection import Connection
from market_data.storage.wire.copy_in import copy_in

_LIST_SEPARATOR: Final = ", "


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of rows, and those that were new or amended."""

    counts: Counts
    changed: pl.DataFrame
    refused: pl.DataFrame | None = None
    """Rows that bear the number of another one; counted as rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Who gave the rows, when they became known to us, and in which run."""

    source: str
    now: datetime
    run_id: UUID
    contract: Contract | None = None
    """Whose rows they are, for datasets of contracts; None where the source has no list."""


def lock_facts(connection: Connection, dataset: Dataset, instrument: Instrument) -> None:
    """Wait until no other writer is at the entries the instrument's rows may be; held until the transaction ends."""
    # Entries that belong to several instruments are locked for all of them.
    whose = f"/{instrument.symbol}/{instrument.asset_class}" if dataset.names is None else ""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{dataset.name}{whose}"])


def append(
    connection: Connection,
    database: Database,
    dataset: Dataset,
    instrument: Instrument,
    frame: pl.DataFrame,
    origin: Provenance,
) -> Appended:
    """Append what is new or amended, with its corrections, inside the caller's transaction and under `lock_facts`.

    Args:
        frame: rows in the dataset's schema; of rows with the same key the first counts, the others are `rejected`.

    Returns:
        inserted: keys this source had not given before; updated: keys whose values it amended; unchanged: the rest.
    """
    if dataset.of_contracts:
        # The archive and the interface of a provider tell of the same rows.
        provider = origin.source.partition(":")[0]
        contract = origin.contract or unlisted(instrument, provider)
        stored = store_ticks(connection, dataset, contract, frame, provider, origin.now)
        return Appended(stored.counts, dataset.empty(), stored.collided)
    rows = _without_null_lists(dataset, dataset.conform(frame))
    if "component" in dataset.key:
        rows = rows.with_columns(pl.col("component").fill_null(1))
    unique = rows.unique(dataset.key, keep="first", maintain_order=True)
    if unique.is_empty():
        return Appended(Counts(rejected=rows.height), unique)
    known = _known(database, dataset, instrument, unique, origin.source)
    joined = unique.join(known, on=dataset.key, how="left", suffix="_known", nulls_equal=True, maintain_order="left")
    joined = joined.with_columns(pl.coalesce(name, f"{name}_known").alias(name) for name in sorted(dataset.lasting))
    found = pl.col("revision").is_not_null()
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"{name}_known")) for name in dataset.values)
    if dataset.withdrawable:
        # Told again after it was taken back: a new version, whatever it says.
        same &= ~pl.col("withdrawn").fill_null(value=False)
    judged = joined.with_columns(
        verdict=pl.when(~found)
        .then(pl.lit("inserted"))
        .when(same)
        .then(pl.lit("unchanged"))
        .otherwise(pl.lit("updated"))
    )
    changed = judged.filter(pl.col("verdict") != "unchanged")
    _write(connection, dataset, instrument, changed, origin)
    _correct(connection, dataset, instrument, judged.filter(pl.col("verdict") == "updated"), origin)
    counts = dict(judged["verdict"].value_counts().iter_rows())
    return Appended(Counts(**counts, rejected=rows.height - unique.height), changed.select(dataset.schema.names()))


def prepare_fact_partitions(database: Database, dataset: Dataset, span: TimeRange) -> None:
    """Make the partitions that rows of `span` need, in a short transaction of its own ahead of the write."""
    if dataset.table in PARTITIONED:
        with database.transaction() as connection:
            ensure_partitions(connection, dataset.table, span.start, span.end)


def _known(
    database: Database, dataset: Dataset, instrument: Instrument, rows: pl.DataFrame, source: str
) -> pl.DataFrame:
    """The newest version of each entry of a source that may be one of the rows; found by what it is keyed by."""
    where, parameters = ["source = %s"], list[object]([source])
    if dataset.names is None:
        where.append("symbol = %s AND asset_class = %s")
        parameters += [instrument.symbol, instrument.asset_class.value]
    else:
        where.append(f"{dataset.key[0]} = ANY(%s)")
        parameters.append(rows[dataset.key[0]].to_list())
    if dataset.time in dataset.key and not rows[dataset.time].null_count():
        where.append(f"{dataset.time} BETWEEN %s AND %s")
        parameters += [rows[dataset.time].min(), rows[dataset.time].max()]
    key, columns = ", ".join(dataset.order), ", ".join(dataset.schema)
    columns += ", withdrawn" if dataset.withdrawable else ""
    known = database.frame(
        f"SELECT DISTINCT ON ({key}) {columns}, known_from, revision FROM {relation(dataset, dataset.stored)} "
        f"WHERE {' AND '.join(where)} ORDER BY {key}, known_from DESC",
        parameters,
    )
    return known.with_columns(pl.col(name).cast(dtype) for name, dtype in dataset.schema.items())


def _without_null_lists(dataset: Dataset, rows: pl.DataFrame) -> pl.DataFrame:
    """Lists that are never absent, only empty."""
    lists = [name for name, field in dataset.record.model_fields.items() if field.default == ()]
    return rows.with_columns(pl.col(name).fill_null([]) for name in lists)


def _write(
    connection: Connection, dataset: Dataset, instrument: Instrument, changed: pl.DataFrame, origin: Provenance
) -> None:
    if changed.is_empty():
        return
    # A version is younger than the one before it even when a clock stands still or steps back.
    after = pl.col("known_from") + pl.duration(microseconds=1)
    columns: dict[str, pl.Expr] = {
        "source": pl.lit(origin.source),
        "run_id": pl.lit(str(origin.run_id)),
        "known_from": pl.max_horizontal(pl.lit(origin.now).cast(UTC_MICROS), after),
        "revision": pl.col("revision").fill_null(0) + 1,
    }
    if dataset.names is None:
        columns["symbol"] = pl.lit(instrument.symbol)
        columns["asset_class"] = pl.lit(instrument.asset_class.value)
    copy_in(connection, dataset.table, changed.select(*dataset.schema.names(), **columns))


def _correct(
    connection: Connection, dataset: Dataset, instrument: Instrument, amended: pl.DataFrame, origin: Provenance
) -> None:
    if amended.is_empty():
        return

    def text(name: str, column: str) -> pl.Expr:
        dtype = amended.schema[column]
        if isinstance(dtype, pl.List):
            return pl.col(column).list.join(_LIST_SEPARATOR)
        return plain_text(column, dtype).alias(name)

    fields = [
        amended.filter(pl.col(name).ne_missing(pl.col(f"{name}_known"))).select(
            timestamp=pl.col(dataset.time).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            field_corrected=pl.lit(name),
            old_value=text("old_value", f"{name}_known"),
            new_value=text("new_value", name),
        )
        for name in dataset.values
    ]
    corrections = pl.concat(fields).with_columns(
        dataset=pl.lit(dataset.name),
        symbol=pl.lit(instrument.symbol),
        asset_class=pl.lit(instrument.asset_class.value),
        # An entry without a date of its own is dated by when it was corrected.
        timestamp=pl.col("timestamp").fill_null(pl.lit(origin.now)),
        reason=pl.lit("source_updated"),
        source=pl.lit(origin.source),
        corrected_by=pl.lit("collect"),
        run_id=pl.lit(str(origin.run_id)),
        correction_timestamp=pl.lit(origin.now),
    )
    copy_in(connection, "data_corrections", corrections)
