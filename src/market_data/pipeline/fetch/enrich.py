"""Fetches what is missing of a series from the best source that has it, and hands it on batch by batch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID, uuid4

import polars as pl
import structlog

from market_data.model.dataset import CANDLES
from market_data.model.errors import (
    ConnectionLost,
    DatabaseUnavailable,
    MarketDataError,
    PermanentError,
    ProviderUnavailable,
    RateLimited,
    Stopped,
    StorageError,
    UnknownInstrument,
    UnsupportedRequest,
    attributed,
)
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.provider import Page, Provider
from market_data.model.rows import none_rejected
from market_data.model.session import begins, grid
from market_data.model.timeframe import Timeframe, TimeRange, to_micros
from market_data.pipeline.read.status import age_of, reaches_of
from market_data.pipeline.write.derive import Shelves
from market_data.pipeline.write.gaps import coverage
from market_data.pipeline.write.ingest import Batch, Clock, Outcome, Purpose, ingest
from market_data.storage.series.present import Counts
from market_data.storage.series.reader import MICROSECOND, Reader
from market_data.storage.server.database import Database
from market_data.storage.work import audit
from market_data.storage.work.summaries import Summaries

log = structlog.get_logger()

# Sources amend their newest candles: without a start, so many stored ones are read again.
TAIL_CANDLES: Final = 5
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
# Fetched pages waiting to be stored; enough to overlap the two, few enough to bound memory.
PAGES_AHEAD: Final = 4
# How often a source that failed in a passing way goes on with a series; as often as opens its breaker.
ASKED_AGAIN: Final = 2


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

    def add(self, outcome: Outcome) -> None:
        """Add what became of a batch."""
        self.counts += outcome.counts
        for stage, seconds in outcome.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


@dataclass(frozen=True)
class Enricher:
    """What enriching needs: the database, the providers by priority, the shelves, the clock."""

    database: Database
    providers: Mapping[AssetClass, Sequence[Provider]]
    shelves: Shelves
    clock: Clock
    batch_rows: int
    concurrency: int = 5

    async def enrich(
        self,
        instruments: Sequence[Instrument],
        timeframes: Sequence[Timeframe],
        start: datetime | None = None,
        end: datetime | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
        run_id: UUID | None = None,
    ) -> list[SeriesReport]:
        """Enrich every timeframe of every instrument; one that fails never stops the others.

        Args:
            start: first open time wanted; None continues from what is stored, reading its tail again.
            end: exclusive; None means now.
            progress: called after every commit; it may raise `Stopped`.
            run_id: of one series: the run it goes on with. None begins a run of its own for each.

        Returns:
            One report per series, in the order asked for; failures are in its `error`.
        """
        gate = asyncio.Semaphore(self.concurrency)

        async def one(instrument: Instrument) -> list[SeriesReport]:
            async with gate:
                return [
                    await self._series(Series(instrument, timeframe), start, end, progress, run_id or uuid4())
                    for timeframe in timeframes
                ]

        nested = await asyncio.gather(*(one(instrument) for instrument in instruments))
        return [report for reports in nested for report in reports]

    async def _series(
        self,
        series: Series,
        start: datetime | None,
        end: datetime | None,
        progress: Callable[[Progress], None],
        run_id: UUID,
    ) -> SeriesReport:
        report, now = SeriesReport(series), self.clock()
        try:
            report.span = span = await asyncio.to_thread(self._wanted, series, start, end, now)
            if (first := begins(series.asset_class)) is not None and span.start < first:
                report.notes.append(f"nothing is kept of before {first:%Y}: the calendar of sessions begins then")
            await asyncio.to_thread(self._begin, series, run_id, now)
            await self._fetch_and_store(series, span, now, Purpose(run_id=run_id, span=span), report, progress)
            report.gaps = await asyncio.to_thread(self._count_gaps, series, span, now)
        except MarketDataError as error:
            report.error = error
        if not isinstance(report.error, StorageError | DatabaseUnavailable):
            await asyncio.to_thread(self._finish, report, run_id)
        return report

    def _wanted(self, series: Series, start: datetime | None, end: datetime | None, now: datetime) -> TimeRange:
        if start is None:
            stored = Reader(self.database).last_timestamps(series, TAIL_CANDLES)
            start = stored[0] if stored else now - DEFAULT_HISTORY[series.timeframe]
        return TimeRange(start, min(end or now, now))

    async def _fetch_and_store(
        self,
        series: Series,
        span: TimeRange,
        now: datetime,
        purpose: Purpose,
        report: SeriesReport,
        progress: Callable[[Progress], None],
    ) -> None:
        opens = grid(series.asset_class, series.timeframe, span).closed_by(now).opens
        reached = span.start
        for provider in self._candidates(series, report):
            before = report.counts.fetched
            try:
                async for batch in self._persistently(provider, series, TimeRange(reached, span.end), now):
                    outcome = await asyncio.to_thread(ingest, self.database, self.shelves, batch, purpose, self.clock)
                    report.add(outcome)
                    if batch.source not in report.sources:
                        report.sources.append(batch.source)
                    reached = batch.span.end
                    done = int((opens < to_micros(reached)).sum())
                    progress(Progress(series, done, len(opens), batch.source))
            except StorageError:
                raise
            # Other transient errors are the database's: no other source would help.
            except (RateLimited, ProviderUnavailable, ConnectionLost, PermanentError) as error:
                report.notes.append(attributed(provider.name, error))
                log.warning("source_failed", series=str(series), provider=provider.name, error=str(error))
                await asyncio.to_thread(self._log_failure, series, provider, purpose, error)
                report.error = error
                continue
            if report.counts.fetched > before or not (opens >= to_micros(reached)).any():
                report.error = None
                return
            # Where an earlier one failed half-way, its error stands: nobody has been through the rest.
            report.notes.append(f"{provider.name}: no candles from {reached:%Y-%m-%d} to {span.end:%Y-%m-%d}")
        if report.error is None and not report.counts.fetched:
            report.error = UnsupportedRequest(
                f"no source has candles of {series} in this range; asked: {'; '.join(report.notes) or 'none'}"
            )

    def _candidates(self, series: Series, report: SeriesReport) -> list[Provider]:
        found = []
        for provider in self.providers.get(series.asset_class, ()):
            if provider.capability(CANDLES, series.instrument, series.timeframe) is None:
                continue
            if reason := provider.ready:
                report.notes.append(f"{provider.name} skipped: {reason}")
                continue
            found.append(provider)
        if not found:
            report.error = UnsupportedRequest(f"no source serves {series} candles; {'; '.join(report.notes)}")
        return found

    async def _persistently(
        self, provider: Provider, series: Series, span: TimeRange, now: datetime
    ) -> AsyncIterator[Batch]:
        """Batches of a source that is asked again, from where it stopped, before another one takes over.

        One request in a hundred that fails for good must not mix sources; a source that is down refuses at once, by its
        breaker.
        """
        reached = span.start
        for remaining in reversed(range(ASKED_AGAIN + 1)):
            try:
                async for batch in self._batches(provider, series, TimeRange(reached, span.end), now):
                    reached = batch.span.end
                    yield batch
                return
            except (ProviderUnavailable, ConnectionLost) as error:
                if not remaining:
                    raise
                log.info("source_asked_again", series=str(series), provider=provider.name, error=str(error))

    async def _batches(
        self, provider: Provider, series: Series, span: TimeRange, now: datetime
    ) -> AsyncIterator[Batch]:
        """Pages gathered into batches worth a transaction; what was read before a failure is handed on first."""
        waiting: list[Page] = []
        begun = span.start
        pages = provider.fetch_candles(series.instrument, series.timeframe, span.start, span.end, now=now)
        try:
            async for page in _ahead(pages, self.batch_rows):
                full = sum(waited.frame.height for waited in waiting) >= self.batch_rows
                other = bool(waiting) and (page.source, page.contract) != (waiting[-1].source, waiting[-1].contract)
                if waiting and page.frame.height and (full or other):
                    batch = _batch(series, waiting, TimeRange(begun, _bound([page], "min")))
                    begun, waiting = batch.span.end, []
                    yield batch
                waiting.append(page)
        except MarketDataError:
            if waiting:
                yield _batch(series, waiting, TimeRange(begun, (_bound(waiting, "max") or begun) + MICROSECOND))
            raise
        if waiting:
            yield _batch(series, waiting, TimeRange(begun, span.end))

    def _log_failure(self, series: Series, provider: Provider, purpose: Purpose, error: MarketDataError) -> None:
        instrument, timeframe, run_id = series.instrument, series.timeframe, purpose.run_id
        now = self.clock()
        audit.log_failure(
            self.database, instrument, CANDLES.name, timeframe, provider.name, purpose.span, run_id, error, now
        )

    def _begin(self, series: Series, run_id: UUID, now: datetime) -> None:
        with self.database.transaction() as connection:
            audit.start_run(connection, run_id, "enrich", series, now)

    def _finish(self, report: SeriesReport, run_id: UUID) -> None:
        error, now = None if report.error is None else str(report.error), self.clock()
        instrument = report.series.instrument
        age = age_of(reaches_of(instrument, Summaries(self.database).lasts(instrument)), now)
        with self.database.transaction() as connection:
            if isinstance(report.error, Stopped):
                audit.stop_run(connection, run_id, report.counts, now)
                return
            audit.finish_run(connection, run_id, report.counts, error, now)
            source = report.sources[-1] if report.sources else None
            listed = not isinstance(report.error, UnknownInstrument)
            audit.record_status(connection, report.series, source, error, age, now, listed=listed)

    def _count_gaps(self, series: Series, span: TimeRange, now: datetime) -> int:
        """Open gaps of the range by the ledger, in candles: what `gaps` tells."""
        found = coverage(self.database, series, span, now)
        return found.missing + found.unrecoverable


def _batch(series: Series, pages: list[Page], span: TimeRange) -> Batch:
    newest = pages[-1]
    slowest = max(page.fetched_at - page.requested_at for page in pages)
    return Batch(
        series=series,
        frame=pl.concat([page.frame for page in pages]),
        unread=pl.concat([page.rejected for page in pages]),
        source=newest.source,
        fetched_at=newest.fetched_at,
        # Every page is judged against when it was asked for; none of the batch as fresher than its slowest.
        requested_at=newest.fetched_at - slowest,
        span=span,
        response_ms=sum(page.response_ms for page in pages) / len(pages),
        quota_remaining=newest.quota_remaining,
        contract=newest.contract,
    )


def _bound(pages: Sequence[Page], which: Literal["min", "max"]) -> Any:
    """The first or last open time of the pages' rows; None where all were rejected."""
    times = pl.concat([page.frame["timestamp"] for page in pages])
    return times.min() if which == "min" else times.max()


def _parts(page: Page, most_rows: int) -> Iterator[Page]:
    """The page in pages of at most so many rows; what was rejected comes with the first."""
    yield replace(page, frame=page.frame.head(most_rows))
    for start in range(most_rows, page.frame.height, most_rows):
        yield replace(page, frame=page.frame.slice(start, most_rows), rejected=none_rejected())


async def _ahead(pages: AsyncIterator[Page], most_rows: int) -> AsyncIterator[Page]:
    """The same rows in pages of at most `most_rows`, read a few ahead while the caller is busy with earlier ones."""
    queue: asyncio.Queue[Page | Exception | None] = asyncio.Queue(PAGES_AHEAD)

    async def read() -> None:
        try:
            async for page in pages:
                for part in _parts(page, most_rows):
                    await queue.put(part)
            await queue.put(None)
        except Exception as error:  # handed to the caller, who knows what it means
            await queue.put(error)

    reading = asyncio.create_task(read())
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        reading.cancel()
