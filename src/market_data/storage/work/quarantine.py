"""Rows that broke a rejecting rule, whole and with the rules they broke: kept, listed, resolved when they are good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import polars as pl

from market_data.model.dataset import CANDLES, UTC_MICROS, Dataset
from market_data.model.instrument import Instrument, Series
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.wire.copy_in import copy_in
from market_data.storage.work.audit import SERIES_COLUMNS

# What was resolved and is refused again is a new case.
_SAME: Final = (
    "q.dataset = s.dataset AND q.symbol = s.symbol AND q.asset_class = s.asset_class "
    "AND q.timeframe IS NOT DISTINCT FROM s.timeframe AND q.timestamp IS NOT DISTINCT FROM s.timestamp "
    "AND q.source = s.source AND q.payload = s.payload AND q.resolved_at IS NULL"
)
# The name under which a row's payload holds what was no row of its dataset.
AS_SENT: Final = "as_sent"
_LISTED: Final = (
    "id, dataset, symbol, asset_class, timeframe, timestamp, source, rule, payload, run_id, created_at, resolved_at, "
    "resolution"
)


def quarantine(
    connection: Connection, series: Series, rejected: pl.DataFrame, source: str, run_id: UUID, now: datetime
) -> int:
    """Keep rejected rows; a row offered again in the same state is kept once. Returns how many were new.

    Args:
        rejected: CANDLES' columns and `rules`, the names of the rules each row broke.
    """
    owner: dict[str, str | None] = dict(zip(SERIES_COLUMNS, series.key, strict=True))
    return _keep(connection, CANDLES, owner, rejected, source, run_id, now)


def quarantine_facts(
    connection: Connection,
    dataset: Dataset,
    instrument: Instrument,
    rejected: pl.DataFrame,
    source: str,
    run_id: UUID,
    now: datetime,
) -> int:
    """The same for rows of another dataset: its columns and `rules`."""
    owner = {"symbol": instrument.symbol, "asset_class": instrument.asset_class.value, "timeframe": None}
    return _keep(connection, dataset, owner, rejected, source, run_id, now)


def quarantine_unread(
    connection: Connection,
    dataset: Dataset,
    owner: Series | Instrument,
    unread: pl.DataFrame,
    source: str,
    run_id: UUID,
    now: datetime,
) -> int:
    """The same for what is no row of the dataset at all: kept as it was sent, under the name AS_SENT.

    Args:
        unread: in the schema of `model.rows.REJECTED`.
    """
    instrument, timeframe = (owner.instrument, owner.timeframe.value) if isinstance(owner, Series) else (owner, None)
    key = {"symbol": instrument.symbol, "asset_class": instrument.asset_class.value, "timeframe": timeframe}
    wrapped = unread.with_columns(payload=pl.concat_str(pl.lit(f'{{"{AS_SENT}": '), "payload", pl.lit("}")))
    return _store(connection, dataset, key, wrapped, source, run_id, now)


def _keep(
    connection: Connection,
    dataset: Dataset,
    owner: Mapping[str, str | None],
    rejected: pl.DataFrame,
    source: str,
    run_id: UUID,
    now: datetime,
) -> int:
    if rejected.is_empty():
        return 0
    named = rejected.select(
        timestamp=pl.col(dataset.time).cast(UTC_MICROS),
        rule=pl.col("rules").list.join(", "),
        payload=_payload(dataset, rejected),
    )
    return _store(connection, dataset, owner, named, source, run_id, now)


def _store(
    connection: Connection,
    dataset: Dataset,
    owner: Mapping[str, str | None],
    rejected: pl.DataFrame,
    source: str,
    run_id: UUID,
    now: datetime,
) -> int:
    if rejected.is_empty():
        return 0
    rows = rejected.select(
        "timestamp",
        "rule",
        "payload",
        **{name: pl.lit(value, pl.String) for name, value in owner.items()},
        dataset=pl.lit(dataset.name),
        source=pl.lit(source),
        run_id=pl.lit(str(run_id)),
        created_at=pl.lit(now),
    ).unique(["timestamp", "payload"], keep="first", maintain_order=True)
    columns = ", ".join(rows.columns)
    connection.execute("DROP TABLE IF EXISTS pg_temp.rejected")
    connection.execute(f"CREATE TEMP TABLE rejected ON COMMIT DROP AS SELECT {columns} FROM quarantine WITH NO DATA")
    copy_in(connection, "rejected", rows)
    connection.execute("ANALYZE pg_temp.rejected")
    return connection.execute(
        f"INSERT INTO quarantine ({columns}) SELECT {columns} FROM rejected s "
        f"WHERE NOT EXISTS (SELECT FROM quarantine q WHERE {_SAME})"
    ).rowcount


def _payload(dataset: Dataset, rows: pl.DataFrame) -> pl.Expr:
    """The row as JSON: exact numbers and times as text, so that nothing is rounded."""
    fields = [_text(name, dtype) for name, dtype in dataset.schema.items() if name in rows.columns]
    return pl.struct(fields).struct.json_encode()


def _text(name: str, dtype: pl.DataType) -> pl.Expr:
    if dtype == UTC_MICROS:
        return pl.col(name).dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ").alias(name)
    return pl.col(name) if isinstance(dtype, pl.List) else pl.col(name).cast(pl.String)


def listed(
    database: Database, instrument: Instrument | None = None, *, resolved: bool = False, limit: int = 100
) -> list[dict[str, Any]]:
    """Rows in quarantine, newest first; those that are resolved only when asked for."""
    where = [] if resolved else ["resolved_at IS NULL"]
    parameters: list[Any] = []
    if instrument is not None:
        where.append("symbol = %s AND asset_class = %s")
        parameters += [instrument.symbol, instrument.asset_class.value]
    condition = f"WHERE {' AND '.join(where)}" if where else ""
    return database.rows(
        f"SELECT {_LISTED} FROM quarantine {condition} ORDER BY created_at DESC, id DESC LIMIT %s", [*parameters, limit]
    )


def shown(database: Database, number: int) -> dict[str, Any] | None:
    """One row in quarantine by its number; None when there is no such row."""
    rows = database.rows(f"SELECT {_LISTED} FROM quarantine WHERE id = %s", [number])
    return rows[0] if rows else None


def unresolved(database: Database, instrument: Instrument | None, numbers: Sequence[int] | None) -> pl.DataFrame:
    """Candles that wait in quarantine, of an instrument or of all, or only those numbered.

    Returns:
        `id`, the series' key, `source`, `created_at`, `payload` as text, in the order of their timestamps.
    """
    return database.frame(
        "SELECT id, symbol, asset_class, timeframe, source, created_at, payload::text AS payload FROM quarantine "
        f"WHERE dataset = 'candles' AND resolved_at IS NULL AND NOT payload ? '{AS_SENT}' "
        "AND (%s::text IS NULL OR symbol = %s AND asset_class = %s) "
        "AND (%s::bigint[] IS NULL OR id = ANY(%s)) ORDER BY symbol, asset_class, timeframe, source, timestamp, id",
        (
            *(
                [None] * 3
                if instrument is None
                else [instrument.symbol, instrument.symbol, instrument.asset_class.value]
            ),
            numbers and list(numbers),
            numbers and list(numbers),
        ),
    )


def candles_of(payloads: pl.Series) -> pl.DataFrame:
    """Payloads as CANDLES' rows again, exactly as they were refused."""
    texts = payloads.str.json_decode(pl.Struct(dict.fromkeys(CANDLES.schema, pl.String))).struct.unnest()
    return texts.select(
        pl.col(name).str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us", time_zone="UTC")
        if name == CANDLES.time
        else pl.col(name).cast(dtype)
        for name, dtype in CANDLES.schema.items()
    )


def resolve(connection: Connection, resolutions: Mapping[int, str], now: datetime) -> None:
    """Note how rows in quarantine were resolved, in the caller's transaction."""
    connection.execute(
        "UPDATE quarantine q SET resolved_at = %s, resolution = r.resolution "
        "FROM unnest(%s::bigint[], %s::text[]) AS r (id, resolution) WHERE q.id = r.id AND q.resolved_at IS NULL",
        [now, list(resolutions), list(resolutions.values())],
    )
