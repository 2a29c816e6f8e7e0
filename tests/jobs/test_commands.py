"""The commands as their users run them: processes over the sandbox and a private PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from market_data.cli.sandboxing import BESIDES_ADDRESSES
from market_data.sandbox import Sandbox
from market_data.storage.server.embedded import EmbeddedServer

Program = Callable[..., subprocess.CompletedProcess[str]]
# Some way up: what is tracked there is less, so that it is quick.
LITTLE = {
    "MARKET_DATA__INSTRUMENTS__TRACKED__CRYPTO": "BTC",
    "MARKET_DATA__INSTRUMENTS__TRACKED__STOCK": "KO",
    "MARKET_DATA__INSTRUMENTS__TRACKED__ETF": ",",
    "MARKET_DATA__INSTRUMENTS__TIMEFRAMES__CRYPTO": "1d",
    "MARKET_DATA__INSTRUMENTS__TIMEFRAMES__STOCK": "1d",
}


@pytest.fixture(scope="module")
def module_home() -> Path:
    return Path(tempfile.mkdtemp(dir=os.environ["MARKET_DATA_TEST_SERVERS"]))


@pytest.fixture(scope="module")
def program(module_home: Path) -> Iterator[Program]:
    """Runs a command; sandbox and server stay between commands, which is what takes long to start."""
    with Sandbox() as sandbox, EmbeddedServer(module_home / "data"):
        values = {**sandbox.urls, **BESIDES_ADDRESSES, "database.data_dir": module_home / "data"}
        names = {f"MARKET_DATA__{key.upper().replace('.', '__')}": str(value) for key, value in values.items()}
        environment = os.environ | LITTLE | names

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "market_data", *arguments]
            return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180, env=environment)

        yield run


def told(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_is_tracked_is_backfilled_once(program: Program) -> None:
    tracked = told(program("track", "ETH", "-a", "crypto", "-t", "4h", "--later", "--json"))
    assert [(one["symbol"], one["timeframes"], one["named_in"]) for one in tracked] == [
        ("BTC", ["1d"], "settings"),
        ("ETH", ["4h"], "command"),
        ("KO", ["1d"], "settings"),
    ]
    assert [one["symbol"] for one in told(program("untrack", "KO", "--json"))] == ["BTC", "ETH"]

    (first,) = told(program("backfill", "candles", "--days", "10", "--json"))
    rows = {part["symbol"]: part["records_inserted"] for part in first["parts"]}
    # Ten whole days, and of the present one the candles that are closed.
    assert rows["BTC"] == 10
    assert 60 <= rows["ETH"] <= 65
    again = program("backfill", "candles", "--days", "10", "--json")
    assert sum(part[f"records_{name}"] for part in told(again)[0]["parts"]
               for name in ("updated", "unchanged", "kept", "rejected")) == 0  # fmt: skip
    listed = told(program("jobs", "--json"))
    assert [job["status"] for job in listed] == ["completed", "completed"]
    assert told(program("backfill", "candles", "--resume", "--json")) == []

    assert program("scheduler", "--pause").returncode == 0
    state = told(program("scheduler", "--status", "--json"))
    assert (state["paused"], state["next_runs"]) == (True, [])
    resumed = told(program("scheduler", "--resume", "--json"))
    assert {"daily", "crypto", "after_close"} < {run["line"] for run in resumed["next_runs"]}


def test_what_is_tracked_anew_is_filled_at_once_and_no_second_time(program: Program) -> None:
    tracked = program("track", "SOL", "-a", "crypto", "-t", "1d", "--json")
    assert "SOL" in [one["symbol"] for one in told(tracked)]
    status = told(program("status", "SOL", "--json"))
    assert status["records_available"] > 300
    assert (status["timeframes_available"], status["history"]) == (["1d"], [])
    jobs = len(told(program("jobs", "--json")))
    assert told(program("track", "SOL", "-a", "crypto", "-t", "1d", "--json"))
    assert len(told(program("jobs", "--json"))) == jobs


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["backfill", "weather"], "valid: candles, trades, quotes, derivatives"),
        (["backfill", "dividends", "--symbol", "BTC", "-a", "crypto"], "dividends are of etf, stock"),
        (["backfill", "news", "-t", "1h"], "news have no timeframes"),
        (["jobs", "17"], "not the id of a job"),
        (["jobs", "--cancel"], "needs the JOB"),
        (["scheduler", "--pause", "--resume"], "not both"),
    ],
)
def test_wrong_usage_is_said_in_one_line(program: Program, arguments: list[str], words: str) -> None:
    done = program(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_up_fills_what_is_tracked_stays_and_ends_on_one_signal(module_home: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "market_data", "--sandbox", "--data-dir", str(module_home / "up"), "up"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | LITTLE,
    ) as up:
        overdue = threading.Timer(120, up.kill)
        overdue.start()
        assert up.stdout is not None
        assert up.stderr is not None
        said = []
        for line in up.stderr:
            said.append(line)
            if line.startswith("up to date"):
                break
        assert up.poll() is None
        up.send_signal(signal.SIGTERM)
        said += up.stderr.readlines()
        done = up.stdout.read()
        overdue.cancel()
        assert up.wait(60) == 0
    text = "".join(said)
    assert "market-data is up on sandbox" in text
    assert "tracking crypto: BTC (1d)" in text
    assert "stopped; nothing was left" in text
    for name in ("BTC 1d", "KO 1d", "BTC funding_rates", "KO dividends"):
        assert f" {name} " in done, name
