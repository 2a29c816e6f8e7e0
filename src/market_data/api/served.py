"""What the routes work with: the program, its own connections for reading, and the job queue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final, Protocol

from fastapi import Depends, Request

from market_data.api.problems import Problem
from market_data.bootstrap import App
from market_data.model.errors import UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import Timeframe
from market_data.pipeline.status import Standings
from market_data.storage.database import Database
from market_data.storage.reader import Reader
from market_data.storage.summaries import Summaries
from market_data.storage.tallies import Tallies
from market_data.storage.windows import Windows

POOL_SIZE: Final = 8


class JobDesk(Protocol):
    """What the routes need of the job queue; see `market_data.jobs.queue.Jobs`."""

    def trigger(
        self,
        instruments: Sequence[Instrument],
        timeframes: Sequence[Timeframe],
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        actor: str = "api",
    ) -> Any:
        """Queue an enrichment; returns its receipt."""

    def job(self, job_id: str) -> Any:
        """One job by its id; None when there is none."""

    def jobs(self, limit: int = 50) -> Sequence[Any]:
        """The newest jobs."""

    def history(self, symbol: str | None = None, *, success: bool | None = None, limit: int = 50) -> Sequence[Any]:
        """Jobs that are over, newest first."""


@dataclass(frozen=True)
class Served:
    """The program as the routes see it; reads have connections and a time limit of their own."""

    app: App
    database: Database
    jobs: JobDesk | None = None
    health: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reader(self) -> Reader:
        """Typed reads."""
        return Reader(self.database)

    @property
    def windows(self) -> Windows:
        """Long reads in pieces."""
        return Windows(self.database)

    @property
    def tallies(self) -> Tallies:
        """Counts over the logs."""
        return Tallies(self.database)

    @property
    def standings(self) -> Standings:
        """Where instruments stand."""
        return self.app.standings

    def now(self) -> datetime:
        """The present moment by the program's clock."""
        return self.app.clock()

    def instrument(self, symbol: str, asset_class: AssetClass | None) -> Instrument:
        """The instrument meant by a symbol; its asset class as given, else as tracked or stored, else stock."""
        symbol = symbol.upper()
        if asset_class is not None:
            return Instrument(symbol, asset_class)
        tracked = {name: group for group, name in self.app.settings.tracked}
        if symbol in tracked:
            return Instrument(symbol, tracked[symbol])
        stored = Summaries(self.database).asset_classes(symbol)
        return Instrument(symbol, AssetClass(stored[0]) if stored else AssetClass.STOCK)

    def known_instrument(self, symbol: str, asset_class: AssetClass | None) -> Instrument:
        """As `instrument`.

        Raises:
            UnknownInstrument: when it is neither tracked nor was ever asked for.
        """
        found = self.instrument(symbol, asset_class)
        tracked = (found.asset_class, found.symbol) in set(self.app.settings.tracked)
        if not tracked and found.asset_class not in Summaries(self.database).asset_classes(found.symbol):
            raise UnknownInstrument(f"{found} is not tracked and was never enriched")
        return found

    def job_desk(self) -> JobDesk:
        """The job queue.

        Raises:
            Problem: when this server was started without one.
        """
        if self.jobs is None:
            raise Problem(
                503, "no-job-queue", "This server has no job queue.", action="Start the program with `market-data up`."
            )
        return self.jobs


@contextmanager
def serving(app: App, jobs: JobDesk | None = None) -> Iterator[Served]:
    """The program ready to be served, with connections of its own that give up after the configured time."""
    limits = app.settings.api
    with Database(app.database.conninfo, pool_size=POOL_SIZE, statement_seconds=limits.query_seconds) as database:
        yield Served(app, database, jobs)


def _served(request: Request) -> Served:
    found: Served = request.app.state.served
    return found


Backing = Annotated[Served, Depends(_served)]
