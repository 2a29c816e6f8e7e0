"""A program: puts each small fault into one module of features and sees whether the tests of features notice.

It prints one line of JSON per mutant: its line, its fault, and whether it was killed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from mutants import mutants

FOLDER = Path(__file__).parent
TESTS = [FOLDER / "test_worked_examples.py", FOLDER / "test_oracles.py", FOLDER / "test_lookbacks.py"]


def passes(tests: list[Path]) -> bool:
    """Whether the tests pass on the features as they are now; they are imported anew, for they keep what they found."""
    files = {str(test) for test in tests}
    for name in [name for name, module in sys.modules.items() if getattr(module, "__file__", None) in files]:
        del sys.modules[name]
    quiet = ["-q", "-x", "--noconftest", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return pytest.main([*quiet, "-W", "ignore", *map(str, tests)]) == pytest.ExitCode.OK


def killed(module: ModuleType, source: str) -> bool:
    """Whether the tests notice this source in the module's place."""
    kept = dict(vars(module))
    try:
        exec(compile(source, module.__file__ or "", "exec"), vars(module))
        return not passes(TESTS)
    except Exception:  # a fault that cannot even be imported
        return True
    finally:
        vars(module).clear()
        vars(module).update(kept)


def main(name: str) -> None:
    """Try every mutant of a module of features."""
    warnings.simplefilter("ignore")
    module = importlib.import_module(f"market_data.features.{name}")
    if not passes(TESTS):
        raise SystemExit("the tests fail without any fault")
    for each in mutants(Path(module.__file__ or "").read_text(encoding="utf-8")):
        print(json.dumps({"line": each.line, "fault": each.fault, "killed": killed(module, each.source)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
