"""Small faults in every feature's code: each is noticed by a worked example, an oracle or a law, or changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import market_data.features

FOLDER = Path(market_data.features.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
# Faults that change no value: module, the line as it stands, the fault, and why.
_CALENDAR = "the sessions asked for begin two weeks before the first candle: it is never among the first of them"
_MATRIX = "places = rows[:, None] - np.arange(max(1, int((rows - oldest).max()) + 1))"
EQUIVALENT: dict[tuple[str, str, str], str] = {
    ("derivatives", "BLOCK_ROWS = 256", "256 to 257"): "where a block ends changes no value",
    ("derivatives", _MATRIX, "1 to 2"): "more places are looked at and found to be outside",
    ("derivatives", _MATRIX, "Sub to Add"): "more places are looked at and found to be outside",
    ("flow", "LONGEST_CANDLE = timedelta(weeks=1)", "1 to 2"): "more is read than is needed",
    ("returns", "HOUR_MICROS = 3_600_000_000", "3600000000 to 3600000001"): "it holds as many whole candles",
    ("returns", "LONGEST_CLOSURE_MICROS = 14 * DAY_MICROS", "14 to 15"): "more is read than is needed",
    (
        "returns",
        "first, last = int(window.opens.min()) - LONGEST_CLOSURE_MICROS, int(window.opens.max()) + 1",
        "1 to 2",
    ): "one more microsecond of the calendar",
    (
        "returns",
        "previous = previous + (closes[session - 1] - previous - 1) // step * step",
        "1 to 2",
    ): "sessions are whole minutes",
    ("returns", "known = session > 0", "Gt to GtE"): _CALENDAR,
    ("returns", "known = session > 0", "0 to 1"): _CALENDAR,
    ("trend", "codes[~np.isfinite(average)] = -1", "1 to 2"): "every negative code is null",
    ("trend", "codes[np.isnan(smaller)] = -1", "1 to 2"): "every negative code is null",
}


@pytest.mark.prove
@pytest.mark.parametrize("module", MODULES)
def test_every_fault_is_noticed(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    program = Path(__file__).with_name("mutation_run.py")
    done = subprocess.run([sys.executable, str(program), module], capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    lines = (FOLDER / f"{module}.py").read_text(encoding="utf-8").splitlines()
    survivors = {(module, lines[each["line"] - 1].strip(), each["fault"]) for each in found if not each["killed"]}
    with capsys.disabled():
        killed = sum(each["killed"] for each in found)
        print(f"\n{module}: {len(found)} mutants, {killed} killed, {len(found) - killed} change nothing")
    assert len(found) >= 5
    assert survivors == {key for key in EQUIVALENT if key[0] == module}
