"""Whether what was collected is complete, where the venue's numbers can tell."""

from __future__ import annotations

from typing import Final

from market_data.model.dataset import Dataset
from market_data.model.errors import MalformedPayload
from market_data.model.instrument import Instrument
from market_data.model.timeframe import TimeRange
from market_data.storage.facts.ticks import missing_numbers
from market_data.storage.server.database import Database

# So many stretches are named; more would tell nobody more.
NAMED: Final = 5


def incomplete(
    database: Database, dataset: Dataset, instrument: Instrument, span: TimeRange
) -> MalformedPayload | None:
    """What is missing of a range that was asked for from end to end; None when nothing is, or nobody can tell."""
    if not dataset.consecutive:
        return None
    gaps = missing_numbers(database, instrument, span)
    if gaps.is_empty():
        return None
    named = ", ".join(
        f"{first} to {last} ({since:%Y-%m-%dT%H:%M:%SZ} to {until:%H:%M:%SZ})"
        for _, first, last, since, until in gaps.head(NAMED).iter_rows()
    )
    more = f" and {gaps.height - NAMED} stretches more" if gaps.height > NAMED else ""
    count = int((gaps["last"] - gaps["first"] + 1).sum())
    return MalformedPayload(
        f"{count} {dataset.name} of {instrument} are missing, numbers {named}{more}: what was sent is stored; run the "
        "backfill again to ask for them anew"
    )
