"""``correct``, ``quarantine`` and ``prove`` over a real database: what is printed, and with which exit code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from history_desk import Desk
from typer.testing import CliRunner, Result

from market_data.cli.app import app
from market_data.cli.invocation import Invocation
from market_data.model.contract import Preference
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe
from market_data.pipeline.read.names import Names
from market_data.pipeline.read.status import Standings
from market_data.storage.work.tracked import track

Run = Callable[..., Result]


@pytest.fixture
def run(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The program over the desk's database."""

    standings = Standings(desk.database, {Instrument("BTC", AssetClass.CRYPTO): [Timeframe.H1]})

    @contextmanager
    def opened(*_: Any, **__: Any) -> Iterator[Any]:
        yield SimpleNamespace(
            database=desk.database,
            shelves=desk.shelves,
            clock=lambda: desk.now,
            reader=desk.reader,
            standings=standings,
            names=Names(desk.database, standings, Preference()),
        )

    monkeypatch.setattr(Invocation, "app", opened)
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [*arguments])


MOMENT = "2024-12-31T12:00:00Z"


def test_correct_and_take_back(desk: Desk, run: Run) -> None:
    desk.offer([desk.candle(i) for i in range(3)])
    done = run("correct", "BTC", "1h", MOMENT, "close=120", "high=160", "--reason", "misprint", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {
        "series": "BTC 1h",
        "timestamp": MOMENT,
        "action": "corrected",
        "later_candles_reached": 2,
        "later_candles_changed": 0,  # no window is full yet, no value follows from it
    }
    assert desk.present()["source"].to_list() == ["manual", "binance", "binance"]
    assert run("correct", "BTC", "1h", MOMENT, "--revert").exit_code == 0
    assert desk.present()["source"].to_list() == ["binance"] * 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("correct", "BTC", "1h", MOMENT, "close=120"), "needs a reason"),
        (("correct", "BTC", "1h", MOMENT, "close"), "'close' is not FIELD=VALUE"),
        (("correct", "BTC", "1h", MOMENT, "close=1", "--revert"), "--revert takes no FIELD=VALUE"),
        (("correct", "BTC", "1h", "yesterday", "close=1"), "TIMESTAMP 'yesterday' is not a time"),
        (("correct", "BTC", "2h", MOMENT, "close=1"), "Invalid timeframes: ['2h']"),
        (("correct", "BTC", "1h", MOMENT, "trade_count=7.5", "-r", "why"), "trade_count=7.5: not a whole number"),
        (("quarantine", "show", "7"), "no number 7 in quarantine"),
        (("quarantine", "retry", "7"), "no number 7 in quarantine"),
    ],
)
def test_wrong_usage(desk: Desk, run: Run, arguments: tuple[str, ...], said: str) -> None:
    desk.offer([desk.candle(0)])
    outcome = run(*arguments)
    assert outcome.exit_code == 2
    assert said in outcome.stderr


def test_quarantine(desk: Desk, run: Run) -> None:
    assert "quarantine is empty" in run("quarantine", "list").stderr
    assert "nothing of ETH is in quarantine" in run("quarantine", "list", "ETH", "-a", "crypto").stderr
    assert "no candle in quarantine waits" in run("quarantine", "retry").stderr
    desk.offer([desk.candle(0, high="1")])
    (row,) = json.loads(run("quarantine", "list", "BTC", "--json").stdout)
    assert (row["rule"], row["timestamp"]) == ("high_too_low", MOMENT)
    assert "high_too_low" in run("quarantine", "list").stdout
    shown = run("quarantine", "show", str(row["id"])).stdout
    assert "high_too_low" in shown
    assert "1.000000000000000000" in shown
    retried = run("quarantine", "retry", "--json")
    assert (retried.exit_code, json.loads(retried.stdout)["rejected"]) == (3, 1)
    desk.database.rows("UPDATE quarantine SET dataset = 'dividends'")
    assert "is of dividends: only candles" in run("quarantine", "retry", str(row["id"])).stderr
    desk.database.rows("UPDATE quarantine SET resolved_at = now(), resolution = 'inserted'")
    gone = run("quarantine", "retry", str(row["id"]))
    assert (gone.exit_code, gone.stderr) == (2, f"error: Number {row['id']} left quarantine before: inserted.\n")


def test_prove(desk: Desk, run: Run) -> None:
    assert "nothing is stored" in run("prove").stderr
    desk.offer([desk.candle(i, str(100 + i % 5)) for i in range(120)])
    fine = run("prove", "--samples", "1", "--json")
    assert fine.exit_code == 0
    found = json.loads(fine.stdout)
    assert len(found["checks"]) == 6
    assert (all(check["holds"] for check in found["checks"]), found["failures"]) == (True, [])
    desk.database.rows("UPDATE market_data_v2 SET close = close + 1")
    damaged = run("prove", "BTC", "-t", "1h")
    assert damaged.exit_code == 1
    assert "as known at a moment" in damaged.stderr


def test_candles_that_were_not_known_yet_are_not_said_to_be_absent(desk: Desk, run: Run) -> None:
    desk.offer([desk.candle(i) for i in range(3)])
    track(desk.database, [desk.series.instrument], [Timeframe.H1], desk.now)
    early = run("features", "BTC", "1h", "--as-of", "2025-02-01")
    assert (early.exit_code, early.stdout) == (0, "")
    assert early.stderr == (
        "BTC 1h: no candles were known at 2025-02-01 00:00 UTC; the first became known at 2025-03-01 00:00 UTC\n"
    )
    narrow = run("features", "BTC", "1h", "--as-of", "2025-02-01", "--start", "2025-01-01")
    assert "no candles stored" in narrow.stderr, "in that range none is"
    desk.offer([desk.candle(48)])
    later = run("features", "BTC", "1h", "--as-of", "2025-02-01", "--start", "2025-01-01")
    assert "the first became known at 2025-03-01 00:01 UTC" in later.stderr
    assert "no candles stored; fetch them" in run("features", "BTC", "4h", "--as-of", "2025-02-01").stderr


@pytest.mark.parametrize("desk", [Series(Instrument("DOGE", AssetClass.CRYPTO), Timeframe.H1)], indirect=True)
def test_the_asset_class_of_what_is_tracked_is_known(desk: Desk, run: Run) -> None:
    desk.offer([desk.candle(0), desk.candle(1, high="1"), desk.candle(2)])
    assert run("correct", "DOGE", "1h", MOMENT, "close=120", "-r", "misprint").exit_code == 2, "nobody knows of it yet"
    track(desk.database, [desk.series.instrument], [Timeframe.H1], desk.now)
    assert run("correct", "DOGE", "1h", MOMENT, "close=120", "-r", "misprint").exit_code == 0
    assert desk.present()["source"].to_list() == ["manual", "binance"]
    (row,) = json.loads(run("quarantine", "list", "DOGE", "--json").stdout)
    assert row["rule"] == "high_too_low"
    assert json.loads(run("quarantine", "retry", "--symbol", "DOGE", "--json").stdout)["rejected"] == 1
    checks = json.loads(run("prove", "DOGE", "--samples", "1", "--json").stdout)["checks"]
    assert {check["series"] for check in checks} == {"DOGE 1h"}
    assert run("options", "DOGE").stderr.startswith("DOGE (crypto): no option chain stored")
    assert "nothing of DOGE is in quarantine" in run("quarantine", "list", "DOGE", "-a", "stock").stderr
