"""What the routes work with: the program, its own connections for reading, and the job queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, partial
from threading import BoundedSemaphore
from typing import Annotated, Any, Final

from fastapi import Depends, Request

from market_data.bootstrap import App
from market_data.jobs.queue import Jobs
from market_data.model.errors import UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument
from market_data.monitoring.readings import Observer
from market_data.pipeline.read.names import Names
from market_data.pipeline.read.status import Standings
from market_data.storage.series.reader import Reader
from market_data.storage.series.windows import Windows
from market_data.storage.server.database import Database
from market_data.storage.work import switches
from market_data.storage.work.tallies import Tallies

POOL_SIZE: Final = 8
# Whoever asks is better told soon that the database is away.
WAIT_SECONDS: Final = 2.5
MOST_DOWNLOADS: Final = 12


@dataclass(frozen=True)
class Served:
    """The program as the routes see it; reads have connections and a time limit of their own."""

    app: App
    database: Database
    listens_beyond: bool = False
    """Whether others than this machine can reach it."""
    active_streams: Callable[[], int] = lambda: 0
    downloads: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(MOST_DOWNLOADS))
    """Room for answers that are streamed; each holds two pieces of what it sends in memory."""
    probing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "market-data-probe"))
    """A thread for whether all is well."""

    @property
    def jobs(self) -> Jobs:
        """The job queue."""
        return Jobs(self.database, self.app.clock)

    @property
    def reader(self) -> Reader:
        """Typed reads."""
        return Reader(self.database)

    @property
    def windows(self) -> Windows:
        """Long reads in pieces."""
        return Windows(self.database)

    @cached_property
    def tallies(self) -> Tallies:
        """Counts over the logs, some of them remembered."""
        return Tallies(self.database)

    @property
    def observer(self) -> Observer:
        """What looks for whatever can be wrong."""
        tracked = partial(self.app.tracked, self.database)
        return replace(self.app.observer, database=self.database, standings=self.standings, tracked=tracked)

    @cached_property
    def standings(self) -> Standings:
        """Where instruments stand."""
        return self.app.standings.over(self.database)

    def now(self) -> datetime:
        """The present moment by the program's clock."""
        return self.app.clock()

    def instrument(self, symbol: str, asset_class: AssetClass | None) -> Instrument:
        """The instrument meant by a symbol; its asset class as given, else as tracked or stored, else stock."""
        return self._meant(symbol, asset_class) or Instrument(symbol, asset_class or AssetClass.STOCK)

    def _meant(self, symbol: str, asset_class: AssetClass | None) -> Instrument | None:
        found = self.names.meant(symbol, asset_class)
        return found and self.names.stored_as(found)

    @cached_property
    def names(self) -> Names:
        """What finds the instrument that a name means."""
        return Names(self.database, self.standings, self.app.contracts.preference)

    def tracked(self) -> list[Instrument]:
        """The instruments that scheduled work covers."""
        return [tracked.instrument for tracked in self.app.tracked(self.database)]

    def known_instrument(self, symbol: str, asset_class: AssetClass | None) -> Instrument:
        """As `instrument`.

        Raises:
            UnknownInstrument: when it is neither tracked nor was ever asked for.
        """
        found = self.instrument(symbol, asset_class)
        if not self.standings.meant(found.symbol, found.asset_class)[1]:
            raise UnknownInstrument(f"{found} is not tracked and was never enriched")
        return found

    def stored_instrument(self, symbol: str, asset_class: AssetClass | None) -> Instrument:
        """As `known_instrument`; one of which only facts are stored is known too, under the class they are stored as.

        Raises:
            UnknownInstrument: when it is not tracked, was never asked for, and nothing is stored of it.
        """
        found = self.instrument(symbol, asset_class)
        if not self.standings.stored(found.symbol, found.asset_class)[1]:
            raise UnknownInstrument(f"{found} is not tracked and nothing is stored of it")
        return found

    def scheduler(self) -> dict[str, Any]:
        """Whether scheduled work starts by itself, and how many parts of jobs wait."""
        now = self.now()
        return {
            "state": switches.scheduler_state(self.database, now),
            "jobs_queued": sum(self.jobs.depth().values()),
            "timestamp": now,
        }

    def switch(self, *, paused: bool) -> None:
        """Pause or resume scheduled work, for every process of this database."""
        switches.set_paused(self.database, paused, "api", self.now())


@contextmanager
def serving(app: App, *, listens_beyond: bool = False) -> Iterator[Served]:
    """The program ready to be served, with connections of its own that give up after the configured time."""
    limits = app.settings.api
    with Database(
        app.database.conninfo,
        pool_size=POOL_SIZE,
        statement_seconds=limits.query_seconds,
        wait_seconds=WAIT_SECONDS,
    ) as database:
        served = Served(app, database, listens_beyond)
        try:
            yield served
        finally:
            served.probing.shutdown()


async def _served(request: Request) -> Served:
    found: Served = request.app.state.served
    return found


Backing = Annotated[Served, Depends(_served)]
