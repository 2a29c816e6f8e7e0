"""Gaps, reconciliation, backup and restore as commands, over the sandbox and a private PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from market_data.storage.server.database import Database

Program = Callable[..., Any]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}

    def run(*arguments: str, code: int = 0, home: str = "data") -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "market_data", "--sandbox", "--data-dir", str(tmp_path / home), *arguments],
            capture_output=True, text=True, check=False, timeout=120, env={**kept, "HOME": str(tmp_path)},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stderr

    return run


def gap_lines(found: Any) -> list[tuple[int, int, int]]:
    return [(line["expected"], line["present"], line["missing"]) for line in found["series"]]


def test_a_lost_candle_is_found_healed_and_kept_in_a_backup(program: Program, tmp_path: Path) -> None:
    program("enrich", "BTC", "-a", "crypto", "-t", "1h", "--start", "2024-02-01", "--end", "2024-02-03", "--json")
    with Database.open(None, tmp_path / "data-sandbox") as database, database.transaction() as connection:
        for table in ("candles", "market_data_v2"):
            connection.execute(f"DELETE FROM {table} WHERE timestamp = '2024-02-01T05:00:00Z'")
    assert gap_lines(program("gaps", "BTC", "-a", "crypto", "--json")) == [(48, 48, 0)], "not audited yet"
    found = program("gaps", "BTC", "-a", "crypto", "--audit", "--json")
    assert gap_lines(found) == [(48, 47, 1)]
    assert [gap["start"] for gap in found["series"][0]["gaps"]] == ["2024-02-01T05:00:00Z"]
    healed = program("gaps", "BTC", "-a", "crypto", "--heal", "--json")
    assert gap_lines(healed) == [(48, 48, 0)]
    assert [(one["filled"], one["sources"]) for one in healed["healed"]] == [(1, ["binance"])]
    compared = program(
        "reconcile", "BTC", "1h", "-a", "crypto", "--start", "2024-02-01", "--end", "2024-02-03", "--json"
    )
    assert (compared["against"], compared["both"], compared["only_stored"], compared["beyond_tolerance"]) == (
        "polygon", 48, 0, 0,
    )  # fmt: skip
    sizes = {row["table"]: row["rows"] for row in program("db", "stats", "--no-partitions", "--json")}
    assert (sizes["market_data_v2"], sizes["candles"]) == (48, 48)
    backup = str(tmp_path / "all.dump")
    program("db", "backup", backup)
    assert "exists: name another file" in program("db", "backup", backup, code=2)
    assert "holds data" in program("db", "restore", backup, code=2)
    program("db", "restore", backup, home="other")
    assert gap_lines(program("gaps", "BTC", "-a", "crypto", "--json", home="other")) == [(48, 48, 0)]
    program("db", "prune")
