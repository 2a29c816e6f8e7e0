"""A worker: takes parts of jobs from the queue and does them, until told to stop; any number may share a database.

Killed at any moment it loses nothing: what it worked on is found by the others, or by the next one started, and done
again from its last commit.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from socket import gethostname
from typing import Any, Final
from uuid import UUID

import psycopg
import psycopg_pool
import structlog
from procrastinate import App as Queue
from procrastinate import PsycopgConnector
from procrastinate.connector import BaseConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.job_context import JobContext
from procrastinate.jobs import Status as JobStatus
from procrastinate.manager import JobManager
from procrastinate.worker import Worker as QueueWorker

from market_data.jobs.parts import Limits, PartRunner, RetryAsTold
from market_data.jobs.queue import QUEUE, queue_name
from market_data.jobs.tasks import Workshop
from market_data.model.errors import DatabaseUnavailable, MarketDataError, SchemaMismatch
from market_data.model.job import Kind
from market_data.storage.server import migrate
from market_data.storage.wire.connection import UNLIMITED, DialledAsync, dial_async, utf8
from market_data.storage.work import jobs as work
from market_data.storage.work.owners import close_orphans
from market_data.storage.work.sources import record_sources
from market_data.storage.work.workers import ALIVE_LOCK, FINISH_OWN, RETRY_OWN, bury_workers, report_worker

log = structlog.get_logger()

POOL_SIZE: Final = 4
POLL_SECONDS: Final = 5.0
PROGRESS_SECONDS: Final = 1.0
SWEEP_SECONDS: Final = 2.0
RECONNECT_SECONDS: Final = 0.5
OPEN_SECONDS: Final = 10.0
_LOST: Final = (ConnectorException, psycopg.Error, psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed, OSError,
                DatabaseUnavailable)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a look for the dead found."""

    requeued: int
    cancelled: int


class OwnPlaces(JobManager):
    """The queue's manager for one worker, which moves nothing in the queue that is another's by now."""

    def __init__(self, connector: BaseConnector, worker_id: Callable[[], int | None]) -> None:
        super().__init__(connector)
        self._worker_id = worker_id

    async def finish_job_by_id_async(self, job_id: int, status: JobStatus, delete_job: bool) -> None:
        """Note that a job of ours is over."""
        await self.connector.execute_query_async(
            FINISH_OWN, job_id=job_id, status=status.value, delete_job=delete_job, worker_id=self._worker_id()
        )

    async def retry_job_by_id_async(
        self,
        job_id: int,
        retry_at: datetime,
        priority: int | None = None,
        queue: str | None = None,
        lock: str | None = None,
    ) -> None:
        """Put a job of ours back."""
        await self.connector.execute_query_async(
            RETRY_OWN, job_id=job_id, retry_at=retry_at, new_priority=priority, new_queue_name=queue, new_lock=lock,
            worker_id=self._worker_id(),
        )  # fmt: skip


class Worker:
    """One worker; `run` in an event loop, `stop` from anywhere in the same loop.

    Args:
        workshop: what the tasks work with.
        limits: how many parts at once, how long to drain, when another worker counts as dead.
    """

    def __init__(self, workshop: Workshop, limits: Limits) -> None:
        self._workshop = workshop
        self._database = workshop.database
        self._limits = limits
        self._runner = PartRunner(workshop, limits)
        self._stopping = False
        self._outdated: SchemaMismatch | None = None
        self._woken = asyncio.Event()
        self._current: QueueWorker | None = None
        # It would tell what we tell ourselves, in other words and with tracebacks.
        logging.getLogger("procrastinate").setLevel(logging.CRITICAL)

    async def run(self, *, wait: bool = True) -> None:
        """Work until `stop`, or without `wait` until the queue is empty; outlives restarts of the database.

        Raises:
            SchemaMismatch: when a newer program migrated the database; what was under way is back in the queue.
        """
        while not self._stopping:
            try:
                async with self._opened() as queue:
                    await asyncio.to_thread(self._tell_sources)
                    await self._work(queue, wait=wait)
                if not wait and not await asyncio.to_thread(self._left):
                    return
            except _LOST as error:
                log.warning("queue_unreachable", error=str(error))
            if not self._stopping:
                await self._pause(RECONNECT_SECONDS)
        if self._outdated is not None:
            raise self._outdated

    def stop(self) -> None:
        """Take nothing new; what is being worked on stops at its next commit and goes back into the queue."""
        self._stopping = True
        self._runner.stop()
        self._woken.set()
        if self._current is not None:
            self._current.stop()  # type: ignore[no-untyped-call]  # Procrastinate leaves it out

    def _tell_sources(self) -> None:
        record_sources(self._database, self._workshop.sources.providers, self._workshop.clock())

    async def _work(self, queue: Queue, *, wait: bool) -> None:
        limits = self._limits
        worker = self._current = QueueWorker(
            queue,
            queues=[QUEUE],
            concurrency=limits.concurrency,
            wait=wait,
            fetch_job_polling_interval=POLL_SECONDS,
            abort_job_polling_interval=POLL_SECONDS,
            shutdown_graceful_timeout=limits.drain_seconds,
            install_signal_handlers=False,
            update_heartbeat_interval=limits.heartbeat_seconds,
            stalled_worker_timeout=limits.stalled_seconds,
        )
        chores = [
            asyncio.create_task(chore(worker)) for chore in (self._show_life, self._report, self._sweep, self._flush)
        ]
        try:
            if self._stopping:
                return
            await worker.run()  # type: ignore[no-untyped-call]
        finally:
            self._current = None
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            await asyncio.to_thread(self._runner.flush)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Queue]:
        connector = PsycopgConnector(
            conninfo=self._conninfo,
            connection_class=DialledAsync,
            min_size=1,
            max_size=POOL_SIZE,
            timeout=OPEN_SECONDS,
            kwargs={"application_name": "market-data worker"},
            configure=_set_up,
        )
        queue = Queue(connector=connector)
        queue.job_manager = OwnPlaces(connector, lambda: self._current.worker_id if self._current else None)
        for kind in Kind:
            queue.task(name=queue_name(kind), queue=QUEUE, pass_context=True, retry=RetryAsTold())(self._perform)
        async with queue.open_async():
            yield queue

    async def _perform(self, context: JobContext, job_id: str, number: int) -> None:
        await self._runner.run(context, UUID(job_id), number)

    async def _conninfo(self) -> str:
        return utf8(await asyncio.to_thread(self._database.conninfo))

    async def _show_life(self, worker: QueueWorker) -> None:
        """Hold a lock that ends with this process, so that others know at once when it was killed."""
        while worker.worker_id is None:  # noqa: ASYNC110  # Procrastinate tells nobody when it has one
            await asyncio.sleep(0.01)
        try:
            async with await dial_async(await self._conninfo()) as connection:
                await connection.execute("SELECT pg_advisory_lock(%s, %s)", [ALIVE_LOCK, worker.worker_id])
                while True:
                    await asyncio.sleep(self._limits.heartbeat_seconds)
                    await connection.execute("SELECT 1")
        except (psycopg.Error, DatabaseUnavailable) as error:
            log.warning("worker_restarts", error=str(error))
            worker.stop()  # type: ignore[no-untyped-call]

    async def _report(self, worker: QueueWorker) -> None:
        """Tell the others that this process is there, again and again."""
        while worker.worker_id is None:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.01)
        while True:
            now = self._workshop.clock()
            try:
                await asyncio.to_thread(
                    report_worker, self._database, worker.worker_id, gethostname(), os.getpid(), now
                )
            except MarketDataError as error:
                log.warning("report_failed", error=str(error))
            await asyncio.sleep(self._limits.heartbeat_seconds)

    async def _sweep(self, worker: QueueWorker) -> None:
        """Put back what dead workers left, and make room for a newer program, again and again."""
        while worker.worker_id is None:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.01)
        while True:
            try:
                found = await asyncio.to_thread(self._requeue_dead, worker.worker_id)
            except SchemaMismatch as error:
                log.warning("worker_outdated", error=str(error))
                self._outdated = error
                self.stop()
                return
            except MarketDataError as error:
                log.warning("sweep_failed", error=str(error))
            else:
                if found.requeued or found.cancelled:
                    log.warning("parts_of_dead_workers", requeued=found.requeued, cancelled=found.cancelled)
                    worker._new_job_event.set()  # noqa: SLF001  # what was put back notifies nobody
            await asyncio.sleep(SWEEP_SECONDS)

    def _requeue_dead(self, own: int) -> Sweep:
        migrate.status(self._database)  # raises when a newer program made it
        limits, now = self._limits, self._workshop.clock()
        # First what they held is free and nothing of theirs can be committed; then others may do their parts.
        close_orphans(self._database, limits.stalled_seconds, now)
        with self._database.transaction() as connection:
            requeued = bury_workers(connection, own, limits.stalled_seconds, limits.heartbeat_seconds)
            return Sweep(requeued, work.cancel_abandoned(connection, now))

    async def _flush(self, _worker: QueueWorker) -> None:
        """Note progress now and then rather than at every commit."""
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            await asyncio.to_thread(self._runner.flush)

    def _left(self) -> int:
        rows = self._database.rows("SELECT count(*) AS parts FROM procrastinate_jobs WHERE status IN ('todo', 'doing')")
        return int(rows[0]["parts"])

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._woken.wait(), seconds)
        except TimeoutError:
            return


async def _set_up(connection: psycopg.AsyncConnection[Any]) -> None:
    """Not among the arguments of the connection: Procrastinate gives its own to the one that hears of new parts."""
    await connection.set_autocommit(True)
    await connection.execute(UNLIMITED.settings)
