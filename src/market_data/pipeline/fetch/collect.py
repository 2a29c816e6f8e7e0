"""Fetches, checks and appends what is not a candle; what candles are derived from makes them due for renewal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import polars as pl
import structlog

from market_data.model.dataset import OPTIONS, SPLITS, TRADES, Dataset
from market_data.model.errors import (
    ConnectionLost,
    MalformedPayload,
    MarketDataError,
    PermanentError,
    ProviderUnavailable,
    RateLimited,
    StorageError,
    TransientError,
    UnsupportedRequest,
    attributed,
)
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Page, Provider
from market_data.model.timeframe import MICROSECOND, TimeRange
from market_data.pipeline.fetch.completeness import incomplete
from market_data.pipeline.write.believe import settle
from market_data.pipeline.write.chain import Carry, completed, paid_last_year
from market_data.pipeline.write.derive import Shelves
from market_data.pipeline.write.normalise import numbered
from market_data.pipeline.write.observe import LATEST
from market_data.pipeline.write.validate import validate_facts
from market_data.pipeline.write.withdraw import take_answer
from market_data.storage.facts.append import Provenance, append, lock_facts, prepare_fact_partitions
from market_data.storage.series.due import lock_instrument, note_due
from market_data.storage.series.present import Counts
from market_data.storage.series.reader import Reader
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.work import audit
from market_data.storage.work.quarantine import quarantine_facts, quarantine_unread

log = structlog.get_logger()
# An observation counts for candles until it is stale; the features' own history comes on top.
REACH: Final = LATEST + timedelta(days=1)
# What a row is refused for that bears the number of another one.
NUMBER_TAKEN: Final = "number_taken"


@dataclass(slots=True)
class Collected:
    """What became of a dataset of an instrument."""

    dataset: Dataset
    instrument: Instrument
    sources: list[str] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    error: MarketDataError | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Collector:
    """What collecting needs: the database, the providers by priority, the shelves, the clock."""

    database: Database
    providers: Mapping[AssetClass, Sequence[Provider]]
    shelves: Shelves
    clock: Callable[[], datetime]
    interest_rate: float | None = None
    """Riskless, per year: for volatilities and greeks of options that the source does not give; None: no such."""

    async def collect(
        self,
        dataset: Dataset,
        instrument: Instrument,
        span: TimeRange,
        progress: Callable[[datetime], None] = lambda _: None,
        run_id: UUID | None = None,
    ) -> Collected:
        """Fetch `span` from the first source that has it and append what is new; each page commits on its own.

        That a source has nothing does not make up for another one that was not reached: its error stands.

        Args:
            progress: told up to which moment rows are stored; it may raise `Stopped`.
            run_id: the run it goes on with; None begins one of its own.
        """
        result, now, run_id = Collected(dataset, instrument), self.clock(), run_id or uuid4()
        span = TimeRange(span.start, min(span.end, now)) if dataset.time == "timestamp" else span
        for provider in self._candidates(result):
            before = result.counts.fetched
            try:
                async for page in _pages(provider, dataset, instrument, span, now):
                    result.counts += await asyncio.to_thread(self._store, result, page, span, run_id)
                    if page.frame.height and page.source not in result.sources:
                        result.sources.append(page.source)
                    progress(_until(dataset, page, span))
            except StorageError:
                raise
            # Other transient errors are the database's: no other source would help.
            except (RateLimited, ProviderUnavailable, ConnectionLost, PermanentError) as error:
                result.notes.append(attributed(provider.name, error))
                result.error = error
                log.warning("source_failed", dataset=dataset.name, instrument=str(instrument), error=str(error))
                failed = (instrument, dataset.name, None, provider.name, span, run_id, error, self.clock())
                await asyncio.to_thread(audit.log_failure, self.database, *failed)
                continue
            if result.counts.fetched > before:
                result.error = await asyncio.to_thread(incomplete, self.database, dataset, instrument, span)
                return result
            result.notes.append(f"{provider.name}: nothing from {span.start:%Y-%m-%d} to {span.end:%Y-%m-%d}")
            if not result.counts.fetched and not isinstance(result.error, TransientError | MalformedPayload):
                result.error = None
        return result

    def _candidates(self, result: Collected) -> list[Provider]:
        found: list[Provider] = []
        for provider in self.providers.get(result.instrument.asset_class, ()):
            if provider.capability(result.dataset, result.instrument, None) is None:
                continue
            if reason := provider.ready:
                result.notes.append(f"{provider.name} skipped: {reason}")
            else:
                found.append(provider)
        if not found:
            reasons = "; ".join(result.notes) or "none is declared to"
            result.error = UnsupportedRequest(
                f"no source serves {result.dataset.name} of {result.instrument}: {reasons}"
            )
        return found

    def _store(self, result: Collected, page: Page, span: TimeRange, run_id: UUID) -> Counts:
        dataset, instrument = result.dataset, result.instrument
        if (extent := _extent(dataset, page.frame)) is not None:
            prepare_fact_partitions(self.database, dataset, extent)
        frame = numbered(dataset, page.frame)
        checked = validate_facts(dataset, frame, self.shelves.reference_rules)
        accepted = checked.accepted
        result.notes += [f"{page.source}: {rule} in {rows} rows" for rule, rows in checked.noted.items()]
        if dataset is OPTIONS:
            carry = Carry(self.interest_rate, paid_last_year(self.database, instrument, self.clock()))
            accepted = completed(accepted, carry)

        def transaction(connection: Connection) -> Counts:
            # The instrument first: whoever holds both took them in this order.
            if dataset.observed:
                lock_instrument(connection, instrument, exclusive=True)
            lock_facts(connection, dataset, instrument)
            # Only now: a writer that waited must not date what it tells before what it waited for.
            now = self.clock()
            origin = Provenance(source=page.source, now=now, run_id=run_id, contract=page.contract)
            appended = append(connection, self.database, dataset, instrument, accepted, origin)
            refused = checked.rejected
            if appended.refused is not None:
                named = appended.refused.with_columns(rules=pl.lit([NUMBER_TAKEN], pl.List(pl.String)))
                refused = pl.concat([refused, named.select(refused.columns)])
            quarantine_facts(connection, dataset, instrument, refused, page.source, run_id, now)
            quarantine_unread(connection, dataset, instrument, page.rejected, page.source, run_id, now)
            # Told twice in one answer: the same row, and counted as such.
            repeated = checked.repeated + page.frame.height - frame.height
            rejected = checked.rejected.height + page.rejected.height
            counts = appended.counts + Counts(unchanged=repeated, rejected=rejected)
            if dataset.observed and appended.changed.height:
                note_due(
                    connection, instrument, self._reached(dataset, appended.changed), f"{dataset.name} changed", now
                )
            audit.log_fetch(connection, _fetch(dataset, instrument, page, span, run_id, counts), now)
            if dataset.withdrawable:
                told[:] = take_answer(connection, Reader(self.database), dataset, instrument, page, span, origin)
            return counts

        told: list[str] = []
        counts = self.database.retrying_transaction(transaction)
        if dataset is SPLITS:
            self._settle(instrument)
        result.notes += told
        return counts

    def _settle(self, instrument: Instrument) -> None:
        """What is believed of splits follows from what was just told, with the prices that are stored."""
        reader = Reader(self.database)
        self.database.retrying_transaction(
            lambda connection: settle(connection, reader, self.shelves, instrument, self.clock())
        )

    def _reached(self, dataset: Dataset, changed: pl.DataFrame) -> TimeRange:
        """Open times of all candles that may be derived from a changed value."""
        first: datetime = changed.select(pl.min_horizontal("timestamp", "known_at").min()).item()
        last: datetime = changed["known_at"].max()  # type: ignore[assignment]  # a datetime column
        history = self.shelves.history().get(dataset.name, timedelta(0))
        # A weekly candle that ends after the first value opened up to a week before it.
        return TimeRange(first - timedelta(weeks=1), last + max(history, REACH) + MICROSECOND)


def _pages(
    provider: Provider, dataset: Dataset, instrument: Instrument, span: TimeRange, now: datetime
) -> AsyncIterator[Page]:
    if dataset is TRADES:
        return provider.fetch_trades(instrument, span.start, span.end, now=now)
    return provider.fetch(dataset, instrument, span.start, span.end, now=now)


def _extent(dataset: Dataset, frame: pl.DataFrame) -> TimeRange | None:
    times = frame[dataset.time].drop_nulls()
    if times.is_empty() or times.dtype != pl.Datetime("us", "UTC"):
        return None
    return TimeRange(times.min(), times.max() + MICROSECOND)  # type: ignore[arg-type,operator]  # of datetimes


def _until(dataset: Dataset, page: Page, span: TimeRange) -> datetime:
    extent = _extent(dataset, page.frame)
    return span.end if extent is None else min(extent.end, span.end)


def _fetch(
    dataset: Dataset, instrument: Instrument, page: Page, span: TimeRange, run_id: UUID, counts: Counts
) -> audit.Fetch:
    return audit.Fetch(
        instrument=instrument,
        dataset=dataset.name,
        run_id=run_id,
        source=page.source,
        span=span,
        counts=counts,
        response_ms=page.response_ms,
        quota_remaining=page.quota_remaining,
    )
