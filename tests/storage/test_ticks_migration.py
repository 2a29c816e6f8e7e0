"""The schema before contracts held trades and values, filled, is upgraded: every row is there, numbered and counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import polars as pl
import pytest

from market_data.model.contract import Contract
from market_data.model.dataset import FUNDING_RATES, QUOTES, TRADES
from market_data.model.instrument import AssetClass, Instrument, Kind
from market_data.model.timeframe import TimeRange
from market_data.storage.facts.append import Provenance, append, prepare_fact_partitions
from market_data.storage.facts.reads import newest_versions
from market_data.storage.series.present import Counts
from market_data.storage.server import migrate, migration_files, revisions
from market_data.storage.server.database import Database
from market_data.storage.server.partitions import partitions_of

BTC = Instrument("BTC", AssetClass.CRYPTO)
AAPL = Instrument("AAPL", AssetClass.STOCK)
AT = datetime(2024, 3, 4, 23, 59, 59, tzinfo=UTC)
FILLED = """
INSERT INTO instrument_symbols (symbol, asset_class, provider, raw_symbol)
VALUES ('BTC', 'crypto', 'binance', 'BTCUSDT');
INSERT INTO funding_rates (symbol, asset_class, source, rate_type, timestamp, known_at, known_from, rate)
SELECT 'BTC', 'crypto', 'binance', 'Regular', '2024-03-01', '2024-03-01',
    '2024-03-02'::timestamptz + n * interval '1 hour', n
FROM generate_series(1, 3) n;
CREATE TABLE trades_d20240304 PARTITION OF trades FOR VALUES FROM ('2024-03-04 00:00+00') TO ('2024-03-05 00:00+00');
CREATE TABLE trades_d20240305 PARTITION OF trades FOR VALUES FROM ('2024-03-05 00:00+00') TO ('2024-03-06 00:00+00');
CREATE TABLE quotes_d20240304 PARTITION OF quotes FOR VALUES FROM ('2024-03-04 00:00+00') TO ('2024-03-05 00:00+00');
INSERT INTO trades (symbol, asset_class, source, timestamp, trade_id, price, size, aggressor_side)
SELECT 'BTC', 'crypto', 'binance', '2024-03-04 23:59:59+00'::timestamptz + n * interval '1 second', n::text,
    60000 + n, 1, 'buy'
FROM generate_series(0, 3) n;
INSERT INTO trades (symbol, asset_class, source, timestamp, trade_id, price, size, venue, conditions)
VALUES ('AAPL', 'stock', 'polygon', '2024-03-04 15:00+00', '11-7', 170.25, 100, '11', '{12,41}');
INSERT INTO quotes (symbol, asset_class, source, timestamp, sequence, bid_price)
VALUES ('AAPL', 'stock', 'polygon', '2024-03-04 15:00+00', 5, 170.2)
"""


@pytest.fixture
def upgraded(empty_database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Database:
    """A database filled under revision 0015, then upgraded."""
    for path in migration_files.FOLDER.glob("v00*"):
        if path.name < "v0016":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with monkeypatch.context() as older:
        older.setattr(migration_files, "FOLDER", tmp_path)
        older.setattr(revisions, "FOLDER", tmp_path)
        # What the files declare is read once; older ones declare something else.
        older.setattr(migration_files, "_declared_in_files", migration_files._declared_in_files.__wrapped__)
        older.setattr(migrate, "missing_columns", lambda _: [])
        migrate.upgrade(empty_database)
    with empty_database.transaction() as connection:
        for statement in FILLED.split(";\n"):
            connection.execute(statement)
    migrate.upgrade(empty_database)
    return empty_database


def test_every_row_is_there_after_the_upgrade(upgraded: Database) -> None:
    versions = upgraded.rows("SELECT rate, revision FROM funding_rates ORDER BY known_from")
    assert versions == [{"rate": Decimal(n), "revision": n} for n in (1, 2, 3)]
    assert newest_versions(upgraded, FUNDING_RATES, BTC)["revision"].to_list() == [3]
    trades = newest_versions(upgraded, TRADES, BTC)
    assert trades.select("trade_id", "price", "source", "contract").rows() == [
        (str(n), Decimal(60000 + n), "binance", "BTC/USDT:USDT") for n in range(4)
    ]
    assert trades["timestamp"].to_list() == [AT + timedelta(seconds=n) for n in range(4)]
    share = newest_versions(upgraded, TRADES, AAPL)
    assert share.select("trade_id", "conditions", "venue").rows() == [("11-7", ["12", "41"], "11")]
    assert newest_versions(upgraded, QUOTES, AAPL)["bid_price"].to_list() == [Decimal("170.2")]


def test_what_comes_afterwards_finds_its_own_and_its_partition(upgraded: Database) -> None:
    days = [part.name for part in partitions_of("trades", AT, AT + timedelta(days=1))]
    assert {row["name"] for row in upgraded.rows(
        "SELECT relname AS name FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'trades'::regclass"
    )} == set(days)  # fmt: skip
    contract = Contract(venue="US", market="shares", raw_symbol="AAPL", kind=Kind.STOCK, base="AAPL", quote="USD")
    again = {"timestamp": datetime(2024, 3, 4, 15, tzinfo=UTC), "trade_id": "11-7", "price": Decimal("170.25"),
             "size": Decimal(100), "venue": "11", "conditions": ["12", "41"]}  # fmt: skip
    span = TimeRange(AT, AT + timedelta(days=1))
    prepare_fact_partitions(upgraded, TRADES, span)
    with upgraded.transaction() as connection:
        kept = upgraded.rows("SELECT contract_id FROM contracts WHERE symbol = 'AAPL'")
        connection.execute(
            "UPDATE contracts SET venue = 'US', market = 'shares' WHERE contract_id = %s", [kept[0]["contract_id"]]
        )
    with upgraded.transaction() as connection:
        origin = Provenance(source="polygon", now=AT, run_id=uuid4(), contract=contract)
        told = append(connection, upgraded, TRADES, AAPL, TRADES.conform(pl.DataFrame([again])), origin)
    assert told.counts == Counts(unchanged=1), "its text has the same number as before"
