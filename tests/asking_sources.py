"""Sources to ask in a test: a database, providers by asset class, a clock, and the owner of the runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from market_data.model.instrument import AssetClass
from market_data.model.provider import Provider
from market_data.pipeline.fetch.asking import Sources
from market_data.storage.server.database import Database
from market_data.storage.work.owner import Owner


def asking(
    database: Database,
    providers: Mapping[AssetClass, Sequence[Provider]],
    clock: Callable[[], datetime],
    **more: Any,
) -> Sources:
    """Sources as the program has them; the owner resigns when the test is over (see conftest.py)."""
    return Sources(database=database, providers=providers, clock=clock, owner=Owner(database, clock), **more)
