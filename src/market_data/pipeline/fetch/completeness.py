"""Whether collected trades are complete, as the venue's numbers tell, and make the minutes that are stored."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import polars as pl

from market_data.model.bars import SCHEMA, Cut
from market_data.model.dataset import CANDLES, Dataset
from market_data.model.errors import MalformedPayload
from market_data.model.instrument import Instrument, Series
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.fetch.reconcile import compare_stored
from market_data.pipeline.read.bars import bars
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


def doubted_minutes(
    database: Database, dataset: Dataset, instrument: Instrument, span: TimeRange, source: str, now: datetime
) -> list[str]:
    """Hold the minutes that collected trades make against the stored ones; what differs is put on record.

    Returns:
        how many were compared and how many values differ; nothing where none could be compared.
    """
    if not dataset.consecutive:
        return []
    start, end = (moment.replace(second=0, microsecond=0) for moment in (span.start, span.end))
    start += timedelta(minutes=1) if start < span.start else timedelta(0)
    if start >= end:
        return []
    whole = TimeRange(start, end)
    made = pl.concat([pl.DataFrame(schema=SCHEMA), *bars(database, instrument, whole, Cut(every=timedelta(minutes=1)))])
    candles = CANDLES.conform(made.filter("complete").drop_nulls("open"))
    if candles.is_empty():
        return []
    minutes = Series(instrument, Timeframe.M1)
    found = compare_stored(database, f"{source.partition(':')[0]}:trades", minutes, whole, candles, now)
    if not found.both:
        return []
    return [f"{found.both:,} stored minutes held against those the trades make: {found.beyond} values differ"]
