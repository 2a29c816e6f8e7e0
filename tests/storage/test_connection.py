"""Connections are dialled on purpose: the surroundings do not reach what is private, and what is relied on is set."""

from __future__ import annotations

import datetime as dt
import os
import re
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from storage_pooler import pooled

from market_data.model.errors import ConfigError, DatabaseUnavailable
from market_data.storage.server.database import Database
from market_data.storage.server.embedded import EmbeddedServer
from market_data.storage.wire.connection import dial

# Every variable of libpq that could lead away, refuse, or change what comes back.
HOSTILE = {
    "PGHOST": "203.0.113.9", "PGHOSTADDR": "203.0.113.9", "PGPORT": "1", "PGDATABASE": "elsewhere", "PGUSER": "nobody",
    "PGPASSWORD": "wrong", "PGSERVICE": "no-such-service", "PGSERVICEFILE": "/no/such/file",
    "PGOPTIONS": "-c default_transaction_read_only=on", "PGREQUIREAUTH": "scram-sha-256", "PGREQUIREPEER": "nobody",
    "PGSSLMODE": "verify-full", "PGSSLNEGOTIATION": "direct", "PGSSLCERTMODE": "require", "PGSSLROOTCERT": "/no/such",
    "PGGSSENCMODE": "require", "PGCHANNELBINDING": "require", "PGTARGETSESSIONATTRS": "standby",
    "PGLOADBALANCEHOSTS": "nonsense", "PGCONNECT_TIMEOUT": "nonsense", "PGCLIENTENCODING": "LATIN1",
    "PGMINPROTOCOLVERSION": "3.9", "PGMAXPROTOCOLVERSION": "nonsense", "PGSSLMINPROTOCOLVERSION": "nonsense",
    "PGDATESTYLE": "nonsense", "PGTZ": "nonsense", "PGGEQO": "nonsense", "PGAPPNAME": "another",
}  # fmt: skip
# What a database may prefer, each of which changes how values read.
PREFERRED = (
    "DateStyle = 'German, DMY'", "IntervalStyle = 'sql_standard'", "TimeZone = 'Asia/Kathmandu'",
    "client_encoding = 'LATIN1'", "extra_float_digits = 0", "bytea_output = 'escape'",
    "standard_conforming_strings = off", "default_transaction_isolation = 'serializable'", "lock_timeout = 1",
    "statement_timeout = 1", "idle_session_timeout = 3000", "idle_in_transaction_session_timeout = 1",
    "transform_null_equals = on",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_no_variable_of_the_surroundings_reaches_the_private_server(
    postgres: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, HOSTILE[name])
    with dial(postgres.conninfo()) as connection:
        assert connection.execute("SELECT current_user, current_setting('transaction_read_only')").fetchone() == (
            "market_data", "off",
        )  # fmt: skip
    assert os.environ[name] == HOSTILE[name], "put back for whoever needs it"


def test_all_of_them_at_once_and_files_of_the_home(
    postgres: EmbeddedServer, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".pgpass").write_text("*:*:*:*:wrong")  # readable by all, of which libpq would complain
    with Database.open(database_url, None) as database:
        assert database.rows("SELECT 'ü' AS w, timestamptz '2024-01-02 03:04Z' AS t") == [
            {"w": "ü", "t": dt.datetime(2024, 1, 2, 3, 4, tzinfo=dt.UTC)}
        ]
    assert capfd.readouterr() == ("", "")


def test_what_is_relied_on_is_set_whatever_the_database_prefers(database_url: str) -> None:
    name = conninfo_to_dict(database_url)["dbname"]
    with psycopg.connect(database_url, autocommit=True) as admin:
        for preferred in PREFERRED:
            admin.execute(f"ALTER DATABASE {name} SET {preferred}")
    query = (
        "SELECT timestamptz '2024-02-03 04:05:06.5+01' AS t, date '2024-02-03' AS d, interval '1 day 2 hours' AS i, "
        "0.1::float8 + 0.2 AS f, 'ü€' AS w, %s AS back, '\\x00ff'::bytea AS b, 1.10::numeric AS n, NULL = NULL AS e"
    )
    expected = {
        "t": dt.datetime(2024, 2, 3, 3, 5, 6, 500000, tzinfo=dt.UTC), "d": dt.date(2024, 2, 3),
        "i": dt.timedelta(days=1, hours=2), "f": 0.30000000000000004, "w": "ü€", "back": "a\\b'c",
        "b": b"\x00\xff", "n": Decimal("1.10"), "e": None,
    }  # fmt: skip
    with Database.open(database_url, None) as database:
        assert database.rows(query, ["a\\b'c"]) == [expected]
        with database.transaction() as connection:
            rows = connection.execute(query, ["a\\b'c"]).fetchone()
        assert rows == tuple(expected.values())
        assert database.frame("SELECT %s AS back", ["a\\b'c"]).item() == "a\\b'c"
        settings = database.rows(
            "SELECT name, setting FROM pg_settings WHERE name IN ('lock_timeout', 'statement_timeout', "
            "'idle_session_timeout', 'default_transaction_isolation') ORDER BY name"
        )
    assert {row["name"]: row["setting"] for row in settings} == {
        "default_transaction_isolation": "read committed", "idle_session_timeout": "0", "lock_timeout": "30000",
        "statement_timeout": "600000",
    }  # fmt: skip


def test_a_transaction_that_does_nothing_is_ended(database: Database) -> None:
    """What a worker that hangs holds is free again, though it never says so."""

    def hang(forgetful: Database) -> None:
        with forgetful.transaction() as connection:
            connection.execute("SELECT 1")
            database.rows("SELECT pg_sleep(0.2)")
            connection.execute("SELECT 1")

    with (
        Database.open(database.conninfo(), None, idle_seconds=0.05) as forgetful,
        pytest.raises(DatabaseUnavailable, match="idle"),
    ):
        hang(forgetful)


@pytest.fixture(params=["SQL_ASCII", "LATIN1"])
def other_encoding(request: pytest.FixtureRequest, postgres: EmbeddedServer) -> Iterator[tuple[str, str]]:
    name = f"other_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(make_conninfo(postgres.conninfo(), dbname="postgres"), autocommit=True) as admin:
        admin.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{request.param}' LOCALE_PROVIDER libc LOCALE 'C'"
        )
        yield request.param, make_conninfo(postgres.conninfo(), dbname=name)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_database_whose_text_is_not_utf8_is_refused(other_encoding: tuple[str, str]) -> None:
    encoding, url = other_encoding
    with pytest.raises(ConfigError, match=f"keeps its text in {encoding}; UTF8 is needed: .*CREATE DATABASE"):
        Database.open(url, None)


def test_a_search_path_that_leads_nowhere_is_refused(database_url: str) -> None:
    with pytest.raises(ConfigError, match="no schema to work in"):
        Database.open(make_conninfo(database_url, options="-c search_path=nowhere"), None)


def through(database_url: str, port: int) -> str:
    parts = conninfo_to_dict(database_url)
    return f"host=127.0.0.1 port={port} user={parts['user']} dbname={parts['dbname']}"


def socket_of(database_url: str) -> tuple[str, str, str]:
    parts = conninfo_to_dict(database_url)
    return f"{parts['host']}/.s.PGSQL.{parts['port']}", str(parts["user"]), str(parts["dbname"])


def test_a_pooler_that_shares_sessions_is_refused_at_once(database_url: str) -> None:
    with (
        pooled(*socket_of(database_url), shared=True) as port,
        pytest.raises(ConfigError, match=re.escape("pooler in transaction mode")) as refused,
    ):
        Database.open(through(database_url, port), None)
    assert "pool_mode = session" in str(refused.value)


def test_a_pooler_that_keeps_sessions_apart_is_let_in(database_url: str) -> None:
    with (
        pooled(*socket_of(database_url), shared=False) as port,
        Database.open(through(database_url, port), None) as database,
    ):
        assert database.frame("SELECT 1 AS n").item() == 1


def test_one_writing_connection_is_enough_to_read_while_writing(database_url: str) -> None:
    with Database.open(database_url, None, pool_size=1) as database, database.transaction():
        assert database.rows("SELECT 1 AS n") == [{"n": 1}]
        assert database.frame("SELECT 1 AS n").item() == 1
