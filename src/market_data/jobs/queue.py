"""The queue of jobs: asking for work, watching it, cancelling it. The one place that knows Procrastinate's queue.

A job, its parts and their places in the queue are written in one transaction: none is ever half queued.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg
import structlog
from procrastinate import SyncPsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job as QueuedJob
from procrastinate.manager import JobManager

from market_data.model.errors import UsageError
from market_data.model.instrument import Instrument
from market_data.model.job import CANDLES_NAME, JobReceipt, JobState, Kind, Status, Task
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.fetch.candles import DEFAULT_HISTORY, TAIL_CANDLES
from market_data.storage.series.reader import Reader
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.work import job_reads
from market_data.storage.work import jobs as work

log = structlog.get_logger()

QUEUE: Final = "market_data"
RECENT_JOBS: Final = 50
# More symbols than anybody tracks, few enough that one call cannot fill the queue by mistake.
MOST_PARTS: Final = 10_000


@dataclass(frozen=True)
class Jobs:
    """What the doors and the schedule ask for work with. Safe to use from several threads."""

    database: Database
    clock: Callable[[], datetime]

    def trigger(
        self,
        instruments: Sequence[Instrument],
        timeframes: Sequence[Timeframe],
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        origin: str = "user",
        priority: int | None = None,
    ) -> JobReceipt:
        """Queue the enrichment of every timeframe of every instrument.

        Raises:
            UsageError: without instruments or timeframes, or with more than `MOST_PARTS` of both together.
        """
        tasks = [
            Task(
                kind=Kind.ENRICH, instrument=instrument, timeframe=timeframe, dataset=CANDLES_NAME, start=start, end=end
            )
            for instrument in dict.fromkeys(instruments)
            for timeframe in dict.fromkeys(timeframes)
        ]
        return self.submit(Kind.ENRICH, tasks, origin=origin, priority=priority)

    def submit(
        self, kind: Kind, tasks: Sequence[Task], *, origin: str = "user", priority: int | None = None
    ) -> JobReceipt:
        """Queue a job of any tasks.

        Raises:
            UsageError: without tasks or with more than `MOST_PARTS`.
        """
        if not 0 < len(tasks) <= MOST_PARTS:
            raise UsageError(f"a job has 1 to {MOST_PARTS:,} parts, not {len(tasks):,}: name fewer symbols")
        now, job_id = self.clock(), uuid4()
        with self.database.transaction() as connection:
            self.enqueue(connection, job_id, kind, tasks, origin=origin, priority=priority)
        total = self._expected(tasks, now)
        pace = job_reads.pace(self.database)
        return JobReceipt(
            job_id=job_id,
            kind=kind,
            tasks=tasks,
            total_records=total,
            estimated_seconds=None if total is None or pace is None else pace.seconds(total),
            timestamp=now,
        )

    def enqueue(
        self,
        connection: Connection,
        job_id: UUID,
        kind: Kind,
        tasks: Sequence[Task],
        *,
        origin: str,
        occasion: str | None = None,
        priority: int | None = None,
    ) -> bool:
        """Queue a job inside the caller's transaction; False, and nothing queued, when its occasion was before."""
        now = self.clock()
        if not work.insert_job(connection, job_id, kind, origin, occasion, now):
            return False
        runs = [uuid4() for _ in tasks]
        numbers = _defer(connection, job_id, tasks, priority)
        work.insert_parts(connection, job_id, list(zip(runs, numbers, tasks, strict=True)), now)
        log.info("job_queued", job=str(job_id), kind=kind.value, parts=len(tasks), origin=origin, occasion=occasion)
        return True

    def job(self, job_id: UUID) -> JobState | None:
        """A job with its parts; None when there is none of this id."""
        found = job_reads.read_jobs(self.database, "j.id = %s", [job_id], limit=1)
        return found[0] if found else None

    def jobs(self, *, status: Status | None = None, limit: int = RECENT_JOBS) -> list[JobState]:
        """The newest jobs, of one status when given."""
        where = "true" if status is None else job_reads.WITH_STATUS[status]
        return job_reads.read_jobs(self.database, where, limit=limit)

    def history(
        self,
        *,
        symbol: str | None = None,
        success: bool | None = None,
        limit: int = RECENT_JOBS,
    ) -> list[JobState]:
        """Jobs that are over, newest first; of one symbol, or only those that went well or did not, when given."""
        where, parameters = [job_reads.OVER], list[Any]()
        if symbol is not None:
            where.append("EXISTS (SELECT FROM job_parts p WHERE p.job_id = j.id AND p.symbol = %s)")
            parameters.append(symbol)
        if success is not None:
            where.append(job_reads.WENT_WELL if success else f"NOT {job_reads.WENT_WELL}")
        return job_reads.read_jobs(self.database, " AND ".join(where), parameters, limit=limit)

    def cancel(self, job_id: UUID) -> JobState | None:
        """Cancel a job: what waits never begins, what is being worked on stops at its next batch.

        Returns:
            The job as it is then; None when there is none of this id.
        """
        manager = _manager()
        with self.database.transaction() as connection, _translated():
            for number in work.cancel_parts(connection, job_id, self.clock()):
                manager.cancel_job_by_id(number, abort=True, connection=connection)
        return self.job(job_id)

    def depth(self) -> dict[str, int]:
        """Parts that wait or are worked on, by kind of job."""
        return job_reads.queue_depth(self.database)

    def _expected(self, tasks: Sequence[Task], now: datetime) -> int | None:
        """Candles the calendar expects of what is asked for; None when something besides candles is."""
        total = 0
        for task in tasks:
            if task.series is None:
                return None
            start, end = task.start, min(task.end or now, now)
            if start is None:
                stored = Reader(self.database).last_timestamps(task.series, TAIL_CANDLES)
                start = stored[0] if stored else now - DEFAULT_HISTORY[task.series.timeframe]
            if start < end:
                series = task.series
                total += len(grid(series.asset_class, series.timeframe, TimeRange(start, end)).closed_by(now))
        return total


def queue_name(kind: Kind) -> str:
    """The name of a kind's task in the queue."""
    return f"{QUEUE}.{kind.value}"


def _defer(connection: Connection, job_id: UUID, tasks: Sequence[Task], priority: int | None) -> list[int]:
    """Put the parts of a job into the queue; returns their numbers there."""
    if not tasks:
        return []
    queued = [
        QueuedJob(
            queue=QUEUE,
            task_name=queue_name(task.kind),
            priority=task.kind.priority if priority is None else priority,
            lock=task.lock,
            queueing_lock=None,
            task_kwargs={"job_id": str(job_id), "number": number},
        )
        for number, task in enumerate(tasks)
    ]
    with _translated():
        return [job.id for job in _manager().batch_defer_jobs(queued, connection=connection) if job.id is not None]


def _manager() -> JobManager:
    """Procrastinate's own statements, run on our connections: its connector is never opened."""
    return JobManager(SyncPsycopgConnector())


@contextmanager
def _translated() -> Iterator[None]:
    """Let PostgreSQL's error out of Procrastinate's, so that the transaction around it names it in our words."""
    try:
        yield
    except ConnectorException as error:
        if isinstance(error.__cause__, psycopg.Error):
            raise error.__cause__ from None
        raise
