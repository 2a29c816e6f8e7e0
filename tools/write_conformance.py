"""Writes docs/reference/conformance.md: every comparison of tests/conformance is made, and counted."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "conformance"))

from conformance_table import CHECKS, page  # noqa: E402

if __name__ == "__main__":
    folder = Path(os.environ.get("MARKET_DATA_RECORDINGS") or ROOT.parent / "shared" / "data")
    absent = [name for name in CHECKS if not (folder / name).is_dir()]
    if absent:
        sys.exit(f"no recordings {', '.join(absent)} in {folder}: set MARKET_DATA_RECORDINGS")
    found = {name: check(folder / name) for name, check in CHECKS.items()}
    differing = [what for tallies in found.values() for tally in tallies for what in tally.differing]
    if differing:
        sys.exit("\n".join(differing))
    path = ROOT / "docs" / "reference" / "conformance.md"
    path.write_text(page(found))
    print(path.relative_to(ROOT))
