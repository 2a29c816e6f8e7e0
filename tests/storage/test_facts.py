"""Facts besides candles: appended, amended with a trace, never written twice."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import polars as pl
import psycopg
import pytest

from market_data.model.dataset import DIVIDENDS, EARNINGS, FUNDING_RATES, NEWS, OPTIONS, SERVED, Dataset
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import TimeRange
from market_data.storage.facts.append import Appended, Provenance, append, lock_facts, prepare_fact_partitions
from market_data.storage.facts.reads import FactQuery, fact_page, fact_pages, newest_versions
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


def quarter(day: date, **more: object) -> dict[str, object]:
    return {"fiscal_year": 2024, "fiscal_quarter": 3, "report_date": day, "eps_estimate": Decimal("1.2")} | more


def october(database: Database, dataset: Dataset, instrument: Instrument, **more: Any) -> pl.DataFrame:
    span = TimeRange(datetime(2024, 10, 1, tzinfo=UTC), datetime(2024, 11, 1, tzinfo=UTC))
    whole = newest_versions(database, dataset, instrument, span, **more)
    query = FactQuery(dataset=dataset, instrument=instrument, span=span, **more)
    assert fact_page(database, query, None, 10).height == whole.height, "every read answers the same"
    return whole


def test_a_report_that_was_moved_out_of_a_month_is_not_in_it(database: Database) -> None:
    add(database, EARNINGS, KO, [quarter(date(2024, 10, 20))])
    add(database, EARNINGS, KO, [quarter(date(2024, 11, 3))], now=MONDAY + timedelta(days=1))
    assert october(database, EARNINGS, KO).is_empty()
    then = october(database, EARNINGS, KO, as_of=MONDAY + timedelta(hours=1))
    assert then["report_date"].to_list() == [date(2024, 10, 20)]
    assert newest_versions(database, EARNINGS, KO)["report_date"].to_list() == [date(2024, 11, 3)]


def test_an_article_that_names_somebody_no_more_is_not_his(database: Database) -> None:
    article = {"news_id": "a", "published_at": datetime(2024, 10, 3, tzinfo=UTC), "title": "Cola up"}
    add(database, NEWS, KO, [article | {"symbols": ["KO", "PEP"]}])
    amended = add(database, NEWS, KO, [article | {"symbols": ["KO"]}], now=MONDAY + timedelta(days=1))
    assert amended.counts == Counts(updated=1)
    pepsi = Instrument("PEP", AssetClass.STOCK)
    assert (october(database, NEWS, KO).height, october(database, NEWS, pepsi).height) == (1, 0)
    assert october(database, NEWS, pepsi, as_of=MONDAY).height == 1


def test_what_was_told_beforehand_is_kept_when_it_is_left_out_afterwards(database: Database) -> None:
    add(database, EARNINGS, KO, [quarter(date(2024, 10, 20), report_time="before_open")])
    result = {"fiscal_year": 2024, "fiscal_quarter": 3, "eps_actual": Decimal("1.3")}
    assert add(database, EARNINGS, KO, [result]).counts == Counts(updated=1)
    (row,) = newest_versions(database, EARNINGS, KO).to_dicts()
    assert (row["report_date"], row["report_time"], row["eps_estimate"], row["eps_actual"]) == (
        date(2024, 10, 20), "before_open", Decimal("1.2"), Decimal("1.3"),
    )  # fmt: skip
    corrected = database.rows("SELECT field_corrected FROM data_corrections")
    assert corrected == [{"field_corrected": "eps_actual"}]
    assert add(database, EARNINGS, KO, [result]).counts == Counts(unchanged=1)
    # A result that is taken back is no longer known: only what is told beforehand lasts.
    add(database, EARNINGS, KO, [{"fiscal_year": 2024, "fiscal_quarter": 3}])
    assert newest_versions(database, EARNINGS, KO)["eps_actual"].to_list() == [None]


def test_an_article_on_two_instruments_is_stored_once_however_it_comes(database: Database) -> None:
    article = {"news_id": "a", "published_at": MONDAY, "title": "Cola up", "symbols": ["KO", "PEP"]}
    assert add(database, NEWS, KO, [article]).counts == Counts(inserted=1)
    pepsi = Instrument("PEP", AssetClass.STOCK)
    assert add(database, NEWS, pepsi, [article]).counts == Counts(unchanged=1)
    # Its time and whom it names are corrected: still the same article.
    later = article | {"published_at": MONDAY + timedelta(hours=1), "symbols": ["PEP"]}
    assert add(database, NEWS, pepsi, [later]).counts == Counts(updated=1)
    assert database.rows("SELECT revision FROM news ORDER BY known_from") == [{"revision": 1}, {"revision": 2}]


def test_two_that_fetch_one_article_at_once_wait_for_each_other(database: Database) -> None:
    with database.transaction() as first, database.transaction() as second:
        lock_facts(first, NEWS, KO)
        for dataset, instrument, free in ((NEWS, BTC, False), (DIVIDENDS, KO, True)):
            second.execute("SAVEPOINT here")
            second.execute("SET LOCAL lock_timeout = '50ms'")
            try:
                lock_facts(second, dataset, instrument)
            except psycopg.errors.LockNotAvailable:
                got = False
            else:
                got = True
            assert got is free, dataset.name
            second.execute("ROLLBACK TO here")


def test_facts_are_never_written_a_second_time(database: Database) -> None:
    """Pages of one run, and amendments, only ever add rows."""
    run = Provenance(source="yahoo", now=MONDAY, run_id=uuid4())
    expiration = date(2024, 6, 21)
    prepare_fact_partitions(database, OPTIONS, TimeRange(MONDAY, MONDAY + timedelta(hours=1)))
    for first in range(0, 900, 300):
        page = [
            {"timestamp": MONDAY, "contract": f"KO240621C{n:08d}", "option_type": "call", "expiration": expiration,
             "strike": Decimal(n)}
            for n in range(first, first + 300)
        ]  # fmt: skip
        with database.transaction() as connection:
            append(connection, database, OPTIONS, KO, OPTIONS.conform(pl.DataFrame(page)), run)
    for amount in ("1", "2", "3"):
        paid = {"ex_date": date(2024, 3, 14), "amount": Decimal(amount), "dividend_type": "cash"}
        add(database, DIVIDENDS, KO, [paid])
    # A row keeps the transaction that wrote it and its place only while nobody writes it again.
    pages = database.rows("SELECT count(*) AS rows FROM options_iv GROUP BY xmin::text")
    assert pages == [{"rows": 300}] * 3
    assert database.rows("SELECT revision, ctid::text FROM dividends ORDER BY known_from") == [
        {"revision": 1, "ctid": "(0,1)"}, {"revision": 2, "ctid": "(0,2)"}, {"revision": 3, "ctid": "(0,3)"},
    ]  # fmt: skip


def test_earnings_without_a_date_are_found_on_every_page(database: Database) -> None:
    rows = [{"fiscal_year": 2024, "fiscal_quarter": n, "eps_actual": Decimal(n)} for n in (1, 2, 3, 4)]
    add(database, EARNINGS, KO, rows)
    query = FactQuery(dataset=EARNINGS, instrument=KO)
    pages = list(fact_pages(database, query, 3))
    assert [page["fiscal_quarter"].to_list() for page in pages] == [[1, 2, 3], [4]]


@pytest.mark.parametrize("dataset", [each for each in SERVED if each.versioned], ids=lambda each: each.name)
def test_every_dataset_with_versions_counts_them_and_is_served_with_them(database: Database, dataset: Dataset) -> None:
    """Every row of a declared dataset fits the table of that name."""
    columns = {
        row["column_name"]
        for row in database.rows(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s", [dataset.table]
        )
    }
    assert {*dataset.stored, "run_id"} <= columns
    assert fact_page(database, FactQuery(dataset=dataset, instrument=KO), None, 5).columns == list(dataset.stored)
