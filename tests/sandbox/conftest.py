"""A sandbox in this process, at a present that stands still: Friday 2026-11-20 18:30:15 UTC, 13:30:15 in New York."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest

from market_data.sandbox.app import create_app
from market_data.sandbox.marketplace import Marketplace, fixed_clock

NOW = datetime(2026, 11, 20, 18, 30, 15, tzinfo=UTC)
Ask = Callable[..., httpx.Response]


def ask_through(app: object) -> Ask:
    """A function that sends one GET to an application and returns the response."""

    def ask(path: str, **headers: str) -> httpx.Response:
        async def once() -> httpx.Response:
            transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            async with httpx.AsyncClient(transport=transport, base_url="http://sandbox", headers=given) as client:
                return await client.get(path)

        return asyncio.run(once())

    return ask


@pytest.fixture(scope="session")
def market() -> Marketplace:
    """All histories at the fixed present."""
    return Marketplace(clock=fixed_clock(NOW))


@pytest.fixture(scope="session")
def ask(market: Marketplace) -> Ask:
    """GET of a path of the sandbox without limits."""
    return ask_through(create_app(market, limits=False))
