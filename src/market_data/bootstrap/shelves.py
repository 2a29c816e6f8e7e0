"""What is on the shelves, opened: features, rules, and the providers that the settings enable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import BoundedSemaphore

from market_data import features as feature_shelf
from market_data import providers as provider_shelf
from market_data import rules as rule_shelf
from market_data.config import Settings, provider_settings, reject_unknown_providers
from market_data.model.dataset import CANDLES
from market_data.model.feature import Feature
from market_data.model.instrument import AssetClass
from market_data.model.provider import Provider
from market_data.model.quality import FRESHNESS, Freshness, Least
from market_data.model.rule import Rule
from market_data.pipeline.own_features import check, own_features
from market_data.pipeline.write.derive import Shelves
from market_data.shelf import collect, collect_classes
from market_data.storage.series.own_features import own_among
from market_data.storage.server.migration_files import declare_features
from market_data.transport.http import Http
from market_data.transport.ledger import Ledger, LocalLedger


def declared_features() -> dict[str, Feature]:
    """The features of the package and of other packages; the schema knows the package's own as its columns."""
    found = collect(feature_shelf, Feature)
    ours = f"{feature_shelf.__name__}."
    declare_features({name: each.sql_type for name, each in found.items() if each.function.__module__.startswith(ours)})
    return found


def shelves_of(settings: Settings) -> Shelves:
    """What is computed and checked, as the settings say.

    Raises:
        ConfigError: saying what is wrong with a file of the user's own features.
    """
    found = open_shelves(settings.features.paths)
    quality = settings.quality
    if not quality.validate_on_insert:
        found = replace(found, rules=(), reference_rules=())
    ages = {
        asset_class: Freshness(target=each.target, alert=each.alert, critical=each.critical, stale=each.stale)
        for asset_class, each in quality.freshness.items()
    }
    room = BoundedSemaphore(settings.pipelines.feature_workers)
    return replace(found, freshness={**FRESHNESS, **ages}, computing=room)


def open_shelves(own_files: Sequence[Path] = ()) -> Shelves:
    """Every feature and rule that is declared: in the package, by other packages, and in files of the user's own.

    Raises:
        ConfigError: saying what is wrong with a file.
    """
    rules = collect(rule_shelf, Rule).values()
    ours = declared_features()
    for name in own_among(list(ours)):
        check(ours[name], f"entry point of {feature_shelf.__name__}")
    return Shelves(
        features=(*ours.values(), *own_features(own_files, ours).values()),
        rules=tuple(rule for rule in rules if rule.dataset is CANDLES),
        reference_rules=tuple(rule for rule in rules if rule.dataset is not CANDLES),
    )


def open_providers(settings: Settings, ledger: Ledger | None = None) -> tuple[dict[str, Provider], list[Http]]:
    """Every enabled provider by name, and their HTTP clients.

    Args:
        ledger: what their channels have in common with other processes; None when there is no database.

    Raises:
        ConfigError: when a setting of a provider is unknown or wrong, or the settings name a provider nobody declares.
    """
    kinds = collect_classes(provider_shelf, Provider)  # type: ignore[type-abstract]
    reject_unknown_providers(settings, kinds)
    opened: dict[str, Provider] = {}
    connections: list[Http] = []
    ledger, patient = ledger or LocalLedger(), settings.pipelines.backfill_requests_per_minute
    for name, kind in kinds.items():
        own = provider_settings(settings.providers.get(name, {}), kind.Settings, name, settings.origins)
        if own.enabled:
            connections.append(Http(name, own, ledger=ledger, patient_per_minute=patient))
            opened[name] = kind(own, connections[-1])
    return opened, connections


def by_priority(settings: Settings, providers: Mapping[str, Provider]) -> dict[AssetClass, Sequence[Provider]]:
    """Per asset class the providers to ask, first asked first; one that no priority names comes last, when ready."""
    priority = settings.instruments.priority
    named = {name for names in priority.values() for name in names}
    others = [each for name, each in sorted(providers.items()) if name not in named and each.ready is None]
    return {
        asset_class: [
            *(providers[name] for name in names if name in providers),
            *(each for each in others if any(asset_class in able.asset_classes for able in each.capabilities)),
        ]
        for asset_class, names in priority.items()
    }


def least_of(settings: Settings) -> Least:
    """What data must reach to be well, as the settings say."""
    quality = settings.quality
    return Least(quality_score=quality.min_quality_score, data_completeness=quality.min_data_completeness)
