"""Facts besides candles: appended, amended with a trace, never written twice."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import polars as pl
import pytest

from market_data.model.dataset import DIVIDENDS, FUNDING_RATES, NEWS, TRADES, Dataset
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import TimeRange
from market_data.storage.facts.append import Appended, Provenance, append, newest_versions, prepare_fact_partitions
from market_data.storage.series.present import Counts
from market_data.storage.server.database import Database

KO = Instrument("KO", AssetClass.STOCK)
BTC = Instrument("BTC", AssetClass.CRYPTO)
MONDAY = datetime(2024, 3, 4, tzinfo=UTC)


def add(
    database: Database,
    dataset: Dataset,
    instrument: Instrument,
    rows: list[dict[str, object]],
    *,
    now: datetime = MONDAY,
) -> Appended:
    frame = dataset.conform(pl.DataFrame(rows))
    with database.transaction() as connection:
        origin = Provenance(source="yahoo", now=now, run_id=uuid4())
        return append(connection, database, dataset, instrument, frame, origin)


def test_a_repeated_entry_is_not_written_again(database: Database) -> None:
    dividend = {"ex_date": date(2024, 3, 14), "amount": Decimal("0.485"), "dividend_type": "cash"}
    assert add(database, DIVIDENDS, KO, [dividend]).counts == Counts(inserted=1)
    # 0.4850 is the same amount.
    again = add(database, DIVIDENDS, KO, [dividend | {"amount": Decimal("0.4850")}])
    assert (again.counts, again.changed.height) == (Counts(unchanged=1), 0)
    assert database.rows("SELECT count(*) AS n FROM dividends") == [{"n": 1}]


def test_an_amended_entry_is_a_new_version_with_its_correction(database: Database) -> None:
    dividend = {"ex_date": date(2024, 3, 14), "amount": Decimal("48.5"), "dividend_type": "cash"}
    add(database, DIVIDENDS, KO, [dividend])
    tuesday = MONDAY + timedelta(days=1)
    amended = add(database, DIVIDENDS, KO, [dividend | {"amount": Decimal("0.485")}], now=tuesday)
    assert amended.counts == Counts(updated=1)
    assert database.rows("SELECT amount, revision, known_from FROM dividends ORDER BY known_from") == [
        {"amount": Decimal("48.5"), "revision": 1, "known_from": MONDAY},
        {"amount": Decimal("0.485"), "revision": 2, "known_from": tuesday},
    ]
    correction = database.rows("SELECT dataset, field_corrected, old_value, new_value, reason FROM data_corrections")
    assert correction == [
        {
            "dataset": "dividends",
            "field_corrected": "amount",
            "old_value": "48.5",
            "new_value": "0.485",
            "reason": "source_updated",
        }
    ]
    assert newest_versions(database, DIVIDENDS, KO)["amount"].to_list() == [Decimal("0.485")]
    then = newest_versions(database, DIVIDENDS, KO, as_of=MONDAY + timedelta(hours=1))
    assert then["amount"].to_list() == [Decimal("48.5")]


def test_amendments_stay_ordered_when_the_clock_stands_still(database: Database) -> None:
    rate = {"timestamp": MONDAY, "known_at": MONDAY, "rate": Decimal("0.0001"), "rate_type": "Regular"}
    for value in ("0.0001", "0.0002", "0.0003"):
        add(database, FUNDING_RATES, BTC, [rate | {"rate": Decimal(value)}])
    assert newest_versions(database, FUNDING_RATES, BTC)["rate"].to_list() == [Decimal("0.0003")]
    assert database.rows("SELECT count(DISTINCT known_from) AS n FROM funding_rates") == [{"n": 3}]


def test_two_rate_types_at_one_moment_are_two_entries(database: Database) -> None:
    rate = {"timestamp": MONDAY, "known_at": MONDAY, "rate": Decimal("0.0001")}
    both = add(database, FUNDING_RATES, BTC, [rate | {"rate_type": "Regular"}, rate | {"rate_type": "Special"}])
    assert both.counts == Counts(inserted=2)


def test_of_rows_with_one_key_the_first_counts(database: Database) -> None:
    rate = {"timestamp": MONDAY, "known_at": MONDAY, "rate_type": "Regular"}
    added = add(database, FUNDING_RATES, BTC, [rate | {"rate": Decimal(1)}, rate | {"rate": Decimal(2)}])
    assert added.counts == Counts(inserted=1, rejected=1)
    assert newest_versions(database, FUNDING_RATES, BTC)["rate"].to_list() == [Decimal(1)]


def test_trades_are_stored_once_in_partitions_of_their_day(database: Database) -> None:
    trade = {
        "timestamp": MONDAY,
        "trade_id": "7",
        "price": Decimal("61234.5"),
        "size": Decimal("0.001"),
        "conditions": ["1", "2"],
    }
    prepare_fact_partitions(database, TRADES, TimeRange(MONDAY, MONDAY + timedelta(hours=1)))
    assert add(database, TRADES, BTC, [trade]).counts == Counts(inserted=1)
    assert add(database, TRADES, BTC, [trade]).counts == Counts(unchanged=1)
    stored = newest_versions(database, TRADES, BTC)
    assert stored.select("trade_id", "price", "conditions").rows() == [("7", Decimal("61234.5"), ["1", "2"])]


def test_news_is_found_by_every_symbol_it_names(database: Database) -> None:
    article = {"news_id": "a", "published_at": MONDAY, "title": "Cola up", "symbols": ["KO", "PEP"]}
    assert add(database, NEWS, KO, [article]).counts == Counts(inserted=1)
    for symbol, found in (("KO", 1), ("PEP", 1), ("AAPL", 0)):
        assert newest_versions(database, NEWS, Instrument(symbol, AssetClass.STOCK)).height == found


def test_nothing_of_an_aborted_transaction_stays(database: Database) -> None:
    dividend = {"ex_date": date(2024, 3, 14), "amount": Decimal(1), "dividend_type": "cash"}
    origin = Provenance(source="yahoo", now=MONDAY, run_id=uuid4())

    def interrupted() -> None:
        with database.transaction() as connection:
            append(connection, database, DIVIDENDS, KO, DIVIDENDS.conform(pl.DataFrame([dividend])), origin)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert newest_versions(database, DIVIDENDS, KO).is_empty()
