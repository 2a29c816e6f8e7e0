"""The table of sources: what the workers of this database may ask, in which order, for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from market_data.model.instrument import AssetClass
from market_data.model.provider import Provider
from market_data.storage.server.database import Database


def record_sources(database: Database, providers: Mapping[AssetClass, Sequence[Provider]], now: datetime) -> None:
    """Make the table say what is asked; a source no longer among them is kept as not enabled. No change is no write.

    Args:
        providers: per asset class those to ask, first asked first.
    """
    priorities: dict[str, dict[str, int]] = {}
    kinds: dict[str, Provider] = {}
    for asset_class, asked in providers.items():
        for place, provider in enumerate(asked, start=1):
            priorities.setdefault(provider.name, {})[asset_class.value] = place
            kinds[provider.name] = provider
    with database.transaction() as connection:
        for name, provider in sorted(kinds.items()):
            connection.execute(
                "INSERT INTO providers AS p (name, title, enabled, priorities, capabilities, updated_at) "
                "VALUES (%s, %s, true, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET (title, enabled, priorities, "
                "capabilities, updated_at) = (excluded.title, true, excluded.priorities, excluded.capabilities, "
                "excluded.updated_at) WHERE (p.title, p.enabled, p.priorities, p.capabilities) IS DISTINCT FROM "
                "(excluded.title, true, excluded.priorities, excluded.capabilities)",
                [name, provider.title, Jsonb(priorities[name]), Jsonb(_capabilities(provider)), now],
            )
        connection.execute(
            "UPDATE providers SET enabled = false, updated_at = %s WHERE enabled AND name <> ALL(%s)",
            [now, sorted(kinds)],
        )


def _capabilities(provider: Provider) -> dict[str, Any]:
    return {
        capability.dataset.name: {
            "asset_classes": sorted(capability.asset_classes),
            "timeframes": sorted(capability.timeframes, key=lambda timeframe: timeframe.duration),
            "live": capability.live,
        }
        for capability in provider.capabilities
    }
