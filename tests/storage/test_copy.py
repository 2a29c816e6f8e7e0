"""Frames into tables: exactly, in order, in one transaction."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from market_data.model.errors import SchemaMismatch, StorageError
from market_data.storage.server.database import Database
from market_data.storage.wire import copy_in as copy

NOON = dt.datetime(2024, 2, 29, 12, 0, 0, 1, tzinfo=dt.UTC)
UUID = "6f9619ff-8b86-d011-b42d-00c04fc964ff"


def test_every_type_arrives_exactly(database: Database) -> None:
    frame = pl.DataFrame(
        {
            "n": [Decimal("1E-18"), Decimal("12345678901234567890.123456789012345678"), Decimal(-5), None, Decimal(0)],
            "f": [math.nan, math.inf, -math.inf, 5e-324, None],
            "t": [NOON, None, dt.datetime(1970, 1, 1, tzinfo=dt.UTC), dt.datetime(1901, 5, 6, tzinfo=dt.UTC), NOON],
            "s": ["", "ü🙂", None, "x" * 100_000, "\\N"],
            "i": [2**31 - 1, -(2**31), 0, None, 1],
            "b": [True, False, None, True, False],
            "u": [UUID, None, UUID.upper(), UUID, UUID],
            "j": ['{"a": [1, null]}', None, '"x"', "3", "null"],
            "a": [["x", None, ""], [], None, ["y"], ["z"]],
            "d": [dt.date(2024, 2, 29), None, dt.date(1, 1, 1), dt.date(9999, 12, 31), dt.date(2000, 1, 1)],
            "z": [None] * 5,
        },
        schema_overrides={"n": pl.Decimal(38, 18), "i": pl.Int64},
    )
    with database.transaction() as connection:
        connection.execute(
            "CREATE TEMP TABLE t (o int GENERATED ALWAYS AS IDENTITY, n numeric, f float8, t timestamptz, s text, "
            "i int4, b bool, u uuid, j jsonb, a text[], d date, z numeric, kept text DEFAULT 'default') ON COMMIT DROP"
        )
        assert copy.copy_in(connection, "t", frame) == 5
        rows = connection.execute("SELECT n, f, t, s, i, b, u::text, j, a, d, z, kept FROM t ORDER BY o").fetchall()
    assert math.isnan(rows[0][1])
    assert rows[0][0] == Decimal("1E-18")
    assert rows[1][0] == Decimal("12345678901234567890.123456789012345678")
    assert [row[0] for row in rows[2:]] == [Decimal(-5), None, Decimal(0)]
    assert [row[1] for row in rows[1:]] == [math.inf, -math.inf, 5e-324, None]
    for index, name in enumerate(frame.columns):
        if name in ("t", "s", "i", "b", "a", "d", "z"):
            assert [row[index] for row in rows] == frame[name].to_list()
    assert [row[6] for row in rows] == [UUID, None, UUID, UUID, UUID]
    assert [row[7] for row in rows] == [{"a": [1, None]}, None, "x", 3, None]
    assert {row[11] for row in rows} == {"default"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.none(),
            st.decimals(min_value=-(10**20) + 1, max_value=10**20 - 1, places=18),
            st.integers(-18, 19).map(lambda power: Decimal(10) ** power),
        ),
        max_size=40,
    )
)
def test_decimals_go_in_and_come_out_exactly(database: Database, values: list[Decimal | None]) -> None:
    frame = pl.DataFrame({"n": pl.Series(values, dtype=pl.Decimal(38, 18))}).with_row_index("i")
    with database.transaction() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS numbers (i int4, n numeric)")
        connection.execute("TRUNCATE numbers")
        assert copy.copy_in(connection, "numbers", frame) == len(values)
        in_python = connection.execute("SELECT n FROM numbers ORDER BY i").fetchall()
        assert [n for (n,) in in_python] == values
    assert database.frame("SELECT n FROM numbers ORDER BY i")["n"].to_list() == values


def test_many_chunks_in_order(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy, "CHUNK_ROWS", 7)
    frame = pl.DataFrame({"i": range(1000), "s": [f"row {i}" if i % 11 else None for i in range(1000)]})
    with database.transaction() as connection:
        connection.execute("CREATE TABLE numbers (o int4 GENERATED ALWAYS AS IDENTITY, i int8, s text)")
        assert copy.copy_in(connection, "numbers", frame) == 1000
        assert copy.copy_in(connection, "numbers", frame.clear()) == 0
    assert_frame_equal(database.frame("SELECT i, s FROM numbers ORDER BY o"), frame)


def test_slices_and_several_chunks_of_a_frame(database: Database) -> None:
    part = pl.DataFrame({"i": [1, 2, 3], "s": ["a", "b", "a long string that is not stored inline"]})
    frame = pl.concat([part, part, part], rechunk=False).slice(2, 5)
    with database.transaction() as connection:
        connection.execute("CREATE TABLE numbers (o int4 GENERATED ALWAYS AS IDENTITY, i int8, s text)")
        assert copy.copy_in(connection, "numbers", frame) == 5
    assert database.frame("SELECT i, s FROM numbers ORDER BY o").rows() == [
        (3, part["s"][2]), (1, "a"), (2, "b"), (3, part["s"][2]), (1, "a"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pl.Series("n", [0.1]), "n: Float64 cannot be stored exactly as PostgreSQL's numeric"),
        (pl.Series("t", [dt.datetime(2024, 1, 1)]), "t: Datetime.* cannot be stored exactly"),
        (pl.Series("i", [1.0]), "i: Float64 cannot be stored exactly as PostgreSQL's int4"),
        (pl.Series("i", [2**31]), "does not fit its column"),
        (pl.Series("u", ["not a uuid"]), "does not fit its column"),
        (pl.Series("x", [1]), "has no column x"),
    ],
)
def test_what_cannot_be_stored_is_refused(database: Database, column: pl.Series, says: str) -> None:
    database.rows("CREATE TABLE typed (n numeric, t timestamptz, i int4, u uuid)")
    with pytest.raises(StorageError, match=says), database.transaction() as connection:
        copy.copy_in(connection, "typed", column.to_frame())


def test_a_refused_row_undoes_the_whole_transaction(database: Database) -> None:
    database.rows("CREATE TABLE positive (i int8 CHECK (i > 0))")
    frames = [pl.DataFrame({"i": [1, 2]}), pl.DataFrame({"i": [3, -1]})]
    with pytest.raises(StorageError, match="positive_i_check"), database.transaction() as connection:
        assert [copy.copy_in(connection, "positive", frame) for frame in frames] == []
    assert database.rows("SELECT count(*) AS n FROM positive") == [{"n": 0}]


def test_a_table_that_does_not_exist(database: Database) -> None:
    with pytest.raises(SchemaMismatch, match="nowhere"), database.transaction() as connection:
        copy.copy_in(connection, "nowhere", pl.DataFrame({"i": [1]}))
