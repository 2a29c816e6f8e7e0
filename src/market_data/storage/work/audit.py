"""What happened: fetch and compute logs, disagreements, quality per day, status.

Every function writes inside the caller's transaction, so that a row and the record of how it came commit together.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import polars as pl

from market_data.model.instrument import Instrument, Series
from market_data.model.timeframe import MICROSECOND, Timeframe, TimeRange
from market_data.storage.series.present import Counts
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.wire.copy_in import copy_in
from market_data.storage.wire.gathered import Writes
from market_data.storage.work.summaries import TOTALS

SERIES_COLUMNS: Final = ("symbol", "asset_class", "timeframe")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """One fetched stretch of an instrument's candles or other data, and what became of it."""

    instrument: Instrument
    timeframe: Timeframe | None = None
    dataset: str = "candles"
    run_id: UUID
    source: str
    span: TimeRange
    counts: Counts
    response_ms: float | None
    quota_remaining: float | None
    error: str | None = None
    well: bool = True
    """Whether it did what it was for; a source that has nothing may have answered well."""


def log_fetch(connection: Writes, fetch: Fetch, now: datetime) -> None:
    """Append to enrichment_fetch_log."""
    instrument, counts = fetch.instrument, fetch.counts
    connection.execute(
        "INSERT INTO enrichment_fetch_log (symbol, asset_class, timeframe, dataset, source, fetch_date_start, "
        "fetch_date_end, records_fetched, records_inserted, records_updated, records_unchanged, records_kept, "
        "records_rejected, source_response_time_ms, success, error_details, api_quota_remaining, run_id, created_at) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        [
            instrument.symbol,
            instrument.asset_class.value,
            None if fetch.timeframe is None else fetch.timeframe.value,
            fetch.dataset,
            fetch.source,
            fetch.span.start,
            fetch.span.end,
            counts.fetched,
            counts.inserted,
            counts.updated,
            counts.unchanged,
            counts.kept,
            counts.rejected,
            fetch.response_ms,
            fetch.well,
            fetch.error,
            None if fetch.quota_remaining is None else int(fetch.quota_remaining),
            fetch.run_id,
            now,
        ],
    )


def log_compute(
    connection: Writes, series: Series, derived: pl.DataFrame, features: list[str], ms: float, now: datetime
) -> None:
    """Append to enrichment_compute_log: how many rows, and which features were null throughout."""
    missing = [name for name in features if derived[name].null_count() == derived.height]
    connection.execute(
        "INSERT INTO enrichment_compute_log (symbol, asset_class, timeframe, features_computed, missing_fields, "
        "computation_time_ms, candles_processed, success, created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, true, %s)",
        [*series.key, [f for f in features if f not in missing], missing, ms, derived.height, now],
    )


def log_compute_failure(database: Database, series: Series, error: Exception, now: datetime) -> None:
    """Append a computation that broke to enrichment_compute_log, in a transaction of its own."""
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO enrichment_compute_log (symbol, asset_class, timeframe, success, error_details, created_at) "
            "VALUES (%s, %s, %s, false, %s, %s)",
            # A note names the feature that broke.
            [*series.key, " ".join((f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ()))), now],
        )


def record_disagreements(connection: Connection, series: Series, disagreements: pl.DataFrame, now: datetime) -> None:
    """Keep where two sources differ on the same candle, field by field; what is on record already is kept once.

    Args:
        disagreements: timestamp, field, source_a, value_a (standing), source_b, value_b (offered).
    """
    if disagreements.is_empty():
        return
    rows = disagreements.select(
        *(pl.lit(value).alias(name) for name, value in zip(SERIES_COLUMNS, series.key, strict=True)),
        *disagreements.columns,
        recorded_at=pl.lit(now),
    )
    columns = ", ".join(rows.columns)
    connection.execute("DROP TABLE IF EXISTS pg_temp.staged")
    connection.execute(f"CREATE TEMP TABLE staged ON COMMIT DROP AS SELECT {columns} FROM disagreements WITH NO DATA")
    copy_in(connection, "staged", rows)
    connection.execute(f"INSERT INTO disagreements ({columns}) SELECT {columns} FROM staged ON CONFLICT DO NOTHING")


def refresh_quality(connection: Connection, instrument: Instrument, span: TimeRange, now: datetime) -> None:
    """Recount data_quality_metrics of the days of `span` from the rows of all timeframes.

    Call it last: other timeframes wait from here until the transaction ends, so that each counts the others' rows.
    """
    connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))",
        [f"quality of {instrument.symbol}/{instrument.asset_class}"],
    )
    recount_quality(connection, instrument, span, now)


def recount_quality(connection: Writes, instrument: Instrument, span: TimeRange, now: datetime) -> None:
    """The recount alone, for whoever holds its lock."""
    connection.execute(
        _QUALITY_OF_DAYS,
        {
            "symbol": instrument.symbol,
            "asset_class": instrument.asset_class.value,
            "start": span.start.replace(hour=0, minute=0, second=0, microsecond=0),
            "end": (span.end - MICROSECOND).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1),
            "now": now,
        },
    )


def record_status(
    connection: Connection,
    series: Series,
    source: str | None,
    error: str | None,
    age: timedelta | None,
    now: datetime,
    *,
    listed: bool = True,
) -> None:
    """Bring enrichment_status of the series' instrument up to date after a run.

    What no source lists, and nothing is stored of, is not remembered: most likely it was a typing error.

    It is an error while the newest run of one of its timeframes failed: of those tracked, else of all ever enriched.

    Args:
        age: since the newest candle of the instrument ended; None when nothing is stored.
        listed: whether any source lists it, as far as they could be asked.
    """
    if not listed and age is None:
        return
    connection.execute(
        _STATUS,
        {
            "symbol": series.symbol,
            "asset_class": series.asset_class.value,
            "source": source,
            "error": _errors(connection, series, error),
            "age": None if age is None else age.total_seconds(),
            "now": now,
        },
    )


def _errors(connection: Connection, series: Series, error: str | None) -> str | None:
    """Why the newest run of each timeframe failed, the series' own being `error`; None when none did."""
    found = connection.execute(_FAILED, series.key).fetchall()
    failed = {Timeframe(name): text for name, text in found} | ({} if error is None else {series.timeframe: error})
    if len(failed) < 2:
        return next(iter(failed.values()), None)
    return "; ".join(f"{timeframe.value}: {failed[timeframe]}" for timeframe in Timeframe if timeframe in failed)


_QUALITY_OF_DAYS = """
INSERT INTO data_quality_metrics AS q (symbol, asset_class, date, total_records, validated_records, validation_rate,
    gaps_detected, anomalies_detected, avg_quality_score, data_completeness, sources_used, created_at, updated_at)
SELECT symbol, asset_class, (timestamp AT TIME ZONE 'UTC')::date, count(*), count(*) FILTER (WHERE is_validated),
    100.0 * count(*) FILTER (WHERE is_validated) / count(*), count(*) FILTER (WHERE gap_detected),
    count(*) FILTER (WHERE volume_anomaly), avg(quality_score), avg(data_completeness),
    array_agg(DISTINCT source ORDER BY source), %(now)s, %(now)s
FROM market_data_v2
WHERE symbol = %(symbol)s AND asset_class = %(asset_class)s AND timestamp >= %(start)s AND timestamp < %(end)s
GROUP BY 1, 2, 3
ON CONFLICT (symbol, asset_class, date) DO UPDATE SET (total_records, validated_records, validation_rate, gaps_detected,
    anomalies_detected, avg_quality_score, data_completeness, sources_used, updated_at) =
    (excluded.total_records, excluded.validated_records, excluded.validation_rate, excluded.gaps_detected,
    excluded.anomalies_detected, excluded.avg_quality_score, excluded.data_completeness, excluded.sources_used,
    excluded.updated_at)
"""

# Of the other timeframes; a run that is under way or was stopped says nothing.
_FAILED = """
SELECT timeframe, error FROM (
    SELECT DISTINCT ON (r.timeframe) r.timeframe, r.error FROM runs r
    LEFT JOIN tracked_symbols t ON (t.symbol, t.asset_class) = (r.symbol, r.asset_class) AND t.active
    WHERE r.symbol = %s AND r.asset_class = %s AND r.timeframe <> %s AND r.kind = 'enrich'
        AND r.status IN ('completed', 'partial', 'failed') AND (t.symbol IS NULL OR r.timeframe = ANY(t.timeframes))
    ORDER BY r.timeframe, r.started_at DESC
) newest WHERE error IS NOT NULL
"""

_STATUS = f"""
INSERT INTO enrichment_status AS s (symbol, asset_class, status, last_enrichment_time, last_fetch_source,
    data_age_seconds, records_available, quality_score, validation_rate, error_message, updated_at)
SELECT %(symbol)s, %(asset_class)s, CASE WHEN %(error)s::text IS NULL THEN 'healthy' ELSE 'error' END, %(now)s,
    %(source)s,
    %(age)s, {TOTALS}, %(error)s, %(now)s
FROM data_quality_metrics WHERE symbol = %(symbol)s AND asset_class = %(asset_class)s
ON CONFLICT (symbol, asset_class) DO UPDATE SET (status, last_enrichment_time, last_fetch_source, data_age_seconds,
    records_available, quality_score, validation_rate, error_message, updated_at) =
    (excluded.status, excluded.last_enrichment_time, coalesce(excluded.last_fetch_source, s.last_fetch_source),
    excluded.data_age_seconds, excluded.records_available, excluded.quality_score, excluded.validation_rate,
    excluded.error_message, excluded.updated_at)
"""
