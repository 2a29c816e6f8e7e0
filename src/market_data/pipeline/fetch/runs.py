"""The record of a run, which always ends: done, failed, stopped, or closed by whoever finds it without an owner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import structlog

from market_data.model.errors import MarketDataError, Stopped, Where
from market_data.model.instrument import Instrument
from market_data.model.timeframe import Timeframe
from market_data.pipeline.fetch.asking import Sources
from market_data.pipeline.fetch.failing import as_ours
from market_data.storage.wire.connection import Connection
from market_data.storage.work.runs import end_run, start_run

log = structlog.get_logger()


@dataclass(slots=True)
class Run:
    """A run under way; what went wrong is noted in `error` by whoever does it.

    Attributes:
        owner: as whom it was begun; its commits hold the run by it.
        partly: whether something was done all the same.
    """

    id: UUID
    owner: int
    error: MarketDataError | None = None
    partly: bool = False

    @property
    def status(self) -> str:
        """How it ended."""
        if self.error is None:
            return "completed"
        if isinstance(self.error, Stopped):
            return "cancelled"
        return "partial" if self.partly else "failed"


@asynccontextmanager
async def recorded(
    sources: Sources,
    kind: str,
    instrument: Instrument,
    run_id: UUID,
    *,
    timeframe: Timeframe | None = None,
    dataset: str | None = None,
) -> AsyncIterator[Run]:
    """A run from its beginning to its end; an error raised inside is noted and raised, as one of ours."""

    def begin() -> Run:
        run = Run(run_id, sources.owner.number)
        sources.owner.remember(run_id)
        with sources.database.transaction() as connection:
            start_run(
                connection, run_id, kind, instrument, sources.clock(),
                timeframe=timeframe, dataset=dataset, owner=run.owner,
            )  # fmt: skip
        return run

    run = await asyncio.to_thread(begin)
    try:
        yield run
    except asyncio.CancelledError:
        run.error = run.error or Stopped("stopped; what was committed is kept")
        # At once: whoever is being cancelled may not get to wait for a thread.
        _end(sources, run)
        raise
    except BaseException as error:
        run.error = as_ours(error, run=run_id)
        await asyncio.to_thread(_end, sources, run)
        if run.error is error:
            raise
        raise run.error from error
    else:
        await asyncio.to_thread(_end, sources, run)


def _end(sources: Sources, run: Run) -> None:
    """Note the end; what cannot be noted now, on a full disk or while the database is away, is noted later."""
    error = None if run.error is None or run.status == "cancelled" else str(run.error)

    def end(connection: Connection) -> None:
        end_run(connection, run.id, run.status, sources.clock(), error=error, owner=run.owner)

    away = run.error is not None and run.error.where is Where.STORAGE and run.error.again
    try:
        if away:
            sources.owner.forget(run.id)
        else:
            sources.database.retrying_transaction(end)
    except MarketDataError as failure:
        sources.owner.forget(run.id)
        log.warning("run_not_ended", run=str(run.id), error=str(failure))
