"""Trades and quotes as stored: of a contract, once each, by COPY where they are new; and what numbers are missing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

import polars as pl

from market_data.model.contract import Contract
from market_data.model.dataset import UTC_MICROS, Dataset
from market_data.model.errors import UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument, Kind
from market_data.model.ticks import numbered
from market_data.model.timeframe import TimeRange
from market_data.storage.facts.contracts import at_their_time, lives_of
from market_data.storage.series.present import Counts, plain_text
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.wire.copy_in import copy_in
from market_data.storage.wire.copy_out import copy_out

_KEY: Final = ("contract_id", "day", "number")
_MILLISECOND: Final = 1000
_SHARES: Final = (Kind.STOCK, Kind.ETF)
# The contracts a symbol names: exactly, or as the one its series is tied to, or by what it is of while none is tied.
CONTRACTS_OF: Final = (
    "SELECT contract_id FROM contracts WHERE symbol = %s AND asset_class = %s "
    "UNION SELECT contract_id FROM contract_ties WHERE symbol = %s AND asset_class = %s "
    "UNION SELECT contract_id FROM contracts WHERE base = %s AND asset_class = %s AND NOT EXISTS "
    "(SELECT FROM contract_ties t WHERE t.symbol = %s AND t.asset_class = %s)"
)


def contracts_of(instrument: Instrument) -> tuple[str, list[Any]]:
    """The statement that finds the numbers of an instrument's contracts, and its parameters."""
    return CONTRACTS_OF, [instrument.symbol, instrument.asset_class.value] * 4


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of rows: how many, and those refused because another bears their number."""

    counts: Counts
    collided: pl.DataFrame


def store_ticks(
    connection: Connection,
    dataset: Dataset,
    contract: Contract,
    frame: pl.DataFrame,
    source: str,
    now: datetime,
) -> Stored:
    """Store rows of a contract inside the caller's transaction; partitions are there.

    A row that is there already is compared: a time told more exactly, a value said otherwise and a correction amend it,
    with an entry in data_corrections for what is more than an exacter time. Another trade under the same number is
    refused.

    Raises:
        UnsupportedRequest: when another source's numbers are stored of the contract.
    """
    own = dataset.key[-1]
    rows = numbered(dataset.conform(frame), own, restarts=contract.kind in _SHARES)
    owners = lives_of(connection, contract, now)
    rows = rows.with_columns(at_their_time(rows["timestamp"], owners)).select(*_KEY, *dataset.schema)
    unique, again = _once(rows)
    collided = again.join(unique, on=rows.columns, how="anti", nulls_equal=True)
    counts = Counts(unchanged=again.height - collided.height)
    one = unique.select(pl.col("contract_id", "day").n_unique()).row(0) == (1, 1)
    for part in [unique] if one else unique.partition_by("contract_id", "day", maintain_order=True):
        contract_id, day = part.select("contract_id", "day").row(0)
        _claim(connection, dataset, contract_id, source, now)
        stored = _store_day(connection, dataset, contract_id, day, part, source, now)
        counts, collided = counts + stored.counts, pl.concat([collided, stored.collided])
    return Stored(counts + Counts(rejected=collided.height), collided.select(dataset.schema.names()))


def _once(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The first row of each key, and those that repeat one."""
    # Mostly they come in the order of their numbers, which is much cheaper to see than to sort out.
    if rows["number"].diff().min() is None or rows["number"].diff().min() > 0:  # type: ignore[operator]  # a number
        return rows, rows.clear()
    first = pl.struct(_KEY).is_first_distinct()
    return rows.filter(first), rows.filter(~first)


def _claim(connection: Connection, dataset: Dataset, contract_id: int, source: str, now: datetime) -> None:
    """Wait until no other writer is at the contract, and see that its numbers are this source's."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{dataset.name}/{contract_id}"])
    row = connection.execute(
        "WITH made AS (INSERT INTO tick_sources VALUES (%(id)s, %(dataset)s, %(source)s, %(now)s) "
        "ON CONFLICT DO NOTHING RETURNING source) SELECT source FROM made UNION ALL SELECT source FROM tick_sources "
        "WHERE (contract_id, dataset) = (%(id)s, %(dataset)s) LIMIT 1",
        {"id": contract_id, "dataset": dataset.name, "source": source, "now": now},
    ).fetchone()
    assert row is not None
    if row[0] != source:
        raise UnsupportedRequest(
            f"the {dataset.name} stored of contract {contract_id} are {row[0]}'s; {source} numbers them otherwise, and "
            "the two cannot be told apart"
        )


def _store_day(
    connection: Connection,
    dataset: Dataset,
    contract_id: int,
    day: date,
    rows: pl.DataFrame,
    source: str,
    now: datetime,
) -> Stored:
    first, last = rows.select(first=pl.col("number").min(), last=pl.col("number").max()).row(0)
    where = f"contract_id = {contract_id} AND day = '{day}' AND number BETWEEN {first} AND {last}"
    there = connection.execute(f"SELECT EXISTS (SELECT FROM {dataset.table} WHERE {where})").fetchone()
    partition = f"{dataset.table}_d{day:%Y%m%d}"
    if there is None or not there[0]:
        _copy(connection, partition, rows)
        return Stored(Counts(inserted=rows.height), rows.clear())
    known = copy_out(connection, f"SELECT {', '.join(rows.columns)} FROM {dataset.table} WHERE {where}")
    judged = _judged(dataset, rows, known)
    of = {name: part.drop("verdict") for (name,), part in judged.group_by("verdict", maintain_order=True)}
    nothing = judged.clear().drop("verdict")
    new, finer, amended = (of.get(name, nothing) for name in ("new", "finer", "amended"))
    _copy(connection, partition, new.select(rows.columns))
    _amend(connection, dataset, pl.concat([finer, amended]), rows.columns)
    _correct(connection, dataset, amended, source, now)
    unchanged = of.get("same", nothing).height
    counts = Counts(inserted=new.height, updated=finer.height + amended.height, unchanged=unchanged)
    return Stored(counts, of.get("collided", nothing).select(rows.columns))


def _copy(connection: Connection, partition: str, rows: pl.DataFrame) -> None:
    # Columns without a value need not travel.
    copy_in(connection, partition, rows.select(name for name in rows.columns if rows[name].null_count() < rows.height))


def _judged(dataset: Dataset, rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Each row with the stored values beside it (`_known`) and what is to become of it."""
    known = known.with_columns(pl.col(name).cast(rows.schema[name]) for name in rows.columns)
    joined = rows.join(known.with_columns(there=True), on=_KEY, how="left", suffix="_known", maintain_order="left")
    values = [name for name in dataset.schema if name != "timestamp"]
    ids = [name for name in ("trade_id",) if name in rows.columns]
    optional = [name for name in values if name not in dataset.required and name not in ids]
    # That a source leaves something out takes nothing back.
    joined = joined.with_columns(pl.coalesce(name, f"{name}_known").alias(name) for name in optional)
    micros, stored = (pl.col(name).cast(pl.Int64) for name in ("timestamp", "timestamp_known"))
    coarse = (micros % _MILLISECOND == 0) & (micros == stored // _MILLISECOND * _MILLISECOND)
    exacter = (stored % _MILLISECOND == 0) & (stored == micros // _MILLISECOND * _MILLISECOND) & (micros != stored)
    joined = joined.with_columns(timestamp=pl.when(coarse).then("timestamp_known").otherwise("timestamp"))
    alike = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"{name}_known")) for name in values)
    another = (
        pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_known")) for name in ids)
        if ids
        else pl.lit(value=False)
    )
    return joined.with_columns(
        verdict=pl.when(pl.col("there").is_null())
        .then(pl.lit("new"))
        .when(another)
        .then(pl.lit("collided"))
        .when(alike & (pl.col("timestamp") == pl.col("timestamp_known")))
        .then(pl.lit("same"))
        .when(alike & exacter)
        .then(pl.lit("finer"))
        .otherwise(pl.lit("amended"))
    )


def _amend(connection: Connection, dataset: Dataset, changed: pl.DataFrame, columns: list[str]) -> None:
    if changed.is_empty():
        return
    connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS amended_{dataset.table} (LIKE {dataset.table}) ON COMMIT DROP")
    connection.execute(f"TRUNCATE amended_{dataset.table}")
    copy_in(connection, f"amended_{dataset.table}", changed.select(columns))
    values = ", ".join(f"{name} = new.{name}" for name in columns if name not in _KEY)
    connection.execute(
        f"UPDATE {dataset.table} AS old SET {values} FROM amended_{dataset.table} AS new "
        "WHERE (old.contract_id, old.day, old.number) = (new.contract_id, new.day, new.number)"
    )


def _correct(connection: Connection, dataset: Dataset, amended: pl.DataFrame, source: str, now: datetime) -> None:
    """What a source said otherwise, field by field: the former values stay known."""
    if amended.is_empty():
        return

    def text(name: str, column: str) -> pl.Expr:
        dtype = amended.schema[column]
        plain = pl.col(column).list.join(", ") if isinstance(dtype, pl.List) else plain_text(column, dtype)
        return plain.alias(name)

    fields = [
        amended.filter(pl.col(name).ne_missing(pl.col(f"{name}_known"))).select(
            "timestamp",
            "contract_id",
            "number",
            field_corrected=pl.lit(name),
            old_value=text("old_value", f"{name}_known"),
            new_value=text("new_value", name),
        )
        for name in dataset.schema
    ]
    found = connection.execute(
        "SELECT contract_id, symbol, asset_class FROM contracts WHERE contract_id = ANY(%s)",
        [amended["contract_id"].unique().to_list()],
    )
    names = {number: (symbol, asset_class) for number, symbol, asset_class in found}
    corrections = pl.concat(fields)
    copy_in(
        connection,
        "data_corrections",
        corrections.select(
            "timestamp", "field_corrected", "old_value", "new_value",
            dataset=pl.lit(dataset.name),
            symbol=pl.Series([names[one][0] for one in corrections["contract_id"]], dtype=pl.String),
            asset_class=pl.Series([names[one][1] for one in corrections["contract_id"]], dtype=pl.String),
            reason=pl.lit("source_updated"),
            source=pl.lit(source),
            corrected_by=pl.lit("collect"),
            comment=pl.format("number {}", "number"),
            correction_timestamp=pl.lit(now).cast(UTC_MICROS),
        ),
    )  # fmt: skip


def contracts_with_trades(database: Database, instrument: Instrument) -> dict[int, str]:
    """Numbers and exact names of the contracts of an instrument that trades are stored of."""
    inner, parameters = contracts_of(instrument)
    rows = database.rows(
        "SELECT contract_id, symbol FROM tick_sources JOIN contracts USING (contract_id) "
        f"WHERE dataset = 'trades' AND contract_id = ANY(ARRAY({inner})) ORDER BY contract_id",
        parameters,
    )
    return {row["contract_id"]: row["symbol"] for row in rows}


def days_with_trades(database: Database, contract_id: int, span: TimeRange) -> tuple[date, date, datetime] | None:
    """The first and last day UTC of a range with stored trades of a contract, and the newest one's moment; or None."""
    (row,) = database.rows(
        "SELECT first, last, (SELECT max(timestamp) FROM trades WHERE contract_id = %(id)s AND day = last) AS newest "
        "FROM (SELECT min(day) AS first, max(day) AS last FROM trades WHERE contract_id = %(id)s "
        "AND day BETWEEN %(start)s AND %(end)s) AS days",
        {"id": contract_id, "start": span.start.date(), "end": span.end.date()},
    )
    return None if row["first"] is None else (row["first"], row["last"], row["newest"])


def trades_of(database: Database, contract_id: int, span: TimeRange) -> pl.DataFrame:
    """What bars are made of, of the trades of a contract in a range, in the order of their numbers."""
    return database.frame(
        "SELECT timestamp, price, size, aggressor_side, conditions, correction FROM trades WHERE contract_id = %s "
        "AND day BETWEEN %s AND %s AND timestamp >= %s AND timestamp < %s ORDER BY day, number",
        [contract_id, span.start.date(), span.end.date(), span.start, span.end],
    )


def missing_numbers(database: Database, instrument: Instrument, span: TimeRange) -> pl.DataFrame:
    """Runs of numbers that no stored trade of a range bears: contract_id, first, last, and the moments around them.

    Only where the venue numbers consecutively does a number prove anything: trades without an id of their own.
    """
    inner, parameters = contracts_of(instrument)
    return database.frame(
        "SELECT contract_id, before + 1 AS first, number - 1 AS last, since, timestamp AS until FROM ("
        "SELECT contract_id, number, timestamp, lag(number) OVER w AS before, lag(timestamp) OVER w AS since "
        f"FROM trades WHERE contract_id = ANY(ARRAY({inner})) AND day BETWEEN %s AND %s "
        "AND timestamp >= %s AND timestamp < %s AND trade_id IS NULL "
        "WINDOW w AS (PARTITION BY contract_id ORDER BY number)) AS beside "
        "WHERE number > before + 1 ORDER BY 1, 2",
        [*parameters, span.start.date(), span.end.date(), span.start, span.end],
    )


def unlisted(instrument: Instrument, source: str) -> Contract:
    """The contract of a source that has no list: its own name for what the symbol names."""
    kind = {AssetClass.STOCK: Kind.STOCK, AssetClass.ETF: Kind.ETF}.get(instrument.asset_class, Kind.SPOT)
    return Contract(venue=source.upper(), market="all", raw_symbol=instrument.symbol, kind=kind, base=instrument.symbol)
