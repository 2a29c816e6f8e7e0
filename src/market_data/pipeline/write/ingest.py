"""The story of one batch: normalise, check, judge against what is stored, derive, and commit all of it or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

import polars as pl

from market_data.model.contract import OTHER_CONTRACT, Contract
from market_data.model.dataset import CANDLES, UTC_MICROS
from market_data.model.errors import MarketDataError
from market_data.model.instrument import Series
from market_data.model.rows import none_rejected
from market_data.model.timeframe import TimeRange
from market_data.pipeline.write.believe import settle_near
from market_data.pipeline.write.change import Change, apply
from market_data.pipeline.write.derive import Shelves, fact_score
from market_data.pipeline.write.gaps import note_batch
from market_data.pipeline.write.normalise import closed_by, normalise
from market_data.pipeline.write.ripple import extent_of
from market_data.pipeline.write.validate import Checked, validate
from market_data.storage.facts.contracts import Since, at_their_time, lives_of, ties_of
from market_data.storage.series.due import lock_instrument
from market_data.storage.series.present import Counts, Origin, lock_series, next_moment, prepare_partitions
from market_data.storage.series.reader import Reader
from market_data.storage.series.verdict import classify
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.wire.gathered import Writes
from market_data.storage.work import audit
from market_data.storage.work.quarantine import quarantine, quarantine_unread
from market_data.storage.work.runs import hold_run, record_progress

Written = TypeVar("Written")
Clock = Callable[[], datetime]
# Told the accepted rows with their verdicts, inside the transaction that writes them.
Also = Callable[[Connection, pl.DataFrame, datetime], None]
SECOND_MICROS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows of one source for one series, as fetched."""

    series: Series
    frame: pl.DataFrame
    source: str
    fetched_at: datetime
    requested_at: datetime
    """When the rows were asked for: what freshness is measured from for candles that had ended by then."""
    span: TimeRange
    """What was asked for; the rows lie in it."""
    response_ms: float
    quota_remaining: float | None
    contract: Contract | None = None
    """Whose rows they are, by the source's list."""
    contract_id: int | None = None
    """The same, where it is stored already."""
    unread: pl.DataFrame = field(default_factory=none_rejected)
    """What was sent besides and is no candle: `model.rows.REJECTED`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """On whose behalf rows are written: the run, its whole range, and where its progress is noted.

    Attributes:
        owner: of the run, without which nothing is committed any more; None where a run needs none.
    """

    run_id: UUID
    span: TimeRange
    actor: str = "enrich"
    owner: int | None = None


@dataclass(slots=True)
class Outcome:
    """What became of a batch, and how long each stage took in seconds."""

    counts: Counts = field(default_factory=Counts)
    seconds: dict[str, float] = field(default_factory=dict)
    refreshed: int = 0
    """Later rows whose derived columns changed because of this batch."""

    def lap(self, stage: str, since: float) -> float:
        """Add the time since `since` to a stage; returns now."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - since
        return now


def ingest(
    database: Database,
    shelves: Shelves,
    batch: Batch,
    purpose: Purpose,
    clock: Clock,
    also: Also = lambda *_: None,
) -> Outcome:
    """Bring one batch into the database; every row is inserted, updated, unchanged, kept or quarantined.

    Facts, the present, corrections, quarantine, logs and progress commit in one transaction under the series' lock, and
    with them whatever `also` writes.

    Raises:
        MarketDataError: of storage; nothing of the batch is stored then.
    """
    outcome = Outcome()
    started = time.perf_counter()
    checked = checked_rows(shelves, batch)
    accepted = scored(batch, identified(database, batch, checked.accepted, clock()), shelves)
    validated = outcome.lap("validate", started)
    if accepted.height:
        prepare_partitions(database, extent_of(accepted["timestamp"]))

    def transaction(connection: Connection) -> Outcome:
        attempt = Outcome(seconds={"validate": validated - started})
        found = replace(checked, accepted=accepted)
        store(connection, database, shelves, batch, purpose, clock, found, attempt, also)
        return attempt

    try:
        stored = writing(database, transaction)
        if accepted.height:
            settle_near(database, shelves, batch.series, extent_of(accepted["timestamp"]), clock)
        return stored
    except MarketDataError:
        raise
    except Exception as error:  # what breaks between fetching and storing is computing: its log is kept
        audit.log_compute_failure(database, batch.series, error, clock())
        raise


def writing(database: Database, transaction: Callable[[Connection], Written]) -> Written:
    """Run a transaction that writes candles; when it fails, partitions are looked for again the next time."""
    try:
        return database.retrying_transaction(transaction)
    except BaseException:
        database.partitions.clear()
        raise


def checked_rows(shelves: Shelves, batch: Batch) -> Checked:
    """The batch's closed candles, normalised and parted by the rejecting rules."""
    rows = closed_by(normalise(batch.series, batch.frame), batch.fetched_at)
    return validate(batch.series, rows.drop("first_of_timestamp"), shelves.rules)


def identified(database: Database, batch: Batch, rows: pl.DataFrame, now: datetime) -> pl.DataFrame:
    """The rows with `contract_id`; those that are not of the series' own contract say so in their remarks."""
    if batch.contract is None or rows.is_empty():
        return rows.with_columns(contract_id=pl.lit(batch.contract_id, pl.Int32))
    with database.transaction() as connection:
        lives = lives_of(connection, batch.contract, now)
        owned = ties_of(connection, batch.series.instrument)
    return owned_by(rows, lives, owned)


def owned_by(rows: pl.DataFrame, lives: Sequence[Since], owned: Sequence[Since]) -> pl.DataFrame:
    """The rows with `contract_id`, by who bore the name and whose series it is, each in its time."""
    ids = at_their_time(rows["timestamp"], lives)
    own = at_their_time(rows["timestamp"], owned)
    foreign = (ids != own).fill_null(value=False)
    said = pl.concat_str("notes", pl.lit(OTHER_CONTRACT), separator="; ", ignore_nulls=True)
    known = rows["notes"].str.contains(OTHER_CONTRACT, literal=True).fill_null(value=False)
    marked = pl.when(pl.lit(foreign & ~known)).then(said).otherwise("notes")
    return rows.with_columns(contract_id=ids, own_contract=own, notes=marked)


def scored(batch: Batch, rows: pl.DataFrame, shelves: Shelves) -> pl.DataFrame:
    """The rows with each fact's age when it was fetched, and its score."""
    first_possible = pl.max_horizontal("end", pl.lit(batch.requested_at).cast(UTC_MICROS))
    late = (pl.lit(batch.fetched_at).cast(UTC_MICROS) - first_possible).dt.total_microseconds()
    micros = rows.select(pl.max_horizontal(late, pl.lit(0))).to_series().to_numpy()
    aged = rows.with_columns(data_age_seconds=pl.Series(micros / SECOND_MICROS, dtype=pl.Float64))
    return aged.with_columns(fact_score(batch.series, aged, shelves))


def store(
    connection: Connection,
    database: Database,
    shelves: Shelves,
    batch: Batch,
    purpose: Purpose,
    clock: Clock,
    checked: Checked,
    outcome: Outcome,
    also: Also = lambda *_: None,
) -> None:
    """Write a checked batch, scored and identified, in the caller's transaction."""
    series, started = batch.series, time.perf_counter()
    if purpose.owner is not None:
        hold_run(connection, purpose.run_id, purpose.owner)
    lock_instrument(connection, series.instrument, exclusive=False)
    lock_series(connection, series)
    # Only now: a writer that waited must not date its change before the one it waited for.
    now = next_moment(connection, series, clock())
    origin = Origin(
        source=batch.source, fetched_at=batch.fetched_at, now=now, run_id=purpose.run_id, actor=purpose.actor
    )
    change = Change()
    if checked.accepted.height:
        reader = Reader(database)
        facts = reader.newest_facts(series, extent_of(checked.accepted["timestamp"]))
        judged = classify(checked.accepted, facts, batch.source)
        started = outcome.lap("judge", started)
        change = apply(connection, reader, shelves, series, judged, origin)
        outcome.seconds["compute"], outcome.refreshed = change.compute_seconds, change.refreshed
        also(connection, judged, now)
    counts, rejected = change.counts, checked.rejected.height + batch.unread.height
    outcome.counts = replace(counts, unchanged=counts.unchanged + checked.repeated, rejected=rejected)
    quarantine(connection, series, checked.rejected, batch.source, purpose.run_id, now)
    quarantine_unread(connection, CANDLES, series, batch.unread, batch.source, purpose.run_id, now)
    note_batch(connection, series, batch.span, checked.accepted["timestamp"], batch.source, batch.fetched_at, now)
    log_batch(connection, batch, purpose, outcome.counts, now)
    for span in change.spans:
        audit.refresh_quality(connection, series.instrument, span, now)
    outcome.lap("store", started + change.compute_seconds)


def log_batch(connection: Writes, batch: Batch, purpose: Purpose, counts: Counts, now: datetime) -> None:
    """Note that a batch was fetched and how far its run has come."""
    fetch = audit.Fetch(
        instrument=batch.series.instrument,
        timeframe=batch.series.timeframe,
        run_id=purpose.run_id,
        source=batch.source,
        span=batch.span,
        counts=counts,
        response_ms=batch.response_ms,
        quota_remaining=batch.quota_remaining,
    )
    audit.log_fetch(connection, fetch, now)
    record_progress(connection, batch.series, purpose.run_id, purpose.span, batch.span.end, now, purpose.owner)
