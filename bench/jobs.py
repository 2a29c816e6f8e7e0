"""Jobs: fifty symbols and five timeframes through the queue, by one worker and by two; time and memory."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import Figure
from bench.machine import peak_mb

if TYPE_CHECKING:
    from market_data.bootstrap import App
    from market_data.model.instrument import Instrument
    from market_data.model.timeframe import Timeframe

NOW = datetime(2026, 11, 20, 18, 30, 15, tzinfo=UTC)
SYMBOLS = 50
DAYS = 365
DISTANCE = 0.5
START_SECONDS = 60.0
FRAMES = ("5m", "15m", "30m", "1h", "1d")


def measure() -> Iterator[Figure]:
    """Each in processes of its own over an empty database; a run takes long enough to be taken once."""
    many, two = _run("50", workers=1), _run("50", workers=2)
    far, far_two = _run("25", workers=1, delay=DISTANCE), _run("25", workers=2, delay=DISTANCE)
    rows = f"{many['rows']:,} candles of {SYMBOLS} symbols, {DAYS} days of hours, 5 at a time"
    yield Figure(
        name="enrich_50_symbols_s",
        value=many["seconds"],
        unit="s",
        target="<= 40",
        detail=f"{rows}; two workers {two['seconds']:.1f} s, {many['seconds'] / two['seconds']:.2f} times as fast "
        f"({_cores(many)} with one, {_cores(two)} with two); half of the symbols from sources {DISTANCE} s away "
        f"{far['seconds']:.1f} s, two workers {far['seconds'] / far_two['seconds']:.2f} times as fast",
    )
    yield Figure(
        name="enrich_50_symbols_rss_mb",
        value=many["rss_mb"],
        unit="MB",
        target="< 500",
        detail="highest resident memory of the worker's process",
    )
    frames = _run("5", workers=1)
    yield Figure(
        name="enrich_5_timeframes_s",
        value=frames["seconds"],
        unit="s",
        target="<= 8",
        detail=f"{frames['rows']:,} candles of BTC: {', '.join(FRAMES)} of {DAYS} days, through the queue",
    )


def _cores(run: Mapping[str, Any]) -> str:
    """How much of the machine a run took, sandbox and database included."""
    if run["busy"] is None:
        return "load unknown"
    return f"{run['busy'] * (os.cpu_count() or 1):.1f} of {os.cpu_count()} cores busy"


def _run(what: str, *, workers: int, delay: float = 0.0) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        # The embedded server runs as another account when this one is root.
        Path(folder).chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-m", "bench.jobs", folder, what, str(workers), str(delay)],
            check=True,
            capture_output=True,
            text=True,
        )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _child(folder: str, what: str, workers: int, delay: float) -> None:
    from market_data.bootstrap import open_app
    from market_data.config import load_settings
    from market_data.sandbox import Sandbox

    _place_sources(delay)
    with Sandbox(now=NOW, limits=False) as sandbox:
        values = {
            **sandbox.urls,
            "database.data_dir": f"{folder}/data",  # the sandbox puts its data beside it
            "database.sandbox": True,
            "providers.polygon.api_key": "sandbox",
            **{f"providers.{name}.requests_per_minute": 600_000 for name in ("binance", "polygon", "yahoo")},
        }
        settings = load_settings(environ={}, overrides={key: (value, "the benchmark") for key, value in values.items()})
        with open_app(settings, clock=lambda: NOW) as app:
            instruments, timeframes = _wanted(what)
            end = NOW.replace(minute=0, second=0)
            with _further_workers(workers - 1, values, delay):
                _wait_for_workers(app, workers - 1)
                before, started = _ticks(), time.perf_counter()
                receipt = app.jobs.trigger(instruments, timeframes, start=end - timedelta(days=DAYS), end=end)
                app.run(_work(app, receipt.job_id))
                seconds, after = time.perf_counter() - started, _ticks()
            job = app.jobs.job(receipt.job_id)
            assert job is not None
            assert not job.errors, job.errors
    rss = peak_mb()
    rows = sum(part.counts["inserted"] for part in job.parts)
    busy = None if before is None or after is None else (after[0] - before[0]) / (after[1] - before[1])
    print(json.dumps({"seconds": seconds, "rows": rows, "rss_mb": rss, "busy": busy}))


@contextmanager
def _further_workers(count: int, values: Mapping[str, Any], delay: float) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.jobs", "worker", json.dumps(values), str(delay)]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def _place_sources(delay: float) -> None:
    """Let every answer take so many seconds longer, as from far away."""
    from market_data.transport.senders import HttpxSender

    send = HttpxSender.send

    async def distant(sender: HttpxSender, request: Any) -> Any:
        await asyncio.sleep(delay)
        return await send(sender, request)

    if delay:
        HttpxSender.send = distant  # type: ignore[method-assign]


def _wait_for_workers(app: App, count: int) -> None:
    """Until so many wait to be woken: starting a process is not what is measured."""
    deadline = time.monotonic() + START_SECONDS
    waking = "SELECT count(*) AS workers FROM pg_stat_activity WHERE query LIKE '%LISTEN %' AND pid <> pg_backend_pid()"
    while app.database.rows(waking)[0]["workers"] < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count} workers did not start within {START_SECONDS:.0f} s")
        time.sleep(0.1)


def _ticks() -> tuple[int, int] | None:
    """(busy, all) ticks of all cores since the machine started; None where the system does not tell."""
    with suppress(OSError):
        ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
    return None


async def _work(app: App, job_id: Any) -> None:
    worker = app.worker()
    working = asyncio.create_task(worker.run())
    while True:
        job = await asyncio.to_thread(app.jobs.job, job_id)
        if job is not None and job.status.final:
            break
        await asyncio.sleep(0.1)
    worker.stop()
    await working


def _wanted(what: str) -> tuple[list[Instrument], list[Timeframe]]:
    from market_data.model.instrument import AssetClass, Instrument
    from market_data.model.timeframe import Timeframe
    from market_data.sandbox.symbols import COINS, STOCKS

    if what == "5":
        return [Instrument("BTC", AssetClass.CRYPTO)], [Timeframe(frame) for frame in FRAMES]
    coins = [Instrument(coin.symbol, AssetClass.CRYPTO) for coin in COINS]
    stocks = [Instrument(one.symbol, AssetClass.ETF if one.etf else AssetClass.STOCK) for one in STOCKS]
    return (coins + stocks)[: int(what)], [Timeframe.H1]


def _second_worker(values: dict[str, Any], delay: float) -> None:
    """A worker in a process of its own, until it is terminated."""
    import signal

    from market_data.bootstrap import open_app
    from market_data.config import load_settings

    _place_sources(delay)
    settings = load_settings(environ={}, overrides={key: (value, "the benchmark") for key, value in values.items()})
    with open_app(settings, clock=lambda: NOW) as app:

        async def work() -> None:
            worker = app.worker()
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
            await worker.run()

        app.run(work())


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        _second_worker(json.loads(sys.argv[2]), float(sys.argv[3]))
    else:
        _child(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
