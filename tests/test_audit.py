"""The dependency audit: what it says of the answers that pip-audit gives."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

# As pip-audit 2.10.1 printed them.
CLEAN = {"name": "idna", "version": "3.18", "vulns": []}
WRONG = {
    "name": "jinja2", "version": "2.4.1",
    "vulns": [{"id": "PYSEC-2014-8", "fix_versions": ["2.7.2"], "aliases": [], "description": ""}],
}  # fmt: skip
SKIPPED = {"name": "idna", "skip_reason": "Dependency not found on PyPI and could not be audited: idna (3.18)"}
NO_NETWORK = "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='…', port=443): Max retries exceeded"


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    path = Path(__file__).parents[1] / "tools" / "audit.py"
    spec = importlib.util.spec_from_file_location("audit", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("packages", "stderr", "required", "code", "words"),
    [
        ([CLEAN], "", False, 0, "1 packages without"),
        ([CLEAN, SKIPPED], "", False, 0, "not known to the service: idna"),
        ([CLEAN, WRONG], "Found 1 known vulnerability", False, 1, "jinja2 2.4.1: PYSEC-2014-8, fixed in 2.7.2"),
        # Nothing was looked at: pip-audit itself says "No known vulnerabilities found" and ends with 0.
        ([SKIPPED], "No known vulnerabilities found", False, 0, "NOTHING was checked"),
        ([SKIPPED], "No known vulnerabilities found", True, 1, "NOTHING was checked"),
        (None, NO_NETWORK, False, 0, "SKIPPED"),
        (None, NO_NETWORK, True, 1, "SKIPPED"),
        (None, "AttributeError: 'NoneType' object has no attribute 'x'", False, 1, "pip-audit failed"),
    ],
)
def test_what_was_not_checked_never_looks_clean(audit, packages, stderr, required, code, words) -> None:
    stdout = "" if packages is None else json.dumps({"dependencies": packages, "fixes": []})
    found, lines = audit.verdict(stdout, stderr, required=required)
    assert (found, words in "\n".join(lines)) == (code, True), lines
