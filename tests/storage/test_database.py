"""Transactions, frames, and errors in our words."""

from __future__ import annotations

import datetime as dt
import re
import socket
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.conninfo import make_conninfo

from market_data.model.errors import (
    ConfigError,
    DatabaseReadOnly,
    DatabaseUnavailable,
    MissingPrivilege,
    SchemaMismatch,
    StorageError,
    TransientError,
    UsageError,
)
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection

SECRET = "pa55-word-9"


@pytest.fixture
def stranger(database: Database) -> Iterator[str]:
    """Name of a role without any privilege on the test's database."""
    name = f"stranger_{uuid.uuid4().hex[:8]}"
    database.rows(f"CREATE ROLE {name} LOGIN")
    yield name
    database.rows(f"DROP OWNED BY {name}")
    database.rows(f"DROP ROLE {name}")


def test_a_block_that_raises_leaves_nothing(database: Database) -> None:
    insert = "INSERT INTO system_state (key, value) VALUES ('paused', 'true')"

    def insert_and_fail() -> None:
        with database.transaction() as connection:
            connection.execute(insert)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        insert_and_fail()
    assert database.rows("SELECT key FROM system_state") == []
    with database.transaction() as connection:
        connection.execute(insert)
    assert database.rows("SELECT key, value FROM system_state") == [{"key": "paused", "value": True}]


def test_types_of_a_frame(database: Database) -> None:
    frame = database.frame(
        "SELECT 1.5::numeric AS n, NULL::numeric AS n0, '2024-02-29 12:00+01'::timestamptz AS t, '[1, 2]'::jsonb AS j,"
        " '6f9619ff-8b86-d011-b42d-00c04fc964ff'::uuid AS u, NULL::uuid AS u0, ARRAY['a', NULL] AS a, 'x' AS s,"
        " 7::bigint AS i, 0.1::float8 AS f, true AS b, '2024-02-29'::date AS d"
    )
    assert frame.schema == {
        "n": pl.Decimal(38, 18), "n0": pl.Decimal(38, 18), "t": pl.Datetime("us", "UTC"), "j": pl.String,
        "u": pl.String, "u0": pl.String, "a": pl.List(pl.String), "s": pl.String,
        "i": pl.Int64, "f": pl.Float64, "b": pl.Boolean, "d": pl.Date,
    }  # fmt: skip
    assert frame.row(0) == (
        Decimal("1.5"), None, dt.datetime(2024, 2, 29, 11, tzinfo=dt.UTC), "[1, 2]",
        "6f9619ff-8b86-d011-b42d-00c04fc964ff", None, ["a", None], "x", 7, 0.1, True, dt.date(2024, 2, 29),
    )  # fmt: skip


def test_the_order_of_the_rows_stays(database: Database) -> None:
    ordered = "SELECT g AS n, g::numeric AS m FROM generate_series(1, 5000) AS g ORDER BY md5(g::text) -- by hash"
    expected = [row["n"] for row in database.rows(ordered)]
    assert expected != sorted(expected)
    assert database.frame(ordered)["n"].to_list() == expected
    assert database.frame(ordered)["m"].to_list() == expected


def test_statements_that_return_rows_but_are_no_select(database: Database) -> None:
    inserted = database.frame("INSERT INTO earnings (symbol, asset_class, source, fiscal_year, fiscal_quarter, "
                              "known_from, eps_actual) VALUES ('A', 'stock', 'x', 2024, 1, now(), 1.10) "
                              'RETURNING eps_actual AS "the ""EPS""", symbol;')  # fmt: skip
    assert inserted.rows() == [(Decimal("1.10"), "A")]
    assert inserted.columns == ['the "EPS"', "symbol"]
    assert database.frame('SELECT eps_actual AS "the ""EPS""" FROM earnings;').rows() == [(Decimal("1.10"),)]


def test_a_frame_without_rows_has_its_types(database: Database) -> None:
    frame = database.frame("SELECT symbol, timestamp, open, run_id FROM candles")
    assert frame.schema == {
        "symbol": pl.String, "timestamp": pl.Datetime("us", "UTC"), "open": pl.Decimal(38, 18), "run_id": pl.String,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "'", "''; DROP TABLE candles; --", "\\", "\\'", "%", "%s", "$1", "$$", "ü🙂", "a\nb", ":name", '"']
)
def test_hostile_values_arrive_as_they_are(database: Database, text: str) -> None:
    assert database.frame("SELECT %s::text AS v, '%%' AS p", (text,)).rows() == [(text, "%")]
    assert database.rows("SELECT %(v)s::text AS v", {"v": text}) == [{"v": text}]


def test_too_few_and_too_many_values(database: Database) -> None:
    for params in ((1,), (1, 2, 3)):
        with pytest.raises(UsageError, match=f"2 places for values, but {len(params)} were given"):
            database.frame("SELECT %s, %s, '%%'", params)


def test_parameters_of_every_kind(database: Database) -> None:
    moment = dt.datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)
    query = "SELECT %(t)s AS t, %(d)s AS d, %(n)s AS n, 'b' = ANY(%(a)s) AS a, %(z)s::int AS z"
    params = {"t": moment, "d": dt.date(2024, 1, 2), "n": Decimal("-1E-18"), "a": ["a", "b"], "z": None}
    expected = {"t": moment, "d": dt.date(2024, 1, 2), "n": Decimal("-1E-18"), "a": True, "z": None}
    assert database.frame(query, params).to_dicts() == [expected]


def test_numbers_beyond_the_frame_are_refused(database: Database) -> None:
    with pytest.raises(StorageError, match="20 digits before"):
        database.frame("SELECT 1e20::numeric AS n")
    with pytest.raises(StorageError, match="20 digits before"):
        database.frame("SELECT 'NaN'::numeric AS n")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.decimals(min_value=-(10**20) + 1, max_value=10**20 - 1, places=18), min_size=1, max_size=50))
def test_numeric_comes_back_exactly(database: Database, values: list[Decimal]) -> None:
    frame = database.frame("SELECT v::numeric AS v FROM unnest(%s::text[]) WITH ORDINALITY AS u(v, i) ORDER BY i",
                           ([f"{value:f}" for value in values],))  # fmt: skip
    assert frame["v"].to_list() == values


def test_frames_from_many_threads(database: Database) -> None:
    def read(i: int) -> pl.DataFrame:
        return database.frame("SELECT %s + g AS n FROM generate_series(1, 500) AS g", (i,))

    with ThreadPoolExecutor(12) as threads:
        frames = list(threads.map(read, range(24)))
    assert [frame["n"].sum() for frame in frames] == [500 * i + 125_250 for i in range(24)]


def test_connections_ended_by_the_server_are_replaced(database: Database) -> None:
    assert database.frame("SELECT 1 AS n").item() == 1
    with psycopg.connect(database.conninfo()) as admin:
        ended = admin.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ).fetchone()
    assert ended is not None
    assert ended[0] >= 2
    assert database.rows("SELECT 1 AS n") == [{"n": 1}]
    assert database.frame("SELECT 1 AS n").item() == 1


@pytest.mark.parametrize("read", ["rows", "frame"])
@pytest.mark.parametrize(
    ("query", "error", "says"),
    [
        ("SELECT * FROM nowhere", SchemaMismatch, 'relation "nowhere" does not exist.*market-data db upgrade'),
        ("SELECT nothing FROM candles", SchemaMismatch, 'column "nothing" does not exist'),
        ("SELECT 1 / 0", StorageError, "division by zero"),
        ("SELECT 1 / (i - 60000) FROM generate_series(1, 100000) AS i", StorageError, "division by zero"),
    ],
)
def test_errors_of_both_drivers(database: Database, read: str, query: str, error: type[Exception], says: str) -> None:
    if read == "frame" and query.startswith("SET"):
        with (
            Database.open(database.conninfo(), None, statement_seconds=0.05) as hasty,
            pytest.raises(error, match=says),
        ):
            hasty.frame("SELECT pg_sleep(5)::text AS s")
        return
    with pytest.raises(error, match=says):
        getattr(database, read)(query)


@pytest.mark.parametrize("read", ["rows", "frame"])
def test_a_statement_that_takes_too_long(database: Database, read: str) -> None:
    with (
        Database.open(database.conninfo(), None, statement_seconds=0.05) as hasty,
        pytest.raises(TransientError, match="statement timeout"),
    ):
        getattr(hasty, read)("SELECT pg_sleep(5)::text AS s")


def test_a_lock_held_by_another(database: Database) -> None:
    with Database.open(database.conninfo(), None, lock_seconds=0.05) as hasty, database.transaction() as holder:
        holder.execute("LOCK TABLE runs")
        with pytest.raises(TransientError, match="lock timeout"):
            hasty.rows("SELECT * FROM runs")


def test_a_deadlock_is_run_again(database: Database) -> None:
    database.rows("INSERT INTO system_state (key, value) VALUES ('a', '0'), ('b', '0')")
    both_hold_one = threading.Barrier(2)
    runs = {"ab": 0, "ba": 0}

    def add(order: str) -> None:
        def step(connection: Connection) -> None:
            runs[order] += 1
            for key in order:
                connection.execute(
                    "UPDATE system_state SET value = to_jsonb((value #>> '{}')::int + 1) WHERE key = %s", (key,)
                )
                if runs[order] == 1 and key == order[0]:
                    both_hold_one.wait()

        database.retrying_transaction(step)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(add, runs))
    assert database.rows("SELECT key, value FROM system_state ORDER BY key") == [
        {"key": "a", "value": 2}, {"key": "b", "value": 2},
    ]  # fmt: skip
    assert sorted(runs.values()) == [1, 2]


def test_a_retry_that_cannot_help_is_not_made(database: Database) -> None:
    tries = []

    def step(connection: Connection) -> None:
        tries.append(1)
        connection.execute("SELECT 1 / 0")

    with pytest.raises(StorageError):
        database.retrying_transaction(step)
    assert len(tries) == 1


def test_read_only(database: Database) -> None:
    name = database.rows("SELECT current_database() AS name")[0]["name"]
    database.rows(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with Database.open(database.conninfo(), None) as standby:
        with pytest.raises(DatabaseReadOnly, match="accepts no writes"):
            standby.rows("INSERT INTO system_state (key, value) VALUES ('a', '0')")
        with pytest.raises(DatabaseReadOnly, match="accepts no writes"):
            standby.frame("INSERT INTO system_state (key, value) VALUES ('a', '0') RETURNING key")


@pytest.mark.parametrize("read", ["rows", "frame"])
def test_a_missing_privilege_says_the_grant_that_helps(database: Database, stranger: str, read: str) -> None:
    with Database.open(make_conninfo(database.conninfo(), user=stranger), None) as theirs:
        with pytest.raises(MissingPrivilege) as denied:
            getattr(theirs, read)("SELECT * FROM candles")
        grant = re.search(r"GRANT .*;", str(denied.value))
        assert grant is not None
        assert grant[0] == f"GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE candles TO {stranger};"
        database.rows(grant[0])
        assert len(getattr(theirs, read)("SELECT * FROM candles")) == 0


def test_who_must_own_a_table(database: Database, stranger: str) -> None:
    with (
        Database.open(make_conninfo(database.conninfo(), user=stranger), None) as theirs,
        pytest.raises(MissingPrivilege, match=f"ALTER TABLE candles OWNER TO {stranger};"),
    ):
        theirs.rows("ALTER TABLE candles ADD COLUMN mine int")


def test_no_right_to_connect(database: Database, stranger: str) -> None:
    name = database.rows("SELECT current_database() AS name")[0]["name"]
    database.rows(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)).as_string())
    with pytest.raises(MissingPrivilege, match=f"GRANT CONNECT.* ON DATABASE {name} TO {stranger};"):
        Database.open(make_conninfo(database.conninfo(), user=stranger), None)


def test_a_database_that_does_not_exist(database: Database) -> None:
    with pytest.raises(ConfigError, match='database "nowhere" does not exist'):
        Database.open(make_conninfo(database.conninfo(), dbname="nowhere"), None)


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(DatabaseUnavailable, match=rf"postgresql://me:\*\*\*@127.0.0.1:{port}/market") as refused:
        Database.open(f"postgresql+psycopg://me:{SECRET}@127.0.0.1:{port}/market", None)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "url", [f"postgresql://me:{SECRET}@[::1/x", f"me {SECRET}", f"postgresql://u:{SECRET}@h/d?x=1"]
)
def test_a_url_that_cannot_be_read(url: str) -> None:
    with pytest.raises(ConfigError, match="postgresql://user:password@host") as refused:
        Database.open(url, None)
    assert SECRET not in str(refused.value)
    assert refused.value.__suppress_context__


def test_neither_url_nor_folder() -> None:
    with pytest.raises(UsageError, match="Neither"):
        Database.open(None, None)
