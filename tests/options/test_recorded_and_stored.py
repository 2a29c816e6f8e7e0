"""Deribit's own volatilities and greeks; chains collected, completed, stored and read back; the command."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from asking_sources import asking
from market_data.bootstrap.shelves import open_shelves
from market_data.cli.app import app
from market_data.model.contract import Listing
from market_data.model.dataset import DIVIDENDS, OPTIONS, Dataset
from market_data.model.errors import UnsupportedRequest
from market_data.model.implied import implied_volatility
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.options import Contracts, greeks, price
from market_data.model.provider import Capability, Page, Provider
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.fetch.facts import Collector
from market_data.pipeline.write.chain import latest_chain
from market_data.storage.series.present import Counts
from market_data.storage.server.database import Database
from market_data.storage.work.quarantine import listed

KO = Instrument("KO", AssetClass.STOCK)
NOW = datetime(2026, 12, 4, 18, tzinfo=UTC)


def test_deribits_volatilities_and_greeks(recordings: Path) -> None:
    tickers = json.loads((recordings / "openbb_deribit" / "option_tickers.json").read_text())
    asked = compared = 0
    for name, ticker in tickers.items():
        _, day, strike, kind = name.split("-")
        if not strike.isdigit():
            continue
        expiry = datetime.strptime(f"{day}08+0000", "%d%b%y%H%z")
        years = (expiry.timestamp() - ticker["timestamp"] / 1000) / (365 * 86400)
        # Deribit prices on the forward, without interest, in coins.
        forward = ticker["underlying_price"]
        contract = Contracts.of(kind == "C", forward, float(strike), years)
        mark = np.array([ticker["mark_iv"] / 100])
        assert price(contract, mark)[0] / forward == pytest.approx(ticker["mark_price"], abs=5.1e-5)
        found = greeks(contract, mark)
        # Per day and per point as ours; they count the time in whole minutes or so.
        for greek, value in ticker["greeks"].items():
            assert getattr(found, greek)[0] == pytest.approx(value, rel=1e-3, abs=1.1e-5), (name, greek)
            compared += 1
        if ticker["best_ask_price"]:
            implied = implied_volatility(contract, np.array([ticker["best_ask_price"] * forward]))
            assert implied[0] == pytest.approx(ticker["ask_iv"] / 100, rel=5e-4)
            asked += 1
    assert (asked, compared) == (6, 30)


class Chains(Provider):
    """A provider of fixed pages."""

    name = "chains"
    capabilities = tuple(
        Capability(dataset=dataset, asset_classes=frozenset({AssetClass.STOCK})) for dataset in (OPTIONS, DIVIDENDS)
    )

    def __init__(self, pages: dict[str, list[list[dict[str, Any]]]]) -> None:
        self.pages = pages

    async def resolve(self, instrument: Instrument) -> Listing:
        return Listing(instrument, self.name, instrument.symbol)

    async def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        raise UnsupportedRequest(self.name)
        yield

    async def fetch(
        self, dataset: Dataset, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        for rows in self.pages[dataset.name]:
            frame = dataset.conform(pl.DataFrame(rows, infer_schema_length=None))
            yield Page(frame=frame, source=self.name, fetched_at=now, response_ms=1.0)


def row(kind: str, strike: int, bid: str, ask: str, moment: datetime = NOW) -> dict[str, Any]:
    return {
        "timestamp": moment,
        "contract": f"KO270115{kind[0].upper()}{strike * 1000:08d}",
        "option_type": kind,
        "exercise_style": "american",
        "expiration": date(2027, 1, 15),
        "strike": Decimal(strike),
        "bid": Decimal(bid),
        "ask": Decimal(ask),
        "open_interest": Decimal(strike),
        "underlying_price": Decimal(70),
    }


FIRST = [row("call", 70, "1.90", "2.00"), row("put", 70, "2.00", "2.20"), row("call", -70, "1", "2")]
SECOND = [row("put", 65, "0.50", "0.60", NOW + timedelta(seconds=1)), row("call", 60, "9", "8")]


async def fill(database: Database, *, rate: float | None = 0.04) -> Counts:
    dividend = {"ex_date": date(2026, 9, 15), "amount": Decimal("0.53"), "currency": "USD", "dividend_type": "cash"}
    source = Chains({"options": [FIRST, SECOND], "dividends": [[dividend]]})
    later = NOW + timedelta(minutes=1)
    collector = Collector(asking(database, {AssetClass.STOCK: [source]}, lambda: later), open_shelves(), rate)
    await collector.collect(DIVIDENDS, KO, TimeRange(NOW - timedelta(days=365), later))
    collected = await collector.collect(OPTIONS, KO, TimeRange(NOW - timedelta(days=1), later))
    assert collected.error is None
    return collected.counts


async def test_a_chain_is_stored_completed_once(database: Database) -> None:
    assert await fill(database) == Counts(inserted=4, rejected=1)
    assert await fill(database) == Counts(unchanged=4, rejected=1)
    assert [(one["dataset"], one["rule"]) for one in listed(database)] == [
        ("options", "strike_not_positive, option_value_negative")
    ]
    chain = latest_chain(database, KO)
    assert chain["contract"].to_list() == [
        "KO270115C00060000", "KO270115C00070000", "KO270115P00065000", "KO270115P00070000",
    ]  # fmt: skip
    assert chain["iv_origin"].to_list() == [None, "computed", "computed", "computed"]
    assert chain["iv_reason"].to_list() == ["bid above ask", None, None, None]
    at_the_money = chain.filter(pl.col("strike") == 70)
    # At the money a price is 0.399 · 70 · σ · √(42.13 / 365) = 9.49 σ, the call more and the put less by half the
    # carry: 70 · (0.04 − 0.53 / 70) · 42.13 / 365 / 2 = 0.13. (1.95 − 0.13) / 9.49 and (2.10 + 0.13) / 9.49.
    assert at_the_money["iv"].to_list() == pytest.approx([0.192, 0.235], abs=0.002)
    assert at_the_money["delta"].to_list() == pytest.approx([0.53, -0.48], abs=0.02)
    assert latest_chain(database, KO, NOW).is_empty()


async def test_without_a_rate_rows_are_stored_as_they_came(database: Database) -> None:
    assert await fill(database, rate=None) == Counts(inserted=4, rejected=1)
    assert latest_chain(database, KO)["iv"].null_count() == 4


async def test_the_command_shows_the_chain(database: Database, database_url: str) -> None:
    await fill(database)
    run = CliRunner(env={"COLUMNS": "200"}).invoke

    def asked(*arguments: str) -> Any:
        return run(app, ["--database-url", database_url, "options", *arguments])

    shown = json.loads(asked("KO", "--json").stdout)
    assert [one["expiration"] for one in shown["risk"]] == ["2027-01-15", None]
    assert shown["risk"][0]["max_open_interest_put"] == 70
    assert len(shown["contracts"]) == 4
    table = asked("KO", "--expiration", "2027-01-15")
    assert table.exit_code == 0
    assert "bid above ask" in table.stdout
    assert "no option chain stored" in asked("PEP").stderr
    wrong = asked("KO", "--expiration", "2027-01-16")
    assert wrong.exit_code == 2 or "2027-01-15" in str(wrong.exception)
