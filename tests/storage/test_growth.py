"""Sizes, retention, the archive of options, backup and restore, on a real server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from market_data.model.errors import StorageError, UsageError
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


def test_old_quarters_of_options_move_to_files_that_read_back(database: Database, tmp_path: Path) -> None:
    old, new = datetime(2024, 2, 1, tzinfo=UTC), datetime(2025, 5, 1, tzinfo=UTC)
    put_option(database, old, "A")
    put_option(database, new, "B")
    before = database.frame("SELECT * FROM options_iv WHERE contract = 'A'")
    files = growth.archive_options(database, tmp_path, datetime(2025, 1, 1, tzinfo=UTC))
    assert [file.name for file in files] == ["options_iv_y2024q1.parquet"]
    assert [row["contract"] for row in database.rows("SELECT contract FROM options_iv")] == ["B"]
    archived = growth.archived_options(tmp_path)
    assert archived is not None
    assert archived.collect().equals(before)
    put_option(database, old, "C")
    growth.archive_options(database, tmp_path, datetime(2025, 1, 1, tzinfo=UTC))
    assert growth.archived_options(tmp_path).collect()["contract"].to_list() == ["A", "C"]  # type: ignore[union-attr]


def test_a_file_that_does_not_read_back_drops_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_option(database, datetime(2024, 2, 1, tzinfo=UTC), "A")
    monkeypatch.setattr(pl, "read_parquet", lambda _: pl.DataFrame())
    with pytest.raises(StorageError, match="did not read back"):
        growth.archive_options(database, tmp_path, NOW)
    assert len(database.rows("SELECT contract FROM options_iv")) == 1


def test_rows_that_come_while_their_quarter_is_archived_again_are_not_lost(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, write_checked = datetime(2024, 2, 1, tzinfo=UTC), growth._write_checked
    for contract in ("A", "B"):
        put_option(database, old, contract)
    growth.archive_options(database, tmp_path, NOW)
    put_option(database, old, "C")

    def meanwhile(frame: pl.DataFrame, path: Path) -> None:
        write_checked(frame, path)
        put_option(database, old, "D")

    monkeypatch.setattr(growth, "_write_checked", meanwhile)
    with pytest.raises(StorageError, match="grew while it was archived"):
        growth.archive_options(database, tmp_path, NOW)
    assert [row["contract"] for row in database.rows("SELECT contract FROM options_iv ORDER BY 1")] == ["C", "D"]
    monkeypatch.undo()
    growth.archive_options(database, tmp_path, NOW)
    archived = growth.archived_options(tmp_path)
    assert archived is not None
    assert archived.collect()["contract"].sort().to_list() == ["A", "B", "C", "D"]


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
