"""What a database may refuse, seen from the command line: one line that says what to do, and nothing half written."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from typer.testing import CliRunner, Result

from market_data.cli.app import app
from market_data.storage.server import migrate
from market_data.storage.server.database import Database
from market_data.storage.work.state import keep_apart

CORRECT = ("correct", "BTC", "1h", "2024-12-31T12:00:00Z", "close=1", "-r", "why")


def run(database: Database, *command: str, **changes: str) -> Result:
    url = make_conninfo(database.conninfo(), **changes)
    return CliRunner(env={"DATABASE_URL": None}).invoke(app, ["--database-url", url, *command])


def refusal(result: Result, code: int = 1) -> str:
    """The one line that a command ends with."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("command", [("status", "BTC"), CORRECT, ("db", "upgrade")], ids=" ".join)
def test_a_newer_schema(database: Database, command: tuple[str, ...]) -> None:
    database.rows(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '9999'")
    assert "9999, newer than" in refusal(run(database, *command))
    assert database.rows(f"SELECT version_num FROM {migrate.VERSION_TABLE}") == [{"version_num": "9999"}]


def test_an_older_schema_is_brought_up_to_date(empty_database: Database) -> None:
    assert run(empty_database, "gaps").exit_code == 0
    newest = [{"version_num": migrate.known_revisions()[-1]}]
    assert empty_database.rows(f"SELECT version_num FROM {migrate.VERSION_TABLE}") == newest


def test_an_older_schema_keeps_what_it_holds(empty_database: Database) -> None:
    """Made by the SQL of an older program, with rows of its time; this program upgrades it as it opens it."""
    older, _, _ = migrate.sql().partition("-- Running upgrade 0010 ->")
    with psycopg.connect(empty_database.conninfo(), autocommit=True) as connection:
        connection.execute(f"{older}; COMMIT".encode())
    empty_database.rows(
        "INSERT INTO tracked_symbols (symbol, asset_class, timeframes) VALUES ('KO', 'stock', ARRAY['1d'])"
    )
    empty_database.rows("INSERT INTO providers (name, breaker_state) VALUES ('yahoo', 'open')")
    assert migrate.status(empty_database).current == "0010"
    assert "KO" in run(empty_database, "status", "KO").stdout
    found = migrate.status(empty_database)
    assert (found.current, found.up_to_date) == (migrate.known_revisions()[-1], True)
    assert empty_database.rows("SELECT symbol, timeframes FROM tracked_symbols") == [
        {"symbol": "KO", "timeframes": ["1d"]}
    ]
    assert empty_database.rows("SELECT name, priorities FROM providers") == [{"name": "yahoo", "priorities": {}}]


@pytest.fixture
def standby(database: Database) -> Database:
    """A database that was in use and now takes no writes."""
    keep_apart(database, sandbox=False, now=datetime(2026, 1, 1, tzinfo=UTC))
    name = database.rows("SELECT current_database() AS name")[0]["name"]
    database.rows(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    return database


@pytest.mark.parametrize("command", [("track", "BTC", "-a", "crypto"), ("keys", "create", "bot")], ids=" ".join)
def test_a_database_that_takes_no_writes(standby: Database, command: tuple[str, ...]) -> None:
    assert "accepts no writes" in refusal(run(standby, *command))


@pytest.mark.parametrize("command", [("status", "BTC"), ("gaps",), ("db", "stats"), ("prove",)], ids=" ".join)
def test_a_database_that_takes_no_writes_can_be_read(standby: Database, command: tuple[str, ...]) -> None:
    assert run(standby, *command).exit_code == 0


def test_no_such_database_and_no_such_server(database: Database) -> None:
    assert "create it, or correct DATABASE_URL" in refusal(run(database, "status", "BTC", dbname="nonesuch"), 2)
    nobody = run(database, "status", "BTC", host="127.0.0.1", port="1", password="hidden-4fz")
    assert "cannot be reached" in refusal(nobody)
    assert "hidden-4fz" not in nobody.stderr
