"""Fetches, checks and appends what is not a candle; what candles are derived from makes them due for renewal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import polars as pl

from market_data.model.dataset import OPTIONS, SPLITS, Dataset
from market_data.model.errors import MalformedPayload, MarketDataError, Where
from market_data.model.instrument import Instrument
from market_data.model.provider import Page
from market_data.model.timeframe import MICROSECOND, TimeRange
from market_data.pipeline.fetch.asking import Answer, Question, Sources, able, ask, nobody
from market_data.pipeline.fetch.completeness import doubted_minutes, incomplete
from market_data.pipeline.fetch.reading import committed
from market_data.pipeline.fetch.runs import Run, recorded
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
from market_data.storage.wire.connection import Connection
from market_data.storage.work import audit
from market_data.storage.work.quarantine import quarantine_facts, quarantine_unread
from market_data.storage.work.runs import hold_run

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
    """Collects what is not a candle: the sources to ask, the shelves to check and derive with."""

    sources: Sources
    shelves: Shelves
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
        result, now, run_id = Collected(dataset, instrument), self.sources.clock(), run_id or uuid4()
        span = TimeRange(span.start, min(span.end, now)) if dataset.time == "timestamp" else span
        question = Question(dataset=dataset, instrument=instrument, span=span, now=now, run_id=run_id)
        async with recorded(self.sources, "collect", instrument, run_id, dataset=dataset.name) as run:
            taker = _Appending(self, question, run, result, progress)
            answer = await ask(self.sources, question, taker, able(self.sources, question))
            result.notes += answer.notes
            result.error = _standing(question, answer)
            if answer.settled:
                database = self.sources.database
                result.error = await asyncio.to_thread(incomplete, database, dataset, instrument, span)
                if result.error is None and result.sources:
                    asked = (database, dataset, instrument, span, result.sources[0], now)
                    result.notes += await asyncio.to_thread(doubted_minutes, *asked)
            run.error = result.error
            run.partly = bool(result.counts.fetched)
        return result

    def store(self, question: Question, page: Page, run: Run, notes: list[str]) -> Counts:
        """Check and append a page, in one transaction with the record of how it came; doubts are added to `notes`."""
        dataset, instrument, database = question.dataset, question.instrument, self.sources.database
        if (extent := _extent(dataset, page.frame)) is not None:
            prepare_fact_partitions(database, dataset, extent)
        frame = numbered(dataset, page.frame)
        checked = validate_facts(dataset, frame, self.shelves.reference_rules)
        accepted = checked.accepted
        notes += [f"{page.source}: {rule} in {rows} rows" for rule, rows in checked.noted.items()]
        if dataset is OPTIONS:
            carry = Carry(self.interest_rate, paid_last_year(database, instrument, self.sources.clock()))
            accepted = completed(accepted, carry)

        def transaction(connection: Connection) -> Counts:
            hold_run(connection, run.id, run.owner)
            # The instrument first: whoever holds both took them in this order.
            if dataset.observed:
                lock_instrument(connection, instrument, exclusive=True)
            lock_facts(connection, dataset, instrument)
            # Only now: a writer that waited must not date what it tells before what it waited for.
            now = self.sources.clock()
            origin = Provenance(source=page.source, now=now, run_id=run.id, contract=page.contract)
            appended = append(connection, database, dataset, instrument, accepted, origin)
            refused = _refused(checked.rejected, appended.refused)
            quarantine_facts(connection, dataset, instrument, refused, page.source, run.id, now)
            quarantine_unread(connection, dataset, instrument, page.rejected, page.source, run.id, now)
            # Told twice in one answer: the same row, and counted as such.
            repeated = checked.repeated + page.frame.height - frame.height
            rejected = checked.rejected.height + page.rejected.height
            counts = appended.counts + Counts(unchanged=repeated, rejected=rejected)
            if dataset.observed and appended.changed.height:
                note_due(
                    connection, instrument, self._reached(dataset, appended.changed), f"{dataset.name} changed", now
                )
            audit.log_fetch(connection, _fetch(question, page, counts), now)
            if dataset.withdrawable:
                told[:] = take_answer(connection, Reader(database), dataset, instrument, page, question.span, origin)
            return counts

        told: list[str] = []
        counts = database.retrying_transaction(transaction)
        if dataset is SPLITS:
            self._settle(instrument)
        notes += told
        return counts

    def _settle(self, instrument: Instrument) -> None:
        """What is believed of splits follows from what was just told, with the prices that are stored."""
        database, clock = self.sources.database, self.sources.clock
        reader = Reader(database)
        database.retrying_transaction(lambda connection: settle(connection, reader, self.shelves, instrument, clock()))

    def _reached(self, dataset: Dataset, changed: pl.DataFrame) -> TimeRange:
        """Open times of all candles that may be derived from a changed value."""
        first: datetime = changed.select(pl.min_horizontal("timestamp", "known_at").min()).item()
        last: datetime = changed["known_at"].max()  # type: ignore[assignment]  # a datetime column
        history = self.shelves.history().get(dataset.name, timedelta(0))
        # A weekly candle that ends after the first value opened up to a week before it.
        return TimeRange(first - timedelta(weeks=1), last + max(history, REACH) + MICROSECOND)


class _Appending:
    """Takes pages of a dataset and stores each at once; see `asking.Taker`. The next source is asked for all of it."""

    goes_on = False

    def __init__(
        self,
        collector: Collector,
        question: Question,
        run: Run,
        result: Collected,
        progress: Callable[[datetime], None],
    ) -> None:
        self.reached = question.span.start
        self._collector, self._question, self._run = collector, question, run
        self._result, self._progress = result, progress
        self._gave = False

    def begin(self) -> None:
        self._gave = False

    async def take(self, page: Page) -> None:
        result, question = self._result, self._question

        def commit() -> None:
            result.counts += self._collector.store(question, page, self._run, result.notes)
            if page.frame.height and page.source not in result.sources:
                result.sources.append(page.source)

        await committed(commit)
        self._gave = self._gave or page.holds_something
        self._progress(_until(question.dataset, page, question.span))

    async def end(self, *, through: bool) -> None:
        pass

    async def enough(self) -> bool:
        return self._gave


def _standing(question: Question, answer: Answer) -> MarketDataError | None:
    """The error that remains: a source that will not serve it is no reason to doubt one that has nothing."""
    if not answer.through and not answer.failures:
        return nobody(question, answer)
    refused = all(not error.again and error.where is Where.SOURCE and not isinstance(error, MalformedPayload)
                  for _, error in answer.failures)  # fmt: skip
    return None if answer.through and refused else answer.error


def _refused(rejected: pl.DataFrame, numbered_twice: pl.DataFrame | None) -> pl.DataFrame:
    if numbered_twice is None:
        return rejected
    named = numbered_twice.with_columns(rules=pl.lit([NUMBER_TAKEN], pl.List(pl.String)))
    return pl.concat([rejected, named.select(rejected.columns)])


def _extent(dataset: Dataset, frame: pl.DataFrame) -> TimeRange | None:
    times = frame[dataset.time].drop_nulls()
    if times.is_empty() or times.dtype != pl.Datetime("us", "UTC"):
        return None
    return TimeRange(times.min(), times.max() + MICROSECOND)  # type: ignore[arg-type,operator]  # of datetimes


def _until(dataset: Dataset, page: Page, span: TimeRange) -> datetime:
    extent = _extent(dataset, page.frame)
    return span.end if extent is None else min(extent.end, span.end)


def _fetch(question: Question, page: Page, counts: Counts) -> audit.Fetch:
    return audit.Fetch(
        instrument=question.instrument,
        dataset=question.dataset.name,
        run_id=question.run_id,
        source=page.source,
        span=question.span,
        counts=counts,
        response_ms=page.response_ms,
        quota_remaining=page.quota_remaining,
    )
