"""Runs every module of this package that has `measure()`, prints a table and writes results.json beside this file."""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.figures import Figure
from market_data.model.allocation import keep_freed_memory

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"


def modules() -> list[str]:
    """Names of the modules that measure something."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if "\ndef measure(" in path.read_text())


def measured(names: list[str]) -> Iterator[Figure]:
    """The figures of these modules, as they come."""
    for name in names:
        yield from importlib.import_module(f"bench.{name}").measure()


def machine() -> dict[str, object]:
    """Where the figures were taken."""
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


def main() -> int:
    """Measures, prints and writes; figures of modules that were left out keep their last value."""
    # As the program does: before the first library makes its threads.
    keep_freed_memory()
    known = modules()
    wanted = sys.argv[1:] or known
    if unknown := [name for name in wanted if name not in known]:
        print(f"Unknown: {', '.join(unknown)}. There are: {', '.join(known)}", file=sys.stderr)
        return 2
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results["machine"] = machine()
    print(f"{'figure':<24} {'value':>12} {'unit':<8} {'target':<10} detail")
    for figure in measured(wanted):
        results[figure.name] = {
            "value": figure.value,
            "unit": figure.unit,
            "target": figure.target,
            "peer": figure.peer,
            "detail": figure.detail,
        }
        detail = f"{figure.detail}; against {figure.peer}" if figure.peer else figure.detail
        print(f"{figure.name:<24} {figure.value:>12.4g} {figure.unit:<8} {figure.target:<10} {detail}", flush=True)
        RESULTS.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
