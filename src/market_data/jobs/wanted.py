"""What is left to do of a backfill: the part of its range that nobody asked a source for yet."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from market_data.model.dataset import Dataset
from market_data.model.instrument import Instrument, Series
from market_data.model.session import grid
from market_data.model.timeframe import TimeRange, from_micros, to_micros
from market_data.storage.series.coverage import stretches
from market_data.storage.server.database import Database
from market_data.storage.work.jobs import collected_spans


def unasked(database: Database, series: Series, span: TimeRange, now: datetime) -> TimeRange | None:
    """From the first to the last closed candle of a span that the ledger says nothing of; None when it knows all.

    What the ledger calls missing was asked for: healing tries again, at its own pace.
    """
    expected = grid(series.asset_class, series.timeframe, span).closed_by(now)
    with database.transaction() as connection:
        known = stretches(connection, series, span)
    unknown = np.ones(len(expected), dtype=bool)
    for stretch in known:
        unknown &= (expected.opens < to_micros(stretch.start)) | (expected.opens >= to_micros(stretch.end))
    left = expected.opens[unknown]
    if not len(left):
        return None
    return TimeRange(from_micros(left[0]), min(from_micros(left[-1]) + series.timeframe.duration, span.end))


def uncollected(database: Database, dataset: Dataset, instrument: Instrument, span: TimeRange) -> TimeRange | None:
    """The part of a span that no backfill of a dataset has been through; None when all of it was.

    What lay ahead when a backfill went through it is asked for again: more may have been announced since.
    """
    been = collected_spans(database, dataset, instrument)
    start, end = span.start, span.end
    for one in been:
        if one.start <= start:
            start = max(start, one.end)
    for one in reversed(been):
        if one.end >= end:
            end = min(end, one.start)
    return TimeRange(start, end) if start < end else None
