"""Two years of minutes from the archive's zips to committed enriched rows, with what each stage takes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.figures import RUNS, Figure
from bench.machine import peak_mb

# Whole months: their files are all there.
START, END = datetime(2024, 10, 1, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 20, 18, 30, 15, tzinfo=UTC)
CANDLES = (END - START).days * 1440
FOLDER = "data/futures/um/monthly/klines/BTCUSDT/1m"


def measure() -> Iterator[Figure]:
    """Each run in a process of its own over an empty database; the sandbox's zips lie ready, as the archive's do."""
    with tempfile.TemporaryDirectory() as mirror:
        megabytes = fill_mirror(Path(mirror))
        runs = [_run(mirror) for _ in range(RUNS)]
    seconds = statistics.median(run["seconds"] for run in runs)
    typical = min(runs, key=lambda run: abs(run["seconds"] - seconds))
    stages = ", ".join(f"{stage} {spent:.1f}" for stage, spent in typical["stages"].items())
    bound = max(("compute", "store", "validate", "judge"), key=lambda stage: typical["stages"].get(stage, 0.0))
    yield Figure(
        name="archive_candles_s",
        value=CANDLES / seconds,
        unit="rows/s",
        target=">= 40000",
        detail=f"{CANDLES} minutes of BTC in {(END - START).days // 30} zips of {megabytes:.0f} MB, median of {RUNS}: "
        f"{seconds:.1f} s; by stage {stages} s (unpacking and parsing overlap the rest); bounded by {bound}; "
        f"resident memory {max(run['rss_mb'] for run in runs):.0f} MB",
    )


def fill_mirror(mirror: Path) -> float:
    """Copy the sandbox's zips and checksums, so that making them is not part of the time; megabytes."""
    import httpx

    from market_data.sandbox import Sandbox

    folder = mirror / FOLDER
    folder.mkdir(parents=True)
    with Sandbox(now=NOW, limits=False) as sandbox, httpx.Client(timeout=60) as client:
        for month in months():
            for name in (f"BTCUSDT-1m-{month:%Y-%m}.zip", f"BTCUSDT-1m-{month:%Y-%m}.zip.CHECKSUM"):
                answer = client.get(f"{sandbox.url}/{FOLDER}/{name}").raise_for_status()
                (folder / name).write_bytes(answer.content)
    return sum(file.stat().st_size for file in folder.iterdir()) / 1e6


def months() -> Iterator[datetime]:
    """The first days of the months."""
    month = START
    while month < END:
        yield month
        month = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)


def _run(mirror: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        # The embedded server runs as another account when this one is root.
        Path(folder).chmod(0o755)
        command = [sys.executable, "-m", "bench.archive", folder, mirror]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


def _child(folder: str, mirror: str) -> None:
    from market_data.bootstrap import open_app
    from market_data.config import load_settings
    from market_data.model.instrument import AssetClass, Instrument
    from market_data.model.timeframe import Timeframe
    from market_data.sandbox import Sandbox

    files = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=mirror))
    threading.Thread(target=files.serve_forever, daemon=True).start()
    unpack = _timed("market_data.providers.binance.archive", "_unpack")
    parse = _timed("market_data.providers.binance.klines", "parse_file")
    with Sandbox(now=NOW, limits=False) as sandbox:
        values = {
            **sandbox.urls,
            "providers.binance.archive_url": f"http://127.0.0.1:{files.server_port}",
            "database.data_dir": f"{folder}/data",
            "database.sandbox": True,
        }
        settings = load_settings(environ={}, overrides={key: (value, "the benchmark") for key, value in values.items()})
        with open_app(settings, clock=lambda: NOW) as app:
            started = time.perf_counter()
            work = app.enricher.enrich([Instrument("BTC", AssetClass.CRYPTO)], [Timeframe.M1], START, END)
            (report,) = app.run(work)
            taken = time.perf_counter() - started
            assert report.error is None, report
            assert report.counts.inserted == CANDLES, report
            assert report.sources == ["binance:archive"], report
    files.shutdown()
    rss = peak_mb()
    print(
        json.dumps(
            {"seconds": taken, "stages": {"unpack": unpack(), "parse": parse(), **report.seconds}, "rss_mb": rss}
        )
    )


def _timed(module: str, name: str) -> Callable[[], float]:
    """Wraps a function; the returned one tells the seconds spent in it so far."""
    import importlib

    owner, spent = importlib.import_module(module), [0.0]
    original = getattr(owner, name)

    def timed(*arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return original(*arguments)
        finally:
            spent[0] += time.perf_counter() - began

    setattr(owner, name, timed)
    return lambda: spent[0]


if __name__ == "__main__":
    _child(sys.argv[1], sys.argv[2])
