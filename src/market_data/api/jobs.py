"""Jobs as documents and pages."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import polars as pl

from market_data.api.cursors import decoded, encoded
from market_data.api.documents import Job, JobPart, Jobs
from market_data.api.problems import Problem
from market_data.api.served import Served
from market_data.model.dataset import UTC_MICROS
from market_data.model.job import JobState, PartState, Status
from market_data.storage.work.job_reads import OVER, WENT_WELL, WITH_STATUS, read_jobs


def job_document(job: JobState) -> Job:
    """A job as its document."""
    symbols = job.symbols
    return Job(
        job_id=str(job.job_id),
        kind=job.kind.value,
        origin=job.origin,
        symbol=symbols[0] if len(symbols) == 1 else None,
        symbols=symbols,
        asset_class=job.asset_class,
        timeframes=job.timeframes,
        status=job.status.value,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        success=all(part.status is Status.COMPLETED for part in job.parts) if job.status.final else None,
        outcome=None if job.outcome is None else job.outcome.value,
        results=[_part(part) for part in job.parts],
        errors=job.errors,
    )


def _part(part: PartState) -> JobPart:
    task, counts = part.task, part.counts
    return JobPart(
        symbol=task.instrument.symbol if task.instrument else None,
        timeframe=task.timeframe,
        dataset=task.dataset,
        status=part.status.value,
        records_done=part.done,
        records_expected=part.expected,
        records_inserted=counts.get("inserted", 0),
        records_updated=counts.get("updated", 0),
        records_unchanged=counts.get("unchanged", 0),
        records_kept=counts.get("kept", 0),
        records_rejected=counts.get("rejected", 0),
        source=", ".join(part.sources) or None,
        quality_score=part.quality_score,
        error=part.error,
    )


def job_page(
    served: Served,
    limit: int,
    cursor: str | None,
    *,
    status: Status | None = None,
    symbol: str | None = None,
    success: bool | None = None,
    over: bool = False,
) -> Jobs:
    """A page of jobs, newest first: of one status, with one symbol, or that are over and went well or did not."""
    where, parameters = list[str](), list[Any]()
    if status is not None:
        where.append(WITH_STATUS[status])
    if over:
        where.append(OVER)
    if symbol is not None:
        where.append("EXISTS (SELECT FROM job_parts p WHERE p.job_id = j.id AND p.symbol = %s)")
        parameters.append(symbol)
    if success is not None:
        where.append(WENT_WELL if success else f"NOT {WENT_WELL}")
    if cursor is not None:
        at, number = decoded(cursor, (UTC_MICROS, pl.String()))
        where.append("(created_at < %s OR (created_at = %s AND id > %s))")
        parameters += [at, at, _uuid(number)]
    found = read_jobs(served.database, " AND ".join(where) or "true", parameters, limit=limit + 1)
    shown = found[:limit]
    more = len(found) > limit
    return Jobs(
        count=len(shown),
        next=encoded([shown[-1].created_at, str(shown[-1].job_id)]) if more else None,
        jobs=[job_document(job) for job in shown],
    )


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Problem(422, "wrong-cursor", "The cursor is none of this listing.") from None


def cancelled_job(served: Served, job_id: UUID) -> Job:
    """The job after it was cancelled.

    Raises:
        Problem: 404, when there is none of this id.
    """
    found = served.jobs.cancel(job_id)
    if found is None:
        raise Problem(404, "unknown-job", f"There is no job {job_id}", action="GET /api/v1/enrichment/jobs lists them.")
    return job_document(found)
