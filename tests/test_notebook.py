"""The first study runs as it is committed, on what its first cell says to fetch, and shows what it promises."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "first-study.ipynb"
pytestmark = pytest.mark.prove


@pytest.fixture(scope="module")
def environ(module_home: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}
    return {**kept, "HOME": str(module_home), "LANG": "C.UTF-8"}


@pytest.fixture(scope="module")
def studied(environ: dict[str, str], module_home: Path) -> list[dict]:
    """The cells after a run."""
    (text,) = [
        cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if "market-data --sandbox" in "".join(cell["source"])
    ]
    commands = re.findall(r"^market-data (.*)$", "".join(text["source"]), flags=re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        done = run(["-m", "market_data", *command.split()], environ)
        assert done.returncode == 0, done.stderr
    result = module_home / "studied.ipynb"
    execute = "import sys; from nbclient.cli import main; sys.exit(main())"
    done = run(["-c", execute, "--timeout=300", f"--output={result}", str(NOTEBOOK)], environ)
    assert done.returncode == 0, done.stderr
    cells: list[dict] = json.loads(result.read_text())["cells"]
    return cells


def run(arguments: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=environ, capture_output=True, text=True, check=False, timeout=600
    )


def texts(cells: list[dict], kind: str) -> list[str]:
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert [output for output in outputs if output["output_type"] in ("error", "stream")] == [], "no warning, no error"
    return ["".join(output["data"][kind]) for output in outputs if kind in output.get("data", {})]


def test_it_draws(studied: list[dict]) -> None:
    pictures = texts(studied, "image/png")
    assert len(pictures) == 2
    assert all(len(picture) > 10_000 for picture in pictures)


def test_it_shows_then_against_now(studied: list[dict]) -> None:
    last = texts(studied, "text/plain")[-1]
    # The recorded close of 2019-05-14 and the corrected one; the mean of 20 moves by a twentieth of the difference.
    assert "7990.92" in last
    assert "7950.00" in last
    then, now = (float(re.search(rf"{start}\d*\.\d+", last)[0]) for start in ("5939", "5937"))
    assert then - now == pytest.approx((7990.92 - 7950) / 20)


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []
