"""The clock of a machine is held against the database's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from market_data.bootstrap import open_app
from market_data.config import load_settings
from market_data.model.errors import ConfigError
from market_data.storage.server.clock import BOUND, SystemClock
from market_data.storage.server.database import Database


class Hands:
    """A clock that can be set; the time that passes is set apart."""

    def __init__(self) -> None:
        self.off = timedelta()
        self.passed = 0.0

    def wall(self) -> datetime:
        return datetime.now(UTC) + self.off

    def steady(self) -> float:
        return self.passed


@pytest.mark.parametrize(
    ("off", "told"), [(timedelta(days=400), "400 days ahead of"), (timedelta(hours=-2), "7,200 seconds behind")]
)
def test_a_program_whose_clock_is_far_off_is_not_opened(database_url: str, off: timedelta, told: str) -> None:
    settings = load_settings(environ={}, overrides={"database.url": (database_url, "the test")})
    clock = SystemClock(lambda: datetime.now(UTC) + off)
    with pytest.raises(ConfigError, match=f"{told} the database's .* set it right"), open_app(settings, clock=clock):
        pytest.fail("opened")


def test_a_little_off_is_let_in(database: Database) -> None:
    hands = Hands()
    hands.off = timedelta(seconds=20)
    clock = SystemClock(hands.wall, hands.steady).beside(database)
    assert abs(clock() - hands.wall()) < timedelta(seconds=1)


def test_a_clock_that_is_set_while_the_program_runs_is_noticed_at_the_next_moment(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    hands = Hands()
    clock = SystemClock(hands.wall, hands.steady).beside(database)
    asked = counted(database, monkeypatch)
    clock()
    assert asked() == 0, "the database is not asked for each moment"
    hands.off = BOUND * 2
    for _ in range(2):
        with pytest.raises(ConfigError, match="120 seconds ahead of"):
            clock()
    hands.off = timedelta()
    clock()
    hands.off, hands.passed = timedelta(), 3600.0  # it stood still while an hour went by: asked again, and right
    assert asked() == 2
    clock()
    assert asked() == 3


def counted(database: Database, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    calls, now = list[int](), database.now

    def noted() -> datetime:
        calls.append(1)
        return now()

    monkeypatch.setattr(database, "now", noted)
    return lambda: len(calls)
