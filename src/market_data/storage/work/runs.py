"""Runs: one execution of a task each, with its owner and its end; and how far a run has come, in backfill_state."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from psycopg.types.json import Jsonb

from market_data.model.errors import LeaseLost
from market_data.model.instrument import Instrument, Series
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.storage.series.present import Counts
from market_data.storage.wire.connection import Connection
from market_data.storage.wire.gathered import Writes
from market_data.storage.work.jobs import fetched_counts
from market_data.storage.work.owners import COMMIT_LOCK


def start_run(
    connection: Connection,
    run_id: UUID,
    kind: str,
    instrument: Instrument,
    now: datetime,
    *,
    timeframe: Timeframe | None = None,
    dataset: str | None = None,
    owner: int | None = None,
) -> None:
    """Open a run; one that was cut short is open again, and belongs to who opened it last."""
    connection.execute(
        "INSERT INTO runs (id, kind, symbol, asset_class, timeframe, dataset, started_at, status, owner) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, 'in_progress', %s) ON CONFLICT (id) DO UPDATE SET "
        "(finished_at, status, error, owner) = (NULL, 'in_progress', NULL, excluded.owner)",
        [
            run_id, kind, instrument.symbol, instrument.asset_class.value,
            None if timeframe is None else timeframe.value, dataset, now, owner,
        ],
    )  # fmt: skip


def hold_run(connection: Connection, run_id: UUID, owner: int) -> None:
    """See to it that a run is still its owner's until the transaction ends; call it first.

    Raises:
        LeaseLost: when others took the owner for dead; nothing may be written then.
    """
    held = connection.execute(
        "SELECT pg_advisory_xact_lock_shared(%s, %s) FROM (SELECT FROM runs WHERE id = %s AND owner = %s "
        "AND status = 'in_progress' FOR SHARE) mine",
        [COMMIT_LOCK, owner, run_id, owner],
    ).fetchone()
    if held is None:
        raise LeaseLost("others took over this work, since nothing was heard of this process for too long")


def end_run(
    connection: Connection,
    run_id: UUID,
    status: str,
    now: datetime,
    *,
    counts: Counts | None = None,
    error: str | None = None,
    owner: int | None = None,
) -> None:
    """Close a run with how it went, unless it is no longer its owner's.

    Args:
        status: completed, partial, failed or cancelled.
        counts: what became of its rows; None: as the fetch log has it, over all its tries.
    """
    found = fetched_counts(connection, run_id) if counts is None else counts_of(counts)
    ended = connection.execute(
        "UPDATE runs SET finished_at = %s, status = %s, counts = %s, error = %s "
        "WHERE id = %s AND status = 'in_progress' AND (%s::integer IS NULL OR owner = %s)",
        [now, status, Jsonb(found), error, run_id, owner, owner],
    ).rowcount
    if ended:
        # A dataset's backfill goes on over several runs of a part, which says itself when it is complete.
        connection.execute(
            "UPDATE backfill_state SET updated_at = %s, error_message = %s, "
            "status = CASE WHEN %s = 'completed' THEN 'completed' ELSE 'failed' END "
            "WHERE backfill_job_id = %s AND status = 'in_progress' AND (timeframe IS NOT NULL OR %s <> 'completed')",
            [now, error, status, run_id, status],
        )


def record_progress(
    connection: Writes, series: Series, run_id: UUID, span: TimeRange, done_until: datetime, now: datetime,
    owner: int | None = None,
) -> None:  # fmt: skip
    """Note in backfill_state how far a series has come; committed with the rows themselves."""
    status = "completed" if done_until >= span.end else "in_progress"
    connection.execute(
        "INSERT INTO backfill_state (symbol, asset_class, timeframe, backfill_job_id, start_date, end_date, "
        "last_successful_date, status, retry_count, created_at, updated_at, owner) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 0, %s, %s, %s) "
        "ON CONFLICT (backfill_job_id, symbol, asset_class, dataset, timeframe) DO UPDATE SET "
        "(last_successful_date, status, updated_at, owner) = "
        "(excluded.last_successful_date, excluded.status, excluded.updated_at, excluded.owner)",
        [*series.key, run_id, span.start, span.end, done_until, status, now, now, owner],
    )


def counts_of(counts: Counts) -> dict[str, int]:
    """Counts as they are stored."""
    return {name: getattr(counts, name) for name in Counts.__slots__}
