"""A process that asks one address as a provider would: python asking.py DATABASE URL SECONDS REQUESTS WINDOW."""

from __future__ import annotations

import asyncio
import sys
import time

from market_data.model.errors import MarketDataError, RateLimited
from market_data.model.provider import ProviderSettings
from market_data.storage.server.database import Database
from market_data.storage.work.channels import SharedLedger
from market_data.transport.channel import Dialect
from market_data.transport.http import Http
from market_data.transport.senders import Response


def classify(response: Response) -> MarketDataError | None:
    """Refusals as Binance makes them."""
    return RateLimited("banned", retry_after=response.retry_after) if response.status == 418 else None


async def ask(database: Database, url: str, seconds: float, per_window: float, window: float) -> None:
    """Ask as fast as is allowed, eight at a time."""
    settings = ProviderSettings(
        requests_per_minute=per_window * 60 / window, rate_window_seconds=window, max_retries=0, deadline_seconds=1
    )
    ledger = SharedLedger(database)
    http = Http("there", settings, ledger=ledger)
    channel, until = http.channel(), time.monotonic() + seconds

    async def one() -> None:
        while time.monotonic() < until:
            try:
                await channel.get(url, Dialect(classify=classify))
            except RateLimited:
                await asyncio.sleep(0.05)

    tasks = [asyncio.create_task(one()) for _ in range(8)]
    await asyncio.wait(tasks, timeout=seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await http.aclose()
    await ledger.aclose()


def main() -> None:
    """The arguments: connection string, address, seconds, requests, window."""
    conninfo, url, *numbers = sys.argv[1:]
    with Database.open(conninfo, None) as database:
        asyncio.run(ask(database, url, *map(float, numbers)))


if __name__ == "__main__":
    main()
