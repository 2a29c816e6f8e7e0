"""A series is of one contract: halted, delisted, outlived or unreachable, it takes no candles of another unmarked."""

from __future__ import annotations

import importlib.util
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from market_data.model.instrument import AssetClass, Instrument, Kind, Series, Status
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.write.gaps import audit_series, coverage
from market_data.storage.facts.contract_reads import Query, contracts
from market_data.storage.facts.expectations import trading
from market_data.storage.series.coverage import State, stretches
from market_data.storage.server.database import Database

_spec = importlib.util.spec_from_file_location("venues_of_instruments", Path(__file__).with_name("venues.py"))
assert _spec is not None
assert _spec.loader is not None
venues: Any = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = venues
_spec.loader.exec_module(venues)
DAWN, HOUR = venues.DAWN, venues.HOUR


@pytest.fixture
def world() -> Any:
    return venues.World()


@pytest.fixture
def pull(database: Database, world: Any) -> Any:
    return venues.Pull(database, world)


def numbers(pull: Any, instrument: Any = venues.COIN) -> list[int]:
    return [number for _, number, _, _ in pull.rows(instrument)]


def marked(pull: Any) -> list[bool]:
    return [mark for _, _, mark, _ in pull.rows()]


def missing(pull: Any, last: int) -> int:
    found: int = coverage(pull.database, venues.HOURS, TimeRange(DAWN, DAWN + last * HOUR), pull.world.now).missing
    return found


def test_a_halt_takes_no_other_contract_and_leaves_no_gap(world: Any, pull: Any) -> None:
    usdt = world.list("alpha", Kind.PERPETUAL, "USDT")
    world.list("alpha", Kind.PERPETUAL, "USDC")
    world.list("alpha", Kind.SPOT, "USDT")
    world.list("beta", Kind.SPOT, "USD")
    world.advance(10)
    pull()
    usdt.say(status=Status.HALTED, status_text="TRADING_HALT")
    world.advance(3)
    pull.forget_process()
    pull(first=5)
    assert numbers(pull) == [1] * 10
    assert missing(pull, 13) == 0, "nothing is expected of what is halted"
    assert "halted (TRADING_HALT)" in trading(pull.database, [venues.COIN])[venues.COIN].words(world.now)
    usdt.say(status=Status.TRADING, status_text="TRADING")
    world.advance(4)
    pull(first=5)
    assert numbers(pull) == [1] * 14
    assert marked(pull) == [False] * 14
    with pull.database.transaction() as connection:
        (empty,) = stretches(connection, venues.HOURS, state=State.NO_TRADE)
    assert (empty.start, empty.end) == (DAWN + 10 * HOUR, DAWN + 13 * HOUR)
    assert empty.last_error.startswith("alpha: COIN/USDT:USDT was halted (TRADING_HALT)")
    assert "asked at" in empty.last_error
    assert missing(pull, 17) == 0


def test_a_halt_of_which_only_one_market_knows(world: Any, pull: Any) -> None:
    """Nobody looked while it was halted: what is missing then is a gap, not a proof."""
    usdt = world.list("alpha", Kind.PERPETUAL, "USDT")
    world.advance(4)
    pull()
    usdt.say(status=Status.HALTED)
    world.advance(3)
    usdt.say(status=Status.TRADING)
    world.advance(2)
    pull()
    assert missing(pull, 9) == 3


def test_a_perpetual_that_comes_later_changes_nothing(world: Any, pull: Any) -> None:
    world.list("alpha", Kind.SPOT, "USDT", dated=False)
    world.advance(5)
    pull()
    world.list("alpha", Kind.PERPETUAL, "USDT")
    world.advance(5)
    pull.forget_process()
    pull()
    assert numbers(pull) == [1] * 10
    # Beside it, by its exact notation, stands the other.
    exact = Instrument("COIN/USDT:USDT", AssetClass.CRYPTO)
    pull(Series(exact, Timeframe.H1))
    assert numbers(pull, exact) == [2] * 5


def test_before_the_listing_the_pair_stands_in_and_gives_way(world: Any, pull: Any) -> None:
    spot = world.list("alpha", Kind.SPOT, "USDT", dated=False)
    world.advance(6)
    perpetual = world.list("alpha", Kind.PERPETUAL, "USDT")
    world.advance(4)
    pull()
    assert numbers(pull) == [spot.number] * 6 + [perpetual.number] * 4
    assert marked(pull) == [True] * 6 + [False] * 4
    # The venue mends the date, and its first candles appear.
    perpetual.say(listed_from=DAWN + 3 * HOUR)
    perpetual.hours |= {3, 4, 5}
    pull.forget_process()
    pull()
    assert numbers(pull) == [spot.number] * 3 + [perpetual.number] * 7
    assert marked(pull) == [True] * 3 + [False] * 7
    assert [row["kind"] for row in pull.database.rows("SELECT kind FROM contract_events")] == ["date_corrected"]


def test_a_late_date_hides_no_candle(world: Any, pull: Any) -> None:
    perpetual = world.list("alpha", Kind.PERPETUAL, "USDT")
    world.list("alpha", Kind.SPOT, "USDT", dated=False)
    world.advance(6)
    perpetual.say(listed_from=DAWN + 4 * HOUR)
    pull()
    assert numbers(pull) == [perpetual.number] * 6


@pytest.mark.parametrize("status", [Status.DELIVERING, Status.SETTLED, Status.DELISTED])
def test_what_ended_keeps_its_candles_and_misses_none(world: Any, pull: Any, status: Status) -> None:
    perpetual = world.list("alpha", Kind.PERPETUAL, "USDT")
    world.list("alpha", Kind.SPOT, "USDT")
    world.list("beta", Kind.SPOT, "USD")
    world.advance(5)
    pull()
    perpetual.say(status=status, listed_to=world.now)
    world.advance(200)
    pull.forget_process()
    pull()
    assert numbers(pull) == [1] * 5
    assert missing(pull, 205) == 0
    assert audit_series(pull.database, venues.HOURS, world.now).coverage.missing == 0
    words = trading(pull.database, [venues.COIN])[venues.COIN].words(world.now)
    assert "delisted" in words
    assert f"since {DAWN + 5 * HOUR:%Y-%m-%d %H:%M}" in words


def test_a_name_that_passes_on_is_two_contracts(world: Any, pull: Any) -> None:
    old = world.list("alpha", Kind.PERPETUAL, "USDT")
    world.advance(5)
    pull()
    old.say(status=Status.DELISTED, listed_to=world.now)
    world.advance(3)
    pull.forget_process()
    pull()
    new = world.list("alpha", Kind.PERPETUAL, "USDT")
    old.shown = False
    world.advance(4)
    pull.forget_process()
    pull()
    rows = pull.rows()
    assert [number for _, number, _, _ in rows] == [old.number] * 5 + [new.number] * 4
    assert len({contract for *_, contract in rows}) == 2
    assert marked(pull) == [False] * 9, "each was the series' own in its time"
    listed = contracts(pull.database, Query(), venues.COIN)
    assert [(row["life"], row["own"]) for row in listed] == [(1, None), (2, "COIN")]


def test_a_fallback_stands_in_while_the_own_source_fails(world: Any, pull: Any) -> None:
    world.list("alpha", Kind.PERPETUAL, "USDT")
    world.list("beta", Kind.SPOT, "USD")
    world.advance(4)
    pull()
    world.down.add("alpha")
    world.advance(2)
    assert pull(first=4) == "beta"
    assert numbers(pull) == [1, 1, 1, 1, 2, 2]
    assert marked(pull) == [False] * 4 + [True] * 2
    world.down.clear()
    pull(first=4)
    assert numbers(pull) == [1] * 6
    assert marked(pull) == [False] * 6


def test_nobody_is_bound_to_the_second_choice_by_an_outage(world: Any, pull: Any) -> None:
    world.list("alpha", Kind.PERPETUAL, "USDT")
    world.list("beta", Kind.SPOT, "USD")
    world.advance(4)
    world.down.add("alpha")
    assert pull() == "beta"
    assert marked(pull) == [True] * 4
    world.down.clear()
    assert pull() == "alpha"
    assert numbers(pull) == [1] * 4
    assert marked(pull) == [False] * 4


def test_a_changed_priority_rebinds_nothing(world: Any, pull: Any) -> None:
    world.list("alpha", Kind.PERPETUAL, "USDT")
    world.list("beta", Kind.SPOT, "USD")
    world.advance(4)
    pull()
    pull.venues = dict(reversed(pull.venues.items()))
    pull.forget_process()
    world.advance(2)
    pull()
    assert numbers(pull) == [1] * 6
    assert marked(pull) == [False] * 6


def test_lists_are_read_as_they_were(world: Any, pull: Any) -> None:
    perpetual = world.list("alpha", Kind.PERPETUAL, "USDT")
    world.advance(5)
    pull()
    then = world.now
    perpetual.say(status=Status.SETTLED, listed_to=world.now)
    world.advance(5)
    pull.forget_process()
    pull()
    (now_listed,) = contracts(pull.database, Query())
    (then_listed,) = contracts(pull.database, Query(as_of=then))
    assert (now_listed["status"], then_listed["status"]) == ("settled", "trading")
    assert contracts(pull.database, Query(as_of=then - timedelta(days=1))) == []
    assert contracts(pull.database, Query(status="trading")) == []
    assert contracts(pull.database, Query(query="coinusdt", kind="perpetual")) == [now_listed]
