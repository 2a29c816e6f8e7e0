"""One look at everything that can be wrong: what metrics, health and alerts are made of, so that all tell the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from market_data.jobs.timetable import Timetable
from market_data.model.instrument import AssetClass, Instrument
from market_data.monitoring.lateness import overdue
from market_data.pipeline.read.status import Standings
from market_data.storage.server.database import Database
from market_data.storage.work import job_reads, switches
from market_data.storage.work.tallies import Tallies
from market_data.storage.work.tracked import Tracked
from market_data.storage.work.workers import live_workers

# A worker reports every few seconds; one silent for longer is gone.
WORKER_SILENT: Final = timedelta(seconds=60)
# A database that takes longer to answer is away.
PROBE_SECONDS: Final = 2
LOG_WINDOW: Final = timedelta(hours=24)
QUALITY_WINDOW: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the settings call too old and too poor: seconds by asset class, and a score from 0 to 1."""

    critical_seconds: Mapping[AssetClass, float]
    alert_seconds: Mapping[AssetClass, float]
    min_quality: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InstrumentReading:
    """Where one instrument stands; ages in seconds, None where nothing is stored."""

    instrument: Instrument
    status: str
    age: float | None
    lag: float | None
    overdue: float | None
    """None unless it is tracked."""
    quality_score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What one look found; ratios and scores from 0 to 1, None where there is nothing to go by."""

    at: datetime
    limits: Limits
    instruments: Sequence[InstrumentReading]
    breakers: Mapping[str, str]
    fetch_success: float | None
    compute_success: float | None
    average_quality: float | None
    gaps: Mapping[str, tuple[int, float]]
    """Per asset class how many stretches are missing, and for how many seconds the oldest."""
    queue_depth: Mapping[str, int]
    queue_idle: float
    workers: int
    scheduler: str


@dataclass(frozen=True, kw_only=True)
class Observer:
    """Takes readings; safe between threads.

    Attributes:
        breakers: the state of every channel's breaker, as all processes know it.
    """

    database: Database
    standings: Standings
    tracked: Callable[[], Sequence[Tracked]]
    timetable: Timetable
    limits: Limits
    breakers: Callable[[], Mapping[str, str]]
    clock: Callable[[], datetime]

    @property
    def tallies(self) -> Tallies:
        """Counts over the logs."""
        return Tallies(self.database)

    def read(self) -> Readings:
        """Look at everything now.

        Raises:
            MarketDataError: when the database cannot be asked.
        """
        self.database.probe(PROBE_SECONDS)
        now, tallies = self.clock(), self.tallies
        workers = live_workers(self.database, now - WORKER_SILENT)
        return Readings(
            at=now,
            limits=self.limits,
            instruments=self._instruments(now),
            breakers=self.breakers(),
            fetch_success=_share(tallies.fetches(now - LOG_WINDOW)),
            compute_success=_share(tallies.computations(now - LOG_WINDOW)),
            average_quality=tallies.quality((now - QUALITY_WINDOW).date())["avg_quality_score"],
            gaps={row["asset_class"]: (row["open_gaps"], row["oldest_seconds"]) for row in tallies.gaps(now)},
            queue_depth=job_reads.queue_depth(self.database),
            queue_idle=tallies.queue_idle(now),
            workers=len(workers),
            scheduler=switches.scheduler_state(self.database, now),
        )

    def _instruments(self, now: datetime) -> list[InstrumentReading]:
        tracked = {one.instrument: one for one in self.tracked()}
        stored = {Instrument(row["symbol"], AssetClass(row["asset_class"])) for row in self.tallies.known()}
        names = sorted(tracked.keys() | stored, key=lambda one: (one.symbol, one.asset_class.value))
        found = []
        for standing in self.standings.of_all(names):
            followed = tracked.get(standing.instrument)
            late = overdue(standing, followed, self.timetable, now) if followed else None
            found.append(
                InstrumentReading(
                    instrument=standing.instrument,
                    status=standing.status(now),
                    age=_seconds(standing.age(now)),
                    lag=_seconds(standing.lag(now)),
                    overdue=_seconds(late),
                    quality_score=standing.quality_score,
                )
            )
        return found


def _share(counted: Mapping[str, Any]) -> float | None:
    rate = counted["success_rate"]
    return None if rate is None else rate / 100


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()
