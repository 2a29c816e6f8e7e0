"""Instrument lists in the database: written once, closed when they end, and told on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from market_data.model.contract import Listing
from market_data.model.dataset import INSTRUMENTS, Dataset
from market_data.model.errors import ProviderUnavailable, UnknownInstrument, UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Capability, Page, Provider
from market_data.model.timeframe import Timeframe
from market_data.pipeline.fetch.listings import Listings, Refreshed
from market_data.storage.facts.instruments import known_symbols, names_of
from market_data.storage.series.present import Counts
from market_data.storage.server.database import Database

JANUARY, FEBRUARY = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
STOCKS = frozenset({AssetClass.STOCK, AssetClass.ETF})


class Lister(Provider):
    """A provider with an instrument list of two pages, or none."""

    name = "lister"
    capabilities = (Capability(dataset=INSTRUMENTS, asset_classes=STOCKS),)

    def __init__(self, rows: list[dict[str, Any]], error: Exception | None = None) -> None:
        self.rows = rows
        self.error = error

    async def resolve(self, instrument: Instrument) -> Listing:
        raise UnknownInstrument("nothing")

    async def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        raise UnsupportedRequest(self.name)
        yield

    async def fetch(
        self, dataset: Dataset, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        for part in (self.rows[:1], self.rows[1:]):
            frame = INSTRUMENTS.conform(pl.DataFrame(part, infer_schema_length=None)) if part else INSTRUMENTS.empty()
            mine = frame.filter(pl.col("asset_class") == instrument.asset_class.value)
            yield Page(frame=mine, source=self.name, fetched_at=now, response_ms=1.0)
            if self.error:
                raise self.error


class Resolver(Lister):
    """A provider without a list, asked for one instrument after another."""

    name = "resolver"
    capabilities = ()

    async def resolve(self, instrument: Instrument) -> Listing:
        if instrument.symbol != "BRK.B":
            raise UnknownInstrument(f"no {instrument}")
        return Listing(instrument, self.name, "BRK-B", "NYQ")


def row(raw: str, symbol: str, kind: str = "stock", end: datetime | None = None) -> dict[str, Any]:
    return {
        "raw_symbol": raw, "symbol": symbol, "asset_class": kind, "venue": "XNYS", "name": f"{symbol} Inc.",
        "currency": "USD", "status": "trading", "valid_from": None, "valid_to": end,
    }  # fmt: skip


async def refresh(database: Database, now: datetime, *providers: Provider, name: str | None = None) -> list[Refreshed]:
    by_class = dict.fromkeys((AssetClass.STOCK, AssetClass.ETF), providers)
    asked = [Instrument("BRK.B", AssetClass.STOCK), Instrument("ZZZ", AssetClass.STOCK)]
    return await Listings(database, by_class, lambda: now).refresh(name, asked)


def state(database: Database) -> list[dict[str, Any]]:
    return database.rows(
        "SELECT s.*, s.xmin::text AS s_version, i.*, i.xmin::text AS i_version FROM instrument_symbols s "
        "JOIN instruments i USING (symbol, asset_class) ORDER BY provider, raw_symbol, valid_from"
    )


async def test_a_second_refresh_writes_nothing(database: Database) -> None:
    source = Lister(
        [row("KO", "KO"), row("SPY", "SPY", "etf"), row("OLD", "OLD", end=datetime(2020, 1, 2, tzinfo=UTC))]
    )
    (first,) = await refresh(database, JANUARY, source)
    assert (first.counts, first.listed, first.error) == (Counts(inserted=3), 3, None)
    before = state(database)
    (second,) = await refresh(database, FEBRUARY, source)
    assert second.counts == Counts(unchanged=3)
    assert state(database) == before
    described = database.rows("SELECT symbol, active, name, delisted_on FROM instruments ORDER BY symbol")
    assert described == [
        {"symbol": "KO", "active": True, "name": "KO Inc.", "delisted_on": None},
        {"symbol": "OLD", "active": False, "name": "OLD Inc.", "delisted_on": date(2020, 1, 2)},
        {"symbol": "SPY", "active": True, "name": "SPY Inc.", "delisted_on": None},
    ]


async def test_what_is_gone_is_closed_and_kept(database: Database) -> None:
    await refresh(database, JANUARY, Lister([row("KO", "KO"), row("FRC", "FRC")]))
    (second,) = await refresh(database, FEBRUARY, Lister([row("KO", "KO")]))
    assert second.counts == Counts(updated=1, unchanged=1)
    (gone,) = names_of(database, "FRC")
    assert (gone["valid_to"], gone["active"], gone["name"]) == (FEBRUARY, False, "FRC Inc.")


async def test_a_symbol_that_passes_from_a_stock_to_an_etf_changes_hands_at_one_moment(database: Database) -> None:
    await refresh(database, JANUARY, Lister([row("META", "META", "etf"), row("KO", "KO")]))
    await refresh(database, FEBRUARY, Lister([row("META", "META", "stock"), row("KO", "KO")]))
    lives = [(each["asset_class"], each["valid_from"], each["valid_to"]) for each in names_of(database, "META")]
    assert lives == [("etf", None, FEBRUARY), ("stock", FEBRUARY, None)]


async def test_half_a_list_stores_nothing_and_stops_no_other_source(database: Database) -> None:
    await refresh(database, JANUARY, Lister([row("KO", "KO"), row("PEP", "PEP")]))
    failing = Lister([row("KO", "KO"), row("PEP", "PEP")], ProviderUnavailable("half an answer"))
    first, second = await refresh(database, FEBRUARY, failing, Resolver([]))
    assert (str(first.error), first.counts) == ("half an answer", Counts())
    assert (second.error, second.counts.inserted, second.notes) == (None, 1, ["does not list ZZZ (stock)"])
    assert [each["raw_symbol"] for each in names_of(database, "BRK.B")] == ["BRK-B"]
    assert all(each["valid_to"] is None for each in names_of(database, "PEP"))
    assert set(known_symbols(database)) == {"BRK.B", "KO", "PEP"}
    # One source by name leaves the other alone.
    (only,) = await refresh(database, FEBRUARY, failing, Resolver([]), name="resolver")
    assert (only.provider, only.counts) == ("resolver", Counts(unchanged=1))


@pytest.fixture(scope="module")
def program(module_home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "market_data", "--sandbox", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**kept, "HOME": str(module_home)},
        )

    return run


def test_the_sandbox_tells_what_every_source_calls_a_symbol(
    program: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    early = program("instruments", "BTC", "-a", "crypto")
    assert early.returncode == 1
    assert "market-data instruments --refresh" in early.stderr
    done = program("instruments", "BTC", "--refresh", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    counted = {one["provider"]: one for one in answer["refreshed"]}
    assert counted["binance"]["new"] > 5
    assert counted["polygon"]["new"] > 5
    named = {one["provider"]: one["raw_symbol"] for one in answer["names"]}
    assert named == {"binance": "BTCUSDT", "binance:spot": "BTCUSDT", "polygon": "X:BTCUSD", "yahoo": "BTC-USD"}
    again = json.loads(program("instruments", "--refresh", "--json").stdout)
    assert all((one["new"], one["changed"]) == (0, 0) for one in again["refreshed"]), again
    apple = json.loads(program("instruments", "AAPL", "--json").stdout)["names"]
    assert {one["provider"]: one["raw_symbol"] for one in apple} == {
        "binance": None, "binance:spot": None, "polygon": "AAPL", "yahoo": "AAPL",
    }  # fmt: skip
    unknown = program("instruments", "AAPLE")
    assert unknown.returncode == 1
    assert "AAPL" in unknown.stderr
