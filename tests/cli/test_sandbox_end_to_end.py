"""The program as its users run it: processes over the sandbox and a private PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def program(module_home: Path) -> Program:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "market_data", "--sandbox", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**kept, "HOME": str(module_home), "DATABASE_URL": "postgresql://nobody@192.0.2.1/live"},
        )

    return run


@pytest.fixture(scope="module")
def first_run(program: Program) -> list[dict[str, Any]]:
    done = program("up", "--once", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["--sandbox: leaving DATABASE_URL alone, using the sandbox's own database"]
    reports: list[dict[str, Any]] = json.loads(done.stdout)
    return reports


def test_all_that_was_recorded_is_stored(first_run: list[dict[str, Any]]) -> None:
    stored = {(report["symbol"], report["timeframe"]): report["inserted"] for report in first_run}
    # A year of hours; the New York sessions and their weeks from 2012-01-03 to 2013-02-28: 250 of 2012, 40 of 2013.
    assert stored == {
        ("BTC", "1h"): 8760,
        ("BTC", "4h"): 2190,
        ("BTC", "1d"): 365,
        **{(symbol, "1d"): 290 for symbol in ("MSFT", "KO", "IBM", "AAPL")},
        **{(symbol, "1w"): 61 for symbol in ("MSFT", "KO", "IBM", "AAPL")},
    }
    assert {report["gaps"] for report in first_run} == {0}
    assert {report["rejected"] for report in first_run} == {0}
    assert all(report["sources"] == [expected_source(report["symbol"])] for report in first_run)


def expected_source(symbol: str) -> str:
    return "binance" if symbol == "BTC" else "polygon"


def test_the_second_time_nothing_changes(program: Program, first_run: list[dict[str, Any]]) -> None:
    before = program("features", "BTC", "1d", "--format", "csv").stdout
    done = program("up", "--once")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["BTC", "1h", "binance", "8,760", "0", "0", "8,760", "0"] in [line[:8] for line in lines]
    again = json.loads(program("up", "--once", "--json").stdout)
    assert {(r["inserted"], r["updated"], r["kept"], r["rejected"]) for r in again} == {(0, 0, 0, 0)}
    assert sum(report["unchanged"] for report in again) == sum(report["inserted"] for report in first_run)
    assert program("features", "BTC", "1d", "--format", "csv").stdout == before


@pytest.mark.usefixtures("first_run")
def test_raw_prices_around_a_split(program: Program) -> None:
    done = program(
        "features", "KO", "1d", "--start", "2012-08-10", "--end", "2012-08-14", "--json", "-c", "close", "-c", "source"
    )
    rows = json.loads(done.stdout)
    # Coca-Cola's 2:1 split took effect on Monday 2012-08-13; that summer New York opened at 13:30 UTC.
    assert [row["timestamp"] for row in rows] == ["2012-08-10T13:30:00Z", "2012-08-13T13:30:00Z"]
    assert [row["source"] for row in rows] == ["polygon", "polygon"]
    before, after = (float(row["close"]) for row in rows)
    assert 1.9 < before / after < 2.1


@pytest.mark.usefixtures("first_run")
def test_status_and_quality_of_what_was_stored(program: Program) -> None:
    status = json.loads(program("status", "BTC", "--json").stdout)
    assert (status["symbol"], status["asset_class"], status["records_available"]) == ("BTC", "crypto", 11315)
    quality = json.loads(program("quality", "BTC", "--json").stdout)
    assert quality["period_days"] == 7
    assert program("status", "KO").returncode == 0
    assert program("quality", "KO").returncode == 0


@pytest.mark.usefixtures("first_run")
def test_one_unknown_symbol_does_not_stop_the_other(program: Program) -> None:
    done = program("enrich", "NOPE", "AAPL", "-t", "1w", "--start", "2012-01-01", "--end", "2012-03-01")
    assert done.returncode == 3
    assert "error: NOPE 1w: " in done.stderr
    assert "AAPL 1w  polygon" in done.stdout


@pytest.mark.usefixtures("first_run")
def test_providers_answer(program: Program) -> None:
    rows = json.loads(program("providers", "--json").stdout)
    states = {row["provider"]: row["state"] for row in rows}
    assert all(states[name].startswith("answers in") for name in ("binance", "polygon", "yahoo")), states


@pytest.mark.usefixtures("first_run")
def test_schema_is_current(program: Program) -> None:
    done = program("db", "status", "--json")
    assert (done.returncode, json.loads(done.stdout)["up_to_date"]) == (0, True)
    assert "create table" in program("db", "sql").stdout.lower()


def test_explain_tells_recorded_from_modelled(program: Program) -> None:
    rows = {row["symbol"]: row for row in json.loads(program("sandbox", "--explain", "--json").stdout)}
    assert "2017-07-01" in rows["BTC"]["recorded"]
    assert rows["ETH"]["recorded"] is None
    assert rows["ETH"]["modelled"]


def test_unknown_fault_names_the_valid_ones(program: Program) -> None:
    done = program("sandbox", "--fault", "meteor:0.1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: Unknown fault 'meteor'. Valid: 429,")
