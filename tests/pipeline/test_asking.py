"""The one story of asking: however a source fails, it fails for that series, and all of it is on record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import polars as pl
import pytest
import structlog

from asking_sources import asking
from market_data.bootstrap.shelves import open_shelves
from market_data.model.contract import Listing
from market_data.model.dataset import CANDLES, FUNDING_RATES, Dataset
from market_data.model.errors import (
    BadCredentials,
    ConnectionLost,
    LeaseLost,
    MarketDataError,
    NotEntitled,
    ProviderUnavailable,
    RateLimited,
    Stopped,
    Unexpected,
    UnknownInstrument,
    UnsupportedRequest,
)
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Capability, Page, Provider
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.fetch.asking import Sources
from market_data.pipeline.fetch.candles import Enricher, Progress, SeriesReport
from market_data.pipeline.fetch.facts import Collector
from market_data.pipeline.fetch.failing import together
from market_data.storage.server.database import Database
from market_data.storage.work.owners import close_orphans

BTC, ETH, SOL = (Instrument(name, AssetClass.CRYPTO) for name in ("BTC", "ETH", "SOL"))
START = datetime(2025, 3, 3, tzinfo=UTC)
NOW = START + timedelta(days=10)
SHELVES = open_shelves()


class PanicException(BaseException):
    """As a library written in Rust raises: beside `Exception`."""


def hours(first: int, count: int) -> pl.DataFrame:
    rows = [
        {
            "timestamp": START + timedelta(hours=first + n), "open": Decimal(100), "high": Decimal(101),
            "low": Decimal(99), "close": Decimal(100), "volume": Decimal(10),
        }
        for n in range(count)
    ]  # fmt: skip
    return CANDLES.conform(pl.DataFrame(rows))


class Telling(Provider):
    """Gives hours up to a number, then does something."""

    name = "telling"
    capabilities = (
        Capability(dataset=CANDLES, asset_classes=frozenset({AssetClass.CRYPTO}), timeframes=frozenset(Timeframe)),
        Capability(dataset=FUNDING_RATES, asset_classes=frozenset({AssetClass.CRYPTO})),
    )

    def __init__(
        self,
        name: str = "telling",
        gives: int = 24,
        then: Callable[[Instrument], Any] = lambda _: None,
        *,
        step: int = 6,
    ) -> None:
        self.name = name  # type: ignore[misc]  # each its own
        self.gives, self.then, self.step = gives, then, step
        self.asked: list[datetime] = []

    async def resolve(self, instrument: Instrument) -> Listing:
        return Listing(instrument, self.name, instrument.symbol)

    async def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        self.asked.append(start)
        begin = -((START - start) // timedelta(hours=1))
        for first in range(begin, self.gives, self.step):
            frame = hours(first, min(self.step, self.gives - first))
            yield Page(frame=frame, source=self.name, fetched_at=now, response_ms=1.0)
        found = self.then(instrument)
        if asyncio.iscoroutine(found):
            await found

    async def fetch(
        self, dataset: Dataset, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        self.then(instrument)
        return
        yield


def raising(error: BaseException, *only: Instrument) -> Callable[[Instrument], None]:
    def then(instrument: Instrument) -> None:
        if not only or instrument in only:
            raise error

    return then


def enricher(database: Database, *providers: Provider, **more: Any) -> Enricher:
    return Enricher(asking(database, {AssetClass.CRYPTO: providers}, lambda: NOW, **more), SHELVES)


async def enrich(asks: Enricher, *instruments: Instrument, **more: Any) -> list[SeriesReport]:
    wanted = asks.enrich(instruments or [BTC], [Timeframe.H1], START, START + timedelta(days=1), **more)
    return await asyncio.wait_for(wanted, 60)


def runs(database: Database) -> list[tuple[str, str]]:
    rows = database.rows("SELECT symbol, status FROM runs ORDER BY symbol")
    return [(row["symbol"], row["status"]) for row in rows]


def attempts(database: Database) -> list[tuple[str, bool, str | None]]:
    rows = database.rows("SELECT source, success, error_details FROM enrichment_fetch_log ORDER BY id")
    return [(row["source"], row["success"], row["error_details"]) for row in rows]


STRANGE = [
    PanicException("index out of bounds"),
    asyncio.CancelledError("cancelled by a library, not by us"),
    ValueError("invalid literal for int() with base 10: '²'"),
    RecursionError("maximum recursion depth exceeded"),
    MemoryError(),
    UnicodeEncodeError("utf-8", "a\ud800", 1, 2, "surrogates not allowed"),
]


@pytest.mark.parametrize("error", STRANGE, ids=[type(each).__name__ for each in STRANGE])
async def test_whatever_a_source_raises_fails_it_for_that_series_and_the_next_goes_on(
    database: Database, error: BaseException
) -> None:
    first, second = Telling("first", 12, raising(error, ETH)), Telling("second")
    with structlog.testing.capture_logs() as logs:
        reports = await enrich(enricher(database, first, second), BTC, ETH, SOL)
    assert [(report.sources, report.counts.inserted) for report in reports] == [
        (["first"], 12), (["first", "second"], 24), (["first"], 12),
    ]  # fmt: skip
    assert [report.error for report in reports] == [None, None, None]
    assert second.asked == [START + timedelta(hours=11, microseconds=1)], "from where the first one stopped"
    kind = type(error).__name__
    (told,) = [each for each in logs if each["event"] == "unexpected_failure"]
    assert told["kind"].endswith(kind)
    assert (told["source"], told["asked"]) == ("first", "ETH 1h candles")
    assert any("test_asking.py" in line and line.endswith(" then") for line in told["trace"])
    (logged,) = [each for each in attempts(database) if each[2]]
    assert logged[:2] == ("first", False)
    assert logged[2].startswith(f"Unexpected: unexpected {kind}: ")
    assert runs(database) == [("BTC", "completed"), ("ETH", "completed"), ("SOL", "completed")]


async def test_a_series_that_nobody_can_tell_fails_alone_and_its_run_ends(database: Database) -> None:
    reports = await enrich(enricher(database, Telling("only", 12, raising(PanicException("boom"), ETH))), BTC, ETH, SOL)
    assert [report.error is None for report in reports] == [True, False, True]
    assert isinstance(reports[1].error, Unexpected)
    assert str(reports[1].error) == "unexpected PanicException: boom"
    assert runs(database) == [("BTC", "completed"), ("ETH", "partial"), ("SOL", "completed")]
    (progress,) = database.rows("SELECT status FROM backfill_state WHERE symbol = 'ETH'")
    assert progress["status"] == "failed"


async def test_a_feature_of_the_users_own_that_raises_fails_its_series_alone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(series: Any, *_: Any, **__: Any) -> Any:
        if series.symbol == "ETH":
            raise PanicException("in a feature")
        return derived(series, *_, **__)

    from market_data.pipeline.write import ingest

    derived = ingest.validate
    monkeypatch.setattr(ingest, "validate", breaks)
    reports = await enrich(enricher(database, Telling("only")), BTC, ETH, SOL)
    assert [type(report.error) for report in reports] == [type(None), Unexpected, type(None)]
    assert runs(database) == [("BTC", "completed"), ("ETH", "failed"), ("SOL", "completed")]


async def test_a_source_that_says_nothing_any_more_is_left_at_its_deadline(database: Database) -> None:
    never = asyncio.Event()
    first, second = Telling("first", 12, lambda _: never.wait()), Telling("second")
    (report,) = await enrich(enricher(database, first, second, silence_seconds=0.2))
    assert (report.error, report.counts.inserted) == (None, 24)
    assert report.notes == ["first: gave nothing for 0 s"]
    assert len(first.asked) == 1, "whoever was waited for that long is not asked again at once"


async def test_a_reader_that_does_not_let_itself_be_cancelled_holds_up_nobody(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("market_data.pipeline.fetch.reading.STOPPED_WITHIN_SECONDS", 0.1)
    end = asyncio.Event()

    async def stubborn() -> None:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    (report,) = await enrich(
        enricher(database, Telling("first", 12, lambda _: stubborn()), Telling("second"), silence_seconds=0.2)
    )
    end.set()
    await asyncio.sleep(0)
    assert (report.error, report.counts.inserted) == (None, 24)


async def test_all_who_were_asked_are_named_and_on_record(database: Database) -> None:
    asked = enricher(
        database,
        Telling("first", 0, raising(UnknownInstrument("first does not list BTC"))),
        Telling("second", 0, raising(BadCredentials("second: key refused"))),
        Telling("third", 0, raising(UnsupportedRequest("third has no hours"))),
    )
    (report,) = await enrich(asked)
    assert str(report.error) == "first does not list BTC; second: key refused; third has no hours"
    assert isinstance(report.error, BadCredentials), "the one that can be mended says what it is"
    assert attempts(database) == [
        ("second", False, "BadCredentials: second: key refused"),
        ("first", False, "UnknownInstrument: first does not list BTC"),
        ("third", False, "UnsupportedRequest: third has no hours"),
    ]


async def test_who_does_not_list_it_answered_well_where_the_next_one_does(database: Database) -> None:
    asked = enricher(database, Telling("first", 0, raising(UnknownInstrument("not listed"))), Telling("second"))
    (report,) = await enrich(asked)
    assert report.error is None
    assert ("first", True, "UnknownInstrument: not listed") in attempts(database)


async def test_facts_ask_the_same_way_and_have_a_run_of_their_own(database: Database) -> None:
    sources = asking(
        database,
        {AssetClass.CRYPTO: [Telling("first", 0, raising(PanicException("boom"))), Telling("second", 0)]},
        lambda: NOW,
    )
    collected = await Collector(sources, SHELVES).collect(FUNDING_RATES, BTC, TimeRange(START, NOW))
    assert str(collected.error) == "unexpected PanicException: boom"
    assert [each[:2] for each in attempts(database)] == [("first", False)]
    rows = database.rows("SELECT kind, dataset, status, error FROM runs")
    assert [tuple(row.values()) for row in rows] == [
        ("collect", "funding_rates", "failed", "unexpected PanicException: boom")
    ]


@pytest.mark.parametrize(
    ("errors", "kind", "retry_after"),
    [
        ([NotEntitled("no plan"), ProviderUnavailable("down"), UnknownInstrument("?")], ProviderUnavailable, None),
        ([UnknownInstrument("?"), RateLimited("slow", retry_after=7.0)], RateLimited, 7.0),
        ([UnknownInstrument("?"), NotEntitled("no plan")], NotEntitled, None),
        ([UnknownInstrument("?"), UnsupportedRequest("no")], UnsupportedRequest, None),
    ],
)
def test_of_several_failures_the_most_hopeful_says_what_it_is(
    errors: list[MarketDataError], kind: type[MarketDataError], retry_after: float | None
) -> None:
    found = together([(f"source{n}", error) for n, error in enumerate(errors)], ["other skipped: no key"])
    assert type(found) is kind
    assert found.retry_after == retry_after
    assert str(found).count(";") == len(errors)
    assert str(found).endswith("; other skipped: no key")


async def test_told_to_stop_it_stops_at_once_and_the_same_again_goes_on(database: Database) -> None:
    stop, waits = asyncio.Event(), asyncio.Event()
    asks = enricher(database, Telling("slow", 12, lambda one: waits.wait() if one == ETH else None), batch_rows=6)

    def step(progress: Progress) -> None:
        if progress.series.symbol == "ETH":
            stop.set()

    reports = await enrich(asks, BTC, ETH, SOL, progress=step, stop=stop)
    assert isinstance(reports[1].error, Stopped)
    stored = database.rows("SELECT count(*) AS n FROM candles WHERE symbol = 'ETH'")[0]["n"]
    assert 0 < reports[1].counts.inserted == stored
    assert dict(runs(database))["ETH"] == "cancelled"
    waits.set()
    again = await enrich(asks, BTC, ETH, SOL)
    assert [report.error for report in again] == [None, None, None]
    assert sum(report.counts.inserted for report in [*reports, *again]) == 36


async def test_who_was_taken_for_dead_commits_nothing_more(database: Database) -> None:
    """Others take over between two batches: the second is refused, and what they did stands."""
    run_id: UUID = uuid4()
    asks = enricher(database, Telling("slow", 24), batch_rows=6)

    def taken_over(_: Progress) -> None:
        # Silent for a day, as its row says: whoever looks next closes what it had.
        database.rows("UPDATE owners SET heard_at = heard_at - interval '1 day'")
        assert close_orphans(database, 60.0, NOW).runs == 1

    (report,) = await enrich(asks, progress=taken_over, run_id=run_id)
    assert isinstance(report.error, LeaseLost)
    assert database.rows("SELECT count(*) AS n FROM candles")[0]["n"] == 6
    (run,) = database.rows("SELECT status, error FROM runs")
    assert (run["status"], run["error"]) == ("failed", "its process ended before it did")
    (again,) = await enrich(enricher(database, Telling("slow", 24)), run_id=run_id)
    assert (again.error, again.counts.inserted) == (None, 18)
    assert database.rows("SELECT status FROM runs")[0]["status"] == "completed"


async def test_an_end_that_cannot_be_noted_is_noted_later(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from market_data.pipeline.fetch import runs as records

    sources: Sources = asking(database, {AssetClass.CRYPTO: [Telling("only")]}, lambda: NOW)
    refusing = True

    def end_run(*given: Any, **named: Any) -> None:
        if refusing:
            raise ConnectionLost("no space left")
        ended(*given, **named)

    ended = records.end_run
    monkeypatch.setattr(records, "end_run", end_run)
    (report,) = await enrich(Enricher(sources, SHELVES))
    assert (report.error, report.counts.inserted) == (None, 24), "what was done is done"
    assert runs(database) == [("BTC", "in_progress")]
    sources.owner._beat()
    assert runs(database) == [("BTC", "failed")]
