"""Sizes, retention, packed options, backup and restore, on a real server."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest

from market_data.model.dataset import OPTIONS
from market_data.model.errors import StorageError, UsageError
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import TimeRange
from market_data.storage.facts.append import Provenance, append, prepare_fact_partitions
from market_data.storage.facts.reads import FactQuery, fact_pages, holding, newest_moment
from market_data.storage.facts.retention import prune
from market_data.storage.series.present import Counts
from market_data.storage.server import growth
from market_data.storage.server.backup import back_up
from market_data.storage.server.database import Database
from market_data.storage.server.partitions import ensure_partitions
from market_data.storage.server.restore import restore

NOW = datetime(2025, 6, 15, 12, tzinfo=UTC)


def put_trades(database: Database, *days: int) -> None:
    for day in days:
        moment = datetime(2025, 6, day, 9, tzinfo=UTC)
        with database.transaction() as connection:
            ensure_partitions(connection, "trades", moment, moment + timedelta(hours=1))
            connection.execute(
                "INSERT INTO trades (contract_id, day, number, timestamp, price, size) "
                "VALUES (1, %s, 1, %s, 1.000000000000000001, 12345678901234567890.5)",
                [moment.date(), moment],
            )


def put_option(database: Database, moment: datetime, contract: str) -> None:
    with database.transaction() as connection:
        ensure_partitions(connection, "options_iv", moment, moment + timedelta(hours=1))
        connection.execute(
            "INSERT INTO options_iv (symbol, asset_class, source, contract, timestamp, known_from, option_type, "
            "expiration, strike, iv) VALUES ('SPY', 'etf', 'polygon', %s, %s, %s, 'call', '2026-01-16', 500.5, 0.25)",
            [contract, moment, moment],
        )


def days_left(database: Database) -> list[int]:
    return [row["timestamp"].day for row in database.rows("SELECT timestamp FROM trades ORDER BY 1")]


def test_sizes_tell_tables_and_partitions_apart(database: Database) -> None:
    put_trades(database, 1, 2)
    sizes = {(size.table, size.partition): size for size in growth.table_sizes(database)}
    whole, first = sizes["trades", None], sizes["trades", "trades_d20250601"]
    assert (whole.rows, first.rows) == (2, 1)
    assert (whole.oldest, whole.newest) == (
        datetime(2025, 6, 1, 9, tzinfo=UTC), datetime(2025, 6, 2, 9, tzinfo=UTC),
    )  # fmt: skip
    assert whole.bytes == 2 * first.bytes > 8000
    assert sizes["candles", None].rows == 0
    assert ("candles", "candles_y2024") not in sizes, "empty partitions are not worth a line"


def test_retention_drops_whole_days_that_are_too_old_and_nothing_else(database: Database) -> None:
    put_trades(database, 1, 4, 5, 6)
    # Kept: ten days before 15 June, 12:00, is 5 June, 12:00. The 5th still has newer hours; the 4th has none.
    dropped = growth.drop_expired(database, {"trades": timedelta(days=10), "quotes": timedelta(days=1)}, NOW)
    assert dropped == ["trades_d20250601", "trades_d20250604"]
    assert days_left(database) == [5, 6]
    assert growth.drop_expired(database, {"trades": timedelta(days=10)}, NOW) == []


SPY = Instrument("SPY", AssetClass.ETF)
AGES = {"options_iv": timedelta(days=100)}


def chains(database: Database, **asked: Any) -> pl.DataFrame:
    query = FactQuery(dataset=OPTIONS, instrument=SPY, **asked)
    return pl.concat(fact_pages(database, query, 3))


def test_old_quarters_of_options_are_packed_and_read_as_before(database: Database, tmp_path: Path) -> None:
    old, new = datetime(2024, 2, 1, tzinfo=UTC), datetime(2025, 5, 1, tzinfo=UTC)
    for contract in "ABCDE":
        put_option(database, old, contract)
    put_option(database, new, "F")
    with database.transaction() as connection:
        # A later version of one of them, with numbers of every kind.
        connection.execute(
            "INSERT INTO options_iv (symbol, asset_class, source, contract, timestamp, known_from, revision, "
            "option_type, expiration, strike, bid, iv, delta, run_id) VALUES ('SPY', 'etf', 'polygon', 'B', %s, %s, 2, "
            "'call', '2026-01-16', 500.50, 12345678901234567890.000000000000000001, 0.1, 'NaN', gen_random_uuid())",
            [old, old + timedelta(days=1)],
        )
    span = TimeRange(old, old + timedelta(days=1))
    asked: list[dict[str, Any]] = [
        {},
        {"span": span},
        {"as_of": old},
        {"source": "polygon"},
        {"as_of": old - timedelta(1)},
    ]
    before = [chains(database, **each) for each in asked]
    assert [frame.height for frame in before] == [6, 5, 5, 6, 0]
    pruned = prune(database, AGES, tmp_path, NOW)
    assert (pruned.packed, pruned.dropped, pruned.taken_back) == (["options_iv_y2024q1"], [], [])
    assert [row["contract"] for row in database.rows("SELECT contract FROM options_iv")] == ["F"]
    for each, frame in zip(asked, before, strict=True):
        assert chains(database, **each).equals(frame, null_equal=True), each
    assert chains(database, span=span)["bid"][1] == Decimal("12345678901234567890.000000000000000001")
    assert newest_moment(database, OPTIONS, SPY) == new
    assert newest_moment(database, OPTIONS, SPY, old) == old
    assert holding(database, "SPY") == [AssetClass.ETF]
    assert prune(database, AGES, tmp_path, NOW).packed == []


def test_rows_of_a_packed_quarter_are_not_written_twice_and_later_ones_are_packed_too(
    database: Database, tmp_path: Path
) -> None:
    old = datetime(2024, 2, 1, tzinfo=UTC)
    rows = [
        {
            "timestamp": old,
            "contract": name,
            "option_type": "call",
            "expiration": date(2026, 1, 16),
            "strike": Decimal(5),
        }
        for name in ("A", "B")
    ]

    def add(*some: dict[str, Any]) -> Counts:
        frame = OPTIONS.conform(pl.DataFrame(list(some)))
        prepare_fact_partitions(database, OPTIONS, TimeRange(old, old + timedelta(hours=1)))
        with database.transaction() as connection:
            origin = Provenance(source="polygon", now=NOW, run_id=uuid4())
            return append(connection, database, OPTIONS, SPY, frame, origin).counts

    assert add(rows[0]) == Counts(inserted=1)
    prune(database, AGES, tmp_path, NOW)
    assert add(*rows) == Counts(inserted=1, unchanged=1)
    assert add(rows[0] | {"bid": Decimal(1)}) == Counts(updated=1)
    assert prune(database, AGES, tmp_path, NOW + timedelta(days=1)).packed == ["options_iv_y2024q1"]
    assert chains(database).select("contract", "bid", "revision").rows() == [("A", Decimal(1), 2), ("B", None, 1)]


def test_what_does_not_unpack_to_the_same_rows_stays(database: Database, tmp_path: Path) -> None:
    put_option(database, datetime(2024, 2, 1, tzinfo=UTC), "A")
    with database.transaction() as connection:
        # As if packing lost a value.
        connection.execute(
            "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN NEW.content := NEW.content #- '{0,strike}'; RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER lose BEFORE INSERT ON options_iv_packed FOR EACH ROW EXECUTE FUNCTION lose()"
        )
    with pytest.raises(StorageError, match="did not unpack"):
        prune(database, AGES, tmp_path, NOW)
    assert database.rows("SELECT contract FROM options_iv") == [{"contract": "A"}]
    assert database.rows("SELECT * FROM options_iv_packed") == []


def test_rows_that_an_earlier_version_put_into_files_come_back(database: Database, tmp_path: Path) -> None:
    old = datetime(2024, 2, 1, tzinfo=UTC)
    for contract in ("A", "B"):
        put_option(database, old, contract)
    whole = chains(database)
    database.frame("SELECT * FROM options_iv").write_parquet(tmp_path / "options_iv_y2024q1.parquet")
    with database.transaction() as connection:
        connection.execute("DROP TABLE options_iv_y2024q1")
    assert chains(database).is_empty()
    pruned = prune(database, {}, tmp_path, NOW)
    assert [path.name for path in pruned.taken_back] == ["options_iv_y2024q1.restored"]
    assert chains(database).equals(whole)
    assert prune(database, AGES, tmp_path, NOW).packed == ["options_iv_y2024q1"]
    assert chains(database).equals(whole)


def contents(database: Database) -> dict[str, list[str]]:
    tables = [row["t"] for row in database.rows(
        "SELECT relname AS t FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition "
        "AND relnamespace = 'public'::regnamespace ORDER BY 1"
    )]  # fmt: skip
    return {
        table: [row["line"] for row in database.rows(f"SELECT t::text AS line FROM {table} t ORDER BY 1")]
        for table in tables
    }


def test_a_restored_database_equals_the_one_backed_up(
    database: Database, empty_database: Database, tmp_path: Path
) -> None:
    put_trades(database, 1, 2)
    put_option(database, NOW, "A")
    made = back_up(database, tmp_path / "all.dump")
    assert made.tables_with_rows == ("options_iv", "trades")
    assert [file.name for file in tmp_path.iterdir()] == ["all.dump"]
    restore(empty_database, tmp_path / "all.dump")
    assert contents(empty_database) == contents(database)
    with database.transaction() as connection:
        connection.execute("DELETE FROM trades")
    with pytest.raises(UsageError, match=r"holds data \(options_iv\).*--force"):
        restore(database, tmp_path / "all.dump")
    assert days_left(database) == []
    put_trades(database, 7)
    restore(database, tmp_path / "all.dump", overwrite=True)
    assert days_left(database) == [1, 2]
    assert contents(database) == contents(empty_database)


def test_a_broken_backup_leaves_the_database_as_it_was(database: Database, tmp_path: Path) -> None:
    put_trades(database, 1)
    path = tmp_path / "all.dump"
    back_up(database, path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(StorageError, match="pg_restore failed"):
        restore(database, path, overwrite=True)
    assert days_left(database) == [1]


def test_files_are_not_overwritten_or_misread(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "all.dump"
    path.write_text("something else")
    with pytest.raises(UsageError, match="exists: name another file"):
        back_up(database, path)
    with pytest.raises(UsageError, match="is no backup"):
        restore(database, path)
    with pytest.raises(UsageError, match="There is no file"):
        restore(database, tmp_path / "absent")
    with pytest.raises(UsageError, match="there is no folder"):
        back_up(database, tmp_path / "absent" / "all.dump")
    back_up(database, path, overwrite=True)
    assert path.read_bytes().startswith(b"PGDMP")
