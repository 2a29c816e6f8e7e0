"""Runs every module of this package that has `measure()`, prints a table and writes results.json beside this file.

`python -m bench [MODULE …]` measures; with `--against REVISION [--pairs N]` it measures in turns with another version.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from bench import machine
from bench.comparison import compare
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


def main() -> int:
    """Measures, prints and writes; figures of modules that were left out keep their last value."""
    # As the program does: before the first library makes its threads.
    keep_freed_memory()
    known = modules()
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"any of: {', '.join(known)}")
    parser.add_argument("--against", metavar="REVISION", help="measure in turns with another version, by git")
    parser.add_argument("--pairs", type=int, default=20, help="so many turns of both")
    given = parser.parse_args()
    wanted = given.modules or known
    if unknown := [name for name in wanted if name not in known]:
        parser.error(f"unknown: {', '.join(unknown)}; there are: {', '.join(known)}")
    if given.against:
        return 0 if compare(given.against, wanted, given.pairs) else 1
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    now = machine.yardsticks()
    about = machine.described()
    trouble = machine.trouble(about, now, results.get("machine", {}).get("yardsticks_ms", {}))
    if trouble:
        print(f"{trouble}: times are not judged, ratios and counts are")
    results["machine"] = {**about, "yardsticks_ms": now, "trouble": trouble}
    print(f"{'figure':<24} {'value':>12} {'unit':<8} {'target':<10} {'':<10} detail")
    for figure in measured(wanted):
        results[figure.name] = {key: value for key, value in asdict(figure).items() if key != "name"}
        detail = f"{figure.detail}; against {figure.peer}" if figure.peer else figure.detail
        if figure.spread:
            detail = f"{figure.spread[0]:.3g} … {figure.spread[1]:.3g}; {detail}"
        verdict = figure.verdict(calm=trouble is None)
        line = f"{figure.name:<24} {figure.value:>12.4g} {figure.unit:<8} {figure.target:<10} {verdict:<10} {detail}"
        print(line, flush=True)
        RESULTS.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
