"""Healing: asks source after source for what the ledger misses, until it is closed or beyond recovery."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import uuid4

from market_data.model.dataset import CANDLES
from market_data.model.errors import MarketDataError, Where
from market_data.model.instrument import Series
from market_data.model.provider import Page
from market_data.model.timeframe import TimeRange
from market_data.pipeline.fetch.asking import Question, Sources, able, ask
from market_data.pipeline.fetch.failing import as_ours
from market_data.pipeline.fetch.gathering import batch_of, rows_span
from market_data.pipeline.fetch.reading import committed
from market_data.pipeline.fetch.runs import recorded
from market_data.pipeline.write.derive import Shelves
from market_data.pipeline.write.gaps import audit_series
from market_data.pipeline.write.ingest import Batch, Purpose
from market_data.pipeline.write.ledger import before_listing, candles_in
from market_data.pipeline.write.together import ingest_batch
from market_data.storage.facts.expectations import trading_of
from market_data.storage.facts.instruments import listed_since
from market_data.storage.series.coverage import State, Stretch, due, replace_stretches, stretches
from market_data.storage.series.present import lock_series
from market_data.storage.wire.connection import Connection

# Gaps of a series that are closer than this many candles are asked for in one request.
JOINED_WITHIN: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a gap is asked for before it is given up.

    Attributes:
        first_wait: between the first and the second try; every further wait is twice as long.
        longest_wait: and no longer than this.
        tries: a gap is beyond recovery only after so many tries,
        least_age: and not before it has been known for this long.
    """

    first_wait: timedelta = timedelta(minutes=15)
    longest_wait: timedelta = timedelta(days=1)
    tries: int = 5
    least_age: timedelta = timedelta(days=3)

    def wait(self, tries: int) -> timedelta:
        """How long to wait after that many tries."""
        return min(self.first_wait * (1 << min(tries - 1, 30)), self.longest_wait)


@dataclass(slots=True)
class Healed:
    """What became of the gaps of a series, in candles.

    Attributes:
        asked: missing when healing began and due.
        filled: now stored.
        no_trade: proved to be without trades.
        unrecoverable: given up, after all tries.
        missing: still missing; will be asked for again.
        sources: who filled them.
        notes: what each source answered that did not help.
        error: why it could not be healed at all.
    """

    series: Series
    asked: int = 0
    filled: int = 0
    no_trade: int = 0
    unrecoverable: int = 0
    missing: int = 0
    sources: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: MarketDataError | None = None


@dataclass(frozen=True)
class Healer:
    """Heals series: the sources to ask, the shelves to compute with, and patience."""

    sources: Sources
    shelves: Shelves
    patience: Patience = Patience()

    async def heal(self, only: Series | None = None, *, due_only: bool = True) -> list[Healed]:
        """Try to close every gap whose time has come; a series that cannot be healed never stops the others.

        Args:
            only: one series; all by default.
            due_only: False asks at once, also for gaps whose next try lies ahead.

        Raises:
            MarketDataError: of storage; what was closed before stays closed.
        """
        now = self.sources.clock()
        moment = now if due_only else datetime.max.replace(tzinfo=now.tzinfo)
        found = await asyncio.to_thread(due, self.sources.database, moment, only)
        return [await self._healed(series, gaps) for series, gaps in found.items()]

    async def _healed(self, series: Series, gaps: list[Stretch]) -> Healed:
        try:
            return await self._series(series, gaps)
        except BaseException as error:
            failure = as_ours(error, series=series)
            if failure.where is Where.STORAGE:
                raise failure from error
            missing = sum(candles_in(series, gap) for gap in gaps)
            return Healed(series, asked=missing, missing=missing, notes=[str(failure)], error=failure)

    async def _series(self, series: Series, gaps: list[Stretch]) -> Healed:
        result = Healed(series, asked=sum(candles_in(series, gap) for gap in gaps))
        for span in joined(series, gaps):
            inside = [gap for gap in gaps if span.start <= gap.start < span.end]
            failures = await self._ask_all(series, span, inside, result)
            await asyncio.to_thread(self._settle, series, inside, failures)
        await asyncio.to_thread(self._count, series, gaps, result)
        return result

    async def _ask_all(self, series: Series, span: TimeRange, gaps: list[Stretch], result: Healed) -> _Failures:
        """Ask source after source until nothing is missing; the one that failed last time comes last."""
        sources, run_id = self.sources, uuid4()
        question = Question(
            dataset=CANDLES, instrument=series.instrument, timeframe=series.timeframe, span=span, now=sources.clock(),
            run_id=run_id,
        )  # fmt: skip
        failed_first = {(gap.last_error or "").partition(": ")[0] for gap in gaps}
        candidates = sorted(able(sources, question), key=lambda provider: provider.name in failed_first)
        failures = _Failures()
        try:
            async with recorded(sources, "heal", series.instrument, run_id, timeframe=series.timeframe) as run:
                taker = _Filling(self, series, gaps, Purpose(run_id=run_id, span=span, actor="heal", owner=run.owner))
                answer = await ask(sources, question, taker, candidates)
                run.error, run.partly = answer.error, bool(taker.gave)
        except MarketDataError as error:
            if error.where is Where.STORAGE:
                raise
            failures.add("nobody", str(error), passing=False)
        else:
            result.sources += [source for source in taker.gave if source not in result.sources]
            if answer.settled:
                return failures
            said = [note for note in answer.notes if note not in answer.skipped] + answer.skipped
            failures = _Failures(said, any(error.again for _, error in answer.failures))
        if not failures.said:
            failures.add("nobody", f"serves {series}", passing=False)
        result.notes += [note for note in failures.said if note not in result.notes]
        return failures

    def store(self, batch: Batch, purpose: Purpose) -> None:
        """Store a batch as any other; the settling audit judges what is still missing."""
        ingest_batch(self.sources.database, self.shelves, batch, purpose, self.sources.clock)

    def missing(self, series: Series, gaps: list[Stretch]) -> bool:
        """Whether any of the gaps is still open."""
        with self.sources.database.transaction() as connection:
            return any(
                stretch.state is State.MISSING for gap in gaps for stretch in stretches(connection, series, gap.span)
            )

    def _settle(self, series: Series, gaps: list[Stretch], failures: _Failures) -> None:
        """Prove what was closed against the stored rows, and what was before any listing; note the try on the rest."""
        database, now = self.sources.database, self.sources.clock()
        for gap in gaps:
            audit_series(database, series, now, gap.span)
            with database.transaction() as connection:
                lock_series(connection, series)
                left = [s for s in stretches(connection, series, gap.span) if s.state is State.MISSING]
                # Not while one may yet have older history: it would show that it was listed before.
                found = left if failures.passing else _without_unlisted(connection, series, left, failures, now)
                after = [self._tried(s, failures, now) if s.state is State.MISSING else s for s in found]
                replace_stretches(connection, series, left, after)

    def _tried(self, gap: Stretch, failures: _Failures, now: datetime) -> Stretch:
        tries, reason = gap.tries + 1, "; ".join(failures.said)
        patient = tries < self.patience.tries or now - gap.detected_at < self.patience.least_age
        if patient or failures.passing:
            return replace(gap, tries=tries, next_try_at=now + self.patience.wait(tries), last_error=reason)
        return replace(gap, tries=tries, state=State.UNRECOVERABLE, next_try_at=None, last_error=reason)

    def _count(self, series: Series, gaps: list[Stretch], result: Healed) -> None:
        with self.sources.database.transaction() as connection:
            for gap in gaps:
                for stretch in stretches(connection, series, gap.span):
                    name = "filled" if stretch.state is State.PRESENT else stretch.state.value
                    setattr(result, name, getattr(result, name) + candles_in(series, _overlap(stretch, gap)))


class _Filling:
    """Takes pages of a series and stores each at once; see `asking.Taker`. Every source is asked for all of it."""

    goes_on = False

    def __init__(self, healer: Healer, series: Series, gaps: list[Stretch], purpose: Purpose) -> None:
        self.reached = purpose.span.start
        self.gave: list[str] = []
        self._healer, self._series, self._gaps, self._purpose = healer, series, gaps, purpose

    def begin(self) -> None:
        pass

    async def take(self, page: Page) -> None:
        if not page.holds_something:
            return
        # Only what the rows themselves show.
        batch = batch_of(self._series, [page], rows_span([page], self.reached))
        await committed(lambda: self._healer.store(batch, self._purpose))
        if page.source not in self.gave:
            self.gave.append(page.source)

    async def end(self, *, through: bool) -> None:
        pass

    async def enough(self) -> bool:
        return not await asyncio.to_thread(self._healer.missing, self._series, self._gaps)


@dataclass(slots=True)
class _Failures:
    """What the sources said, `source: words` each; `passing` when one of them may yet have the candles."""

    said: list[str] = field(default_factory=list)
    passing: bool = False

    def add(self, source: str, words: str, *, passing: bool) -> None:
        self.said.append(f"{source}: {words}")
        self.passing = self.passing or passing


def joined(series: Series, gaps: Sequence[Stretch]) -> list[TimeRange]:
    """Ranges to ask for: gaps in order, those close together in one."""
    near = series.timeframe.duration * JOINED_WITHIN
    ranges: list[TimeRange] = []
    for gap in gaps:
        if ranges and gap.start - ranges[-1].end < near:
            ranges[-1] = TimeRange(ranges[-1].start, gap.end)
        else:
            ranges.append(gap.span)
    return ranges


def _without_unlisted(
    connection: Connection, series: Series, gaps: list[Stretch], failures: _Failures, now: datetime
) -> list[Stretch]:
    """Missing stretches with what was before the earliest listing and the first stored candle proved to be empty.

    A date in a list proves nothing by itself: the proof names who was asked for what and when, and falls when the date
    is mended.
    """
    listed = (listed_since(connection, series.instrument) or _listed_as(connection, series)) if gaps else None
    if listed is None:
        return gaps
    source, since = listed
    asked = f"{gaps[0].start:%Y-%m-%d %H:%M} to {gaps[-1].end:%Y-%m-%d %H:%M} UTC was asked for at {now:%Y-%m-%d %H:%M}"
    proof = f"{source}: listed since {since:%Y-%m-%d %H:%M} UTC; {asked}: {'; '.join(failures.said)}"
    present = stretches(connection, series, state=State.PRESENT)
    return before_listing(series, gaps, min(since, present[0].start) if present else since, proof, now)


def _listed_as(connection: Connection, series: Series) -> tuple[str, datetime] | None:
    """Since when the series' own contract is listed, by its source; None where that is not known."""
    found = trading_of(connection, [series.instrument]).get(series.instrument)
    return None if found is None or found.listed_from is None else (found.source, found.listed_from)


def _overlap(stretch: Stretch, gap: Stretch) -> Stretch:
    return replace(stretch, start=max(stretch.start, gap.start), end=min(stretch.end, gap.end))
