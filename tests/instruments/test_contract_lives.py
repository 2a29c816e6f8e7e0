"""Random lives of contracts, over two sources and two markets, against a small model of what is right.

However contracts are listed, halted, resumed, settled, delisted, listed again under the same name, dated wrongly and
mended, and whichever source is down: no row of another contract stands unmarked, no proof is false, and what is
expected of the series is right.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from market_data.model.instrument import Kind, Status
from market_data.model.timeframe import TimeRange
from market_data.pipeline.write.gaps import coverage
from market_data.storage.series.coverage import State, stretches
from market_data.storage.server.database import Database

_spec = importlib.util.spec_from_file_location("venues_of_lives", Path(__file__).with_name("venues.py"))
assert _spec is not None
assert _spec.loader is not None
venues: Any = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = venues
_spec.loader.exec_module(venues)
DAWN, HOUR = venues.DAWN, venues.HOUR

HISTORIES = int(os.environ.get("MARKET_DATA_HISTORIES", "2000"))
# Emptied row by row: quicker than dropping the files of tables that hold a few dozen.
WRITTEN = (
    *("contract_ties", "contract_versions", "contract_events", "contracts", "candles", "market_data_v2", "coverage"),
    *("data_corrections", "disagreements", "series_moments", "data_quality_metrics"),
)
# What a bare coin means, first preferred, by source.
RANK = [("alpha", Kind.PERPETUAL, "USDT"), ("alpha", Kind.PERPETUAL, "USDC"), ("alpha", Kind.SPOT, "USDT"),
        ("beta", Kind.SPOT, "USD")]  # fmt: skip


class Lives(RuleBasedStateMachine):
    """A coin's contracts live; now and then its series is pulled and looked at."""

    database: Database

    @initialize(listed=st.lists(st.sampled_from(RANK), min_size=1, unique=True), hours=st.integers(1, 6))
    def begin(self, listed: Any, hours: int) -> None:
        with self.database.transaction() as connection:
            for table in WRITTEN:
                connection.execute(f"DELETE FROM {table}")
        self.world = venues.World()
        self.pull = venues.Pull(self.database, self.world)
        self.owners: list[tuple[int, Any]] = []
        """From which hour on which life is the series' own, as the model decides."""
        for which in listed:
            self.list(which, 0)
        self.world.advance(hours)
        self.look()

    def bearers(self, source: str, kind: Kind, quote: str) -> list[Any]:
        return [life for life in self.world.lives[source] if (life.contract.kind, life.contract.quote) == (kind, quote)]

    @rule(which=st.sampled_from(RANK), off=st.integers(-3, 3))
    def list(self, which: Any, off: int) -> None:
        """A contract is listed, now and then with a wrong date; a name is given again once it is free."""
        before = self.bearers(*which)
        if before and not (before[-1].contract.status.ended and before[-1].seen and self.world.hour > self.ended):
            return
        life = self.world.list(*which, dated=which[1] is Kind.PERPETUAL or which[0] == "beta")
        if before:
            if life.contract.listed_from is None:
                self.world.lives[which[0]].remove(life)
                return
            before[-1].shown = False
            if self.owners and self.owners[-1][1] is before[-1]:
                self.heirs = [*getattr(self, "heirs", []), (self.world.hour, life)]
        elif off and life.contract.listed_from is not None:
            life.say(listed_from=life.contract.listed_from + off * HOUR)
        life.born = self.world.hour

    ended = -1

    @rule(hours=st.integers(1, 6))
    def wait(self, hours: int) -> None:
        self.world.advance(hours)
        self.look()

    @rule(data=st.data())
    def change(self, data: Any) -> None:
        """A contract is halted, resumed, settled, delisted, or its date mended."""
        living = [life for life in self.world.everyone() if not life.contract.status.ended]
        if not living:
            return
        life = data.draw(st.sampled_from(living))
        what = data.draw(st.sampled_from(["halt", "resume", "settle", "deliver", "delist", "mend"]))
        if what == "halt":
            life.say(status=Status.HALTED, status_text="TRADING_HALT")
        elif what == "resume":
            life.say(status=Status.TRADING, status_text="TRADING")
        elif what == "mend":
            if life.contract.listed_from is not None:
                life.say(listed_from=DAWN + life.born * HOUR)
        else:
            status = {"settle": Status.SETTLED, "deliver": Status.DELIVERING, "delist": Status.DELISTED}[what]
            life.say(status=status, listed_to=self.world.now)
            self.ended = self.world.hour

    @rule(source=st.sampled_from(["alpha", "beta"]))
    def toggle(self, source: str) -> None:
        self.world.down ^= {source}

    @rule()
    def another_process(self) -> None:
        self.pull.forget_process()

    @precondition(lambda self: self.world.hour > 0)
    @rule()
    def look(self) -> None:
        gave = self.pull()
        self.decide()
        self.check_rows()
        self.check_ledger()
        if self.owners and self.source_of(self.owners[-1][1]) not in self.world.down:
            self.check_complete(gave)

    # What is right.

    def decide(self) -> None:
        """The model's own contract: the preferred one of the first source that lists any, once that can be asked."""
        if not self.owners:
            for source in ("alpha", "beta"):
                if source in self.world.down:
                    return
                shown = [self.bearers(*which)[-1] for which in RANK if which[0] == source and self.bearers(*which)]
                if shown:
                    self.owners = [(-(10**6), shown[0])]
                    break
        for hour, heir in getattr(self, "heirs", []):
            if heir.seen and self.source_of(heir) not in self.world.down and heir not in [o for _, o in self.owners]:
                self.owners.append((hour, heir))

    def source_of(self, life: Any) -> str:
        return next(name for name, lives in self.world.lives.items() if life in lives)

    def own_at(self, hour: int) -> Any:
        found = [life for start, life in self.owners if start <= hour]
        return found[-1] if found else None

    def check_rows(self) -> None:
        identities = {
            row["contract_id"]: (row["venue"], row["market"], row["raw_symbol"], row["life"])
            for row in self.database.rows("SELECT * FROM contracts")
        }
        for hour, number, marked, contract_id in self.pull.rows():
            life = self.world.numbered(number)
            named = [each for each in self.world.everyone() if each.contract.key == life.contract.key]
            assert identities[contract_id] == (*life.contract.key, 1 + named.index(life)), f"hour {hour}"
            assert hour in life.hours
            own = self.own_at(hour)
            assert marked == (own is None or own.contract.key != life.contract.key or own is not life), f"hour {hour}"

    def check_ledger(self) -> None:
        with self.database.transaction() as connection:
            proved = stretches(connection, venues.HOURS, state=State.NO_TRADE)
        for stretch in proved:
            for hour in range(int((stretch.start - DAWN) / HOUR), int((stretch.end - DAWN) / HOUR)):
                own = self.own_at(hour)
                assert own is None or hour not in own.hours, f"hour {hour} was traded: {stretch.last_error}"
                assert "asked" in stretch.last_error

    def check_complete(self, gave: str | None) -> None:
        """All that the own contract has is stored, as its own; and after its last candle nothing is expected of it."""
        own = self.owners[-1][1]
        stored = {hour: number for hour, number, _, _ in self.pull.rows()}
        lacking = [hour for hour in own.hours if stored.get(hour) != own.number]
        assert lacking == [], f"given by {gave}"
        if not own.trades and own.hours:
            last = max(own.hours) + 1
            if last < self.world.hour:
                span = TimeRange(DAWN + last * HOUR, self.world.now)
                assert coverage(self.database, venues.HOURS, span, self.world.now).missing == 0


def lives(database: Database, histories: int) -> None:
    class Here(Lives):
        pass

    Here.database = database
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Here,
        settings=settings(
            max_examples=histories, stateful_step_count=14, deadline=None, database=None, print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip


def test_a_few_random_lives(database: Database) -> None:
    lives(database, 3)


@pytest.mark.prove
def test_many_random_lives(database: Database) -> None:
    lives(database, HISTORIES)
