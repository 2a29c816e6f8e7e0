"""Asks the advisory service whether a pinned dependency has a known vulnerability; `make audit`, also part of `check`.

Without a way to the service nothing was checked, and that is said; with AUDIT=required it is an error.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What stands in the output when the service could not be asked, as opposed to when the tool itself is broken.
UNREACHABLE = re.compile(r"ConnectionError|ConnectTimeout|ReadTimeout|ServiceError|NameResolutionError|ProxyError")
SECONDS = 300


def main() -> int:
    """Audit constraints.txt, where every package that `.[dev,bench]` installs stands with its version."""
    command = [
        sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / "constraints.txt"), "--no-deps", "--disable-pip",
        "--vulnerability-service", "osv", "--format", "json", "--progress-spinner", "off",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    code, lines = verdict(done.stdout, done.stderr, required=os.environ.get("AUDIT") == "required")
    print(*lines, sep="\n", file=sys.stderr if code else sys.stdout)
    return code


def verdict(stdout: str, stderr: str, *, required: bool) -> tuple[int, list[str]]:
    """The exit code and what to say.

    A package that the service does not know counts as not looked at: pip-audit itself would call that no finding.
    """
    try:
        packages = json.loads(stdout)["dependencies"]
    except (ValueError, KeyError):
        if not UNREACHABLE.search(stderr):
            return 1, ["audit: pip-audit failed", *stderr.splitlines()[-5:]]
        packages = []
    looked_at = [package for package in packages if "skip_reason" not in package]
    found = [
        f"{package['name']} {package['version']}: {fault['id']}, fixed in {', '.join(fault['fix_versions']) or 'none'}"
        for package in looked_at
        for fault in package["vulns"]
    ]
    if found:
        return 1, ["audit: known vulnerabilities", *found]
    if not looked_at:
        why = "audit: SKIPPED, the advisory service cannot be reached from here; NOTHING was checked"
        return int(required), [why if required else f"{why} (AUDIT=required makes this an error)"]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    said = f"audit: {len(looked_at)} packages without a known vulnerability"
    return 0, [f"{said}; not known to the service: {', '.join(unknown)}" if unknown else said]


if __name__ == "__main__":
    sys.exit(main())
