"""With the primary source failing at random, enriching ends with the same rows as without: shared retries, breaker."""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fault_desk import program
from fault_wire import VirtualTime

from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import Timeframe
from market_data.sandbox import Sandbox
from market_data.sandbox.marketplace import Marketplace
from market_data.storage.server.database import Database

NOW = datetime(2026, 11, 20, 18, 30, 15, tzinfo=UTC)
END = NOW.replace(minute=0, second=0)
# When a row was fetched and computed, and what follows from how long that took.
APART = {
    "contract_id",
    "id",
    "fetched_at",
    "computed_at",
    "updated_at",
    "created_at",
    "quality_score",
    "data_age_seconds",
}
FAULTS = ["5xx:0.3", "5xx:0.1,drop:0.1,truncate:0.05,429:0.05"]


def coins(count: int) -> list[Instrument]:
    """The sandbox's first coins."""
    return [Instrument(symbol, AssetClass.CRYPTO) for symbol in list(Marketplace().coins)[:count]]


async def enrich(
    database_url: str, primary: Sandbox, others: Sandbox, instruments: Sequence[Instrument], span: timedelta
) -> tuple[dict[str, tuple[int, str]], VirtualTime, float]:
    """Enrich hours; rows and their fingerprint by symbol, the waits between tries, and the seconds it took."""
    virtual = VirtualTime()
    values: dict[str, Any] = {
        **others.urls,
        **{name: url for name, url in primary.urls.items() if name.startswith("providers.binance.")},
        "providers.polygon.api_key": "planted-polygon-secret",
    }
    with program(values, database_url, NOW, virtual) as app:
        began = clock.perf_counter()
        try:
            reports = await app.enricher.enrich(instruments, [Timeframe.H1], END - span, END)
        finally:
            await app.disconnect()
        assert [report.error for report in reports] == [None] * len(instruments)
        return contents(app.database), virtual, clock.perf_counter() - began


def contents(database: Database) -> dict[str, tuple[int, str]]:
    """Rows and a fingerprint of all they say, by symbol."""
    columns = database.rows(
        "SELECT column_name AS name FROM information_schema.columns WHERE table_name = 'market_data_v2' ORDER BY 1"
    )
    said = ", ".join(row["name"] for row in columns if row["name"] not in APART)
    rows = database.rows(
        f"SELECT symbol, count(*) AS rows, md5(string_agg(md5(ROW({said})::text), '' ORDER BY timestamp)) AS print "
        "FROM market_data_v2 GROUP BY symbol"
    )
    return {row["symbol"]: (row["rows"], row["print"]) for row in rows}


async def compare(urls: tuple[str, str], faults: str, count: int, span: timedelta) -> None:
    instruments = coins(count)
    with Sandbox(now=NOW, limits=False) as clean, Sandbox(now=NOW, limits=False, faults=faults) as failing:
        expected, calm, undisturbed = await enrich(urls[0], clean, clean, instruments, span)
        found, waits, taken = await enrich(urls[1], failing, clean, instruments, span)
    rows = sum(number for number, _ in found.values())
    print(
        f"\n{faults}: {count} symbols, {rows} rows, {waits.sleeps} waits between requests ({calm.sleeps} without "
        f"faults); {sum(found[symbol] != one for symbol, one in expected.items())} symbols differ; "
        f"{taken:.1f} s of work, {undisturbed:.1f} s without faults"
    )
    # Without faults it waits too, for the limits that the source states.
    assert waits.sleeps > calm.sleeps, "nothing failed: the test proved nothing"
    assert rows == count * (span // timedelta(hours=1))
    assert found == expected


@pytest.fixture
def two_databases(database_url: str, another_database_url: str) -> tuple[str, str]:
    return database_url, another_database_url


@pytest.mark.parametrize("faults", [FAULTS[0], pytest.param(FAULTS[1], marks=pytest.mark.prove)])
async def test_the_same_rows(two_databases: tuple[str, str], faults: str) -> None:
    await compare(two_databases, faults, 4, timedelta(days=60))


@pytest.mark.prove
@pytest.mark.parametrize("faults", FAULTS)
async def test_fifty_symbols_a_year_of_hours(two_databases: tuple[str, str], faults: str) -> None:
    await compare(two_databases, faults, 50, timedelta(days=365))
