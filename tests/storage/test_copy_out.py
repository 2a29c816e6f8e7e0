"""Frames decoded from binary COPY against psycopg's own reading of the same rows, value by value."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from market_data.model.errors import StorageError
from market_data.storage.server.database import Database
from market_data.storage.wire.binary_columns import PADDING, decode_rows
from market_data.storage.wire.copy_out import CHUNK_ROWS

# Up to 20 digits before the point and 18 after it; written as text, since sums are rounded to 28 digits.
exact = st.builds(
    lambda whole, fraction, sign: Decimal(f"{'-' * (sign < 0)}{whole}.{fraction:018d}"),
    st.one_of(st.integers(0, 10**20 - 1), st.integers(0, 20).map(lambda n: 10**n - 1), st.just(0)),
    st.one_of(st.integers(0, 10**18 - 1), st.integers(0, 17).map(lambda n: 10**n), st.just(0)),
    st.sampled_from([1, -1]),
)
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
KINDS = {
    "n": ("numeric", exact),
    "d": ("float8", st.floats(allow_nan=True, allow_infinity=True)),
    "i": ("int8", st.integers(-(2**63), 2**63 - 1)),
    "s": ("int4", st.integers(-(2**31), 2**31 - 1)),
    "b": ("boolean", st.booleans()),
    "t": ("timestamptz", st.datetimes(timezones=st.just(__import__("datetime").UTC))),
    "w": ("text", words),
    "c": ("text", st.sampled_from(["up", "down", "neutral", ""])),
    "k": ("text", st.just("crypto")),
    "u": ("uuid", st.uuids()),
    "y": ("date", st.dates()),
    "l": ("text[]", st.lists(st.one_of(words, st.none()), max_size=3)),
}
ROW = st.fixed_dictionaries({name: st.one_of(kind, st.none()) for name, (_, kind) in KINDS.items()})
FULL = st.fixed_dictionaries({name: kind for name, (_, kind) in KINDS.items()})


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(theirs, float) and math.isnan(theirs):
        return isinstance(ours, float) and math.isnan(ours)
    return bool(ours == (str(theirs) if type(theirs).__name__ == "UUID" else theirs))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.one_of(st.lists(ROW, max_size=8), st.lists(FULL, max_size=8)))
@example(rows=[dict.fromkeys(KINDS) | {"n": Decimal("-99999999999999999999.999999999999999999")}])
def test_every_type_equals_what_psycopg_reads(database: Database, rows: list[dict[str, Any]]) -> None:
    with database.transaction() as connection, connection.cursor() as cursor:
        columns = ", ".join(f"{name} {kind}" for name, (kind, _) in KINDS.items())
        cursor.execute(f"DROP TABLE IF EXISTS every; CREATE TABLE every (number int, {columns})")
        places = ", ".join(f"%({name})s" for name in KINDS)
        cursor.executemany(f"INSERT INTO every VALUES (%(number)s, {places})",
                           [row | {"number": i} for i, row in enumerate(rows)])  # fmt: skip
    query = "SELECT * FROM every ORDER BY number"
    frame, expected = database.frame(query), database.rows(query)
    assert frame.height == len(expected)
    for ours, theirs in zip(frame.to_dicts(), expected, strict=True):
        assert all(same(ours[name], theirs[name]) for name in theirs), (ours, theirs)


@pytest.mark.parametrize(
    "text",
    ["1e-18", "-1e-18", "1e19", "-99999999999999999999.999999999999999999", "0", "-0.000000000000000100", "0.5",
     "10000", "9999.9999", "18446744073709551616", "12345678901234567890.123456789012345678"],
)  # fmt: skip
def test_numbers_are_exact_to_the_last_digit(database: Database, text: str) -> None:
    assert database.frame("SELECT %s::numeric AS n", (text,)).item() == Decimal(text)
    # Among others, of which some are null.
    frame = database.frame("SELECT v::numeric AS n FROM unnest(ARRAY[NULL, %s, '7', NULL]) v", (text,))
    assert frame["n"].to_list() == [None, Decimal(text), Decimal(7), None]


@pytest.mark.parametrize(
    "text", ["1e20", "-1e20", "1e-19", "0.0000000000000000011", "1e40", "1e-40", "NaN", "Infinity"]
)
def test_numbers_that_do_not_fit_are_refused(database: Database, text: str) -> None:
    with pytest.raises(StorageError, match=r"too long|NaN or infinite"):
        database.frame("SELECT %s::numeric AS n", (text,))


def test_rows_that_differ_from_the_sample_in_one_column(database: Database) -> None:
    """Nulls, lengths and values change from row to row between columns that do not."""
    query = (
        "SELECT g, 'BTC' AS symbol, CASE WHEN g %% 3 = 0 THEN g * 0.5::float8 END AS some, 1.5::float8 AS one, "
        "CASE WHEN g %% 5 > 0 THEN repeat('é', g %% 7) END AS word, NULL::numeric AS none, g * 1.01 AS price, "
        "g %% 2 = 0 AS even FROM generate_series(1, %s) g"
    )
    count = 2 * CHUNK_ROWS + 3
    frame = database.frame(query, (count,))
    numbers = range(1, count + 1)
    assert frame["g"].to_list() == list(numbers)
    assert frame["some"].to_list() == [g * 0.5 if g % 3 == 0 else None for g in numbers]
    assert frame["word"].to_list() == ["é" * (g % 7) if g % 5 else None for g in numbers]
    assert frame["price"].to_list() == [Decimal(g) * Decimal("1.01") for g in numbers]
    assert frame["even"].to_list() == [g % 2 == 0 for g in numbers]
    assert frame["symbol"].unique().to_list() == ["BTC"]
    assert frame["none"].null_count() == count


def test_no_rows_keep_their_types(database: Database) -> None:
    frame = database.frame("SELECT 1.5 AS n, now() AS t, 'x'::text AS w, NULL::uuid AS u WHERE false")
    assert frame.schema == {"n": pl.Decimal(38, 18), "t": pl.Datetime("us", "UTC"), "w": pl.String, "u": pl.String}
    assert frame.height == 0


def test_long_and_json_texts(database: Database) -> None:
    long = "päy" * 5_000
    frame = database.frame("SELECT %s::text AS w, '{\"a\": [1]}'::jsonb AS j UNION ALL SELECT '', NULL", (long,))
    assert frame.rows() == [(long, '{"a": [1]}'), ("", None)]


def test_what_cannot_be_read_is_named(database: Database) -> None:
    with pytest.raises(StorageError, match=r"cast them to text: span \(interval\)"):
        database.frame("SELECT interval '1 day' AS span")
    with pytest.raises(StorageError, match="infinite"):
        database.frame("SELECT 'infinity'::timestamptz AS t")
    # The connection is as good as new.
    assert database.frame("SELECT 1 AS n").item() == 1


def test_an_error_in_the_middle_of_the_rows_is_raised(database: Database) -> None:
    with pytest.raises(StorageError, match="division by zero"):
        database.frame("SELECT 1 / (20000 - g) AS n FROM generate_series(1, 30000) g")
    assert database.frame("SELECT 1 AS n").item() == 1


def test_bytes_that_are_no_such_rows_are_refused() -> None:
    buffer = np.zeros(4 + PADDING, np.uint8)
    with pytest.raises(StorageError, match="does not have the columns"):
        decode_rows(buffer, np.array([0]), [("n", "int4")])
