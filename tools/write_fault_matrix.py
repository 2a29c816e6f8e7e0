"""Runs the fault matrix and, when every fault ends as required, writes docs/reference/faults.md."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "faults.md"

if __name__ == "__main__":
    tests = ["-q", "-s", "-n", "0", "tests/faults/test_matrix.py", "-k", "test_fault", "-m", "prove or not prove"]
    done = subprocess.run([sys.executable, "-m", "pytest", *tests], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    sys.path.insert(0, str(ROOT / "tests" / "faults"))
    from fault_table import page

    PAGE.write_text(page())
    print(PAGE.relative_to(ROOT))
