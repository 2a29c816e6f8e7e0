"""Random histories of a series against the model: every verdict, every state, every read as of a past moment."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import history_steps as steps
import polars as pl
import pytest
from history_desk import content
from history_model import MANUAL, Model
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from polars.testing import assert_frame_equal

from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe
from market_data.pipeline.write import ripple
from market_data.pipeline.write.amend import Amender
from market_data.storage.series.present import Counts

LAST = 130  # beyond twice the lookback of hourly candles, so that changes far apart part into clusters
CLOSES = ("99", "100", "101.5", "120")
SOURCES = ("binance", "yahoo", "polygon")
REPORT_EVERY = 100
numbers = itertools.count()


@dataclass
class Tally:
    """What was compared with the model, and that it is told now and then in a long run."""

    histories: int = 0
    events: int = 0
    states: int = 0
    reads_as_of: int = 0
    started: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """One more history; every so many the count is printed."""
        self.histories += 1
        if self.histories % REPORT_EVERY == 0:
            self.tell()

    def tell(self) -> None:
        """Print it."""
        print(
            f"{self.histories} histories of {self.events} events: {self.states} states and {self.reads_as_of} reads "
            f"as of a past moment compared in {time.monotonic() - self.started:.0f} s",
            flush=True,
        )


class Crash(Exception):
    """The process stopped here."""


positions = st.integers(0, LAST)
values = st.tuples(st.sampled_from(CLOSES), st.booleans())
pages = st.one_of(
    # A stretch, scattered candles, and both.
    st.tuples(positions, st.integers(1, 60)).map(lambda p: list(range(p[0], min(p[0] + p[1], LAST)))),
    st.lists(positions, min_size=1, max_size=6, unique=True),
)


def machine(
    make_desk: Any, database: Any, monkeypatch: pytest.MonkeyPatch, tally: Tally
) -> type[RuleBasedStateMachine]:
    """The state machine over a database; every run works on a symbol of its own."""

    class History(RuleBasedStateMachine):
        @initialize(worth_reading=st.sampled_from([0, 10, 5000]), cluster=st.sampled_from([5, 40, 100_000]))
        def begin(self, worth_reading: int, cluster: int) -> None:
            monkeypatch.setattr(ripple, "WORTH_READING", worth_reading)
            monkeypatch.setattr(ripple, "CLUSTER_CANDLES", cluster)
            symbol = f"X{next(numbers)}"
            self.desk = make_desk(database, Series(Instrument(symbol, AssetClass.CRYPTO), Timeframe.H1))
            self.model, self.moment = Model(), 0
            self.snapshots: list[tuple[int, Any, pl.DataFrame]] = []
            self.changed = False
            tally.begin()

        @rule(source=st.sampled_from(SOURCES), page=pages, data=st.data())
        def offered(self, source: str, page: list[int], data: st.DataObject) -> None:
            pattern = data.draw(st.lists(values, min_size=1, max_size=5))
            said = {position: pattern[i % len(pattern)] for i, position in enumerate(page)}
            self._offer(source, said)

        @precondition(lambda self: self.model.said)
        @rule(source=st.sampled_from(SOURCES))
        def fetched_again(self, source: str) -> None:
            # What the source last said, without what it has since deleted: nothing may change.
            said = {}
            for position, versions in self.model.said.items():
                own = [v for v in versions if v.source == source]
                if own and position % 3:
                    said[position] = own[-1].value
            if said:
                assert set(self._offer(source, said)) == {"unchanged"}

        @precondition(lambda self: self.model.said)
        @rule(data=st.data(), close=st.sampled_from(CLOSES))
        def corrected(self, data: st.DataObject, close: str) -> None:
            position = data.draw(st.sampled_from(sorted(self.model.said)))
            stands = self.model.standing(position)
            if stands.value[0] == close:
                return
            self._tick()
            Amender(database, self.desk.shelves, lambda: self.desk.now, "a").correct(
                self.desk.series, self.desk.at(position), {"close": close}, "why"
            )
            self.model.offer(self.moment, MANUAL, position, (close, stands.value[1]))
            self._remember()

        @precondition(lambda self: any(self.model.standing(p).source == MANUAL for p in self.model.said))
        @rule(data=st.data())
        def reverted(self, data: st.DataObject) -> None:
            by_hand = sorted(p for p in self.model.said if self.model.standing(p).source == MANUAL)
            position = data.draw(st.sampled_from(by_hand))
            self._tick()
            amender = Amender(database, self.desk.shelves, lambda: self.desk.now, "a")
            amender.revert(self.desk.series, self.desk.at(position), "")
            self.model.revert(self.moment, position)
            self._remember()

        @rule(source=st.sampled_from(SOURCES), page=pages, value=values, step=st.integers(1, 60))
        def crashed(self, source: str, page: list[int], value: tuple[str, bool], step: int) -> None:
            rows = [self._candle(position, value) for position in page]
            completed = False
            with steps.stepping(database, steps.raising_at(step, Crash)):
                try:
                    self.desk.offer(rows, source, clock=lambda: self.desk.now + timedelta(seconds=1))
                    completed = True
                except Crash:
                    tally.events += 1
                    self.changed = True  # to look that nothing of it stayed
            if completed:  # fewer steps than that: then it was an ordinary write
                self.moment += 1
                for position in page:
                    self.model.offer(self.moment, source, position, value)
                self.desk.now -= timedelta(minutes=1)
                self._tick(advance_model=False)
                self._remember()

        @precondition(lambda self: self.snapshots)
        @rule(data=st.data())
        def read_as_of(self, data: st.DataObject) -> None:
            _, moment, then = data.draw(st.sampled_from(self.snapshots))
            tally.events += 1
            tally.reads_as_of += 1
            assert_frame_equal(content(self.desk.known(moment)), content(then), check_exact=True)

        @invariant()
        def state_is_the_models(self) -> None:
            if not self.changed:
                return
            self.changed = False
            tally.states += 1
            found = self.desk.present()
            expected = [
                (self.desk.at(p), v.value[0], v.value[1], v.source, self.model.revision(p, self.moment))
                for p in sorted(self.model.said)
                if (v := self.model.standing(p))
            ]
            got = found.select("timestamp", "close", "taker_buy_volume", "source", "revision").rows()
            assert [(t, f"{c:f}".rstrip("0").rstrip("."), b is not None, s, r) for t, c, b, s, r in got] == expected

        def teardown(self) -> None:
            # Kept up to date by ripples, or computed from scratch in one piece: the same bits, then and now.
            for _, moment, then in self.snapshots[-1:] + self.snapshots[:-1][:: max(1, len(self.snapshots) // 3)]:
                tally.reads_as_of += 1
                assert_frame_equal(content(self.desk.known(moment)), content(then), check_exact=True)

        def _offer(self, source: str, said: dict[int, tuple[str, bool]]) -> list[str]:
            self._tick()
            outcome = self.desk.offer([self._candle(p, v) for p, v in said.items()], source)
            self.desk.now -= timedelta(minutes=1)
            verdicts = [self.model.offer(self.moment, source, p, v) for p, v in said.items()]
            expected = Counts(**{name: verdicts.count(name) for name in set(verdicts)})
            assert outcome.counts == expected
            self._remember()
            return verdicts

        def _candle(self, position: int, value: tuple[str, bool]) -> dict[str, Any]:
            # Volumes vary with the position, so that a feature of the wrong rows has the wrong value.
            volume = str(10 + position * 7 % 13)
            return self.desk.candle(position, value[0], volume=volume, taker_buy_volume="4" if value[1] else None)

        def _tick(self, *, advance_model: bool = True) -> None:
            self.desk.now += timedelta(minutes=1)
            self.moment += advance_model

        def _remember(self) -> None:
            self.changed = True
            tally.events += 1
            self.snapshots.append((self.moment, self.desk.now, self.desk.present()))

    return History


@contextmanager
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield monkeypatch


def run(new_desk: Any, database: Any, examples: int, length: int) -> Tally:
    tally = Tally()
    with patched() as monkeypatch:
        run_state_machine_as_test(
            machine(new_desk, database, monkeypatch, tally),
            settings=settings(
                max_examples=examples,
                stateful_step_count=length,
                deadline=None,
                derandomize=False,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
                phases=(Phase.explicit, Phase.reuse, Phase.generate),
            ),
        )
    return tally


def test_random_histories(new_desk: Any, database: Any) -> None:
    tally = run(new_desk, database, examples=25, length=12)
    assert tally.histories >= 25
    assert min(tally.states, tally.reads_as_of) > 0


@pytest.mark.prove
@pytest.mark.parametrize("part", range(4))
def test_thousands_of_random_histories(new_desk: Any, database: Any, part: int) -> None:
    tally = run(new_desk, database, examples=500, length=10)
    tally.tell()
    assert tally.histories >= 500
