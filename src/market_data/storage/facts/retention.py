"""Retention: what is dropped when it is too old, and what is packed instead because nobody can get it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from market_data.model.dataset import DATASETS
from market_data.storage.facts.packed import pack, take_back
from market_data.storage.server.database import Database
from market_data.storage.server.growth import drop_expired

_PACKED: Final = {dataset.table: dataset for dataset in DATASETS.values() if dataset.packed}


@dataclass(frozen=True, slots=True)
class Pruned:
    """Partitions that were dropped, those that were packed, and files whose rows came back."""

    dropped: list[str]
    packed: list[str]
    taken_back: list[Path]


def prune(database: Database, ages: Mapping[str, timedelta], folder: Path, now: datetime) -> Pruned:
    """Apply the retention of every table.

    Args:
        ages: by table; what is not named is kept as it is for ever.
        folder: where an earlier version put old rows.
    """
    back = [path for dataset in _PACKED.values() for path in take_back(database, dataset, folder)]
    packed = [
        name
        for table, dataset in _PACKED.items()
        if table in ages
        for name in pack(database, dataset, now - ages[table], now)
    ]
    dropped = drop_expired(database, {table: age for table, age in ages.items() if table not in _PACKED}, now)
    return Pruned(dropped, packed, back)
