"""The machine a run was made on: what it is, how quick it was just now, and how much memory a process really had."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

YARDSTICK_RUNS = 7
# Above these the machine is taken for busy or slow, and only ratios are judged.
MOST_LOAD = 0.5
MOST_SLOWDOWN = 1.25


def described() -> dict[str, object]:
    """What machine it is."""
    model = platform.processor()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": None if memory is None else round(memory / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "polars": version("polars"),
        "load_before": round(os.getloadavg()[0], 2),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def yardsticks() -> dict[str, float]:
    """Milliseconds of three things that need nothing of ours: the interpreter, memory, NumPy's arithmetic."""
    values = np.arange(2_000_000, dtype=np.float64)
    sticks: dict[str, Callable[[], object]] = {
        "interpreter": lambda: sum(number * number for number in range(200_000)),
        "memory": values.copy,
        "arithmetic": lambda: np.sqrt(values).sum(),
    }
    return {name: round(_median_ms(stick), 3) for name, stick in sticks.items()}


def trouble(machine: Mapping[str, object], now: Mapping[str, float], best: Mapping[str, float]) -> str | None:
    """Why times of this run say little: the machine is busy, or slower than the one of the figures before.

    Args:
        machine: as `described`.
        now: yardsticks of this run.
        best: yardsticks of the figures before.
    """
    load, cores = machine["load_before"], machine["cores"] or 1
    assert isinstance(load, float)
    assert isinstance(cores, int)
    if load > MOST_LOAD * cores:
        return f"the machine is busy (load {load:g} on {cores} cores)"
    slow = [f"{name} x {now[name] / best[name]:.2f}" for name in best if now[name] > MOST_SLOWDOWN * best[name]]
    return f"the machine is slower than the one of the figures before ({', '.join(slow)})" if slow else None


def peak_mb() -> float:
    """Highest resident memory of this process in MB, as it had it itself.

    `ru_maxrss` is no measure of that: it keeps the parent's peak over exec.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    except OSError:
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _median_ms(stick: Callable[[], object]) -> float:
    taken = []
    for _ in range(YARDSTICK_RUNS):
        started = time.perf_counter()
        stick()
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)
