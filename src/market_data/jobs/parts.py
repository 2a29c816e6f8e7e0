"""One part of a job from the queue to its end: begun, done, and then over, or waiting in the queue again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final, NoReturn
from uuid import UUID

import structlog
from procrastinate.exceptions import JobAborted
from procrastinate.job_context import AbortReason, JobContext
from procrastinate.jobs import Job as QueuedJob
from procrastinate.retry import BaseRetryStrategy, RetryDecision

from market_data.jobs.tasks import Result, Watch, Workshop
from market_data.model.errors import LeaseLost, MarketDataError, SchemaMismatch, Stopped, Where
from market_data.model.job import PartState, Status
from market_data.pipeline.fetch.failing import as_ours
from market_data.storage.wire.connection import Connection
from market_data.storage.work import jobs as work

log = structlog.get_logger()

# A commit takes a fraction of this; waiting on a source may take longer and is cut short then.
COMMIT_SECONDS: Final = 10.0
BUSY_SECONDS: Final = 1.0
LONGEST_WAIT_SECONDS: Final = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How a worker works.

    Attributes:
        concurrency: parts at the same time.
        max_retries: further tries of a part whose source failed.
        retry_seconds: before the first of them; each further wait is twice as long.
        drain_seconds: how long parts may take to stop when the worker does.
        heartbeat_seconds: how often it says that it lives.
        stalled_seconds: silence after which it counts as dead even though its connection stands.
    """

    concurrency: int = 5
    max_retries: int = 3
    retry_seconds: float = 15.0
    drain_seconds: float = 20.0
    heartbeat_seconds: float = 5.0
    stalled_seconds: float = 60.0


class Again(Exception):  # no failure: a part that goes back into the queue
    """The part is to be worked on again, so many seconds from now."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds:.0f} s")
        self.seconds = seconds


class PartFailed(Exception):
    """The part is over and failed; what failed is noted with it."""


class RetryAsTold(BaseRetryStrategy):
    """Queue again what raised `Again`, nothing else: whoever raised it knows the error."""

    def get_retry_decision(self, *, exception: BaseException, job: QueuedJob) -> RetryDecision | None:
        """When to try again, None for never."""
        if isinstance(exception, Again):
            return RetryDecision(retry_in={"seconds": int(exception.seconds)})
        # Cut short while something was being noted: begun again, it sees what was.
        return RetryDecision() if isinstance(exception, asyncio.CancelledError) else None


class PartRunner:
    """Does the parts a worker takes from the queue; stops them all when the worker stops."""

    def __init__(self, workshop: Workshop, limits: Limits) -> None:
        self._workshop = workshop
        self._database = workshop.database
        self._limits = limits
        self._stopping = False
        self._watches: dict[UUID, Watch] = {}
        self._said: set[str] = set()
        self._progress: dict[UUID, tuple[int, int]] = {}

    def stop(self) -> None:
        """Let every part stop at its next commit."""
        self._stopping = True
        for watch in self._watches.values():
            watch.stopping = True

    def flush(self) -> None:
        """Note the progress since the last time; what cannot be noted now will be with the next."""
        latest, self._progress = self._progress, {}
        if not latest:
            return
        try:
            with self._database.transaction() as connection:
                for run_id, (done, expected) in latest.items():
                    work.note_progress(connection, run_id, done, expected)
        except MarketDataError as error:
            log.warning("progress_not_noted", error=str(error))

    async def run(self, context: JobContext, job_id: UUID, number: int) -> None:
        """Do one part.

        Raises:
            Again, PartFailed, JobAborted: for the queue.
        """
        # In all that is logged on behalf of the part, in other threads too.
        with structlog.contextvars.bound_contextvars(job=str(job_id), number=number):
            try:
                owner = await asyncio.to_thread(lambda: self._workshop.sources.owner.number)
                part = await asyncio.to_thread(self._begin, job_id, number, owner)
                if part is None:
                    return
                log.info("part_begun", part=str(part.task), run=str(part.run_id), attempt=part.attempts + 1)
                await self._settle(part, owner, await self._watched(context, part, owner))
            except MarketDataError as error:
                if not error.again:
                    raise
                # The database's: however long it is away, that is no fault of the part.
                log.warning("database_failed", error=str(error))
                raise Again(BUSY_SECONDS) from None

    async def _watched(self, context: JobContext, part: PartState, owner: int) -> Result:
        def report(done: int, expected: int) -> None:
            self._progress[part.run_id] = (done, expected)

        watch = self._watches[part.run_id] = Watch(report)
        watch.stopping = self._stopping
        doing = asyncio.create_task(self._perform(part, watch))
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            watch.stopping = True
            await asyncio.wait({doing}, timeout=COMMIT_SECONDS)
            doing.cancel()
            result = (await asyncio.gather(doing, return_exceptions=True))[0]
            if isinstance(result, Result) and result.error is None:
                return result
            if context.abort_reason() is AbortReason.USER_REQUEST:
                await asyncio.to_thread(self._end, part, owner, Status.CANCELLED, Result())
                raise JobAborted from None
            return Result(error=Stopped("the worker was stopped"))
        finally:
            del self._watches[part.run_id]

    async def _perform(self, part: PartState, watch: Watch) -> Result:
        try:
            return await self._workshop.perform(part, watch)
        except BaseException as error:  # a defect of ours fails the part, not the worker
            return Result(error=as_ours(error, part=part.task, run=part.run_id))

    async def _settle(self, part: PartState, owner: int, result: Result) -> None:
        """End the part, or say when it is to be tried again."""
        error = result.error
        # A newer program migrated the database: it will do the part.
        if isinstance(error, Stopped | SchemaMismatch):
            await asyncio.to_thread(self._requeue, part, owner, None, counts=False)
            raise Again(0)
        if isinstance(error, LeaseLost):
            self._taken_over(part)
        if error is not None and error.again:
            if error.where is not Where.SOURCE:
                raise error
            if part.attempts < self._limits.max_retries:
                await asyncio.to_thread(self._requeue, part, owner, str(error), counts=True)
                wait = self._wait(part, error)
                log.warning("part_waits", part=str(part.task), error=str(error), seconds=round(wait))
                raise Again(wait)
        status = Status.COMPLETED if error is None else Status.FAILED
        if not await asyncio.to_thread(self._end, part, owner, status, result):
            self._taken_over(part)
        if error is not None:
            # What holds for every symbol (not entitled, key refused) is said once; each part keeps it.
            tell = log.info if str(error) in self._said else log.warning
            self._said.add(str(error))
            tell("part_failed", part=str(part.task), error=str(error))
            raise PartFailed(str(error))
        log.info("part_completed", part=str(part.task))

    def _taken_over(self, part: PartState) -> NoReturn:
        """Somebody else does it, and says what became of it; the queue takes it back only while it is ours."""
        log.warning("part_taken_over", part=str(part.task), run=str(part.run_id))
        raise Again(BUSY_SECONDS)

    def _wait(self, part: PartState, error: MarketDataError) -> float:
        wait: float = self._limits.retry_seconds * 2.0**part.attempts
        if error.retry_after is not None:
            wait = max(wait, error.retry_after)
        return min(wait, LONGEST_WAIT_SECONDS)

    def _begin(self, job_id: UUID, number: int, owner: int) -> PartState | None:
        with self._database.transaction() as connection:
            return work.begin_part(connection, job_id, number, owner, self._workshop.clock())

    def _requeue(self, part: PartState, owner: int, error: str | None, *, counts: bool) -> None:
        with self._database.transaction() as connection:
            work.requeue_part(connection, part.run_id, owner, error, counts_as_try=counts)

    def _end(self, part: PartState, owner: int, status: Status, result: Result) -> bool:
        self.flush()
        fields: dict[str, Any] = {
            "counts": result.counts,
            "sources": result.sources,
            "quality_score": result.quality_score,
            "gaps": result.gaps,
            "notes": result.notes,
            "error": None if result.error is None else str(result.error),
        }

        def close(connection: Connection) -> bool:
            return work.end_part(connection, part.run_id, owner, status, self._workshop.clock(), **fields)

        return self._database.retrying_transaction(close)
