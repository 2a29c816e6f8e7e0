"""What collecting refuses: in quarantine with its rules and payload, kept once, and never at its neighbours' cost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import polars as pl
import pytest

from asking_sources import asking
from market_data.bootstrap.shelves import open_shelves
from market_data.model.contract import Listing
from market_data.model.dataset import DIVIDENDS, NEWS, OPTIONS, SPLITS, Dataset
from market_data.model.errors import UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Capability, Page, Provider
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.fetch.facts import Collector
from market_data.storage.facts.reads import newest_versions
from market_data.storage.series.present import Counts
from market_data.storage.server.database import Database
from market_data.storage.work.quarantine import listed

KO = Instrument("KO", AssetClass.STOCK)
NOW = datetime(2024, 6, 1, tzinfo=UTC)
SPAN = TimeRange(NOW - timedelta(days=365), NOW)
SHELVES = open_shelves()


class Fixed(Provider):
    """A provider that always answers with one page."""

    name = "fixed"
    capabilities = tuple(
        Capability(dataset=dataset, asset_classes=frozenset({AssetClass.STOCK}))
        for dataset in (DIVIDENDS, SPLITS, NEWS, OPTIONS)
    )

    def __init__(self, dataset: Dataset, rows: list[dict[str, object]]) -> None:
        self.frame = dataset.conform(pl.DataFrame(rows, infer_schema_length=None))

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
        yield Page(frame=self.frame, source=self.name, fetched_at=now, response_ms=1.0)


async def collect(database: Database, dataset: Dataset, rows: list[dict[str, object]]) -> Counts:
    collector = Collector(asking(database, {AssetClass.STOCK: [Fixed(dataset, rows)]}, lambda: NOW), SHELVES)
    collected = await collector.collect(dataset, KO, SPAN)
    assert collected.error is None
    return collected.counts


GOOD = {"ex_date": date(2024, 3, 14), "amount": Decimal("0.485"), "currency": "USD", "dividend_type": "cash"}


async def test_one_bad_row_costs_none_of_its_neighbours_and_is_kept_once(database: Database) -> None:
    rows = [
        GOOD,
        GOOD | {"ex_date": date(2023, 11, 30)},
        GOOD | {"ex_date": date(2023, 9, 14), "amount": Decimal("-0.46")},
        GOOD | {"amount": Decimal("0.99")},
        GOOD,
    ]
    assert await collect(database, DIVIDENDS, rows) == Counts(inserted=3, unchanged=1, rejected=1)
    assert await collect(database, DIVIDENDS, rows) == Counts(unchanged=4, rejected=1)
    stored = newest_versions(database, DIVIDENDS, KO)
    # Two amounts for one day are two parts of a payment; the same one twice is one.
    assert stored.select("amount", "component").sort("component", "amount").rows() == [
        (Decimal("0.485"), 1),
        (Decimal("0.485"), 1),
        (Decimal("0.99"), 2),
    ]
    kept = sorted(listed(database), key=lambda row: row["timestamp"])
    assert [(row["dataset"], row["symbol"], row["source"], row["rule"], row["timestamp"]) for row in kept] == [
        ("dividends", "KO", "fixed", "dividend_not_positive", datetime(2023, 9, 14, tzinfo=UTC)),
    ]
    assert Decimal(kept[0]["payload"]["amount"]) == Decimal("-0.46")
    assert (kept[0]["payload"]["ex_date"], kept[0]["timeframe"]) == ("2023-09-14", None)
    logged = database.rows("SELECT records_fetched, records_inserted FROM enrichment_fetch_log ORDER BY id LIMIT 1")
    assert logged == [{"records_fetched": 5, "records_inserted": 3}]


async def test_a_split_of_one_for_one_never_reaches_the_prices(database: Database) -> None:
    split = {"execution_date": date(2012, 8, 13), "split_from": Decimal(1), "split_to": Decimal(2)}
    same = {"execution_date": date(2013, 8, 13), "split_from": Decimal(3), "split_to": Decimal(3)}
    naught = {"execution_date": date(2014, 8, 13), "split_from": Decimal(0), "split_to": Decimal(3)}
    assert await collect(database, SPLITS, [split, same, naught]) == Counts(inserted=1, rejected=2)
    assert newest_versions(database, SPLITS, KO)["split_to"].to_list() == [Decimal(2)]


async def test_what_is_odd_is_stored_and_says_so(database: Database) -> None:
    assert await collect(database, DIVIDENDS, [GOOD | {"frequency": 7}]) == Counts(inserted=1)
    assert newest_versions(database, DIVIDENDS, KO)["notes"].to_list() == ["dividend_frequency_unknown"]


@pytest.mark.parametrize("url", [None, "file:///etc/passwd"])
async def test_lists_and_moments_survive_in_the_payload(database: Database, url: str | None) -> None:
    published = datetime(2024, 5, 1, 12, 30, 0, 250_000, tzinfo=UTC)
    item = {"news_id": "7", "published_at": published, "title": "T", "url": url, "symbols": ["KO", "PEP"]}
    assert await collect(database, NEWS, [item]) == Counts(rejected=1)
    (kept,) = listed(database)
    assert kept["rule"] == "news_without_address"
    assert kept["payload"]["symbols"] == ["KO", "PEP"]
    assert kept["payload"]["published_at"] == "2024-05-01T12:30:00.250000Z"
