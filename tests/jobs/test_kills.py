"""kill -9 of worker, scheduler and database in turn, with faulty sources: the tables are an undisturbed run's."""

from __future__ import annotations

import os
import random
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
from market_data.model.job import CANDLES_NAME, JobState, Kind, Status, Task
from market_data.model.timeframe import Timeframe
from market_data.sandbox import Sandbox
from market_data.sandbox.symbols import COINS, STOCKS
from market_data.storage.server.postmaster import Postmaster

FAULTS = "429:0.05,5xx:0.05,drop:0.03,truncate:0.03"
START = datetime(2024, 3, 1, tzinfo=UTC)
# When something was fetched, computed or written, and what is counted from there, is not part of what it is.
TIMES = {"id", "fetched_at", "computed_at", "updated_at", "created_at", "known_from", "data_age_seconds", "run_id",
         "quality_score", "detected_at", "filled_at", "next_try_at"}  # fmt: skip
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

    def start(self, name: str) -> None:
        """Start (again) `worker` or `scheduler`."""
        self.processes[name] = subprocess.Popen(
            [sys.executable, "-m", "market_data", name], env=self.environment, stderr=subprocess.DEVNULL,
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


def disturb(stage: Stage, job_id: UUID, kills: int, chance: random.Random) -> int:
    """Kill one after the other whenever the work has come a little further; returns how many while it was under way."""
    names = ("worker", "scheduler", "database")
    for done in range(kills):
        wanted = stage.fetches() + chance.randint(1, 12)
        for _ in range(1200):
            job = stage.job(job_id)
            if job is not None and job.status.final:
                return done
            if stage.fetches() >= wanted:
                break
            PAUSE.wait(0.05)
        PAUSE.wait(chance.uniform(0, 0.2))
        stage.kill(names[done % len(names)])
    return kills


def wait_for(stage: Stage, job_id: UUID, seconds: float) -> JobState:
    for _ in range(int(seconds / 0.1)):
        job = stage.job(job_id)
        if job is not None and job.status.final:
            return job
        PAUSE.wait(0.1)
    pytest.fail(f"not over after {seconds} s: {job}")


def compare_with_undisturbed(home: Path, *, symbols: int, days: int, kills: int, seed: int) -> None:
    with stage(home / "calm") as calm:
        job_id = backfill(calm.app, symbols, days)
        calm.app.run(calm.app.worker().run(wait=False))
        assert wait_for(calm, job_id, 1).errors == []
        wanted = tables(calm.app)
    with stage(home / "stormy", FAULTS) as stormy:
        job_id = backfill(stormy.app, symbols, days)
        for name in ("worker", "scheduler"):
            stormy.start(name)
        killed = disturb(stormy, job_id, kills, random.Random(seed))
        job = wait_for(stormy, job_id, 1800)
        stormy.end()
        got = tables(stormy.app)
        queue = stormy.app.database.rows(
            "SELECT count(*) AS left FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
        )
        revisions = stormy.app.database.rows("SELECT max(revision) AS most FROM market_data_v2")
    assert killed == kills
    assert (job.status, job.errors) == (Status.COMPLETED, [])
    assert sum(part.counts["inserted"] for part in job.parts) == len(wanted["market_data_v2"]) > 0
    assert (queue[0]["left"], revisions[0]["most"]) == (0, 1)
    for name, rows in wanted.items():
        assert got[name] == rows, name


def test_kill_each_in_turn(data_home: Path) -> None:
    compare_with_undisturbed(data_home, symbols=4, days=45, kills=3, seed=20261121)


@pytest.mark.prove
def test_kill_a_hundred_times(data_home: Path) -> None:
    compare_with_undisturbed(data_home, symbols=50, days=150, kills=100, seed=20261122)
