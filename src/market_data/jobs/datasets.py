"""The backfills that datasets declare, by name."""

from __future__ import annotations

from typing import Final

from market_data.model.backfill import Backfill
from market_data.model.dataset import DATASETS, Dataset
from market_data.model.errors import UsageError

PLANS: Final = {dataset.backfill.name: dataset.backfill for dataset in DATASETS.values() if dataset.backfill}


# Names for what several backfills fill together.
GROUPS: Final = {"actions": ("dividends", "splits")}


def plan_named(name: str) -> Backfill:
    """The backfill of that name.

    Raises:
        UsageError: naming the valid ones.
    """
    if name not in PLANS and name not in GROUPS:
        raise UsageError(f"unknown dataset {name!r}; valid: {', '.join([*PLANS, *GROUPS])}")
    return PLANS[GROUPS.get(name, (name,))[0]]


def plan_of(dataset: str) -> Backfill:
    """The backfill a dataset is filled by."""
    plan = DATASETS[dataset].backfill
    assert plan is not None, f"no source tells the past of {dataset}"
    return plan


def filled_by(name: str) -> tuple[Dataset, ...]:
    """The datasets that the backfill of that name fills."""
    names = GROUPS.get(name, (name,))
    return tuple(dataset for dataset in DATASETS.values() if dataset.backfill and dataset.backfill.name in names)
