"""Restore judges a file before it touches anything; backups to one name never harm each other."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from market_data.model.errors import MarketDataError, UsageError
from market_data.storage.server import backup, migrate
from market_data.storage.server.backup import SEAL, back_up
from market_data.storage.server.database import Database
from market_data.storage.server.migration_files import known_revisions
from market_data.storage.server.restore import ASIDE, restore

NOW = datetime(2025, 6, 15, 12, tzinfo=UTC)


def put_news(database: Database, *names: str) -> None:
    with database.transaction() as connection:
        for name in names:
            connection.execute(
                "INSERT INTO system_state (key, value, updated_at) VALUES (%s, %s::jsonb, %s)",
                [name, '"' + "ä" * 500 + '"', NOW],
            )
            connection.execute(
                "INSERT INTO earnings (symbol, asset_class, source, fiscal_year, fiscal_quarter, known_from, "
                "eps_actual) VALUES (%s, 'stock', 'x', 2024, 1, now(), 1.10)",
                [name],
            )


def content(database: Database) -> dict[str, list[str]]:
    """Every row of every table as text."""
    with database.transaction() as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
            "AND NOT relispartition ORDER BY 1"
        ).fetchall()
        return {
            name: sorted(
                row for (row,) in connection.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(name)))
            )
            for (name,) in tables
        }


@pytest.fixture
def filled(database: Database) -> Database:
    put_news(database, "ONE", "TWO")
    return database


@pytest.fixture
def sealed(filled: Database, tmp_path: Path) -> Path:
    return back_up(filled, tmp_path / "all.dump").path


@pytest.fixture
def foreign(empty_database: Database, tmp_path: Path) -> Path:
    empty_database.rows("CREATE TABLE orders (id int)")
    return back_up(empty_database, tmp_path / "foreign.dump").path


def flipped(path: Path, place: float) -> Path:
    """The same file with one bit changed, so far into it, its seal kept."""
    found = bytearray(path.read_bytes())
    found[int((len(found) - 1) * place)] ^= 1
    return written(path, bytes(found))


def written(path: Path, found: bytes) -> Path:
    other = path.with_name("other.dump")
    other.write_bytes(found)
    return other


def unsealed(path: Path) -> bytes:
    found = path.read_bytes()
    return found[: found.rindex(SEAL)]


def refused(database: Database, path: Path) -> str:
    """What a refusal says, which leaves every row of every table as it was."""
    before = content(database)
    with pytest.raises(MarketDataError) as raised:
        restore(database, path, overwrite=True)
    assert content(database) == before
    assert database.rows("SELECT nspname FROM pg_namespace WHERE nspname = %s", [ASIDE]) == []
    return str(raised.value)


def test_a_backup_of_another_program_is_refused(filled: Database, foreign: Path) -> None:
    assert "is a backup of another program" in refused(filled, foreign)


def test_a_backup_of_a_newer_program_is_refused(filled: Database, tmp_path: Path) -> None:
    filled.rows("UPDATE market_data_schema SET version_num = '9001'")
    newer = back_up(filled, tmp_path / "newer.dump").path
    filled.rows("UPDATE market_data_schema SET version_num = %s", [known_revisions()[-1]])
    assert "has the schema 9001, newer than" in refused(filled, newer)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9])
def test_a_file_cut_short_is_refused(filled: Database, sealed: Path, share: float) -> None:
    found = unsealed(sealed)
    refused(filled, written(sealed, found[: int(len(found) * share)]))


@pytest.mark.parametrize("place", [0.0, 0.01, 0.2, 0.5, 0.8, 0.99, 1.0])
def test_a_changed_bit_is_refused(filled: Database, sealed: Path, place: float) -> None:
    message = refused(filled, flipped(sealed, place))
    assert "damaged" in message or "no backup" in message


def test_an_empty_file_and_an_empty_database_are_no_backups(
    filled: Database, empty_database: Database, tmp_path: Path
) -> None:
    assert "is no backup" in refused(filled, written(tmp_path / "x", b""))
    assert "of another program" in refused(filled, back_up(empty_database, tmp_path / "empty.dump").path)


def test_what_lacks_a_column_that_its_schema_has_is_refused_at_the_end(filled: Database, tmp_path: Path) -> None:
    filled.rows("ALTER TABLE earnings RENAME COLUMN eps_actual TO eps")
    mangled = back_up(filled, tmp_path / "mangled.dump").path
    filled.rows("ALTER TABLE earnings RENAME COLUMN eps TO eps_actual")
    assert "eps_actual" in refused(filled, mangled)


def test_a_whole_one_replaces_all_with_seal_and_without(filled: Database, sealed: Path) -> None:
    expected = content(filled)
    for path in (sealed, written(sealed, unsealed(sealed))):
        put_news(filled, "LATER")
        restore(filled, path, overwrite=True)
        assert content(filled) == expected
    assert filled.rows("SELECT nspname FROM pg_namespace WHERE nspname = %s", [ASIDE]) == []


def test_an_older_schema_is_upgraded_and_keeps_its_rows(
    filled: Database, empty_database: Database, tmp_path: Path
) -> None:
    older, _, _ = migrate.sql().partition("-- Running upgrade 0010 ->")
    with psycopg.connect(empty_database.conninfo(), autocommit=True) as connection:
        connection.execute(f"{older}; COMMIT".encode())
    empty_database.rows(
        "INSERT INTO tracked_symbols (symbol, asset_class, timeframes) VALUES ('KO', 'stock', ARRAY['1d'])"
    )
    restore(filled, back_up(empty_database, tmp_path / "older.dump").path, overwrite=True)
    assert migrate.status(filled).up_to_date
    assert filled.rows("SELECT symbol FROM tracked_symbols") == [{"symbol": "KO"}]
    assert filled.rows("SELECT * FROM earnings") == []


def test_two_backups_to_one_name_at_once(filled: Database, tmp_path: Path) -> None:
    path, told = tmp_path / "one.dump", list[str]()
    ready = threading.Barrier(2)

    def write() -> None:
        ready.wait()
        try:
            back_up(filled, path)
            told.append("written")
        except UsageError as error:
            told.append(str(error))

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert told.count("written") == 1
    assert any("exists" in each for each in told)
    assert [entry.name for entry in tmp_path.iterdir()] == ["one.dump"], "no part stays"
    expected = content(filled)
    restore(filled, path, overwrite=True)
    assert content(filled) == expected


def test_an_older_state_never_replaces_a_newer_one(
    filled: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, run = tmp_path / "one.dump", backup.run
    back_up(filled, path)

    def slow(*arguments: str | Database) -> None:
        """While the first one writes, the second begins and ends."""
        run(*arguments)  # type: ignore[arg-type]
        monkeypatch.setattr(backup, "run", run)
        put_news(filled, "NEWER")
        back_up(filled, path, overwrite=True)

    monkeypatch.setattr(backup, "run", slow)
    with pytest.raises(UsageError, match="of a newer state: it stays"):
        back_up(filled, path, overwrite=True)
    expected = content(filled)
    assert any("NEWER" in row for row in expected["earnings"])
    restore(filled, path, overwrite=True)
    assert content(filled) == expected


def test_the_surroundings_do_not_reach_the_programs(
    filled: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGHOSTADDR": "203.0.113.9",
        "PGSERVICE": "none",
        "PGTZ": "none",
        "PGSSLMODE": "require",
    }.items():
        monkeypatch.setenv(name, value)
    expected = content(filled)
    restore(filled, back_up(filled, tmp_path / "all.dump").path, overwrite=True)
    assert content(filled) == expected
