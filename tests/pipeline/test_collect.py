"""Values with their own clock: collected late or early, candles end up with the same derived columns, to the bit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from asking_sources import asking
from market_data.bootstrap.shelves import open_shelves
from market_data.model.contract import Listing
from market_data.model.dataset import CANDLES, FUNDING_RATES, OPEN_INTEREST, Dataset
from market_data.model.errors import MalformedPayload, ProviderUnavailable, UnknownInstrument, UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.provider import Capability, Page, Provider
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.fetch.facts import Collector
from market_data.pipeline.write.ingest import Batch, Purpose, ingest
from market_data.pipeline.write.recompute import Recomputation
from market_data.storage.series.due import all_due
from market_data.storage.series.reader import Reader
from market_data.storage.server.database import Database

BTC = Instrument("BTC", AssetClass.CRYPTO)
HOURS = Series(BTC, Timeframe.H1)
START = datetime(2024, 3, 4, tzinfo=UTC)
NOW = datetime(2024, 6, 1, tzinfo=UTC)
SHELVES = open_shelves()
WRITTEN_WHEN = ["computed_at", "updated_at", "created_at", "fetched_at"]


def now() -> datetime:
    return NOW


class Scripted(Provider):
    """A provider that answers with given pages, or fails."""

    name = "scripted"
    capabilities = tuple(
        Capability(dataset=dataset, asset_classes=frozenset({AssetClass.CRYPTO}))
        for dataset in (FUNDING_RATES, OPEN_INTEREST)
    )

    def __init__(self, frames: dict[str, pl.DataFrame], error: Exception | None = None) -> None:
        self.frames = frames
        self.error = error

    async def resolve(self, instrument: Instrument) -> Listing:
        return Listing(instrument, self.name, instrument.symbol)

    async def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        raise UnsupportedRequest(self.name)
        yield

    async def fetch(
        self, dataset: Dataset, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        if dataset.name in self.frames:
            yield Page(frame=self.frames[dataset.name], source=self.name, fetched_at=now, response_ms=1.0)
        if self.error:
            raise self.error


def candles(count: int) -> pl.DataFrame:
    price = [Decimal(100 + i % 7) for i in range(count)]
    return CANDLES.conform(
        pl.DataFrame(
            {
                "timestamp": [START + timedelta(hours=i) for i in range(count)],
                "open": price,
                "high": [p + 1 for p in price],
                "low": [p - 1 for p in price],
                "close": price,
                "volume": [Decimal(10)] * count,
                "taker_buy_volume": [Decimal(4)] * count,
            }
        )
    )


def funding(days: int) -> pl.DataFrame:
    times = [START - timedelta(days=20) + timedelta(hours=8 * i) for i in range(3 * days)]
    return FUNDING_RATES.conform(
        pl.DataFrame(
            {
                "timestamp": times,
                "known_at": times,
                "rate": [Decimal(i % 5) / 10_000 for i in range(len(times))],
                "rate_type": ["Regular"] * len(times),
            }
        )
    )


def store(database: Database, frame: pl.DataFrame) -> None:
    span = TimeRange(START, START + timedelta(days=30))
    batch = Batch(
        series=HOURS,
        frame=frame,
        source="binance",
        fetched_at=NOW,
        requested_at=NOW,
        span=span,
        response_ms=1.0,
        quota_remaining=None,
    )
    ingest(database, SHELVES, batch, Purpose(run_id=uuid4(), span=span), now)


def collector(database: Database, *providers: Provider, clock: Callable[[], datetime] = now) -> Collector:
    return Collector(asking(database, {AssetClass.CRYPTO: providers}, clock), SHELVES)


SPAN = TimeRange(START - timedelta(days=30), NOW)


async def test_values_collected_after_the_candles_reach_them_as_if_they_had_come_before(database: Database) -> None:
    store(database, candles(200))
    late = collector(database, Scripted({"funding_rates": funding(30)}))
    collected = await late.collect(FUNDING_RATES, BTC, SPAN)
    assert (collected.counts.inserted, collected.sources, collected.error) == (90, ["scripted"], None)
    assert [due.series for due in all_due(database)] == [HOURS]
    renewed = list(Recomputation(database, SHELVES, now).run())
    assert [(step.candles, step.changed, step.remaining) for step in renewed] == [(200, 200, 0)]
    afterwards = Reader(database).features(HOURS).drop(WRITTEN_WHEN)

    with database.transaction() as connection:
        connection.execute("TRUNCATE candles, market_data_v2, series_moments")
    store(database, candles(200))
    at_once = Reader(database).features(HOURS).drop(WRITTEN_WHEN)
    assert_frame_equal(afterwards, at_once, check_exact=True)
    # The 21st of the 20 days before is known at the first close: 60 observations before it, rates 0 to 4 in turn.
    first = at_once.row(0, named=True)
    assert first["funding_rate"] == Decimal(0)
    assert first["funding_rate_percentile"] == 0.0


async def test_collecting_again_changes_nothing_and_makes_nothing_due(database: Database) -> None:
    store(database, candles(50))
    source = Scripted({"funding_rates": funding(30)})
    await collector(database, source).collect(FUNDING_RATES, BTC, SPAN)
    list(Recomputation(database, SHELVES, now).run())
    again = await collector(database, source).collect(FUNDING_RATES, BTC, SPAN)
    assert (again.counts.unchanged, again.counts.inserted, all_due(database)) == (90, 0, [])


async def test_the_next_source_is_asked_when_the_first_fails_and_what_it_gave_is_kept(database: Database) -> None:
    failing = Scripted({"funding_rates": funding(2)}, ProviderUnavailable("half an answer"))
    collected = await collector(database, failing, Scripted({"funding_rates": funding(3)})).collect(
        FUNDING_RATES, BTC, SPAN
    )
    assert collected.error is None
    assert (collected.counts.inserted, collected.counts.unchanged) == (9, 6)
    assert collected.notes == ["scripted: half an answer"]


async def test_a_dataset_nobody_serves_is_an_error_that_says_so(database: Database) -> None:
    collected = await collector(database).collect(FUNDING_RATES, BTC, SPAN)
    assert isinstance(collected.error, UnsupportedRequest)
    assert "no source serves funding_rates of BTC" in str(collected.error)


async def test_a_killed_renewal_goes_on_where_it_was(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("market_data.pipeline.write.recompute.CHUNK_CANDLES", 60)
    store(database, candles(200))
    await collector(database, Scripted({"funding_rates": funding(30)})).collect(FUNDING_RATES, BTC, SPAN)
    steps = Recomputation(database, SHELVES, now).run()
    assert next(steps).candles == 60
    steps.close()
    assert [step.candles for step in Recomputation(database, SHELVES, now).run()] == [60, 60, 20]
    assert all_due(database) == []


def test_rows_of_another_definition_are_stale_until_renewed(database: Database) -> None:
    store(database, candles(40))
    with database.transaction() as connection:
        connection.execute("UPDATE market_data_v2 SET feature_version = 'older', sma_20 = 0 WHERE close > 103")
    stale = database.rows("SELECT count(*) AS n FROM market_data_v2 WHERE feature_version = 'older'")[0]["n"]
    recomputation = Recomputation(database, SHELVES, now)
    assert recomputation.note_stale() == 1
    assert recomputation.note_stale() == 0
    assert sum(step.changed for step in recomputation.run()) == stale
    assert recomputation.note_stale() == 0


DOWN, GARBLED = ProviderUnavailable("down"), MalformedPayload("cut short")


@pytest.mark.parametrize(
    ("first", "second", "inserted", "error"),
    [
        # One that was not reached may have what the other lacks; an earlier answer was that everything was there.
        (Scripted({}, DOWN), Scripted({}), 0, DOWN),
        (Scripted({}, GARBLED), Scripted({}), 0, GARBLED),
        (Scripted({"funding_rates": funding(5)}, DOWN), Scripted({}), 15, DOWN),
        (Scripted({"funding_rates": funding(5)}, DOWN), Scripted({"funding_rates": funding(30)}), 90, None),
        # What will not serve it is no reason to doubt the one that does.
        (Scripted({}, UnknownInstrument("not listed")), Scripted({}), 0, None),
        (Scripted({}), Scripted({}), 0, None),
    ],
)
async def test_nothing_from_one_source_does_not_make_up_for_another_that_failed(
    database: Database, first: Scripted, second: Scripted, inserted: int, error: Exception | None
) -> None:
    collected = await collector(database, first, second).collect(FUNDING_RATES, BTC, SPAN)
    assert (collected.counts.inserted, collected.error) == (inserted, error)
