"""The schema: complete, applied once however often and by however many, and the same as its printed SQL."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from market_data.model.errors import MissingPrivilege, SchemaMismatch, StorageError, UsageError
from market_data.storage.server import migrate
from market_data.storage.server.database import Database
from market_data.storage.server.embedded import EmbeddedServer
from market_data.storage.server.migration_files import declared_columns
from market_data.storage.server.partitions import ensure_partitions

UPGRADE = """
import sys
from market_data.storage.server import migrate
from market_data.storage.server.database import Database
with Database.open(sys.argv[1], None) as database:
    print(len(migrate.upgrade(database).applied))
"""
# The tables CONTRACT §2 asks for, and a sample of what it says of their columns.
ASKED_FOR = {
    "providers": "name", "instruments": "symbol asset_class", "tracked_symbols": "symbol timeframes active",
    "api_keys": "hash scopes expires_at revoked_at last_used_at", "candles": "vwap trade_count quote_volume known_from",
    "trades": "price size", "quotes": "bid_price ask_price", "trades_raw": "payload",
    "dividends": "amount known_from revision source", "stock_splits": "split_from split_to known_from",
    "earnings": "eps_actual known_from", "options_iv": "iv delta gamma theta vega", "news": "title symbols sentiment",
    "market_data_v2": (
        "id symbol asset_class timeframe timestamp open high low close volume open_interest funding_rate "
        "liquidations_long liquidations_short taker_buy_volume taker_sell_volume return_1h return_1d volatility_20 "
        "volatility_50 atr trend_direction market_structure rolling_volume_20 delta buy_sell_ratio "
        "liquidation_intensity volume_spike_score long_short_ratio funding_rate_percentile exchange_inflow "
        "open_interest_change sma_20 sma_50 revision amended_from source is_validated quality_score data_completeness "
        "data_age_seconds validation_notes gap_detected volume_anomaly fetched_at computed_at updated_at created_at"
    ),
    "data_corrections": (
        "symbol asset_class timeframe timestamp field_corrected old_value new_value reason source corrected_by "
        "correction_timestamp"
    ),
    "backfill_state": (
        "symbol asset_class timeframe backfill_job_id start_date end_date last_successful_date status error_message "
        "retry_count created_at updated_at"
    ),
    "enrichment_fetch_log": (
        "symbol asset_class source timeframe fetch_date_start fetch_date_end records_fetched records_inserted "
        "records_updated source_response_time_ms success error_details api_quota_remaining created_at"
    ),
    "enrichment_compute_log": (
        "symbol asset_class timeframe features_computed missing_fields computation_time_ms candles_processed success "
        "error_details created_at"
    ),
    "data_quality_metrics": (
        "symbol asset_class date total_records validated_records validation_rate gaps_detected anomalies_detected "
        "avg_quality_score data_completeness sources_used"
    ),
    "enrichment_status": (
        "symbol asset_class status last_enrichment_time last_fetch_source data_age_seconds records_available "
        "quality_score validation_rate error_message next_enrichment"
    ),
    "coverage": "state detected_at filled_at filled_by tries", "quarantine": "rule payload run_id", "runs": "id status",
}  # fmt: skip


@pytest.fixture
def owner(postgres: EmbeddedServer, empty_database: Database) -> Iterator[str]:
    """Connection string of a role that may connect and nothing else."""
    name = f"operator_{uuid.uuid4().hex[:8]}"
    empty_database.rows(f"CREATE ROLE {name} LOGIN")
    yield make_conninfo(empty_database.conninfo(), user=name)
    empty_database.rows(f"DROP OWNED BY {name} CASCADE")
    empty_database.rows(f"DROP ROLE {name}")


def dump(postgres: EmbeddedServer, database: Database) -> str:
    """The schema as pg_dump prints it, without its random marker."""
    from market_data.storage.server.account import binaries

    command = [str(binaries().folder / "pg_dump"), "--schema-only", "--no-owner", database.conninfo()]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.sub(r"^\\(un)?restrict .*$", "", printed, flags=re.MULTILINE)


def found_columns(database: Database) -> dict[str, set[str]]:
    columns: dict[str, set[str]] = {}
    for row in database.rows(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    ):
        columns.setdefault(row["table_name"], set()).add(row["column_name"])
    partitions = database.rows("SELECT relname FROM pg_class WHERE relispartition")
    return {name: found for name, found in columns.items() if name not in {row["relname"] for row in partitions}}


def test_everything_asked_for_is_there(database: Database) -> None:
    found = found_columns(database)
    lacking = {table: set(columns.split()) - found.get(table, set()) for table, columns in ASKED_FOR.items()}
    assert {table: columns for table, columns in lacking.items() if columns} == {}


def test_the_verification_knows_every_column(database: Database) -> None:
    assert declared_columns() | {migrate.VERSION_TABLE: {"version_num"}} == found_columns(database)


def test_once_and_then_nothing(empty_database: Database) -> None:
    assert migrate.status(empty_database).current is None
    with pytest.raises(SchemaMismatch, match=r"empty, this program needs.*market-data db upgrade"):
        migrate.require_current(empty_database)
    first = migrate.upgrade(empty_database)
    assert first.applied == migrate.known_revisions()
    assert (first.before, first.after) == (None, migrate.known_revisions()[-1])
    again = migrate.upgrade(empty_database)
    assert again.applied == ()
    assert "nothing to apply" in str(again)
    assert migrate.status(empty_database).up_to_date
    migrate.require_current(empty_database)


def test_four_processes_race(empty_database: Database) -> None:
    command = [sys.executable, "-W", "error", "-c", UPGRADE, empty_database.conninfo()]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [racer.communicate(timeout=120) for racer in racers]
    assert [error for _, error in said] == [""] * 4
    assert sorted(int(output) for output, _ in said) == [0, 0, 0, len(migrate.known_revisions())]


def test_the_printed_sql_makes_the_same_schema(
    postgres: EmbeddedServer, database: Database, empty_database: Database
) -> None:
    with psycopg.connect(empty_database.conninfo(), autocommit=True) as connection:
        connection.execute(migrate.sql().encode())
    assert migrate.upgrade(empty_database).applied == ()
    assert dump(postgres, empty_database) == dump(postgres, database)
    assert "CREATE TABLE public.market_data_v2 (" in dump(postgres, database)


def test_the_printed_sql_from_a_revision_has_only_the_rest() -> None:
    first, *_, last = migrate.known_revisions()
    rest = migrate.sql(after=first)
    assert "CREATE TABLE candles" not in rest
    assert f"SET version_num='{last}'" in rest


def test_a_missing_privilege_says_what_to_grant(empty_database: Database, owner: str) -> None:
    with Database.open(owner, None) as theirs:
        with pytest.raises(MissingPrivilege) as denied:
            migrate.upgrade(theirs)
        grant = re.search(r"GRANT .*;", str(denied.value))
        assert grant is not None
        assert grant[0].startswith("GRANT USAGE, CREATE ON SCHEMA public TO operator_")
        empty_database.rows(grant[0])
        assert migrate.upgrade(theirs).applied == migrate.known_revisions()


def test_a_schema_newer_than_the_program(database: Database) -> None:
    database.rows(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '9999'")
    for step in (migrate.status, migrate.upgrade, migrate.require_current):
        with pytest.raises(SchemaMismatch, match=r"9999, newer than .*install the newer program"):
            step(database)


def test_a_table_lost_by_hand_is_found(database: Database) -> None:
    database.rows("ALTER TABLE runs DROP COLUMN counts")
    database.rows("DROP TABLE news")
    with pytest.raises(SchemaMismatch, match=r"lacks table news; runs\.counts"):
        migrate.upgrade(database)


def test_a_stranger_table_in_the_way(empty_database: Database) -> None:
    empty_database.rows("CREATE TABLE quotes (said text)")
    with pytest.raises(StorageError, match='"quotes" already exists, but not made by this program'):
        migrate.upgrade(empty_database)
    assert found_columns(empty_database) == {"quotes": {"said"}}


def test_a_failed_upgrade_leaves_no_lock(empty_database: Database) -> None:
    empty_database.rows("CREATE TABLE quotes (said text)")
    with pytest.raises(StorageError):
        migrate.upgrade(empty_database)
    empty_database.rows("DROP TABLE quotes")
    assert migrate.upgrade(empty_database).applied == migrate.known_revisions()


def test_the_years_made_by_the_migration(database: Database) -> None:
    names = {row["relname"] for row in database.rows("SELECT relname FROM pg_class WHERE relispartition")}
    years = range(2009, dt.datetime.now(dt.UTC).year + 2)
    for table in ("candles", "market_data_v2"):
        assert {name for name in names if re.fullmatch(f"{table}_y[0-9]+", name)} == {f"{table}_y{y}" for y in years}


@pytest.mark.parametrize(
    ("table", "start", "end", "made"),
    [
        ("candles", (1999, 12, 31), (2001, 1, 1), ["candles_y1999", "candles_y2000"]),
        ("market_data_v2", (1962, 1, 2), (1962, 1, 3), ["market_data_v2_y1962"]),
        ("candles", (2010, 1, 1), (2020, 1, 1), []),
        ("trades", (2024, 2, 28), (2024, 3, 1, 0, 1), ["trades_d20240228", "trades_d20240229", "trades_d20240301"]),
        ("quotes", (2024, 12, 31), (2025, 1, 1), ["quotes_d20241231"]),
        ("trades_raw", (2024, 1, 1, 23, 59), (2024, 1, 2), ["trades_raw_d20240101"]),
        ("options_iv", (2024, 9, 30), (2025, 1, 2), [f"options_iv_y{q}" for q in ("2024q3", "2024q4", "2025q1")]),
    ],
)
def test_partitions_ahead_of_writes(
    database: Database, table: str, start: tuple[int, ...], end: tuple[int, ...], made: list[str]
) -> None:
    period = [dt.datetime(*moment, tzinfo=dt.UTC) for moment in (start, end)]  # type: ignore[arg-type]
    with database.transaction() as connection:
        assert ensure_partitions(connection, table, *period) == made
        assert ensure_partitions(connection, table, *period) == []


def test_rows_land_in_a_partition_made_later(database: Database) -> None:
    row = "('AAPL', 'stock', '1d', '{}', 1, 1, 1, 1, 1, 'yahoo', now())"
    insert = (
        "INSERT INTO market_data_v2 (symbol, asset_class, timeframe, timestamp, open, high, low, close, volume, "
        f"source, fetched_at) VALUES {row} RETURNING id, tableoid::regclass::text AS partition"
    )
    with pytest.raises(StorageError, match="no partition"):
        database.rows(insert.format("1999-12-31 23:59:59+00"))
    with database.transaction() as connection:
        ensure_partitions(
            connection, "market_data_v2", dt.datetime(1999, 1, 1, tzinfo=dt.UTC), dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
        )
    old = database.rows(insert.format("1999-12-31 23:59:59+00"))
    new = database.rows(insert.format("2024-01-01 00:00:00+00"))
    assert [old[0]["partition"], new[0]["partition"]] == ["market_data_v2_y1999", "market_data_v2_y2024"]
    assert old[0]["id"] < new[0]["id"]
    with pytest.raises(StorageError, match="duplicate key"):
        database.rows(insert.format("1999-12-31 23:59:59+00"))
    with pytest.raises(StorageError, match="check constraint"):
        database.rows(insert.replace("'1d'", "'2d'").format("1999-12-30 23:59:59+00"))


def test_two_writers_make_the_same_partition(database: Database) -> None:
    period = (dt.datetime(2024, 5, 1, tzinfo=dt.UTC), dt.datetime(2024, 5, 2, tzinfo=dt.UTC))
    command = [sys.executable, "-c", (
        "import sys, datetime as dt\n"
        "from market_data.storage.server.database import Database\n"
        "from market_data.storage.server.partitions import ensure_partitions\n"
        "with Database.open(sys.argv[1], None) as database, database.transaction() as connection:\n"
        "    period = [dt.datetime(2024, 5, day, tzinfo=dt.UTC) for day in (1, 2)]\n"
        "    print(ensure_partitions(connection, 'trades', *period))\n"
    ), database.conninfo()]  # fmt: skip
    with database.transaction() as connection:
        assert ensure_partitions(connection, "trades", *period) == ["trades_d20240501"]
        other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        waiting = "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while database.rows(waiting)[0]["n"] == 0 and other.poll() is None:
            pass
    assert other.communicate(timeout=60)[0] == "[]\n"


def test_only_what_grows_is_partitioned(database: Database) -> None:
    with pytest.raises(UsageError, match="news is not partitioned"), database.transaction() as connection:
        ensure_partitions(
            connection, "news", dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 1, 2, tzinfo=dt.UTC)
        )
