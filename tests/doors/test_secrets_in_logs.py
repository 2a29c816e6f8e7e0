"""The watch over all logs of a test run is seen to fail: a run that logs or prints a secret, in any phase, is red."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOKEN = f"mdk_{'0' * 32}_{'a' * 43}"
LEAKS = f"""
import logging, pytest, structlog, subprocess, sys
SECRET = {TOKEN!r}
@pytest.fixture
def telling():
    print(SECRET)
def test_by_logging(): logging.getLogger('x').debug('key %s', SECRET)
def test_by_structlog(): structlog.get_logger().debug('asked', url=f'https://x/?apiKey={{SECRET}}')
def test_in_a_fixture(telling): pass
def test_by_a_program():
    subprocess.run([sys.executable, '-c', f'import sys; print({{SECRET!r}}, file=sys.stderr)'], capture_output=True)
"""
NONE = "def test_of_nothing(): print('mdk_', 'nothing')\n"


def outcome(folder: Path, tests: str) -> tuple[int, str]:
    """A pytest run of tests that pass, under the watch: its exit code and what it said."""
    (folder / "test_it.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\nlog_level = DEBUG\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "secrets_in_logs", "-p", "no:cacheprovider", str(folder)]
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    # Not by `run`, which is watched here too.
    with subprocess.Popen(command, stdout=-1, stderr=-2, text=True, env=environ, cwd=folder) as process:
        said, _ = process.communicate(timeout=120)
    return process.returncode, said


def test_a_run_that_tells_a_secret_fails_and_says_which_test_did(tmp_path: Path) -> None:
    code, said = outcome(tmp_path, LEAKS + NONE)
    _, _, found = said.partition("secrets in the logs")
    assert code == 1, said
    for name in ("by_logging", "by_structlog", "in_a_fixture", "by_a_program"):
        assert f"test_it.py::test_{name}:" in found
    assert "of_nothing" not in found
    assert TOKEN not in found


def test_a_run_that_tells_none_passes(tmp_path: Path) -> None:
    code, said = outcome(tmp_path, NONE)
    assert code == 0, said
