"""Jobs and their parts in the database: queued, begun, on their way, over; and the progress of backfills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from psycopg.types.json import Jsonb

from market_data.model.dataset import Dataset
from market_data.model.instrument import Instrument
from market_data.model.job import Kind, PartState, Status, Task
from market_data.model.timeframe import TimeRange
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.work.job_reads import read_part

_COUNTED: Final = ("inserted", "updated", "unchanged", "kept", "rejected")
_SUMS: Final = ", ".join(f"coalesce(sum(records_{name}), 0)::bigint AS {name}" for name in _COUNTED)


def insert_job(
    connection: Connection, job_id: UUID, kind: Kind, origin: str, occasion: str | None, now: datetime
) -> bool:
    """Note a job; False, and nothing noted, when there is one for this occasion already."""
    return bool(
        connection.execute(
            "INSERT INTO jobs (id, kind, origin, occasion, created_at) VALUES (%s, %s, %s, %s, %s) "
            "ON CONFLICT (occasion) DO NOTHING",
            [job_id, kind.value, origin, occasion, now],
        ).rowcount
    )


def forget_occasions(connection: Connection, now: datetime) -> None:
    """Let occasions be queued again whose jobs are of the future: a clock that was ahead queued them too early."""
    connection.execute("UPDATE jobs SET occasion = NULL WHERE occasion IS NOT NULL AND created_at > %s", [now])


def insert_parts(connection: Connection, job_id: UUID, parts: Sequence[tuple[UUID, int, Task]], now: datetime) -> None:
    """Note the parts of a job as (run, number in the queue, task), and the backfills among them as pending."""
    rows = [
        (
            job_id, number, run_id, task.kind.value, *_identity(task), task.dataset, task.start, task.end, queue_id,
            task.again,
        )
        for number, (run_id, queue_id, task) in enumerate(parts)
    ]  # fmt: skip
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO job_parts (job_id, number, run_id, kind, symbol, asset_class, timeframe, dataset, start_time, "
            "end_time, queue_id, again, status) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'queued')",
            rows,
        )
        pending = [
            (*_identity(task), task.dataset, run_id, task.start, task.end, now, now)
            for run_id, _, task in parts
            if task.kind is Kind.BACKFILL
        ]
        if pending:
            cursor.executemany(
                "INSERT INTO backfill_state (symbol, asset_class, timeframe, dataset, backfill_job_id, start_date, "
                "end_date, status, created_at, updated_at) VALUES (%s, %s, %s, %s, %s, %s, %s, 'pending', %s, %s)",
                pending,
            )


def already_queued(connection: Connection) -> set[tuple[str, str | None, str | None, str | None, str | None]]:
    """(kind, symbol, asset_class, timeframe, dataset) of parts that wait and continue from what is stored."""
    return {
        (kind, symbol, asset_class, timeframe, dataset)
        for kind, symbol, asset_class, timeframe, dataset in connection.execute(
            "SELECT kind, symbol, asset_class, timeframe, dataset FROM job_parts "
            "WHERE status = 'queued' AND attempts = 0 AND (start_time IS NULL OR kind <> 'enrich')"
        )
    }


def backfills_begun(connection: Connection) -> set[tuple[str | None, str | None, str | None, str | None]]:
    """(symbol, asset_class, timeframe, dataset) of which a backfill was asked for at any time."""
    return {
        (symbol, asset_class, timeframe, dataset)
        for symbol, asset_class, timeframe, dataset in connection.execute(
            "SELECT DISTINCT symbol, asset_class, timeframe, dataset FROM job_parts WHERE kind = 'backfill'"
        )
    }


def twin_of(task: Task) -> tuple[str, str | None, str | None, str | None, str | None]:
    """How `already_queued` names a task."""
    return (task.kind.value, *_identity(task), task.dataset)


def begin_part(connection: Connection, job_id: UUID, number: int, owner: int, now: datetime) -> PartState | None:
    """Mark a part as being worked on by an owner and return it; None when it is over already."""
    changed = connection.execute(
        "UPDATE job_parts SET status = 'in_progress', owner = %s, started_at = coalesce(started_at, %s) "
        "WHERE job_id = %s AND number = %s AND status IN ('queued', 'in_progress') RETURNING run_id",
        [owner, now, job_id, number],
    ).fetchone()
    if changed is None:
        return None
    connection.execute(
        "UPDATE backfill_state SET status = 'in_progress', owner = %s, updated_at = %s WHERE backfill_job_id = %s "
        "AND status <> 'completed'",
        [owner, now, changed[0]],
    )
    return read_part(connection, job_id, number)


def note_progress(connection: Connection, run_id: UUID, done: int, expected: int) -> None:
    """How far a part has come."""
    connection.execute("UPDATE job_parts SET done = %s, expected = %s WHERE run_id = %s", [done, expected, run_id])


def note_dataset_progress(connection: Connection, run_id: UUID, until: datetime, now: datetime) -> None:
    """How far the backfill of a dataset other than candles has come; candles note it with their rows."""
    connection.execute(
        "UPDATE backfill_state SET last_successful_date = %s, updated_at = %s WHERE backfill_job_id = %s",
        [until, now, run_id],
    )


def requeue_part(connection: Connection, run_id: UUID, owner: int, error: str | None, *, counts_as_try: bool) -> None:
    """Put a part back to where it waits, with why, and with what it has done so far; not when it is another's now."""
    changed = connection.execute(
        "UPDATE job_parts SET status = 'queued', attempts = attempts + %s, error = %s, counts = %s, sources = %s "
        "WHERE run_id = %s AND status = 'in_progress' AND owner = %s",
        [
            int(counts_as_try), error, Jsonb(fetched_counts(connection, run_id)),
            fetched_sources(connection, run_id), run_id, owner,
        ],
    ).rowcount  # fmt: skip
    if changed:
        connection.execute(
            "UPDATE backfill_state SET retry_count = retry_count + %s, error_message = %s, "
            "status = CASE WHEN status = 'completed' THEN status ELSE 'pending' END WHERE backfill_job_id = %s",
            [int(counts_as_try), error, run_id],
        )


def end_part(
    connection: Connection,
    run_id: UUID,
    owner: int,
    status: Status,
    now: datetime,
    *,
    counts: Mapping[str, int] | None = None,
    sources: Sequence[str] = (),
    quality_score: float | None = None,
    gaps: int | None = None,
    notes: Sequence[str] = (),
    error: str | None = None,
) -> bool:
    """Close a part; False, and nothing done, when it is another's now.

    Its counts and sources are those of all its tries, from the fetch log unless counts are given.
    """
    found = dict(counts) if counts is not None else fetched_counts(connection, run_id)
    used = list(sources) if counts is not None else fetched_sources(connection, run_id) or list(sources)
    changed = connection.execute(
        "UPDATE job_parts SET status = %s, finished_at = %s, counts = %s, sources = %s, quality_score = %s, gaps = %s, "
        "notes = %s, error = %s, attempts = attempts + %s, "
        "done = CASE WHEN %s = 'completed' THEN expected ELSE done END "
        "WHERE run_id = %s AND status = 'in_progress' AND owner = %s",
        [status.value, now, Jsonb(found), used, quality_score, gaps, list(notes), error,
         int(status is not Status.CANCELLED), status.value, run_id, owner],
    ).rowcount  # fmt: skip
    if not changed:
        return False
    # CONTRACT's states of a backfill know no cancelled one: it is as good as failed, and can be resumed.
    connection.execute(
        "UPDATE backfill_state SET status = %s, error_message = %s, updated_at = %s, "
        "last_successful_date = CASE WHEN %s = 'completed' THEN end_date ELSE last_successful_date END "
        "WHERE backfill_job_id = %s",
        ["completed" if status is Status.COMPLETED else "failed", error, now, status.value, run_id],
    )
    return True


def collected_spans(database: Database, dataset: Dataset, instrument: Instrument) -> list[TimeRange]:
    """The ranges that backfills of a dataset have been through, by where they begin; none beyond the moment it ran."""
    rows = database.rows(
        "SELECT * FROM (SELECT start_date, least(last_successful_date, updated_at) AS until FROM backfill_state "
        "WHERE symbol = %s AND asset_class = %s AND dataset = %s AND timeframe IS NULL "
        "AND last_successful_date IS NOT NULL) been WHERE until > start_date ORDER BY start_date",
        (instrument.symbol, instrument.asset_class.value, dataset.name),
    )
    return [TimeRange(row["start_date"], row["until"]) for row in rows]


def fetched_counts(connection: Connection, run_id: UUID) -> dict[str, int]:
    """What became of all rows fetched in a run, over all its tries."""
    row = connection.execute(f"SELECT {_SUMS} FROM enrichment_fetch_log WHERE run_id = %s", [run_id]).fetchone()
    assert row is not None
    return dict(zip(_COUNTED, row, strict=True))


def fetched_sources(connection: Connection, run_id: UUID) -> list[str]:
    """The sources that gave rows in a run, over all its tries, in the order of their first ones."""
    rows = connection.execute(
        "SELECT source FROM enrichment_fetch_log WHERE run_id = %s AND records_fetched > 0 "
        "GROUP BY source ORDER BY min(id)",
        [run_id],
    )
    return [source for (source,) in rows]


def cancel_parts(connection: Connection, job_id: UUID, now: datetime) -> list[int]:
    """Cancel what waits of a job; returns the queue's numbers of all its parts that are not over."""
    unfinished = connection.execute(
        "SELECT queue_id FROM job_parts WHERE job_id = %s AND status IN ('queued', 'in_progress') FOR UPDATE", [job_id]
    ).fetchall()
    waiting = connection.execute(
        "UPDATE job_parts SET status = 'cancelled', finished_at = %s WHERE job_id = %s AND status = 'queued' "
        "RETURNING run_id",
        [now, job_id],
    ).fetchall()
    connection.execute(
        "UPDATE backfill_state SET status = 'failed', error_message = 'cancelled', updated_at = %s "
        "WHERE backfill_job_id = ANY(%s)",
        [now, [run_id for (run_id,) in waiting]],
    )
    return [queue_id for (queue_id,) in unfinished]


def cancel_abandoned(connection: Connection, now: datetime) -> int:
    """Close parts that the queue will never bring back: told to stop, but their worker died first."""
    return connection.execute(
        "UPDATE job_parts p SET status = 'cancelled', finished_at = %s, error = 'its worker died as it ended' "
        "FROM procrastinate_jobs q WHERE q.id = p.queue_id AND p.status IN ('queued', 'in_progress') "
        "AND q.status NOT IN ('todo', 'doing')",
        [now],
    ).rowcount


def forget_jobs(connection: Connection, before: datetime) -> int:
    """Delete jobs that were over by then, and what the queue remembers of them; returns how many."""
    over = (
        "j.created_at < %s AND NOT EXISTS (SELECT FROM job_parts p WHERE p.job_id = j.id "
        "AND (p.status IN ('queued', 'in_progress') OR p.finished_at >= %s))"
    )
    connection.execute(
        f"DELETE FROM procrastinate_jobs WHERE status NOT IN ('todo', 'doing') AND id IN "
        f"(SELECT p.queue_id FROM job_parts p JOIN jobs j ON j.id = p.job_id WHERE {over})",
        [before, before],
    )
    return connection.execute(f"DELETE FROM jobs j WHERE {over}", [before, before]).rowcount


def _identity(task: Task) -> tuple[str | None, str | None, str | None]:
    if task.instrument is None:
        return None, None, None
    timeframe = None if task.timeframe is None else task.timeframe.value
    return task.instrument.symbol, task.instrument.asset_class.value, timeframe
