"""The schema before contracts, filled, is upgraded: rows, history and what was known then are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from market_data.storage.server import migrate, migration_files, revisions
from market_data.storage.server.database import Database

NEW = {"contract_id"}
FILLED = """
INSERT INTO instrument_symbols (symbol, asset_class, provider, raw_symbol, venue, valid_from, valid_to) VALUES
    ('BTC', 'crypto', 'binance', 'BTCUSDT', 'BINANCE_USDM', '2019-09-08 17:00+00', null),
    ('BTC', 'crypto', 'binance:spot', 'BTCUSDT', 'BINANCE_SPOT', null, null),
    ('ETH', 'crypto', 'binance', 'ETHUSDC', 'BINANCE_USDM', null, '2024-01-01'),
    ('ETH', 'crypto', 'binance', 'ETHUSDT', 'BINANCE_USDM', '2024-01-01', null),
    ('AAPL', 'stock', 'polygon', 'AAPL', 'XNAS', null, null);
INSERT INTO candles
    (symbol, asset_class, timeframe, timestamp, source, known_from, open, high, low, close, volume, chosen)
SELECT symbol, class, '1h', moment, source, moment + interval '1 day' * version, 1, 2, 0.5, 1 + version, 10, version = 2
FROM (VALUES ('BTC', 'crypto', 'binance'), ('BTC', 'crypto', 'binance:spot'), ('BTC', 'crypto', 'binance:archive'),
    ('ETH', 'crypto', 'binance'), ('AAPL', 'stock', 'polygon'), ('KO', 'stock', 'yahoo')) s (symbol, class, source),
    generate_series('2024-03-01'::timestamptz, '2024-03-01 09:00'::timestamptz, '1 hour') moment,
    generate_series(1, 2) version;
INSERT INTO market_data_v2
    (symbol, asset_class, timeframe, timestamp, source, open, high, low, close, volume, fetched_at)
SELECT symbol, asset_class, timeframe, timestamp, max(source), 1, 2, 0.5, 3, 10, now() FROM candles
WHERE chosen GROUP BY 1, 2, 3, 4;
"""


@pytest.fixture
def before(empty_database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Database:
    """A database as the version before contracts left it."""
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
            if statement.strip():
                connection.execute(statement)
    return empty_database


def everything(database: Database) -> dict[str, list[dict[str, Any]]]:
    return {
        table: [
            {name: value for name, value in row.items() if name not in NEW}
            for row in database.rows(f"SELECT * FROM {table} ORDER BY {order}")
        ]
        for table, order in {
            "candles": "symbol, timestamp, source, known_from",
            "market_data_v2": "symbol, timestamp",
            "instrument_symbols": "symbol, provider, raw_symbol",
        }.items()
    }


def test_rows_and_history_stay_and_only_what_is_beyond_doubt_gets_its_contract(before: Database) -> None:
    rows = everything(before)
    migrate.upgrade(before)
    assert everything(before) == rows
    found = before.rows(
        "SELECT DISTINCT c.symbol, c.source, k.symbol AS contract FROM candles c "
        "LEFT JOIN contracts k USING (contract_id)"
    )
    assert {(row["symbol"], row["source"]): row["contract"] for row in found} == {
        ("BTC", "binance"): "BTC/USDT:USDT",
        ("BTC", "binance:spot"): "BTC/USDT",
        ("BTC", "binance:archive"): None,  # of which market, the name does not say
        ("ETH", "binance"): None,  # it had two names
        ("AAPL", "polygon"): "AAPL",
        ("KO", "yahoo"): None,  # no list was ever fetched
    }
