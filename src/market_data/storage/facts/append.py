"""Facts besides candles: derivatives values, corporate actions, earnings, options, news; appended, never changed.

Each source's entries stand beside one another; a source that amends an entry adds a version with its own `known_from`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import polars as pl

from market_data.model.dataset import NEWS, QUOTES, TRADES, Dataset
from market_data.model.instrument import Instrument
from market_data.model.records import Observation
from market_data.model.timeframe import MICROSECOND, TimeRange
from market_data.storage.series.present import Counts, plain_text
from market_data.storage.server.database import Database
from market_data.storage.server.partitions import PARTITIONED, ensure_partitions
from market_data.storage.wire.connection import Connection
from market_data.storage.wire.copy_in import copy_in

# Never amended by their sources: an entry that is there already is the same entry.
IMMUTABLE: Final = (TRADES, QUOTES)
_LIST_SEPARATOR: Final = ", "


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of rows, and those that were new or amended."""

    counts: Counts
    changed: pl.DataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Who gave the rows, when they became known to us, and in which run."""

    source: str
    now: datetime
    run_id: UUID


def lock_facts(connection: Connection, dataset: Dataset, instrument: Instrument) -> None:
    """Wait until no other writer is at this dataset of the instrument; held until the transaction ends."""
    name = f"{dataset.name}/{instrument.symbol}/{instrument.asset_class}"
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])


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
    rows = dataset.conform(frame)
    unique = rows.unique(dataset.key, keep="first", maintain_order=True)
    if unique.is_empty():
        return Appended(Counts(rejected=rows.height), unique)
    known = _newest(database, dataset, instrument, unique, origin.source)
    joined = unique.join(known, on=dataset.key, how="left", suffix="_known", nulls_equal=True, maintain_order="left")
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"{name}_known")) for name in dataset.values)
    found = pl.col("known_from").is_not_null()
    judged = joined.with_columns(
        verdict=pl.when(~found)
        .then(pl.lit("inserted"))
        .when(same)
        .then(pl.lit("unchanged"))
        .otherwise(pl.lit("updated"))
    )
    if dataset in IMMUTABLE:
        judged = judged.with_columns(verdict=pl.when(found).then(pl.lit("unchanged")).otherwise("verdict"))
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


def newest_versions(
    database: Database,
    dataset: Dataset,
    instrument: Instrument,
    span: TimeRange | None = None,
    *,
    as_of: datetime | None = None,
    limit: int | None = None,
) -> pl.DataFrame:
    """Every source's newest version of each entry, by then known when `as_of` is given, in order of time.

    Returns:
        the dataset's columns, `source`, `known_from`; the newest `limit` entries when given.
    """
    where, parameters = _of_instrument(dataset, instrument)
    if span is not None:
        where += f" AND {dataset.time} >= %s AND {dataset.time} < %s"
        parameters += [span.start, span.end]
    if as_of is not None and dataset not in IMMUTABLE:
        where += " AND known_from <= %s"
        parameters.append(as_of)
    versioned = dataset not in IMMUTABLE
    known = ", known_from" if versioned else ""
    key = ", ".join((*dataset.key, "source"))
    newest = (
        f"SELECT DISTINCT ON ({key}) {', '.join(dataset.schema)}, source{known} FROM {dataset.table} WHERE {where} "
    )
    newest += f"ORDER BY {key}{', known_from DESC' if versioned else ''}"
    bounded = f" LIMIT {int(limit)}" if limit else ""
    return database.frame(
        f"SELECT * FROM ({newest}) AS newest ORDER BY {dataset.time} DESC NULLS LAST{bounded}",
        tuple(parameters),
    ).reverse()


def _newest(
    database: Database, dataset: Dataset, instrument: Instrument, rows: pl.DataFrame, source: str
) -> pl.DataFrame:
    span = None
    times = rows[dataset.time]
    if times.dtype == pl.Datetime("us", "UTC") and not times.null_count():
        span = TimeRange(times.min(), times.max() + MICROSECOND)  # type: ignore[arg-type,operator]  # of datetimes
    known = newest_versions(database, dataset, instrument, span).filter(pl.col("source") == source).drop("source")
    if dataset in IMMUTABLE:
        known = known.with_columns(known_from=pl.lit(None, pl.Datetime("us", "UTC")).fill_null(pl.col(dataset.time)))
    return known.with_columns(pl.col(name).cast(dtype) for name, dtype in dataset.schema.items())


def _write(
    connection: Connection, dataset: Dataset, instrument: Instrument, changed: pl.DataFrame, origin: Provenance
) -> None:
    if changed.is_empty():
        return
    columns: dict[str, pl.Expr] = {"source": pl.lit(origin.source), "run_id": pl.lit(str(origin.run_id))}
    if dataset not in IMMUTABLE:
        # A version is younger than the one before it even when a clock stands still or steps back.
        after = pl.col("known_from") + pl.duration(microseconds=1)
        columns["known_from"] = pl.max_horizontal(pl.lit(origin.now).cast(pl.Datetime("us", "UTC")), after)
    if dataset is not NEWS:
        columns["symbol"] = pl.lit(instrument.symbol)
        columns["asset_class"] = pl.lit(instrument.asset_class.value)
    rows = changed.select(*dataset.schema.names(), **columns)
    if dataset is NEWS:
        rows = rows.with_columns(pl.col("symbols", "keywords").fill_null([]))
    copy_in(connection, dataset.table, rows)
    if dataset not in IMMUTABLE and not issubclass(dataset.record, Observation):
        _number_revisions(connection, dataset, origin.run_id)


def _number_revisions(connection: Connection, dataset: Dataset, run_id: UUID) -> None:
    """Versions just written count up from the ones before them."""
    same = " AND ".join(f"older.{name} = written.{name}" for name in (*dataset.key, "source"))
    same += "" if dataset is NEWS else " AND older.symbol = written.symbol AND older.asset_class = written.asset_class"
    connection.execute(
        f"UPDATE {dataset.table} AS written SET revision = 1 + (SELECT count(*) FROM {dataset.table} AS older "
        f"WHERE {same} AND older.known_from < written.known_from) WHERE run_id = %s",
        [run_id],
    )


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


def _of_instrument(dataset: Dataset, instrument: Instrument) -> tuple[str, list[object]]:
    if dataset is NEWS:
        return "symbols @> ARRAY[%s]", [instrument.symbol]
    return "symbol = %s AND asset_class = %s", [instrument.symbol, instrument.asset_class.value]
