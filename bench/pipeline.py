"""The whole way: from the sandbox's HTTP bytes to committed enriched rows, with what each stage takes."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.figures import RUNS, Figure, interval
from bench.machine import peak_mb

CANDLES = 100_000
NOW = datetime(2026, 11, 20, 18, 30, 15, tzinfo=UTC)


def measure() -> Iterator[Figure]:
    """Each run in a process of its own over an empty database, so that its memory is the pipeline's alone."""
    runs = [_run() for _ in range(RUNS)]
    seconds = statistics.median(run["seconds"] for run in runs)
    typical = min(runs, key=lambda run: abs(run["seconds"] - seconds))
    stages = ", ".join(f"{stage} {spent:.2f}" for stage, spent in typical["stages"].items())
    again = statistics.median(run["again"] for run in runs)
    yield Figure(
        name="pipeline_100k_s",
        value=seconds,
        spread=interval([run["seconds"] for run in runs]),
        unit="s",
        target="<= 4",
        detail=f"{CANDLES} one-minute candles, median of {RUNS}; {stages} s (fetching overlaps the rest); "
        f"a second run {again:.2f} s, nothing written",
    )
    yield Figure(
        name="pipeline_rss_mb",
        value=max(run["rss_mb"] for run in runs),
        unit="MB",
        target="< 400",
        detail=f"highest resident memory of {RUNS} such processes",
    )


def _run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        # The embedded server runs as another account when this one is root.
        Path(folder).chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-m", "bench.pipeline", folder], check=True, capture_output=True, text=True
        )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _child(folder: str) -> None:
    from market_data.bootstrap import open_app
    from market_data.config import load_settings
    from market_data.model.instrument import AssetClass, Instrument
    from market_data.model.timeframe import Timeframe
    from market_data.sandbox import Sandbox

    end = NOW.replace(minute=0, second=0)
    parse = _timed_parser()
    with Sandbox(now=NOW, limits=False) as sandbox:
        values = {
            **sandbox.urls,
            "database.data_dir": f"{folder}/data",  # the sandbox puts its data beside it
            "database.sandbox": True,
            "providers.binance.requests_per_minute": 60_000,
        }
        settings = load_settings(environ={}, overrides={key: (value, "the benchmark") for key, value in values.items()})
        with open_app(settings, clock=lambda: NOW) as app:
            bitcoin = Instrument("BTC", AssetClass.CRYPTO)
            taken, reports = [], []
            for _ in range(2):
                started = time.perf_counter()
                work = app.enricher.enrich([bitcoin], [Timeframe.M1], end - timedelta(minutes=CANDLES), end)
                reports += app.run(work)
                taken.append(time.perf_counter() - started)
            first, second = reports
            assert (first.counts.inserted, second.counts.unchanged) == (CANDLES, CANDLES), (first, second)
    stages = {"parse": parse() / 2, **first.seconds}
    rss = peak_mb()
    print(json.dumps({"seconds": taken[0], "again": taken[1], "stages": stages, "rss_mb": rss}))


def _timed_parser() -> Callable[[], float]:
    """Wraps the provider's parser; the returned function tells the seconds spent in it so far."""
    from market_data.providers.binance import klines

    spent, parse = [0.0], klines.parse_klines

    def timed(*arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return parse(*arguments)
        finally:
            spent[0] += time.perf_counter() - started

    klines.parse_klines = timed
    return lambda: spent[0]


if __name__ == "__main__":
    _child(sys.argv[1])
