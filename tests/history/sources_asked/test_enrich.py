"""Enriching from sources whose answers are written here: what one that fails half-way leaves to the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asking_sources import asking
from market_data.model.errors import ProviderUnavailable
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.provider import Page
from market_data.model.timeframe import Timeframe
from market_data.pipeline.fetch.candles import Enricher, SeriesReport
from market_data.pipeline.read.status import Standings
from market_data.storage.work.tracked import track


def enricher_of(desk: Any, *sources: Any) -> Enricher:
    asked = asking(desk.database, {AssetClass.CRYPTO: sources}, lambda: desk.now, batch_rows=5)
    return Enricher(asked, desk.shelves)


async def enriched(desk: Any, *sources: Any) -> SeriesReport:
    enricher = Enricher(
        asking(desk.database, {AssetClass.CRYPTO: sources}, lambda: desk.now, batch_rows=5), desk.shelves
    )
    (report,) = await enricher.enrich([desk.series.instrument], [desk.series.timeframe], desk.at(0), desk.at(40))
    return report


@pytest.fixture
def breaks_down(desk: Any, make_source: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """Makes a source that gives so many candles, five to a page, and then fails."""

    def make(candles: int) -> Any:
        source = make_source("first")

        async def fetch(
            _instrument: Instrument, _timeframe: Timeframe, start: datetime, _end: datetime, *, now: datetime
        ) -> AsyncIterator[Page]:
            for first in range(0, candles, 5):
                rows = [desk.candle(i) for i in range(first, first + 5) if desk.at(i) >= start]
                if rows:
                    yield Page(frame=desk.frame(rows), source="first", fetched_at=now, response_ms=1.0)
            raise ProviderUnavailable("down")

        monkeypatch.setattr(source, "fetch_candles", fetch)
        return source

    return make


def runs(desk: Any) -> list[tuple[Any, ...]]:
    return desk.table("runs", "status, error", "started_at")  # type: ignore[no-any-return]


async def test_half_a_range_is_no_success_where_nobody_has_the_rest(
    desk: Any, make_source: Callable[..., Any], breaks_down: Callable[[int], Any]
) -> None:
    report = await enriched(desk, breaks_down(20), make_source("second"))
    assert report.counts.inserted == 20
    assert str(report.error) == "down"
    assert report.notes == ["first: down", "second: no candles from 2025-01-01 to 2025-01-02"]
    assert runs(desk) == [("partial", "down")]
    assert desk.table("enrichment_status", "status, error_message", "symbol") == [("error", "down")]


async def test_the_rest_from_another_source_makes_it_whole(
    desk: Any, make_source: Callable[..., Any], breaks_down: Callable[[int], Any]
) -> None:
    report = await enriched(desk, breaks_down(20), make_source("second", range(40)))
    assert (report.counts.inserted, report.error, report.sources) == (40, None, ["first", "second"])
    assert runs(desk) == [("completed", None)]


async def test_what_fails_after_its_last_candle_left_nothing_undone(
    desk: Any, make_source: Callable[..., Any], breaks_down: Callable[[int], Any]
) -> None:
    report = await enriched(desk, breaks_down(40), make_source("second"))
    assert (report.counts.inserted, report.error) == (40, None)


@pytest.fixture
def paged_slowly(make_source: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes a source that answers in 100 ms, but is asked for its pages of five two minutes apart."""

    def make(desk: Any, name: str, **values: Any) -> Any:
        source = make_source(name)

        async def fetch(
            _instrument: Instrument, _timeframe: Timeframe, start: datetime, _end: datetime, *, now: datetime
        ) -> AsyncIterator[Page]:
            for number, first in enumerate(range(0, 40, 5)):
                rows = [desk.candle(i, **values) for i in range(first, first + 5) if desk.at(i) >= start]
                asked = now + number * timedelta(minutes=2)
                if rows:
                    yield Page(
                        frame=desk.frame(rows),
                        source=name,
                        fetched_at=asked + timedelta(milliseconds=100),
                        response_ms=100.0,
                    )

        monkeypatch.setattr(source, "fetch_candles", fetch)
        return source

    return make


async def test_a_candle_is_as_fresh_however_long_the_run_waited_to_ask_for_it(
    desk: Any, paged_slowly: Callable[..., Any]
) -> None:
    report = await enriched(desk, paged_slowly(desk, "first"))
    assert (report.error, report.counts.inserted) == (None, 40)
    ages = desk.table("candles", "data_age_seconds, quality_score", "timestamp")
    assert ages == [(pytest.approx(0.1), 1.0)] * 40


async def test_a_long_backfill_loses_to_no_other_source(
    desk: Any, make_source: Callable[..., Any], paged_slowly: Callable[..., Any]
) -> None:
    await enriched(desk, paged_slowly(desk, "first"))
    report = await enriched(desk, make_source("second", [desk.candle(i, close="101") for i in range(40)]))
    assert (report.counts.updated, report.counts.kept) == (0, 40)
    assert set(desk.present()["source"]) == {"first"}


async def test_a_candle_that_closed_while_it_was_asked_for_has_its_true_age(
    desk: Any, make_source: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.now = desk.at(40) - timedelta(seconds=30)
    source = make_source("first")

    async def fetch(
        _instrument: Instrument, _timeframe: Timeframe, _start: datetime, _end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        answered = now + timedelta(seconds=45)
        rows = [desk.candle(38), desk.candle(39)]
        yield Page(frame=desk.frame(rows), source="first", fetched_at=answered, response_ms=45_000.0)

    monkeypatch.setattr(source, "fetch_candles", fetch)
    await enriched(desk, source)
    assert desk.table("candles", "data_age_seconds", "timestamp") == [(45.0,), (15.0,)]


def standing(desk: Any) -> tuple[Any, ...]:
    (row,) = desk.table("enrichment_status", "status, error_message", "symbol")
    return tuple(row)


async def test_a_failed_timeframe_is_told_until_it_succeeds(desk: Any, make_source: Callable[..., Any]) -> None:
    hours, quarters = desk.series, Series(desk.series.instrument, Timeframe.H4)

    async def run(series: Series, *sources: Any) -> None:
        enricher = Enricher(
            asking(desk.database, {AssetClass.CRYPTO: sources}, lambda: desk.now, batch_rows=5), desk.shelves
        )
        await enricher.enrich([series.instrument], [series.timeframe], desk.at(0), desk.at(40))
        desk.now += timedelta(minutes=1)

    await run(hours, make_source("first", error=ProviderUnavailable("down")))
    assert standing(desk) == ("error", "down")
    await run(quarters, make_source("third", [0, 4, 8], series=quarters))
    assert standing(desk) == ("error", "down"), "the newest run of its hours failed"
    await run(quarters, make_source("third", (), ProviderUnavailable("away"), quarters))
    assert standing(desk) == ("error", "1h: down; 4h: away")
    await run(hours, make_source("first", range(40)))
    assert standing(desk) == ("error", "away")
    await run(quarters, make_source("third", [0, 4, 8], series=quarters))
    assert standing(desk) == ("healthy", None)


async def test_what_failed_once_and_is_not_tracked_does_not_stay_an_error(
    desk: Any, make_source: Callable[..., Any]
) -> None:
    instrument = desk.series.instrument
    track(desk.database, [instrument], [Timeframe.H1], desk.now)
    enricher = Enricher(
        asking(desk.database, {AssetClass.CRYPTO: [make_source("first", range(40))]}, lambda: desk.now, batch_rows=5),
        desk.shelves,
    )
    await enricher.enrich([instrument], [Timeframe.M1], desk.at(0), desk.at(40))
    assert standing(desk)[0] == "error"
    desk.now += timedelta(minutes=1)
    await enricher.enrich([instrument], [Timeframe.H1], desk.at(0), desk.at(40))
    assert standing(desk) == ("healthy", None)


async def test_the_age_on_record_counts_from_the_newest_candles_end_as_the_api_does(
    desk: Any, make_source: Callable[..., Any]
) -> None:
    desk.now = desk.at(40) + timedelta(minutes=5)
    await enriched(desk, make_source("first", range(40)))
    assert desk.table("enrichment_status", "data_age_seconds", "symbol") == [(300.0,)]
    assert Standings(desk.database).of(desk.series.instrument).fields(desk.now)["data_age_seconds"] == 300.0


async def test_the_age_of_a_stock_counts_from_the_end_of_its_session(
    desk: Any, make_source: Callable[..., Any]
) -> None:
    stock = Series(Instrument("AAPL", AssetClass.STOCK), Timeframe.D1)
    # Friday after Thanksgiving: 09:30 to 13:00 in New York.
    half_day = datetime(2024, 11, 29, 14, 30, tzinfo=UTC)
    now = half_day.replace(hour=18, minute=10)
    days = make_source("days", [desk.candle(0, timestamp=half_day)], series=stock)
    enricher = Enricher(asking(desk.database, {AssetClass.STOCK: [days]}, lambda: now, batch_rows=5), desk.shelves)
    (report,) = await enricher.enrich([stock.instrument], [Timeframe.D1], half_day)
    assert report.error is None
    assert desk.table("enrichment_status", "data_age_seconds", "symbol") == [(600.0,)]
    assert Standings(desk.database).of(stock.instrument).fields(now)["data_age_seconds"] == 600.0


async def test_without_candles_there_is_no_age(desk: Any, make_source: Callable[..., Any]) -> None:
    await enriched(desk, make_source("first", error=ProviderUnavailable("down")))
    assert desk.table("enrichment_status", "data_age_seconds, records_available", "symbol") == [(None, 0)]
