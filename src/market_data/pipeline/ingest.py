"""The story of one batch: normalise, check, judge against what is stored, derive, and commit all of it or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import polars as pl

from market_data.model.dataset import CANDLES, DATASETS, EXACT, UTC_MICROS, Dataset
from market_data.model.instrument import AssetClass, Series
from market_data.model.timeframe import TimeRange
from market_data.pipeline.derive import Shelves, derive, fact_score
from market_data.pipeline.normalise import closed_by, normalise, with_ends
from market_data.pipeline.validate import validate
from market_data.storage import audit
from market_data.storage.database import Connection, Database
from market_data.storage.reader import MICROSECOND, Reader
from market_data.storage.upsert import (
    COMPARED,
    Counts,
    Origin,
    Verdict,
    classify,
    lock_series,
    prepare_partitions,
    write,
)

Clock = Callable[[], datetime]
SECOND_MICROS: Final = 1_000_000
# Own-clock values that derived columns use besides those that features declare.
OBSERVED_SPANS: Final = {
    "open_interest": timedelta(days=8),
    "funding_rates": timedelta(days=1),
    "liquidations": timedelta(0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows of one source for one series, as fetched."""

    series: Series
    frame: pl.DataFrame
    source: str
    fetched_at: datetime
    requested_at: datetime
    """When the run first asked: what freshness is measured from for candles older than that."""
    span: TimeRange
    """What was asked for; the rows lie in it."""
    response_ms: float
    quota_remaining: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """On whose behalf rows are written: the run, its whole range, and where its progress is noted."""

    run_id: UUID
    span: TimeRange
    actor: str = "enrich"


@dataclass(slots=True)
class Outcome:
    """What became of a batch, and how long each stage took in seconds."""

    counts: Counts = field(default_factory=Counts)
    seconds: dict[str, float] = field(default_factory=dict)

    def lap(self, stage: str, since: float) -> float:
        """Add the time since `since` to a stage; returns now."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - since
        return now


def ingest(database: Database, shelves: Shelves, batch: Batch, purpose: Purpose, clock: Clock) -> Outcome:
    """Bring one batch into the database; every row is inserted, updated, unchanged, kept or quarantined.

    Facts, the present, corrections, quarantine, logs and progress commit in one transaction under the series' lock.

    Raises:
        StorageError, DatabaseUnavailable: nothing of the batch is stored then.
    """
    outcome = Outcome()
    started = time.perf_counter()
    rows = closed_by(normalise(batch.series, batch.frame), batch.fetched_at)
    checked = validate(batch.series, rows, shelves.rules)
    accepted = _scored(batch, checked.accepted.drop("first_of_timestamp"))
    started = outcome.lap("validate", started)

    if accepted.height:
        prepare_partitions(database, _extent(accepted))

    def transaction(connection: Connection) -> None:
        _store(connection, database, shelves, batch, purpose, clock(), accepted, checked.rejected, outcome)

    database.retrying_transaction(transaction)
    return outcome


def _scored(batch: Batch, rows: pl.DataFrame) -> pl.DataFrame:
    """With each fact's age when it was fetched, and its score."""
    first_possible = pl.max_horizontal("end", pl.lit(batch.requested_at).cast(UTC_MICROS))
    age = (pl.lit(batch.fetched_at).cast(UTC_MICROS) - first_possible).dt.total_microseconds() / SECOND_MICROS
    aged = rows.with_columns(data_age_seconds=pl.max_horizontal(age, pl.lit(0.0)))
    return aged.with_columns(fact_score(batch.series, aged))


def _store(
    connection: Connection,
    database: Database,
    shelves: Shelves,
    batch: Batch,
    purpose: Purpose,
    now: datetime,
    accepted: pl.DataFrame,
    rejected: pl.DataFrame,
    outcome: Outcome,
) -> None:
    series, started = batch.series, time.perf_counter()
    outcome.counts, outcome.seconds = Counts(), {"validate": outcome.seconds.get("validate", 0.0)}
    reader = Reader(database)
    lock_series(connection, series)
    origin = Origin(
        source=batch.source, fetched_at=batch.fetched_at, now=now, run_id=purpose.run_id, actor=purpose.actor
    )
    judged = classify(
        accepted, reader.newest_facts(series, _extent(accepted) if accepted.height else batch.span), batch.source
    )
    changed = judged.filter(pl.col("verdict").is_in([Verdict.INSERTED, Verdict.UPDATED]))
    started = outcome.lap("judge", started)
    derived = derived_after(reader, shelves, series, changed)
    compute_ms = (time.perf_counter() - started) * 1000
    started = outcome.lap("compute", started)
    counts = write(connection, series, judged, derived, origin)
    outcome.counts = replace(counts, rejected=rejected.height)
    audit.quarantine(connection, series, rejected, batch.source, purpose.run_id, now)
    audit.record_disagreements(connection, series, disagreements(judged, batch.source), now)
    if not changed.is_empty():
        touched = TimeRange(derived["timestamp"].min(), derived["timestamp"].max() + MICROSECOND)  # type: ignore[arg-type,operator]
        audit.log_compute(connection, series, derived, [f.name for f in shelves.features], compute_ms, now)
        audit.refresh_quality(connection, series.instrument, touched, now)
    fetch = audit.Fetch(
        series=series,
        run_id=purpose.run_id,
        source=batch.source,
        span=batch.span,
        counts=outcome.counts,
        response_ms=batch.response_ms,
        quota_remaining=batch.quota_remaining,
    )
    audit.log_fetch(connection, fetch, now)
    audit.record_progress(connection, series, purpose.run_id, purpose.span, batch.span.end, now)
    outcome.lap("store", started)


def _extent(rows: pl.DataFrame) -> TimeRange:
    return TimeRange(rows["timestamp"][0], rows["timestamp"][-1] + MICROSECOND)


def derived_after(reader: Reader, shelves: Shelves, series: Series, changed: pl.DataFrame) -> pl.DataFrame:
    """Derived columns of changed rows and of exactly the later rows whose lookback reaches one of them.

    Args:
        changed: rows about to stand at their timestamps: CANDLES' columns, `end`, `data_age_seconds`.
    """
    if changed.is_empty():
        return pl.DataFrame({"timestamp": []}, schema={"timestamp": UTC_MICROS})
    lookback = shelves.lookback(series)
    extent = _extent(changed)
    stored = reader.candles(series, extent, before=lookback, after=lookback)
    columns = [*CANDLES.schema, "data_age_seconds"]
    standing = pl.concat(
        [stored.select(columns).join(changed, on="timestamp", how="anti"), changed.select(columns)]
    ).sort("timestamp")
    rows = with_ends(series, standing)
    derived = derive(series, with_disagreements(reader, series, rows), observed(reader, shelves, series, rows), shelves)
    return derived.filter(reached(rows["timestamp"], changed["timestamp"], lookback))


def reached(timestamps: pl.Series, changed: pl.Series, lookback: int) -> pl.Series:
    """True where a row is changed or has a changed row among the `lookback` rows before it."""
    position = pl.int_range(pl.len())
    last_changed = pl.when(pl.col("changed")).then(position).forward_fill()
    frame = pl.DataFrame({"changed": timestamps.is_in(changed.implode())})
    return frame.select((position - last_changed <= lookback).fill_null(value=False)).to_series()


def with_disagreements(reader: Reader, series: Series, rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` with `disagrees`: whether another source told something else about that candle."""
    differing = reader.disagreements(series, _extent(rows))
    return rows.with_columns(disagrees=pl.col("timestamp").is_in(differing.implode()))


def observed(
    reader: Reader, shelves: Shelves, series: Series, rows: pl.DataFrame, as_of: datetime | None = None
) -> Mapping[str, pl.DataFrame]:
    """Own-clock values that the derived columns of `rows` use, by dataset; empty for what has none."""
    if series.asset_class is not AssetClass.CRYPTO:
        return {}
    spans = dict(OBSERVED_SPANS)
    for name, span in shelves.history().items():
        spans[name] = max(span, spans.get(name, timedelta(0)))
    extent = _extent(rows)
    until = rows["end"].max() if rows["end"].null_count() < rows.height else extent.end
    found: dict[str, pl.DataFrame] = {}
    for name, span in spans.items():
        dataset: Dataset = DATASETS[name]
        wanted = TimeRange(extent.start - span - series.timeframe.duration, until + MICROSECOND)  # type: ignore[operator]
        found[name] = reader.observations(dataset, series.instrument, wanted, as_of)
    return found


def disagreements(judged: pl.DataFrame, source: str) -> pl.DataFrame:
    """Where an offered price or volume differs from the one standing from another source, field by field."""
    other = judged.filter((pl.col("present_source") != source) & (pl.col("verdict") != Verdict.UNCHANGED))
    parts = [
        other.filter((pl.col(name) != pl.col(f"{name}_present")).fill_null(value=False)).select(
            "timestamp",
            field=pl.lit(name),
            source_a="present_source",
            value_a=pl.col(f"{name}_present").cast(EXACT),
            source_b=pl.lit(source),
            value_b=pl.col(name).cast(EXACT),
        )
        for name in COMPARED
    ]
    return pl.concat(parts)
