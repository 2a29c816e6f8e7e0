"""The only place that wires concrete things together: settings in, a running App out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

from market_data.bootstrap.shelves import by_priority, least_of, open_providers, shelves_of
from market_data.config import Settings
from market_data.model.contract import Preference
from market_data.model.instrument import Instrument
from market_data.model.provider import Provider
from market_data.model.timeframe import Timeframe
from market_data.monitoring.readings import Limits as ReadingLimits
from market_data.monitoring.readings import Observer
from market_data.pipeline.fetch.actions import Actions
from market_data.pipeline.fetch.asking import Sources
from market_data.pipeline.fetch.candles import Enricher
from market_data.pipeline.fetch.contracts import Contracts, tied
from market_data.pipeline.fetch.facts import Collector
from market_data.pipeline.fetch.heal import Healer
from market_data.pipeline.fetch.listings import Listings
from market_data.pipeline.own_features import violations
from market_data.pipeline.read.names import Names
from market_data.pipeline.read.status import Standings, quality_of
from market_data.pipeline.write.derive import Shelves
from market_data.pipeline.write.recompute import Recomputation
from market_data.storage.series.own_features import declare
from market_data.storage.series.reader import Reader
from market_data.storage.server.clock import SystemClock
from market_data.storage.server.database import Database
from market_data.storage.server.migrate import upgrade
from market_data.storage.work.channels import SharedLedger, channel_standings
from market_data.storage.work.owner import open_owner
from market_data.storage.work.state import keep_apart
from market_data.storage.work.summaries import Summaries
from market_data.storage.work.tracked import Tracked, tracked
from market_data.transport.gate import breaker_state
from market_data.transport.http import Http
from market_data.transport.ledger import Ledger, Standing

if TYPE_CHECKING:
    from market_data.jobs.parts import Limits
    from market_data.jobs.queue import Jobs
    from market_data.jobs.schedule import Scheduler
    from market_data.jobs.tasks import Workshop
    from market_data.jobs.timetable import Timetable
    from market_data.jobs.worker import Worker
    from market_data.monitoring.watch import Watch

Result = TypeVar("Result")


class OwnLoop:
    """An event loop made when first needed, so that an App also opens inside one of the caller's."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    @property
    def used(self) -> bool:
        """Whether anything ran in it."""
        return self._runner is not None

    def runner(self) -> asyncio.Runner:
        """What runs coroutines in it."""
        self._runner = self._runner or asyncio.Runner()
        return self._runner

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._runner is not None:
            self._runner.close()


@dataclass(frozen=True)
class App:
    """The program, wired: what the doors call."""

    settings: Settings
    database: Database
    reader: Reader
    providers: Mapping[str, Provider]
    shelves: Shelves
    sources: Sources
    enricher: Enricher
    clock: Callable[[], datetime]
    connections: Sequence[Http]
    ledger: Ledger
    loop: OwnLoop
    standings: Standings
    collector: Collector
    recomputation: Recomputation
    contracts: Contracts

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of asynchronous work, for doors that are not: all of it in one event loop."""
        return self.loop.runner().run(work)

    @property
    def names(self) -> Names:
        """What finds the instrument that a name means."""
        return Names(self.database, self.standings, self.contracts.preference)

    @property
    def actions(self) -> Actions:
        """What asks for the events of shares along with their prices."""
        return Actions(self.database, self.collector, self.sources.providers, self.clock)

    @property
    def jobs(self) -> Jobs:
        """The queue of jobs."""
        from market_data.jobs.queue import Jobs

        return Jobs(self.database, self.clock)

    def tracked(self, database: Database | None = None) -> list[Tracked]:
        """The instruments that scheduled work covers, with their timeframes; over other connections when given."""
        return tracked(database or self.database, tracked_in(self.settings))

    def default_timeframes(self, instrument: Instrument) -> tuple[Timeframe, ...]:
        """The timeframes the settings give an instrument when it is tracked."""
        return timeframes_of(self.settings, instrument)

    def scheduler(self) -> Scheduler:
        """What queues jobs when they are due, and watches; does nothing before it is started.

        Raises:
            ConfigError: when somebody who is to be told of alerts has no proper address.
        """
        from market_data.jobs.schedule import Agenda, Beside, Scheduler

        agenda = Agenda(self.database, self.sources.providers, self.tracked)
        looking = Beside(self.watch().look, self.settings.monitoring.watch_seconds)
        return Scheduler(self.jobs, agenda, timetable(self.settings), [looking])

    def watch(self) -> Watch:
        """What evaluates the alert rules and tells whom the settings name; ConfigError for no proper address."""
        from market_data.monitoring.delivery import targets_of
        from market_data.monitoring.watch import Policy, Watch

        monitoring = self.settings.monitoring
        telling = monitoring.notifications
        policy = Policy(
            targets=targets_of(telling.urls),
            critical_only=telling.min_severity == "critical",
            resolved=telling.resolved,
        )
        return Watch(self.observer, policy, monitoring.watch_seconds)

    def worker(self) -> Worker:
        """A worker, to be run in an event loop."""
        from market_data.jobs.worker import Worker

        return Worker(open_workshop(self), worker_limits(self.settings))

    def channels(self) -> dict[str, Standing]:
        """How every channel of the enabled sources stands, as all processes know it, by name."""
        names = [name for http in self.connections for name in http.channels]
        stored = channel_standings(self.database)
        return {name: stored.get(name, Standing()) for name in sorted(names)}

    def breakers(self) -> dict[str, str]:
        """The state of every channel's breaker."""
        return {name: breaker_state(standing).value for name, standing in self.channels().items()}

    @property
    def observer(self) -> Observer:
        """What looks for whatever can be wrong."""
        quality = self.settings.quality
        critical = {asset_class: ages.critical for asset_class, ages in quality.freshness.items()}
        alert = {asset_class: ages.alert for asset_class, ages in quality.freshness.items()}
        limits = ReadingLimits(critical_seconds=critical, alert_seconds=alert, min_quality=quality.min_quality_score)
        return Observer(
            database=self.database,
            standings=self.standings,
            tracked=self.tracked,
            timetable=timetable(self.settings),
            limits=limits,
            breakers=self.breakers,
            clock=self.clock,
        )

    async def disconnect(self) -> None:
        """Close the connections to all sources, in the event loop that used them; a later request opens new ones."""
        for http in self.connections:
            await http.aclose()
        await self.ledger.aclose()

    def status(self, instrument: Instrument) -> dict[str, Any]:
        """Where an instrument stands; see `pipeline.status.Standing`."""
        return self.standings.of(instrument).fields(self.clock())

    def quality(self, instrument: Instrument, days: int) -> dict[str, Any]:
        """How good an instrument's data is; see `pipeline.status.quality_of`."""
        return quality_of(Summaries(self.database), instrument, days, self.clock())


@contextmanager
def open_app(settings: Settings, *, clock: Callable[[], datetime]) -> Iterator[App]:
    """The program over its database, migrated to this version.

    Raises:
        ConfigError: when a setting is wrong.
        DatabaseUnavailable, StorageError: when the database cannot be opened or brought up to date.
    """
    shelves = shelves_of(settings)
    # What is wrong with the providers' settings is said before a database is opened for them.
    open_providers(settings)
    with open_database(settings) as database, OwnLoop() as loop:
        clock = clock.beside(database) if isinstance(clock, SystemClock) else clock
        upgrade(database)
        ledger = SharedLedger(database)
        providers, connections = open_providers(settings, ledger)
        declare(database, [each for each in shelves.features if each.name in shelves.own], violations, clock())
        keep_apart(database, sandbox=settings.database.sandbox, now=clock())
        contracts = Contracts(database, by_priority(settings, providers), preference_of(settings), clock)
        sources = open_sources(settings, database, contracts, clock)
        app = App(
            settings=settings,
            database=database,
            reader=Reader(database),
            providers=providers,
            shelves=shelves,
            sources=sources,
            enricher=Enricher(sources, shelves, settings.pipelines.max_concurrent_symbols),
            clock=clock,
            connections=tuple(connections),
            ledger=ledger,
            loop=loop,
            standings=Standings(
                database, tracked_in(settings), lambda *of: timetable(settings).next_candles(*of), least_of(settings)
            ),
            collector=Collector(sources, shelves, settings.pipelines.interest_rate),
            recomputation=Recomputation(database, shelves, clock),
            contracts=contracts,
        )
        try:
            yield app
        finally:
            # Whoever brought an event loop of their own closes the connections in it.
            if loop.used:
                app.run(app.disconnect())
            sources.owner.close()


def open_sources(
    settings: Settings, database: Database, contracts: Contracts, clock: Callable[[], datetime]
) -> Sources:
    """What asks the sources; what others left under way without a living owner is closed first."""
    return Sources(
        database=database,
        providers=tied(contracts),
        clock=clock,
        owner=open_owner(database, clock, settings.jobs.heartbeat_seconds, settings.jobs.stalled_seconds),
        batch_rows=settings.pipelines.batch_size,
    )


def preference_of(settings: Settings) -> Preference:
    """Which contract a bare coin means."""
    return Preference(settings.instruments.preference.kinds, settings.instruments.preference.quotes)


def open_workshop(app: App) -> Workshop:
    """What a worker works with."""
    from market_data.jobs.tasks import Workshop

    settings, sources = app.settings, app.sources
    return Workshop(
        database=app.database,
        enricher=app.enricher,
        collector=app.collector,
        actions=app.actions,
        recomputation=app.recomputation,
        healer=Healer(sources, app.shelves),
        listings=Listings(app.database, sources.providers, app.clock),
        tracked=lambda: [one.instrument for one in app.tracked()],
        sources=sources,
        clock=app.clock,
        retention=settings.database.retention.ages,
        archive=settings.database.folder / "archive",
        job_days=settings.jobs.keep_days,
    )


def worker_limits(settings: Settings) -> Limits:
    """How a worker works, as the settings say."""
    from market_data.jobs.parts import Limits

    jobs = settings.jobs
    return Limits(
        concurrency=settings.pipelines.max_concurrent_symbols,
        max_retries=settings.enrichment.max_retries,
        retry_seconds=jobs.retry_seconds,
        drain_seconds=jobs.drain_seconds,
        heartbeat_seconds=jobs.heartbeat_seconds,
        stalled_seconds=jobs.stalled_seconds,
    )


def timetable(settings: Settings) -> Timetable:
    """When scheduled work runs, as the settings say."""
    from market_data.jobs.timetable import Timetable

    enrichment, pipelines, jobs = settings.enrichment, settings.pipelines, settings.jobs
    return Timetable(
        enriching=enrichment.enable_daily_enrichment,
        daily_at=time(enrichment.enrichment_hour, enrichment.enrichment_minute),
        crypto_minute=enrichment.crypto_minute,
        after_close=timedelta(minutes=jobs.after_close_minutes),
        reference_at=time(pipelines.backfill_hour, pipelines.backfill_minute),
        heal_minute=jobs.heal_minute,
        recompute_minute=jobs.recompute_minute,
        reconcile_at=time(jobs.reconcile_hour),
        events_at=time(jobs.events_hour),
        retention_at=time(jobs.retention_hour, 15),
        lists_at=time(jobs.lists_hour, 45),
    )


def tracked_in(settings: Settings) -> dict[Instrument, tuple[Timeframe, ...]]:
    """The instruments that the settings name, with their timeframes."""
    named = (Instrument(symbol, asset_class) for asset_class, symbol in settings.tracked)
    return {instrument: timeframes_of(settings, instrument) for instrument in named}


def timeframes_of(settings: Settings, instrument: Instrument) -> tuple[Timeframe, ...]:
    """The timeframes of an instrument when it is tracked: its own in the settings, else its asset class's, else days.

    Raises:
        UsageError: naming a timeframe that there is not.
    """
    named = settings.instruments.timeframes
    return Timeframe.parse_many(named.get(instrument.symbol) or named.get(instrument.asset_class.value) or ["1d"])


def open_database(settings: Settings) -> Database:
    """The database the settings name, as it is, not migrated."""
    named = settings.database.url
    url = named.get_secret_value() if named else None
    return Database.open(url, None if url else settings.database.folder, pool_size=settings.database.pool_size)
