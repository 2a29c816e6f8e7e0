"""The sources alone, for who only asks them: with what all processes know of their hosts, where a database is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from market_data.bootstrap.shelves import open_providers
from market_data.config import Settings
from market_data.model.errors import MarketDataError
from market_data.model.provider import Provider
from market_data.storage.server.database import Database
from market_data.storage.work.channels import SharedLedger, channel_standings
from market_data.transport.http import Http
from market_data.transport.ledger import Ledger, Standing

log = structlog.get_logger()

# Where a private server's data folder keeps its version once it was made.
MADE: Final = "postgres/cluster/PG_VERSION"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Every enabled provider by name, its connections, and what they share, if there is a database already."""

    providers: Mapping[str, Provider]
    connections: Sequence[Http]
    ledger: Ledger | None
    standings: Callable[[], Mapping[str, Standing]]
    """How the channels stand that ever failed or were banned; empty without a database."""

    async def aclose(self) -> None:
        """Close all connections."""
        for http in self.connections:
            await http.aclose()
        if self.ledger is not None:
            await self.ledger.aclose()


@contextmanager
def open_sources(settings: Settings) -> Iterator[Sources]:
    """The sources; a database is neither made nor migrated for them, and one that is away is done without.

    Raises:
        ConfigError: when a setting is wrong.
    """
    open_providers(settings)
    database = _database(settings)
    try:
        ledger = None if database is None else SharedLedger(database)
        providers, connections = open_providers(settings, ledger)
        standings = dict if database is None else partial(channel_standings, database)
        yield Sources(providers=providers, connections=connections, ledger=ledger, standings=standings)
    finally:
        if database is not None:
            database.close()


def _database(settings: Settings) -> Database | None:
    url, folder = settings.database.url, settings.database.folder
    if url is None and not (folder.expanduser() / MADE).exists():
        return None
    try:
        opened = Database.open(url.get_secret_value() if url else None, folder)
    except MarketDataError as error:
        log.warning("sources_without_database", error=str(error))
        return None
    try:
        channel_standings(opened)
    except MarketDataError as error:  # one of an older schema has none
        log.info("sources_without_database", error=str(error))
        opened.close()
        return None
    return opened
