"""What a benchmark says of its figures: where a median lies, what is met, and what a busy machine cannot tell."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
figures = importlib.import_module("bench.figures")
machine = importlib.import_module("bench.machine")


@pytest.mark.parametrize(
    ("count", "low", "high"),
    # Published tables of order statistics for the median at 95 %: 2 and 9 of ten, 6 and 15 of twenty.
    [(10, 2, 9), (20, 6, 15), (6, 1, 6), (5, 1, 5), (1, 1, 1)],
)
def test_the_interval_of_a_median_is_the_one_of_the_tables(count: int, low: int, high: int) -> None:
    assert figures.interval(range(1, count + 1)) == (low, high)


@pytest.mark.parametrize(
    ("value", "unit", "target", "calm", "verdict"),
    [
        (0.8, "ratio", ">= 0.8", False, "met"),
        (0.79, "ratio", ">= 0.8", True, "missed"),
        (3.9, "s", "<= 4", True, "met"),
        (9.0, "s", "<= 4", False, "not judged"),
        (0, "rows", "0", False, "met"),
        (1, "rows", "0", True, "missed"),
        (22, "ratio", "reported", True, ""),
    ],
)
def test_what_a_figure_is_worth(value: float, unit: str, target: str, calm: bool, verdict: str) -> None:
    assert figures.Figure(name="x", value=value, unit=unit, target=target).verdict(calm=calm) == verdict


def test_turns_are_compared_pair_by_pair() -> None:
    # A machine that becomes twice as slow half-way changes both of a pair, not their ratio.
    timings = figures.Timings({"ours": [1.0, 1.0, 2.0, 2.0, 2.0], "theirs": [2.0, 2.0, 4.0, 4.0, 4.0]})
    assert timings.ratio("theirs", "ours") == (2.0, (2.0, 2.0))
    assert timings["ours"] == 2.0


def test_a_busy_or_slow_machine_is_said() -> None:
    best = {"interpreter": 10.0, "memory": 1.0}
    calm = {"load_before": 0.2, "cores": 2}
    assert machine.trouble(calm, {"interpreter": 11.0, "memory": 1.1}, best) is None
    assert "busy (load 1.5 on 2 cores)" in machine.trouble({"load_before": 1.5, "cores": 2}, best, best)
    assert "interpreter x 2.00" in machine.trouble(calm, {"interpreter": 20.0, "memory": 1.0}, best)


def test_memory_is_that_of_the_process_itself(tmp_path: Path) -> None:
    # The parent holds 300 MB when it starts the child, which has far less.
    held = bytearray(300 * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    code = "from bench.machine import peak_mb; print(peak_mb())"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True, capture_output=True, text=True
    )
    assert 10 < float(told.stdout) < 200
