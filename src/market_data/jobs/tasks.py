"""What each kind of job does: one function per kind, from a task to what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

from market_data.jobs.datasets import plan_of
from market_data.jobs.wanted import unasked, uncollected
from market_data.model.dataset import CANDLES, DATASETS, DIVIDENDS
from market_data.model.errors import MarketDataError, Stopped
from market_data.model.instrument import Instrument, Series
from market_data.model.job import CANDLES_NAME, Kind, PartState, Task
from market_data.model.timeframe import TimeRange
from market_data.pipeline.fetch.reconcile import reconcile
from market_data.storage.facts.claims import awaiting
from market_data.storage.facts.retention import prune
from market_data.storage.series.present import Counts
from market_data.storage.work import job_reads
from market_data.storage.work import jobs as work
from market_data.transport.budget import patiently

if TYPE_CHECKING:
    from market_data.pipeline.fetch.actions import Actions
    from market_data.pipeline.fetch.asking import Sources
    from market_data.pipeline.fetch.candles import Enricher, Progress
    from market_data.pipeline.fetch.facts import Collected, Collector
    from market_data.pipeline.fetch.heal import Healer
    from market_data.pipeline.fetch.listings import Listings
    from market_data.pipeline.write.recompute import Recomputation
    from market_data.storage.server.database import Database

RECONCILED: Final = timedelta(days=7)
STOPPED: Final = "stopped; what was committed is kept"


@dataclass(slots=True)
class Result:
    """What became of a task; `counts` None: those of the fetch log."""

    error: MarketDataError | None = None
    counts: Mapping[str, int] | None = None
    sources: Sequence[str] = ()
    quality_score: float | None = None
    gaps: int | None = None
    notes: list[str] = field(default_factory=list)


class Watch:
    """Hands on how far a task has come, and stops it at its next commit once it was told to."""

    def __init__(self, report: Callable[[int, int], None]) -> None:
        self.stopping = False
        self._report = report

    def step(self, done: int, expected: int) -> None:
        """After every commit.

        Raises:
            Stopped: when the task was told to stop.
        """
        self._report(done, expected)
        if self.stopping:
            raise Stopped(STOPPED)


@dataclass(slots=True)
class Gathered:
    """What became of the chunks of a dataset.

    Attributes:
        stuck: whether a chunk failed in a way that asking for the next would not help.
        failed: why the first chunk that failed did; those after it are fetched all the same, but it is to be asked
            for again.
    """

    stuck: bool = False
    failed: MarketDataError | None = None
    served: bool = False
    sources: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    silence: list[str] = field(default_factory=list)
    unserved: MarketDataError | None = None

    def add(self, collected: Collected) -> None:
        """Add a chunk; that nothing happened in it is worth telling only where nothing did in any."""
        error, found = collected.error, bool(collected.counts.fetched)
        if error is None:
            self.served = True
        elif error.answered:
            # Of a range that no source serves the others may be served: option chains are of the present only.
            self.unserved = error
        else:
            self.failed = self.failed or error
        self.stuck = error is not None and not error.contained
        self.sources += [name for name in collected.sources if name not in self.sources]
        told = self.notes if error is not None or found else self.silence
        told += [note for note in collected.notes if note not in told]

    def result(self) -> Result:
        """Failed where a chunk was, unless that is only not served and others were."""
        error = self.failed or (None if self.served else self.unserved)
        return Result(error=error, sources=self.sources, notes=self.notes or ([] if self.sources else self.silence))


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What the tasks work with; backfills keep to their own pace of asking."""

    database: Database
    sources: Sources
    enricher: Enricher
    collector: Collector
    actions: Actions
    recomputation: Recomputation
    healer: Healer
    listings: Listings
    tracked: Callable[[], Sequence[Instrument]]
    clock: Callable[[], datetime]
    retention: Mapping[str, timedelta]
    archive: Path
    job_days: int

    async def perform(self, part: PartState, watch: Watch) -> Result:
        """Do a task; failures of sources are in the result, those of the database are raised.

        Raises:
            MarketDataError: what was committed stays.
        """
        kind, task = part.task.kind, part.task
        if kind in (Kind.ENRICH, Kind.BACKFILL):
            with patiently(kind is Kind.BACKFILL):
                return await (self._candles if task.dataset == CANDLES_NAME else self._dataset)(part, watch)
        if kind is Kind.HEAL:
            return await self._heal(task)
        if kind is Kind.RECONCILE:
            return await self._reconcile(part)
        if kind is Kind.LISTS:
            return await self._lists()
        if kind is Kind.RECOMPUTE:
            return await asyncio.to_thread(self._recompute, watch)
        return await asyncio.to_thread(self._retain)

    async def _candles(self, part: PartState, watch: Watch) -> Result:
        task, series = part.task, _series(part.task)
        start, end = task.start, task.end
        if task.kind is Kind.BACKFILL and not task.again:
            assert start is not None
            now = self.clock()
            left = await asyncio.to_thread(unasked, self.database, series, TimeRange(start, min(end or now, now)), now)
            if left is None:
                return Result(quality_score=await asyncio.to_thread(self._quality, series, start, end))
            start, end = left.start, left.end
        elif start is not None and part.attempts + bool(part.done):
            start = await asyncio.to_thread(job_reads.reached, self.database, part.run_id) or start
            if end is not None and start >= end:
                return Result(quality_score=await asyncio.to_thread(self._quality, series, task.start, end))

        def step(progress: Progress) -> None:
            watch.step(progress.done, progress.expected)

        (report,) = await self.enricher.enrich([series.instrument], [series.timeframe], start, end, step, part.run_id)
        first = report.span.start if report.span else start
        if report.error is None:
            report.notes += await self.actions.along(series.instrument, first)
        return Result(
            error=report.error,
            sources=report.sources,
            quality_score=await asyncio.to_thread(self._quality, series, first, end),
            gaps=report.gaps if report.error is None else None,
            notes=report.notes,
        )

    async def _dataset(self, part: PartState, watch: Watch) -> Result:
        task, dataset, instrument = part.task, DATASETS[str(part.task.dataset)], _instrument(part.task)
        plan, now = plan_of(dataset.name), self.clock()
        ahead = now + timedelta(days=plan.ahead)
        span: TimeRange | None = TimeRange(task.start or now - plan.recent, task.end or ahead)
        assert span is not None
        backfill, whole = task.kind is Kind.BACKFILL, span
        if backfill and not task.again and not plan.whole:
            span = await asyncio.to_thread(uncollected, self.database, dataset, instrument, span)
        gathered = Gathered()
        for chunk in span.split(plan.chunk) if span else ():
            gathered.add(await self.collector.collect(dataset, instrument, chunk, run_id=part.run_id))
            if task.again and await asyncio.to_thread(awaiting, self.database, dataset, instrument):
                # What the answer lacked is withdrawn once a second one lacks it too.
                gathered.add(await self.collector.collect(dataset, instrument, chunk, run_id=part.run_id))
            if gathered.stuck:
                break
            # Behind a chunk that failed nothing counts as done: the next backfill begins with it.
            if backfill and gathered.failed is None:
                await asyncio.to_thread(self._note, part.run_id, chunk.end)
            days = (chunk.end - whole.start).days
            await asyncio.to_thread(watch.step, days, (whole.end - whole.start).days)
        if dataset is DIVIDENDS:
            gathered.notes += await self.actions.rates(instrument)
        return gathered.result()

    async def _heal(self, task: Task) -> Result:
        result = Result(counts={})
        for healed in await self.healer.heal(task.series):
            result.counts = {"inserted": healed.filled}
            result.sources, result.gaps = healed.sources, healed.missing
            result.notes += healed.notes
            result.error = result.error or healed.error
        return result

    async def _lists(self) -> Result:
        """What every source lists, and what is tracked of those without a list; one that failed stops no other."""
        refreshed = await self.listings.refresh(None, await asyncio.to_thread(self.tracked))
        failed = [one for one in refreshed if one.error is not None]
        counts = sum((one.counts for one in refreshed), Counts())
        return Result(
            error=failed[0].error if failed and len(failed) == len(refreshed) else None,
            counts={"inserted": counts.inserted, "updated": counts.updated, "unchanged": counts.unchanged},
            sources=[one.provider for one in refreshed if one.listed or one.contracts],
            notes=[
                f"{one.provider}: {note}"
                for one in refreshed
                for note in [*one.notes, *([one.error] if one.error else [])]
            ],
        )

    async def _reconcile(self, part: PartState) -> Result:
        task, series, now = part.task, _series(part.task), self.clock()
        span = TimeRange(task.start or now - RECONCILED, task.end or now)
        able = [p for p in self.sources.providers.get(series.asset_class, ())
                if not p.ready and p.capability(CANDLES, series.instrument, series.timeframe)]  # fmt: skip
        if len(able) < 2:
            return Result(counts={}, notes=["no second source to compare with"])
        try:
            found = await reconcile(self.sources, able[1], able[1].name, series, span, part.run_id)
        except MarketDataError as error:
            return Result(error=error, counts={})
        return Result(counts={}, sources=[found.against], notes=[f"{found.both} compared, {found.beyond} disagree"])

    def _recompute(self, watch: Watch) -> Result:
        done = changed = 0
        self.recomputation.note_stale()
        for renewed in self.recomputation.run():
            done, changed = done + renewed.candles, changed + renewed.changed
            watch.step(done, done + renewed.remaining)
        return Result(counts={"updated": changed, "unchanged": done - changed})

    def _retain(self) -> Result:
        now = self.clock()
        pruned = prune(self.database, self.retention, self.archive, now)
        with self.database.transaction() as connection:
            forgotten = work.forget_jobs(connection, now - timedelta(days=self.job_days))
        notes = [f"dropped {name}" for name in pruned.dropped] + [f"packed {name}" for name in pruned.packed]
        notes += [f"took back {path.name}" for path in pruned.taken_back]
        return Result(counts={}, notes=[*notes, f"forgot {forgotten} jobs"])

    def _quality(self, series: Series, start: datetime | None, end: datetime | None) -> float | None:
        return job_reads.mean_quality(self.database, series, start, end)

    def _note(self, run_id: UUID, until: datetime) -> None:
        with self.database.transaction() as connection:
            work.note_dataset_progress(connection, run_id, until, self.clock())


def _series(task: Task) -> Series:
    assert task.series is not None, f"{task.kind} needs a series"
    return task.series


def _instrument(task: Task) -> Instrument:
    assert task.instrument is not None, f"{task.kind} needs an instrument"
    return task.instrument
