"""Fetches what is missing of a series from the best source that has it, and stores it batch by batch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import numpy as np

from market_data.model.dataset import CANDLES
from market_data.model.errors import MarketDataError, Stopped, UnknownInstrument, UnsupportedRequest, Where
from market_data.model.instrument import Instrument, Series
from market_data.model.job import Outcome
from market_data.model.session import begins, grid
from market_data.model.timeframe import Timeframe, TimeRange, to_micros
from market_data.pipeline.fetch.asking import Answer, Question, Sources, able, ask, nobody
from market_data.pipeline.fetch.failing import as_ours
from market_data.pipeline.fetch.gathering import Gathering
from market_data.pipeline.fetch.reading import committed
from market_data.pipeline.fetch.runs import Run, recorded
from market_data.pipeline.read.status import age_of, reaches_of
from market_data.pipeline.write.derive import Shelves
from market_data.pipeline.write.gaps import coverage
from market_data.pipeline.write.ingest import Batch, Purpose
from market_data.pipeline.write.ingest import Outcome as Ingested
from market_data.pipeline.write.together import ingest_batch
from market_data.storage.series.present import Counts
from market_data.storage.series.reader import Reader
from market_data.storage.work import audit
from market_data.storage.work.summaries import Summaries

# Sources amend their newest candles: without a start, so many stored ones are read again.
TAIL_CANDLES: Final = 5
# Free plans are a quarter of an hour behind.
SHORTEST_WAY: Final = timedelta(minutes=15)
# How far back a series begins when nothing is stored and no start is given.
DEFAULT_HISTORY: Final[Mapping[Timeframe, timedelta]] = {
    Timeframe.M1: timedelta(days=7),
    Timeframe.M5: timedelta(days=30),
    Timeframe.M15: timedelta(days=59),
    Timeframe.M30: timedelta(days=59),
    Timeframe.H1: timedelta(days=365),
    Timeframe.H4: timedelta(days=365),
    Timeframe.D1: timedelta(days=5 * 365),
    Timeframe.W1: timedelta(days=10 * 365),
}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a series has come: expected candles up to where it has got, of all expected."""

    series: Series
    done: int
    expected: int
    stage: str


@dataclass(slots=True)
class SeriesReport:
    """What became of one series."""

    series: Series
    span: TimeRange | None = None
    sources: list[str] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    seconds: dict[str, float] = field(default_factory=dict)
    gaps: int = 0
    error: MarketDataError | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        """How good it is: partial where rows were refused, candles are missing, or it failed half-way."""
        counts = self.counts
        stored = counts.fetched - counts.rejected
        if self.error is not None or (counts.rejected and not stored):
            return Outcome.PARTIAL if stored else Outcome.FAILED
        return Outcome.PARTIAL if counts.rejected or self.gaps else Outcome.SUCCESS

    def add(self, source: str, stored: Ingested) -> None:
        """Add what became of a batch."""
        self.counts += stored.counts
        if source not in self.sources:
            self.sources.append(source)
        for stage, seconds in stored.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


@dataclass(frozen=True)
class Enricher:
    """Enriches series, several at a time: the sources to ask, the shelves to compute with."""

    sources: Sources
    shelves: Shelves
    concurrency: int = 5

    async def enrich(
        self,
        instruments: Sequence[Instrument],
        timeframes: Sequence[Timeframe],
        start: datetime | None = None,
        end: datetime | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
        run_id: UUID | None = None,
        stop: asyncio.Event | None = None,
    ) -> list[SeriesReport]:
        """Enrich every timeframe of every instrument; one that fails, however it does, never stops the others.

        Args:
            start: first open time wanted; None continues from what is stored, reading its tail again.
            end: exclusive; None means now.
            progress: called after every commit; it may raise `Stopped`.
            run_id: of one series: the run it goes on with. None begins a run of its own for each.
            stop: once set, all stop after the commit they are at, and say `Stopped`.

        Returns:
            One report per series, in the order asked for; failures are in its `error`.
        """
        reports = [[SeriesReport(Series(one, timeframe)) for timeframe in timeframes] for one in instruments]
        gate, stop = asyncio.Semaphore(self.concurrency), stop or asyncio.Event()

        async def one(wanted: list[SeriesReport]) -> None:
            async with gate:
                for report in wanted:
                    await self._series(report, start, end, progress, run_id or uuid4())

        await _until_stopped([one(wanted) for wanted in reports], stop)
        found = [report for wanted in reports for report in wanted]
        if stop.is_set():
            for report in found:
                if report.span is None and report.error is None:
                    report.error = Stopped("not begun")
        return found

    async def _series(
        self,
        report: SeriesReport,
        start: datetime | None,
        end: datetime | None,
        progress: Callable[[Progress], None],
        run_id: UUID,
    ) -> None:
        series, sources, now = report.series, self.sources, self.sources.clock()
        try:
            report.span = await asyncio.to_thread(self._wanted, series, start, end, now)
            if (first := begins(series.asset_class)) is not None and report.span.start < first:
                report.notes.append(f"nothing is kept of before {first:%Y}: the calendar of sessions begins then")
            kind, instrument = "enrich", series.instrument
            async with recorded(sources, kind, instrument, run_id, timeframe=series.timeframe) as run:
                await self._ask(report, report.span, now, run, progress)
                run.error, run.partly = report.error, bool(report.counts.fetched)
            report.gaps, late = await asyncio.to_thread(self._count_gaps, series, report.span, now)
            if late:
                report.notes.append(f"{series}: the newest candle is not out yet; the next run takes it")
            await asyncio.to_thread(self._record_status, report)
        except asyncio.CancelledError:
            report.error = Stopped("stopped; what was committed is kept")
            raise
        except BaseException as error:
            report.error = as_ours(error, series=series, span=report.span)
            if report.error.where is not Where.STORAGE and not isinstance(report.error, Stopped):
                await self._failed(report)

    async def _failed(self, report: SeriesReport) -> None:
        try:
            await asyncio.to_thread(self._record_status, report)
        except MarketDataError as error:
            report.notes.append(f"its status could not be noted: {error}")

    def _wanted(self, series: Series, start: datetime | None, end: datetime | None, now: datetime) -> TimeRange:
        if start is None:
            stored = Reader(self.sources.database).last_timestamps(series, TAIL_CANDLES)
            start = stored[0] if stored else now - DEFAULT_HISTORY[series.timeframe]
        return TimeRange(start, min(end or now, now))

    async def _ask(
        self, report: SeriesReport, span: TimeRange, now: datetime, run: Run, progress: Callable[[Progress], None]
    ) -> None:
        series = report.series
        question = Question(
            dataset=CANDLES, instrument=series.instrument, timeframe=series.timeframe, span=span, now=now, run_id=run.id
        )
        opens = grid(series.asset_class, series.timeframe, span).closed_by(now).opens
        purpose = Purpose(run_id=run.id, span=span, owner=run.owner)

        async def store(batch: Batch) -> None:
            def commit() -> None:
                sources = self.sources
                report.add(batch.source, ingest_batch(sources.database, self.shelves, batch, purpose, sources.clock))

            await committed(commit)
            done = int((opens < to_micros(batch.span.end)).sum())
            progress(Progress(series, done, len(opens), batch.source))

        def left(reached: datetime) -> bool:
            return bool(np.any(opens >= to_micros(reached)))

        taker = Gathering(series, span, self.sources.batch_rows, store, left)
        answer = await ask(self.sources, question, taker, able(self.sources, question))
        report.notes += answer.notes
        report.error = answer.error or _nothing(question, answer, report)

    def _record_status(self, report: SeriesReport) -> None:
        database, now = self.sources.database, self.sources.clock()
        instrument = report.series.instrument
        error = None if report.error is None else str(report.error)
        age = age_of(reaches_of(instrument, Summaries(database).lasts(instrument)), now)
        with database.transaction() as connection:
            source = report.sources[-1] if report.sources else None
            listed = not isinstance(report.error, UnknownInstrument)
            audit.record_status(connection, report.series, source, error, age, now, listed=listed)

    def _count_gaps(self, series: Series, span: TimeRange, now: datetime) -> tuple[int, bool]:
        """Open gaps of the range by the ledger, in candles; and whether a candle is missing that may be on its way.

        Sources bring a candle minutes or hours after its end, a day's on the next morning: one that ended less than its
        own length ago is no hole yet.
        """
        database, due = self.sources.database, now - max(series.timeframe.duration, SHORTEST_WAY)
        found, yet = coverage(database, series, span, due), coverage(database, series, span, now)
        return found.missing + found.unrecoverable, yet.missing > found.missing


async def _until_stopped(work: Sequence[Coroutine[object, object, None]], stop: asyncio.Event) -> None:
    """Do all of it at once; when told to stop, each is cancelled and waited for."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in work]
        stopping = group.create_task(_cancel_on(stop, tasks))
        if tasks:
            await asyncio.wait(tasks)
        stopping.cancel()


async def _cancel_on(stop: asyncio.Event, tasks: Sequence[asyncio.Task[None]]) -> None:
    await stop.wait()
    for task in tasks:
        task.cancel()


def _nothing(question: Question, answer: Answer, report: SeriesReport) -> MarketDataError | None:
    """The error of a question that nobody answered with a single row."""
    if answer.settled or report.counts.fetched:
        return None
    if not answer.through:
        return nobody(question, answer)
    return UnsupportedRequest(
        f"no source has candles of {report.series} in this range; asked: {'; '.join(answer.notes)}"
    )
