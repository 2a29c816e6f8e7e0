"""Readiness tells the truth: each thing the platform depends on is killed, and /readyz says so."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from market_data.api.app import create_api
from market_data.api.served import serving
from market_data.bootstrap import App, open_app
from market_data.config import load_settings
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import Timeframe
from market_data.storage.server.database import Database
from market_data.storage.server.embedded import EmbeddedServer
from market_data.storage.server.migrate import upgrade
from market_data.storage.server.postmaster import Postmaster

BTC = Instrument("BTC", AssetClass.CRYPTO)
NOWHERE = "http://127.0.0.1:9"


class Clock:
    """The time of day, and what the test adds to it."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@asynccontextmanager
async def asked(url: str, clock: Clock) -> AsyncIterator[tuple[App, Callable[[], Any]]]:
    """A program with an API, and what its /readyz says: the status and the checks that are not well."""
    settings = load_settings(environ={}, overrides={"database.url": (url, "the test")})
    with open_app(settings, clock=clock) as app, serving(app) as served:
        transport = httpx.ASGITransport(create_api(served))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:

            async def ready() -> tuple[int, str, dict[str, str]]:
                answer = await client.get("/readyz")
                document = answer.json()
                ill = {check["name"]: check["detail"] for check in document["checks"] if not check["healthy"]}
                return answer.status_code, document["status"], ill

            yield app, ready


@contextmanager
def process(url: str, command: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process of the program's own on the database; killed at the end."""
    started = subprocess.Popen(
        [sys.executable, "-m", "market_data", "--database-url", url, command],
        env={**os.environ, "MARKET_DATA__JOBS__HEARTBEAT_SECONDS": "0.5", **environment},
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield started
    finally:
        started.kill()
        started.wait()
        assert started.stderr is not None
        started.stderr.close()


async def until(ready: Callable[[], Any], expected: Callable[[Any], bool]) -> Any:
    """What is ready once it is as expected; what it is then, when it never comes to that."""
    found = None
    try:
        async with asyncio.timeout(30):
            while not expected(found := await ready()):  # noqa: ASYNC110  # other processes would see no event either
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"never as expected: {found}")
    return found


async def test_worker_scheduler_and_sources_are_killed_one_by_one(database_url: str) -> None:
    clock = Clock()
    dead = {f"MARKET_DATA__PROVIDERS__{name}__{key}": value for name in ("BINANCE", "YAHOO") for key, value in (
        ("REST_URL", NOWHERE), ("MAX_RETRIES", "0"))}  # fmt: skip
    dead |= {"MARKET_DATA__PROVIDERS__BINANCE__SPOT_REST_URL": NOWHERE, "MARKET_DATA__ENRICHMENT__MAX_RETRIES": "0",
             "MARKET_DATA__PROVIDERS__BINANCE__ARCHIVE_URL": NOWHERE, "PROMETHEUS_PORT": str(free_port()),
             "MARKET_DATA__INSTRUMENTS__PRIORITY__CRYPTO": "binance"}  # fmt: skip
    async with asked(database_url, clock) as (app, ready):
        assert await ready() == (200, "degraded", {"scheduler": "stopped", "workers": "0 alive"})
        with process(database_url, "worker", **dead) as worker, process(database_url, "scheduler") as scheduler:
            assert await until(ready, lambda found: not found[2]) == (200, "healthy", {})
            # The worker exports what this process does, on its own port.
            async with httpx.AsyncClient() as scraping:
                text = (await scraping.get(f"http://127.0.0.1:{dead['PROMETHEUS_PORT']}/metrics")).text
            assert "market_data_workers 1.0" in text
            # Its source dies: the API, which never asked it, knows what all processes know.
            app.jobs.trigger([BTC], [Timeframe.H1, Timeframe.H4, Timeframe.D1, Timeframe.W1])
            found = await until(ready, lambda found: found[2].get("source binance") == "breaker open")
            assert (found[:2], app.breakers()["binance:archive"]) == ((200, "degraded"), "closed")
            worker.send_signal(signal.SIGKILL)
            found = await until(ready, lambda found: "workers" in found[2])
            # What a dead worker found spares the source the next one.
            assert found[2]["source binance"] == "breaker open"
            scheduler.send_signal(signal.SIGKILL)
            clock.ahead += timedelta(minutes=3)
            assert (await ready())[2]["scheduler"] == "stopped"


async def test_data_that_is_overdue_and_a_queue_that_stands_still_are_told(database_url: str) -> None:
    clock = Clock()
    async with asked(database_url, clock) as (app, ready):
        app.jobs.trigger([BTC], [Timeframe.H1])
        with app.database.transaction() as connection:
            connection.execute("INSERT INTO series_moments VALUES ('BTC', 'crypto', '1h', now())")
            connection.execute(BTC_CANDLE)
        clock.ahead = timedelta(hours=5)
        found = (await ready())[2]
        assert re.match(r"1 parts wait .*; none begun or ended for 18\d\d\d s", found["queue"])
        assert re.match(r"overdue beyond the critical age: BTC \(\d+ s\)", found["data"])


BTC_CANDLE = """
INSERT INTO market_data_v2 (symbol, asset_class, timeframe, timestamp, open, high, low, close, volume, revision, source,
    is_validated, quality_score, data_completeness, fetched_at, updated_at, created_at)
VALUES ('BTC', 'crypto', '1h', date_trunc('hour', now()) - interval '1 hour', 1, 1, 1, 1, 1, 1, 'binance', true, 1, 1,
    now(), now(), now())
"""


async def test_a_database_that_is_killed_makes_it_unready_soon(data_home: Any) -> None:
    with EmbeddedServer(data_home, settings={"fsync": "off"}) as server:
        url = server.conninfo()
        with Database.open(url, None) as database:
            upgrade(database)
        async with asked(url, Clock()) as (_, ready):
            assert (await ready())[0] == 200
            begun = time.monotonic()
            stopped(server)
            assert await ready() == (503, "unhealthy", {"database": "DatabaseUnavailable"})
            assert time.monotonic() - begun < 10


def stopped(server: EmbeddedServer) -> None:
    """End the database server as a crash would."""
    running = Postmaster.of(server.cluster)
    assert running is not None
    os.kill(running.pid, signal.SIGQUIT)


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
