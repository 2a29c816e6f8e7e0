"""What a name means: by what is stored and listed, ambiguous ones asked; exact notations beside bare ones."""

from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from market_data.model.contract import SHARES, US_VENUE, Contract, Preference
from market_data.model.errors import UnknownInstrument, UsageError
from market_data.model.instrument import AssetClass, Instrument, Kind, Series, is_name
from market_data.model.timeframe import Timeframe
from market_data.pipeline.read.names import Names
from market_data.pipeline.read.status import Standings
from market_data.storage.facts.contract_lists import record
from market_data.storage.series.reader import Reader
from market_data.storage.server.database import Database
from market_data.storage.work.forgetting import forget, holdings

_spec = importlib.util.spec_from_file_location("venues_of_names", Path(__file__).with_name("venues.py"))
assert _spec is not None
assert _spec.loader is not None
venues: Any = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = venues
_spec.loader.exec_module(venues)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CRYPTO, STOCK, ETF = AssetClass.CRYPTO, AssetClass.STOCK, AssetClass.ETF


def coin(base: str, quote: str = "USDT", *, spot: bool = False) -> Contract:
    return Contract(
        venue="BINANCE", market="spot" if spot else "usdm", raw_symbol=f"{base}{quote}",
        kind=Kind.SPOT if spot else Kind.PERPETUAL, base=base, quote=quote, settlement=None if spot else quote,
    )  # fmt: skip


def share(symbol: str, kind: Kind = Kind.STOCK) -> Contract:
    return Contract(venue=US_VENUE, market=SHARES, raw_symbol=symbol, kind=kind, base=symbol, quote="USD")


@pytest.fixture
def names(database: Database) -> Names:
    """Over lists of three sources."""
    listed = {
        "binance": [coin("BTC"), coin("BTC", spot=True), coin("ETH"), coin("kPEPE"), coin("币安人生"), coin("SPY")],
        "polygon": [
            Contract(venue="MASSIVE", market="crypto", raw_symbol="X:BTCUSD", kind=Kind.SPOT, base="BTC", quote="USD"),
            share("BRK.B"),
        ],
        "yahoo": [share("SPY", Kind.ETF), share("KO")],
    }
    with database.transaction() as connection:
        for source, contracts in listed.items():
            record(connection, source, contracts, NOW)
    return Names(database, Standings(database), Preference())


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("BTC", Instrument("BTC", CRYPTO)),
        ("btc", Instrument("BTC", CRYPTO)),
        ("BTC/USDT", Instrument("BTC/USDT", CRYPTO)),
        ("BTC/USDT:USDT", Instrument("BTC/USDT:USDT", CRYPTO)),
        ("X:BTCUSD", Instrument("BTC/USD", CRYPTO)),
        ("BTC-USD", Instrument("BTC/USD", CRYPTO)),
        ("binance:ETHUSDT", Instrument("ETH/USDT:USDT", CRYPTO)),
        ("ETHUSDT", Instrument("ETH/USDT:USDT", CRYPTO)),
        ("kPEPE", Instrument("kPEPE", CRYPTO)),
        ("币安人生", Instrument("币安人生", CRYPTO)),
        ("BRK.B", Instrument("BRK.B", STOCK)),
        ("KO", Instrument("KO", STOCK)),
        ("NOSUCH", None),
        ("kraken:ETHUSDT", None),
    ],
)
def test_a_name_means_what_is_listed(names: Names, text: str, meant: Instrument | None) -> None:
    assert names.meant(text) == meant


def test_what_may_be_several_is_asked(names: Names) -> None:
    with pytest.raises(UsageError, match=r"BTCUSDT may mean BTC/USDT, BTC/USDT:USDT"):
        names.meant("BTCUSDT")
    with pytest.raises(UsageError, match="--asset-class crypto or --asset-class etf"):
        names.meant("SPY")
    assert names.meant("SPY", ETF) == Instrument("SPY", ETF)


def test_the_exact_notation_of_the_own_contract_shares_its_storage(names: Names) -> None:
    shared = names.stored_as(Instrument("BTC/USDT:USDT", CRYPTO))
    assert (shared.symbol, shared.only is None) == ("BTC", False)
    assert names.stored_as(Instrument("BTC/USDT", CRYPTO)) == Instrument("BTC/USDT", CRYPTO)
    assert names.stored_as(Instrument("BTC", CRYPTO)).only is None


@pytest.mark.parametrize(
    ("text", "fits"),
    [("BTC", True), ("币安人生", True), ("BTC/USDT:USDT-270326", True), ("BTC USDT", False), ("", False),
     ("A\x1b[31m", False), ("x" * 65, False), ("--", False), ("BTC\u2028", False)],
)  # fmt: skip
def test_what_can_be_a_name(text: str, fits: bool) -> None:  # a case
    assert is_name(text) == fits


def pulled(database: Database) -> Any:
    world = venues.World()
    world.list("alpha", Kind.SPOT, "USDT", dated=False)
    world.advance(4)
    world.list("alpha", Kind.PERPETUAL, "USDT")
    world.advance(3)
    pull = venues.Pull(database, world)
    pull()
    return pull


def test_by_the_exact_notation_nothing_that_stands_in_is_shown(database: Database) -> None:
    pull = pulled(database)
    names = Names(database, Standings(database), Preference())
    exact = names.stored_as(Instrument("COIN/USDT:USDT", CRYPTO))
    read = Reader(database)
    assert read.features(Series(venues.COIN, Timeframe.H1)).height == 7
    shown = read.features(Series(exact, Timeframe.H1))
    assert shown.height == 3
    assert shown["validation_notes"].drop_nulls().to_list() == []
    assert read.standing(Series(exact, Timeframe.H1), None, pull.world.now + venues.HOUR).height == 3


def test_forgetting_says_what_goes_and_removes_it_and_nothing_else(database: Database) -> None:
    pull = pulled(database)
    pull(Series(Instrument("COIN/USDT", CRYPTO), Timeframe.H1))
    held = holdings(database, venues.COIN)
    assert (held["market_data_v2"], held["candles"], held["contract_ties"]) == (7, 7, 1)
    assert forget(database, venues.COIN) == held
    assert holdings(database, venues.COIN) == {}
    assert holdings(database, Instrument("COIN/USDT", CRYPTO))["market_data_v2"] == 7
    # What the sources list stays known.
    assert Names(database, Standings(database), Preference()).meant("COIN") == venues.COIN


async def test_a_name_that_nobody_lists_is_an_error_and_leaves_nothing(database: Database) -> None:
    world = venues.World()
    world.list("alpha", Kind.SPOT, "USDT")
    pull = venues.Pull(database, world)
    names = Names(database, Standings(database), Preference())
    with pytest.raises(UnknownInstrument, match="No source lists COYN"):
        await pull.contracts.find("COYN", None, names)
    assert holdings(database, Instrument("COYN", CRYPTO)) == {}
    assert await pull.contracts.find("COIN", None, names) == venues.COIN
