"""Healing: asks source after source for what the ledger misses, until it is closed or beyond recovery."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import polars as pl
import structlog

from market_data.model.dataset import CANDLES
from market_data.model.errors import DatabaseUnavailable, MarketDataError, StorageError, TransientError
from market_data.model.instrument import AssetClass, Series
from market_data.model.provider import Page, Provider
from market_data.model.timeframe import TimeRange
from market_data.pipeline.write.derive import Shelves
from market_data.pipeline.write.gaps import audit_series
from market_data.pipeline.write.ingest import Batch, Clock, Purpose, ingest
from market_data.pipeline.write.ledger import before_listing, candles_in
from market_data.storage.facts.expectations import trading_of
from market_data.storage.facts.instruments import listed_since
from market_data.storage.series.coverage import State, Stretch, due, replace_stretches, stretches
from market_data.storage.series.present import Counts, lock_series
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.work import audit

log = structlog.get_logger()

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
    """

    series: Series
    asked: int = 0
    filled: int = 0
    no_trade: int = 0
    unrecoverable: int = 0
    missing: int = 0
    sources: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Healer:
    """What healing needs: the database, the providers by priority, the shelves, the clock, and patience."""

    database: Database
    providers: Mapping[AssetClass, Sequence[Provider]]
    shelves: Shelves
    clock: Clock
    patience: Patience = Patience()

    async def heal(self, only: Series | None = None, *, due_only: bool = True) -> list[Healed]:
        """Try to close every gap whose time has come.

        Args:
            only: one series; all by default.
            due_only: False asks at once, also for gaps whose next try lies ahead.

        Raises:
            StorageError, DatabaseUnavailable: what was closed before stays closed.
        """
        moment = self.clock() if due_only else datetime.max.replace(tzinfo=self.clock().tzinfo)
        found = await asyncio.to_thread(due, self.database, moment, only)
        return [await self._series(series, gaps) for series, gaps in found.items()]

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
        failures = _Failures()
        for provider in self._candidates(series, gaps):
            if reason := provider.ready:
                failures.add(provider.name, reason, passing=False)
                continue
            try:
                filled = await self._ask(provider, series, span)
            except (StorageError, DatabaseUnavailable):
                raise
            except MarketDataError as error:
                failures.add(provider.name, str(error), passing=isinstance(error, TransientError))
                log.warning("heal_failed", series=str(series), provider=provider.name, error=str(error))
                continue
            result.sources += [source for source in filled if source not in result.sources]
            if not await asyncio.to_thread(self._still_missing, series, gaps):
                return failures
            failures.add(provider.name, "has no candles there", passing=False)
        if not failures.said:
            failures.add("nobody", f"serves {series}", passing=False)
        result.notes += [note for note in failures.said if note not in result.notes]
        return failures

    def _candidates(self, series: Series, gaps: list[Stretch]) -> list[Provider]:
        able = [
            provider
            for provider in self.providers.get(series.asset_class, ())
            if provider.capability(CANDLES, series.instrument, series.timeframe) is not None
        ]
        failed_first = {(gap.last_error or "").partition(": ")[0] for gap in gaps}
        return sorted(able, key=lambda provider: provider.name in failed_first)

    async def _ask(self, provider: Provider, series: Series, span: TimeRange) -> list[str]:
        """Fetch a span from one source and store it; returns the sources that gave rows."""
        now, run_id, counts = self.clock(), uuid4(), Counts()
        sources: list[str] = []
        await asyncio.to_thread(self._begin, run_id, series, now)
        try:
            async for page in provider.fetch_candles(
                series.instrument, series.timeframe, span.start, span.end, now=now
            ):
                if not page.holds_something:
                    continue
                batch = _batch(series, page, span)
                purpose = Purpose(run_id=run_id, span=span, actor="heal")
                outcome = await asyncio.to_thread(ingest, self.database, self.shelves, batch, purpose, self.clock)
                counts += outcome.counts
                if page.source not in sources:
                    sources.append(page.source)
        except MarketDataError as error:
            if not isinstance(error, StorageError | DatabaseUnavailable):
                await asyncio.to_thread(self._finish, run_id, counts, str(error))
            raise
        await asyncio.to_thread(self._finish, run_id, counts, None)
        return sources

    def _begin(self, run_id: UUID, series: Series, now: datetime) -> None:
        with self.database.transaction() as connection:
            audit.start_run(connection, run_id, "heal", series, now)

    def _finish(self, run_id: UUID, counts: Counts, error: str | None) -> None:
        with self.database.transaction() as connection:
            audit.finish_run(connection, run_id, counts, error, self.clock())

    def _still_missing(self, series: Series, gaps: list[Stretch]) -> list[Stretch]:
        with self.database.transaction() as connection:
            return [
                stretch
                for gap in gaps
                for stretch in stretches(connection, series, gap.span)
                if stretch.state is State.MISSING
            ]

    def _settle(self, series: Series, gaps: list[Stretch], failures: _Failures) -> None:
        """Prove what was closed against the stored rows, and what was before any listing; note the try on the rest."""
        now = self.clock()
        for gap in gaps:
            audit_series(self.database, series, now, gap.span)
            with self.database.transaction() as connection:
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
        with self.database.transaction() as connection:
            for gap in gaps:
                for stretch in stretches(connection, series, gap.span):
                    name = "filled" if stretch.state is State.PRESENT else stretch.state.value
                    setattr(result, name, getattr(result, name) + candles_in(series, _overlap(stretch, gap)))


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


def _batch(series: Series, page: Page, asked: TimeRange) -> Batch:
    times = page.frame["timestamp"]
    # Where no row is good, none shows anything: the moment that was asked for first stands for the page.
    first, last = times.min() or asked.start, times.max() or asked.start
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    return Batch(
        series=series,
        frame=page.frame.sort(pl.col("timestamp"), maintain_order=True),
        source=page.source,
        fetched_at=page.fetched_at,
        requested_at=page.requested_at,
        # Only what the rows themselves show: the settling audit judges the rest.
        span=TimeRange(first, last + timedelta(microseconds=1)),
        response_ms=page.response_ms,
        quota_remaining=page.quota_remaining,
        contract=page.contract,
        unread=page.rejected,
    )
