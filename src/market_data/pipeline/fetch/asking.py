"""The one story of asking: sources by priority, each again where it stopped, the next one before giving up.

Candles, events, observations, healing and reconciling differ in what they do with the pages (`Taker`); how sources are
asked, when the next one is, and what is noted of those that failed is said here, once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

import structlog

from market_data.model.dataset import CANDLES, TRADES, Dataset
from market_data.model.errors import MarketDataError, RateLimited, UnsupportedRequest, Where, attributed
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Page, Provider
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.fetch.failing import together
from market_data.pipeline.fetch.reading import read_pages
from market_data.storage.series.present import Counts
from market_data.storage.server.database import Database
from market_data.storage.work.audit import Fetch, log_fetch
from market_data.storage.work.owner import Owner

log = structlog.get_logger()

# How often a source that failed in a passing way goes on; as often as opens its breaker.
ASKED_AGAIN: Final = 2
SILENCE_SECONDS: Final = 900.0
BATCH_ROWS: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What asking needs.

    Attributes:
        providers: per asset class, first asked first.
        owner: as which runs are begun.
        silence_seconds: how long a source may take for a page; then the next one is asked.
    """

    database: Database
    providers: Mapping[AssetClass, Sequence[Provider]]
    clock: Callable[[], datetime]
    owner: Owner
    batch_rows: int = BATCH_ROWS
    silence_seconds: float = SILENCE_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked for: rows of a dataset of an instrument in a span, on behalf of a run."""

    dataset: Dataset
    instrument: Instrument
    span: TimeRange
    now: datetime
    run_id: UUID
    timeframe: Timeframe | None = None

    def __str__(self) -> str:
        if self.timeframe is None:
            return f"{self.dataset.name} of {self.instrument}"
        return f"{self.instrument.symbol} {self.timeframe} {self.dataset.name}"

    def pages(self, provider: Provider, start: datetime) -> AsyncIterator[Page]:
        """What a provider answers, from `start` on."""
        if self.dataset is CANDLES:
            assert self.timeframe is not None
            return provider.fetch_candles(self.instrument, self.timeframe, start, self.span.end, now=self.now)
        if self.dataset is TRADES:
            return provider.fetch_trades(self.instrument, start, self.span.end, now=self.now)
        return provider.fetch(self.dataset, self.instrument, start, self.span.end, now=self.now)


@dataclass(slots=True)
class Answer:
    """What became of a question.

    Attributes:
        failures: attempts that failed, in order, each with its source.
        notes: what is worth telling of sources that did not help.
        skipped: sources that were not asked, and why.
        through: whether a source came to its end.
        settled: whether what it gave was enough.
    """

    failures: list[tuple[str, MarketDataError]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    through: bool = False
    settled: bool = False

    @property
    def error(self) -> MarketDataError | None:
        """All that failed, as one; None when one source then had everything, or none failed."""
        return None if self.settled or not self.failures else together(self.failures, self.skipped)


class Taker(Protocol):
    """What is done with the pages of a source."""

    goes_on: bool
    """Whether a source that failed in a passing way goes on where it stopped; else it would be asked for all again."""

    @property
    def reached(self) -> datetime:
        """From where a source goes on, or the next one takes over."""

    def begin(self) -> None:
        """Another source is asked now."""

    async def take(self, page: Page) -> None:
        """One page; may raise, which ends the question."""

    async def end(self, *, through: bool) -> None:
        """A source came to its end (`through`), or stopped before."""

    async def enough(self) -> bool:
        """After a source that is through: whether no other need be asked."""


Pages = Callable[[Provider, datetime], AsyncIterator[Page]]


async def ask(
    sources: Sources, question: Question, taker: Taker, candidates: Sequence[Provider], pages: Pages | None = None
) -> Answer:
    """Ask one source after the other until one had everything.

    Args:
        candidates: able to serve it, first asked first.
        pages: how to ask them; by default as the dataset says.

    Raises:
        MarketDataError: of storage, or what `taker` raises: another source would not help.
    """
    answer = Answer()
    for provider in candidates:
        if reason := provider.ready:
            answer.skipped.append(f"{provider.name} skipped: {reason}")
            continue
        taker.begin()
        failure = await _persistently(sources, question, taker, provider, pages or question.pages)
        if failure is None:
            answer.through = True
            if await taker.enough():
                answer.settled = True
                break
            answer.notes.append(
                f"{provider.name}: no {question.dataset.name} {_from_to(taker.reached, question.span.end)}"
            )
            continue
        if failure.where is Where.STORAGE:
            raise failure
        answer.failures.append((provider.name, failure))
        answer.notes.append(attributed(provider.name, failure))
        log.warning("source_failed", asked=str(question), provider=provider.name, error=str(failure))
        if not failure.answered:
            await asyncio.to_thread(log_failures, sources, question, [(provider.name, failure)], well=False)
    await _log_look_ups(sources, question, answer)
    answer.notes = answer.skipped + answer.notes
    return answer


def able(sources: Sources, question: Question) -> list[Provider]:
    """Providers that serve it by what they say of themselves, first asked first."""
    return [
        provider
        for provider in sources.providers.get(question.instrument.asset_class, ())
        if provider.capability(question.dataset, question.instrument, question.timeframe) is not None
    ]


def nobody(question: Question, answer: Answer) -> UnsupportedRequest:
    """The error of a question that nobody could be asked."""
    return UnsupportedRequest(f"no source serves {question}: {'; '.join(answer.skipped) or 'none is declared to'}")


async def _persistently(
    sources: Sources, question: Question, taker: Taker, provider: Provider, pages: Pages
) -> MarketDataError | None:
    """Ask a source, again from where it stopped, before another one takes over.

    One request in a hundred that fails for good must not mix sources; a source that is down refuses at once, by its
    breaker.
    """
    began = time.monotonic()
    for remaining in reversed(range(ASKED_AGAIN + 1)):
        failure = await read_pages(
            pages(provider, taker.reached),
            taker.take,
            most_rows=sources.batch_rows if question.dataset is CANDLES else None,
            silence_seconds=sources.silence_seconds,
            asked=question,
            source=provider.name,
            span=question.span,
        )
        await taker.end(through=failure is None)
        late = time.monotonic() - began > sources.silence_seconds
        passing = failure is not None and failure.again and not isinstance(failure, RateLimited)
        if not passing or not taker.goes_on or late or not remaining:
            return failure
        log.info("source_asked_again", asked=str(question), provider=provider.name, error=str(failure))
    raise AssertionError("unreachable: the last try returns")


def _from_to(start: datetime, end: datetime) -> str:
    form = "%Y-%m-%d %H:%M" if start.date() == end.date() else "%Y-%m-%d"
    return f"from {start:{form}} to {end:{form}}"


async def _log_look_ups(sources: Sources, question: Question, answer: Answer) -> None:
    """Sources that answered that they have no such thing: well, unless nobody had it."""
    answered = [(name, error) for name, error in answer.failures if error.answered]
    if answered:
        await asyncio.to_thread(log_failures, sources, question, answered, well=answer.error is None)


def log_failures(
    sources: Sources, question: Question, failures: Sequence[tuple[str, MarketDataError]], *, well: bool
) -> None:
    """Append attempts that gave nothing to enrichment_fetch_log."""
    with sources.database.transaction() as connection:
        for source, error in failures:
            fetch = Fetch(
                instrument=question.instrument,
                timeframe=question.timeframe,
                dataset=question.dataset.name,
                run_id=question.run_id,
                source=source,
                span=question.span,
                counts=Counts(),
                response_ms=None,
                quota_remaining=None,
                error=f"{type(error).__name__}: {error}",
                well=well,
            )
            log_fetch(connection, fetch, sources.clock())
