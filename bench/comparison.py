"""The same measurements by two versions of the program, in turns: what became quicker or slower, by ratios."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figures import interval

ROOT = Path(__file__).parents[1]
# A figure is called worse when the whole interval of its median ratio lies beyond this.
TOLERATED = 1.05


def compare(revision: str, names: list[str], pairs: int) -> bool:
    """Run the modules of both versions alternately and print a line per figure; False when one is worse.

    Args:
        revision: what git calls the other version.
    """
    ratios: dict[str, list[float]] = {}
    lower_is_better: dict[str, bool] = {}
    with _checked_out(revision) as other:
        for turn in range(pairs):
            first, second = (ROOT, other) if turn % 2 == 0 else (other, ROOT)
            found = {tree: _figures(tree, names) for tree in (first, second)}
            for name, figure in found[ROOT].items():
                before = found[other].get(name)
                if before is not None and before["value"] and figure["value"]:
                    ratios.setdefault(name, []).append(figure["value"] / before["value"])
                    lower_is_better[name] = str(figure["target"]).lstrip().startswith(("<", "0"))
            print(f"turn {turn + 1} of {pairs}", file=sys.stderr, flush=True)
    good = True
    print(f"{'figure':<26} {'ratio':>7} {'95 % of the median':>20}  against {revision}, {pairs} pairs")
    for name, values in ratios.items():
        low, high = interval(values)
        worse = low > TOLERATED if lower_is_better[name] else high < 1 / TOLERATED
        good = good and not worse
        print(f"{name:<26} {statistics.median(values):>7.3f} {low:>9.3f} … {high:<8.3f}  {'WORSE' if worse else ''}")
    return good


@contextmanager
def _checked_out(revision: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        tree = Path(folder) / "other"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", str(tree), revision], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def _figures(tree: Path, names: list[str]) -> dict[str, dict[str, float]]:
    """The figures of modules, measured by the program of a tree in a process of its own."""
    results = tree / "bench" / "results.json"
    kept = results.read_text() if results.exists() else None
    environ = os.environ | {"PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    results.unlink(missing_ok=True)
    try:
        subprocess.run(
            [sys.executable, "-m", "bench", *names], cwd=tree, env=environ, check=True, stdout=subprocess.DEVNULL
        )
        found = json.loads(results.read_text())
    finally:
        if kept is not None:
            results.write_text(kept)
    return {name: figure for name, figure in found.items() if "value" in figure}
