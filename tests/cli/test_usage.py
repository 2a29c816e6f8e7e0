"""Bad usage and errors: the exit code and one line that says what to do, before anything is opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from market_data.cli.app import app
from market_data.cli.invocation import Invocation
from market_data.cli.program import globals_first
from market_data.model.errors import DatabaseUnavailable


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner(env={"DATABASE_URL": None, **environ}).invoke(app, list(arguments), prog_name="market-data")


def refused(*arguments: str, **environ: str) -> str:
    result = run(*arguments, **environ)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    return result.stderr


def test_enrich_without_symbol_names_some() -> None:
    message = refused("enrich")
    assert "Missing SYMBOL" in message
    assert "AAPL" in message
    assert "BTC" in message


def test_unknown_timeframe_names_the_valid_ones() -> None:
    expected = "error: Invalid timeframes: ['2h', '3d']. Valid: 1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w\n"
    assert refused("enrich", "BTC", "--timeframe", "2h", "-t", "1h,3d") == expected
    assert "Valid: 1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w" in refused("features", "BTC", "2h")


def test_unknown_asset_class_names_the_valid_ones() -> None:
    for command in (["enrich"], ["status"], ["quality"]):
        message = refused(*command, "BTC", "--asset-class", "future")
        assert message == "error: Invalid asset class: 'future'. Valid: stock, etf, crypto\n"


@pytest.mark.parametrize("end", ["2024-01-01", "2024-02-01", "2024-02-01T01:00:00+02:00"])
def test_start_after_end(end: str) -> None:
    assert "--start 2024-02-01 is not before --end" in refused("enrich", "BTC", "--start", "2024-02-01", "--end", end)


def test_start_in_the_future() -> None:
    assert "--start 2999-01-01 is in the future" in refused("enrich", "BTC", "--start", "2999-01-01")


@pytest.mark.parametrize(
    "text", ["yesterday", "2024-13-01", "2024-02-30", "20240101", "2024-01-01T10:00", "1704067200"]
)
def test_unreadable_time_names_both_forms(text: str) -> None:
    message = refused("enrich", "BTC", "--start", text)
    assert repr(text) in message
    assert "2024-01-31 or 2024-01-31T13:30:00Z" in message


def test_unknown_key_in_settings_file(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("databse: {}\n", encoding="utf-8")
    message = refused("enrich", "BTC", "--config", str(config))
    assert message == f"error: Unknown setting 'databse' in {config}: did you mean 'database'?\n"


def test_unknown_key_in_environment() -> None:
    message = refused("status", "BTC", MARKET_DATA__API__PROT="1")
    assert "'api.prot' in environment variable MARKET_DATA__API__PROT: did you mean 'port'?" in message


def test_wrong_option_value_names_the_option() -> None:
    message = refused("status", "BTC", "--log-level", "loud")
    assert "'monitoring.log_level' in --log-level: input should be 'DEBUG', 'INFO'" in message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["statsu", "BTC"], "Did you mean 'status'?"),
        (["statsu", "BTC"], "Valid: actions, backfill, bars, correct, db, enrich, "),
        (
            ["db"],
            "Missing command. Valid: backup, prune, restore, sql, stats, status, upgrade. See 'market-data db --help'.",
        ),
        (["status"], "Missing argument 'SYMBOL'. See 'market-data status --help'."),
        (["enrich", "BTC", "--strat", "2024-01-01"], "--start"),
        (["quality", "BTC", "--days", "366"], "less than or equal to 365"),
        (["features", "BTC", "1h", "--format", "xml"], "'table', 'json', 'csv', 'parquet'"),
        (["features", "BTC", "1h", "--format", "parquet"], "name a file with --out FILE"),
        (["features", "BTC", "1h", "--out", "x.csv"], "--out needs --format json, csv or parquet"),
        (["enrich", "B TC"], "'B TC' is not a symbol"),
        (["enrich", "BTC", "--config"], "--config"),
    ],
)
def test_other_wrong_usage(arguments: list[str], expected: str) -> None:
    assert expected in refused(*arguments)


def test_help_is_not_an_error() -> None:
    for arguments in ([], ["--help"], ["enrich", "--help"]):
        result = run(*arguments)
        assert result.exit_code == 0
        assert "Usage: market-data" in result.stdout


def test_version() -> None:
    assert run("version").stdout == "market-data 0.1.0\n"
    assert run("version", "--json").stdout == '{\n  "version": "0.1.0"\n}\n'


def failing(error: Exception, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    def fail(self: Invocation, **_: object) -> None:
        raise error

    monkeypatch.setattr(Invocation, "app", fail)
    return run(*arguments, "status", "BTC")


def test_our_errors_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    result = failing(DatabaseUnavailable("no server\nat localhost: start it"), monkeypatch)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: no server at localhost: start it\n"


def test_unexpected_errors_say_how_to_see_more(monkeypatch: pytest.MonkeyPatch) -> None:
    result = failing(ZeroDivisionError("by zero"), monkeypatch)
    assert result.exit_code == 1
    assert result.stderr == "error: unexpected ZeroDivisionError: by zero; run it with --debug for the traceback\n"
    assert "Traceback" in failing(ZeroDivisionError("by zero"), monkeypatch, "--debug").stderr


def test_stopping_by_hand_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "what was committed is kept" in failing(typer.Abort(), monkeypatch).stderr


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        (["status", "BTC", "--sandbox"], ["--sandbox", "status", "BTC"]),
        (["db", "sql", "--config", "a", "--after", "1"], ["--config", "a", "db", "sql", "--after", "1"]),
        (["jobs", "--data-dir=/x", "--json"], ["--data-dir=/x", "jobs", "--json"]),
        (["enrich", "--", "--sandbox"], ["enrich", "--", "--sandbox"]),
        (["enrich", "BTC", "--config"], ["enrich", "BTC", "--config"]),
    ],
)
def test_global_options_may_follow_the_command(typed: list[str], parsed: list[str]) -> None:
    assert globals_first(typed) == parsed


def test_module_and_program_are_the_same() -> None:
    done = subprocess.run([sys.executable, "-m", "market_data", "version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "market-data 0.1.0\n", "")


def test_help_loads_nothing_heavy() -> None:
    heavy = "polars psycopg numpy httpx pydantic rich alembic structlog pyarrow"
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from market_data.cli import main\n"
        "try: main()\n"
        f"except SystemExit: print([name for name in '{heavy}'.split() if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
