"""Trades and quotes: one row each whoever tells of it and how exactly, amended with a trace, found to be complete."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import polars as pl
import pytest

from market_data.model.contract import Contract
from market_data.model.dataset import QUOTES, TRADES, Dataset
from market_data.model.errors import UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument, Kind
from market_data.model.ticks import HASH_BITS, numbered
from market_data.model.timeframe import TimeRange
from market_data.storage.facts.append import Appended, Provenance, append, prepare_fact_partitions
from market_data.storage.facts.reads import FactQuery, fact_pages, newest_versions
from market_data.storage.facts.ticks import missing_numbers
from market_data.storage.series.present import Counts
from market_data.storage.server.database import Database

BTC = Instrument("BTC", AssetClass.CRYPTO)
AAPL = Instrument("AAPL", AssetClass.STOCK)
PERPETUAL = Contract(
    venue="BINANCE",
    market="usdm",
    raw_symbol="BTCUSDT",
    kind=Kind.PERPETUAL,
    base="BTC",
    quote="USDT",
    settlement="USDT",
)
SHARE = Contract(venue="US", market="shares", raw_symbol="AAPL", kind=Kind.STOCK, base="AAPL", quote="USD")
NOW = datetime(2024, 3, 6, tzinfo=UTC)
AT = datetime(2024, 3, 4, 23, 59, 59, 998_000, tzinfo=UTC)
SPAN = TimeRange(AT - timedelta(hours=1), AT + timedelta(hours=1))


def trade(number: int, **more: Any) -> dict[str, Any]:
    at = AT + timedelta(milliseconds=number)
    return {"timestamp": at, "trade_id": str(number), "price": Decimal(60000 + number), "size": Decimal("0.5"),
            "aggressor_side": "buy"} | more  # fmt: skip


def put(
    database: Database,
    rows: list[dict[str, Any]] | pl.DataFrame,
    *,
    source: str = "binance",
    contract: Contract | None = PERPETUAL,
    dataset: Dataset = TRADES,
    instrument: Instrument = BTC,
) -> Appended:
    frame = dataset.conform(pl.DataFrame(rows, schema_overrides={"conditions": pl.List(pl.String)}))
    times = frame["timestamp"]
    prepare_fact_partitions(database, dataset, TimeRange(times.min(), times.max() + timedelta(microseconds=1)))
    with database.transaction() as connection:
        origin = Provenance(source=source, now=NOW, run_id=uuid4(), contract=contract)
        return append(connection, database, dataset, instrument, frame, origin)


def table(database: Database, name: str = "trades") -> pl.DataFrame:
    return database.frame(f"SELECT * FROM {name} ORDER BY contract_id, day, number")


def test_a_trade_is_one_row_by_contract_day_and_number(database: Database) -> None:
    assert put(database, [trade(n) for n in range(5)]).counts == Counts(inserted=5)
    stored = table(database)
    # The second millisecond after the first trade is the next day.
    monday, tuesday = date(2024, 3, 4), date(2024, 3, 5)
    days = [(monday, 0), (monday, 1), (tuesday, 2), (tuesday, 3), (tuesday, 4)]
    assert stored.select("day", "number").rows() == days
    assert stored["trade_id"].null_count() == 5, "a number needs no text beside it"
    read = newest_versions(database, TRADES, BTC, SPAN)
    assert read.select("trade_id", "price", "source", "contract").row(4) == (
        "4", Decimal(60004), "binance", "BTC/USDT:USDT",
    )  # fmt: skip
    exact = Instrument("BTC/USDT:USDT", AssetClass.CRYPTO)
    assert newest_versions(database, TRADES, exact, SPAN).equals(read)
    assert newest_versions(database, TRADES, Instrument("BTC/USDT", AssetClass.CRYPTO)).is_empty()
    pages = list(fact_pages(database, FactQuery(dataset=TRADES, instrument=BTC, span=SPAN), 2))
    assert pl.concat(pages).equals(read)


def test_the_same_again_writes_not_one_row(database: Database) -> None:
    rows = [trade(n, conditions=["1", "2"]) for n in range(200)]
    put(database, rows)
    before = database.rows("SELECT ctid::text, xmin::text, xmax::text FROM trades")
    log = database.rows("SELECT pg_current_wal_insert_lsn() AS at")
    assert put(database, rows[50:150], source="binance:archive").counts == Counts(unchanged=100)
    assert database.rows("SELECT ctid::text, xmin::text, xmax::text FROM trades") == before
    assert log
    # Half of them known, half new.
    more = [trade(n, conditions=["1", "2"]) for n in range(150, 250)]
    assert put(database, more).counts == Counts(inserted=50, unchanged=50)


@pytest.mark.parametrize("finer_first", [True, False])
def test_the_exacter_time_wins_whoever_came_first(database: Database, finer_first: bool) -> None:
    finer = trade(1, timestamp=AT + timedelta(microseconds=1_417))
    coarse = trade(1, timestamp=AT + timedelta(milliseconds=1))
    first, second = (finer, coarse) if finer_first else (coarse, finer)
    put(database, [first])
    counts = put(database, [second], source="binance:archive").counts
    assert counts == (Counts(unchanged=1) if finer_first else Counts(updated=1))
    assert table(database)["timestamp"].to_list() == [finer["timestamp"]]
    assert database.rows("SELECT * FROM data_corrections") == [], "nothing was said otherwise"


def test_what_is_said_otherwise_leaves_the_former_values_known(database: Database) -> None:
    share = {"trade_id": "11-52983525029461", "venue": "11", "conditions": ["12", "37"], "aggressor_side": None}
    put(database, [trade(0, **share)], source="polygon", contract=SHARE, instrument=AAPL)
    cancelled = put(database, [trade(0, **share, correction=8)], source="polygon", contract=SHARE, instrument=AAPL)
    assert cancelled.counts == Counts(updated=1)
    assert table(database)["correction"].to_list() == [8]
    assert database.rows("SELECT symbol, field_corrected, old_value, new_value FROM data_corrections") == [
        {"symbol": "AAPL", "field_corrected": "correction", "old_value": None, "new_value": "8"}
    ]
    # A list that leaves the indicator out takes nothing back.
    again = put(database, [trade(0, **share)], source="polygon", contract=SHARE, instrument=AAPL)
    assert again.counts == Counts(unchanged=1)


def test_a_text_id_has_a_stable_number_that_sorts_by_time() -> None:
    rows = TRADES.conform(pl.DataFrame([trade(2, trade_id="a-1"), trade(1, trade_id="b-7"), trade(3, trade_id="007")]))
    found = numbered(rows, "trade_id", restarts=False)
    assert found["trade_id"].to_list() == ["a-1", "b-7", "007"], "a zero in front is part of the text"
    assert found.sort("number")["trade_id"].to_list() == ["a-1", "007", "b-7"], "of one day each, by its time"
    micros = (AT + timedelta(milliseconds=2) - datetime(2024, 3, 5, tzinfo=UTC)) // timedelta(microseconds=1)
    assert found["number"][0] >> HASH_BITS == micros == 0
    # sha256sum of a-1 and its first 26 bits.
    assert found["number"][0] == 0x2F8FE63A6224321D >> 38
    assert numbered(rows, "trade_id", restarts=False)["number"].equals(found["number"])


def test_two_trades_under_one_number_are_not_taken_for_one(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("market_data.model.ticks._hash", lambda _: 5)
    first, second, third = (trade(0, trade_id=text, price=Decimal(text[-1])) for text in ("x-1", "x-2", "x-3"))
    within = put(database, [first, second])
    assert within.counts == Counts(inserted=1, rejected=1)
    assert within.refused is not None
    assert within.refused["trade_id"].to_list() == ["x-2"]
    assert put(database, [third]).counts == Counts(rejected=1)
    assert put(database, [first]).counts == Counts(unchanged=1)
    assert newest_versions(database, TRADES, BTC)["trade_id"].to_list() == ["x-1"]


def test_the_numbers_of_two_sources_do_not_mix(database: Database) -> None:
    put(database, [trade(1)], source="polygon", contract=SHARE, instrument=AAPL)
    with pytest.raises(UnsupportedRequest, match="polygon's; other numbers them otherwise"):
        put(database, [trade(2)], source="other", contract=SHARE, instrument=AAPL)


def test_missing_numbers_are_found_across_days_and_files(database: Database) -> None:
    put(database, [trade(n) for n in (0, 1, 3, 4, 9, 10)])
    gaps = missing_numbers(database, BTC, SPAN)
    assert gaps.select("first", "last").rows() == [(2, 2), (5, 8)]
    assert gaps["since"][1] == trade(4)["timestamp"]
    put(database, [trade(n) for n in (2, 5, 6, 7, 8)], source="binance:archive")
    assert missing_numbers(database, BTC, SPAN).is_empty()


def test_quotes_of_shares_are_told_apart_though_their_numbers_begin_anew(database: Database) -> None:
    """After-hours quotes of one session and those of the next fall on one day UTC."""
    evening = {"timestamp": datetime(2024, 3, 5, 0, 30, tzinfo=UTC), "sequence": 77, "bid_price": Decimal(170)}
    morning = {"timestamp": datetime(2024, 3, 5, 15, 0, tzinfo=UTC), "sequence": 77, "bid_price": Decimal(171)}
    more = {"dataset": QUOTES, "source": "polygon", "contract": SHARE, "instrument": AAPL}
    assert put(database, [evening, morning], **more).counts == Counts(inserted=2)
    assert put(database, [evening, morning], **more).counts == Counts(unchanged=2)
    read = newest_versions(database, QUOTES, AAPL)
    assert read.select("sequence", "bid_price", "contract").rows() == [
        (77, Decimal(170), "AAPL"), (77, Decimal(171), "AAPL"),
    ]  # fmt: skip


def test_a_source_without_a_list_has_contracts_of_its_own(database: Database) -> None:
    assert put(database, [trade(1)], source="kraken", contract=None).counts == Counts(inserted=1)
    assert newest_versions(database, TRADES, BTC).select("source", "contract").rows() == [("kraken", "BTC")]
