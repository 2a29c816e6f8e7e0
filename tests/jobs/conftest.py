"""A program over the sandbox and a fresh database, and a worker that empties its queue."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from market_data.bootstrap import App, open_app
from market_data.config import load_settings
from market_data.sandbox import Sandbox

sys.path.insert(0, str(Path(__file__).parent))

NOW = datetime(2026, 11, 20, 18, 30, 15, tzinfo=UTC)
FAST = {
    "pipelines.backfill_requests_per_minute": 60_000,
    "providers.polygon.api_key": "planted-polygon-secret",
    "providers.polygon.requests_per_minute": 60_000,
    "providers.yahoo.requests_per_minute": 60_000,
    "providers.binance.requests_per_minute": 60_000,
    "jobs.heartbeat_seconds": 0.5,
    "jobs.retry_seconds": 0,
}
Opened = Callable[..., AbstractAsyncContextManager[App]]


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(now=NOW, limits=False) as served:
        yield served


@pytest.fixture
def opened(database_url: str, sandbox: Sandbox) -> Opened:
    """Opens the program; further settings by dotted name."""

    @asynccontextmanager
    async def opens(now: datetime = NOW, **settings: Any) -> AsyncIterator[App]:
        values = {**sandbox.urls, **FAST, "database.url": database_url}
        values |= {key.replace("__", "."): value for key, value in settings.items()}
        overrides = {key: (value, "the test") for key, value in values.items()}
        with open_app(load_settings(environ={}, overrides=overrides), clock=lambda: now) as app:
            try:
                yield app
            finally:
                await app.disconnect()

    return opens
