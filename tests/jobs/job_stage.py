"""A program over the sandbox on data of its own, with worker and scheduler as processes that can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from market_data.bootstrap import App, open_app
from market_data.config import load_settings
from market_data.model.errors import TransientError
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.job import CANDLES_NAME, JobState, Kind, Task
from market_data.model.timeframe import Timeframe
from market_data.sandbox import Sandbox
from market_data.sandbox.symbols import COINS, STOCKS
from market_data.storage.server.postmaster import Postmaster

FAULTS = "429:0.05,5xx:0.05,drop:0.03,truncate:0.03"
START = datetime(2024, 3, 1, tzinfo=UTC)
# When something was fetched, computed or written, and what is counted from there, is not part of what it is; nor is
# the number a contract was given when it was first heard of.
TIMES = {"id", "fetched_at", "computed_at", "updated_at", "created_at", "known_from", "data_age_seconds", "run_id",
         "quality_score", "contract_id", "detected_at", "filled_at", "next_try_at"}  # fmt: skip
PAUSE = threading.Event()
SETTINGS: dict[str, Any] = {
    "database.sandbox": True,
    "pipelines.batch_size": 100,
    "pipelines.backfill_requests_per_minute": 600_000,
    "instruments.priority.crypto": ["binance"],
    "instruments.priority.stock": ["polygon"],
    "instruments.priority.etf": ["polygon"],
    "enrichment.max_retries": 10_000,
    "jobs.retry_seconds": 0,
    "jobs.heartbeat_seconds": 0.5,
    "providers.polygon.api_key": "planted-polygon-secret",
    **{
        f"providers.{name}.{key}": value
        for name in ("binance", "polygon", "yahoo")
        # Failures are the job's to mend: a source is neither asked again in between nor left alone.
        for key, value in {
            "requests_per_minute": 600_000, "max_retries": 0, "breaker_failures": 1_000_000, "timeout_seconds": 5,
        }.items()
    },
}  # fmt: skip


@dataclass
class Stage:
    """A program on data of its own, with its worker and scheduler as processes that can be killed."""

    app: App
    environment: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, command: str | None = None) -> None:
        """Start (again) `worker` or `scheduler`."""
        self.processes[name] = subprocess.Popen(
            [sys.executable, "-m", "market_data", command or name], env=self.environment, stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self, name: str) -> None:
        """kill -9, and start again what does not come back by itself."""
        if name == "database":
            assert self.app.database.server is not None
            running = Postmaster.of(self.app.database.server.cluster)
            if running is not None:
                os.kill(running.pid, signal.SIGKILL)
            return
        self.processes[name].kill()
        self.processes[name].wait()
        self.start(name)

    def job(self, job_id: UUID) -> JobState | None:
        """The job, None while the database is away."""
        try:
            return self.app.jobs.job(job_id)
        except TransientError:
            return None

    def fetches(self) -> int:
        """How many batches are committed; 0 while the database is away."""
        try:
            rows = self.app.database.rows("SELECT count(*) AS batches FROM enrichment_fetch_log")
        except TransientError:
            return 0
        return int(rows[0]["batches"])

    def end(self) -> None:
        """End the processes."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(60)


@contextmanager
def stage(folder: Path, faults: str = "") -> Iterator[Stage]:
    folder.mkdir(mode=0o755)
    with Sandbox(faults=faults, limits=False) as sandbox:
        values = {**SETTINGS, **sandbox.urls, "database.data_dir": str(folder)}
        settings = load_settings(environ={}, overrides={key: (value, "the test") for key, value in values.items()})
        names = {f"MARKET_DATA__{key.upper().replace('.', '__')}": _text(value) for key, value in values.items()}
        with open_app(settings, clock=lambda: datetime.now(UTC)) as app:
            made = Stage(app, {**os.environ, **names})
            try:
                yield made
            finally:
                made.end()


def _text(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else str(value)


def backfill(app: App, count: int, days: int) -> UUID:
    every = [Instrument(coin.symbol, AssetClass.CRYPTO) for coin in COINS[: count - 2]]
    every += [Instrument(one.symbol, AssetClass.STOCK) for one in STOCKS[:2]]
    end = datetime.fromtimestamp(START.timestamp() + days * 86_400, UTC)
    tasks = [
        Task(
            kind=Kind.BACKFILL,
            instrument=one,
            timeframe=Timeframe.H1,
            dataset=CANDLES_NAME,
            start=START,
            end=end,
        )
        for one in every
    ]
    return app.jobs.submit(Kind.BACKFILL, tasks).job_id


def tables(app: App) -> dict[str, list[tuple[Any, ...]]]:
    """Facts, the present, what is known of gaps, corrections and quarantine, without times of writing."""
    found = {}
    for name in ("candles", "market_data_v2", "coverage", "data_corrections", "quarantine", "disagreements"):
        rows = app.database.rows(f"SELECT * FROM {name}")
        found[name] = sorted(
            (tuple(str(value) for key, value in row.items() if key not in TIMES) for row in rows), key=lambda row: row
        )
    return found


def wait_for(stage: Stage, job_id: UUID, seconds: float) -> JobState:
    for _ in range(int(seconds / 0.1)):
        job = stage.job(job_id)
        if job is not None and job.status.final:
            return job
        PAUSE.wait(0.1)
    pytest.fail(f"not over after {seconds} s: {job}")


def left_under_way(app: App) -> int:
    """Runs, parts and backfills that are still in progress."""
    (row,) = app.database.rows(
        "SELECT (SELECT count(*) FROM runs WHERE status = 'in_progress') "
        "+ (SELECT count(*) FROM job_parts WHERE status = 'in_progress') "
        "+ (SELECT count(*) FROM backfill_state WHERE status = 'in_progress') AS left"
    )
    return int(row["left"])
