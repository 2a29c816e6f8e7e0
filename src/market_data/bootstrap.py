"""The only place that wires concrete things together: settings in, a running App out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from market_data import features as feature_shelf
from market_data import providers as provider_shelf
from market_data import rules as rule_shelf
from market_data.config import Settings, provider_settings, reject_unknown_providers
from market_data.model.errors import ConfigError
from market_data.model.feature import Feature
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Provider
from market_data.model.rule import Rule
from market_data.pipeline.derive import Shelves
from market_data.pipeline.enrich import Enricher
from market_data.pipeline.status import quality_of, status_of
from market_data.shelf import collect, collect_classes
from market_data.storage.database import Database
from market_data.storage.migrate import upgrade
from market_data.storage.reader import Reader
from market_data.storage.summaries import Summaries
from market_data.transport.http import Http


@dataclass(frozen=True)
class App:
    """The program, wired: what the doors call."""

    settings: Settings
    database: Database
    reader: Reader
    providers: Mapping[str, Provider]
    shelves: Shelves
    enricher: Enricher
    clock: Callable[[], datetime]

    def status(self, instrument: Instrument) -> dict[str, Any]:
        """Where an instrument stands; see `pipeline.status.status_of`."""
        tracked = (instrument.asset_class, instrument.symbol) in set(self.settings.tracked)
        return status_of(Summaries(self.database), instrument, self.clock(), tracked=tracked)

    def quality(self, instrument: Instrument, days: int) -> dict[str, Any]:
        """How good an instrument's data is; see `pipeline.status.quality_of`."""
        return quality_of(Summaries(self.database), instrument, days, self.clock())


def open_shelves() -> Shelves:
    """Every feature and rule that is declared."""
    return Shelves(
        features=tuple(collect(feature_shelf, Feature).values()), rules=tuple(collect(rule_shelf, Rule).values())
    )


def open_providers(settings: Settings) -> dict[str, Provider]:
    """Every enabled provider by name, with its own settings and HTTP client.

    Raises:
        ConfigError: when a setting of a provider is unknown or wrong, or the settings name a provider nobody declares.
    """
    kinds = collect_classes(provider_shelf, Provider)  # type: ignore[type-abstract]
    reject_unknown_providers(settings, kinds)
    opened: dict[str, Provider] = {}
    for name, kind in kinds.items():
        own = provider_settings(settings.providers.get(name, {}), kind.Settings, name, settings.origins)
        if own.enabled:
            opened[name] = kind(own, Http(name, own))
    return opened


def by_priority(settings: Settings, providers: Mapping[str, Provider]) -> dict[AssetClass, Sequence[Provider]]:
    """Per asset class the providers to ask, first asked first."""
    return {
        asset_class: [providers[name] for name in names if name in providers]
        for asset_class, names in settings.instruments.priority.items()
    }


@contextmanager
def open_app(settings: Settings, *, clock: Callable[[], datetime]) -> Iterator[App]:
    """The program over its database, migrated to this version.

    Raises:
        ConfigError: when a setting is wrong.
        DatabaseUnavailable, StorageError: when the database cannot be opened or brought up to date.
    """
    providers = open_providers(settings)
    shelves = open_shelves()
    with open_database(settings) as database:
        upgrade(database)
        _keep_apart(database, settings, clock())
        enricher = Enricher(
            database=database,
            providers=by_priority(settings, providers),
            shelves=shelves,
            clock=clock,
            batch_rows=settings.pipelines.batch_size,
            concurrency=settings.pipelines.max_concurrent_symbols,
        )
        yield App(settings, database, Reader(database), providers, shelves, enricher, clock)


def open_database(settings: Settings) -> Database:
    """The database the settings name, as it is, not migrated."""
    url = settings.database.url
    return Database.open(
        url.get_secret_value() if url else None, settings.database.folder, pool_size=settings.database.pool_size
    )


def _keep_apart(database: Database, settings: Settings, now: datetime) -> None:
    """Mark a new database as sandbox or live, and refuse one that is the other."""
    kind = "sandbox" if settings.database.sandbox else "live"
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO system_state (key, value, updated_at) VALUES ('kind', to_jsonb(%s::text), %s) "
            "ON CONFLICT (key) DO NOTHING",
            [kind, now],
        )
    marked = database.rows("SELECT value #>> '{}' AS kind FROM system_state WHERE key = 'kind'")[0]["kind"]
    if marked != kind:
        raise ConfigError(
            f"{database.name} holds {marked} data and cannot be opened as {kind}: "
            f"{'leave out' if marked == 'live' else 'add'} --sandbox, or name another --data-dir"
        )
