"""Start: how long until the program says what it can do, and until `up --sandbox` answers that it is ready."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench.figures import RUNS, Figure

PROGRAM = [sys.executable, "-m", "market_data"]
SERVING = "serving on "
DEADLINE_SECONDS = 120.0


def measure() -> Iterator[Figure]:
    """Each start in a process of its own; of the platform over a database that is there already, and the first one."""
    helps = [_help() for _ in range(2 * RUNS)]
    yield Figure(
        name="cli_help_ms",
        value=1000 * statistics.median(helps),
        unit="ms",
        target="<= 300",
        detail=f"market-data --help, median of {len(helps)} processes",
    )
    with tempfile.TemporaryDirectory() as folder:
        # The embedded server runs as another account when this one is root.
        Path(folder).chmod(0o755)
        data = Path(folder) / "data"
        first = _ready(data)
        warm = [_ready(data) for _ in range(RUNS)]
    yield Figure(
        name="startup_ready_s",
        value=statistics.median(warm),
        unit="s",
        target="<= 15",
        detail=f"up --sandbox until /readyz answers 200: sandbox, database, migrations, scheduler, worker and HTTP; "
        f"median of {RUNS}; {first:.1f} s the first time, with the database to be made",
    )


def _help() -> float:
    started = time.perf_counter()
    subprocess.run([*PROGRAM, "--help"], check=True, capture_output=True)
    return time.perf_counter() - started


def _ready(data: Path) -> float:
    started = time.perf_counter()
    with _up(data) as process:
        assert process.stderr is not None
        address = next(line.split()[2] for line in process.stderr if line.startswith(SERVING))
        while time.perf_counter() - started < DEADLINE_SECONDS:
            try:
                if httpx.get(f"{address.removesuffix('/api/v1')}/readyz", timeout=5).is_success:
                    return time.perf_counter() - started
            except httpx.TransportError:
                pass  # not yet
            time.sleep(0.02)
    raise TimeoutError(f"not ready within {DEADLINE_SECONDS:.0f} s")


@contextmanager
def _up(data: Path) -> Iterator[subprocess.Popen[str]]:
    # Its output is read only up to its address: what follows must not fill a pipe.
    little = {f"MARKET_DATA__INSTRUMENTS__TRACKED__{name}": "," for name in ("STOCK", "ETF")}
    process = subprocess.Popen(
        [*PROGRAM, "--sandbox", "--data-dir", str(data), "up", "--port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | little | {"MARKET_DATA__INSTRUMENTS__TRACKED__CRYPTO": "BTC", "LOG_LEVEL": "ERROR"},
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE_SECONDS)
