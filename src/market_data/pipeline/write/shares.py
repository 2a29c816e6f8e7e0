"""Which cuts a series has: the splits believed and the changes of contract; what a changed belief makes due."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from fractions import Fraction
from typing import Final

import numpy as np
import polars as pl

from market_data.model.cuts import Cut
from market_data.model.dataset import SPLITS
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.observation import IntArray, micros
from market_data.model.timeframe import Timeframe
from market_data.pipeline.write.derive import Shelves
from market_data.storage.facts.reads import newest_versions
from market_data.storage.series.due import note_due_after
from market_data.storage.series.reader import Reader
from market_data.storage.wire.connection import Connection

DAY_MICROS: Final = 86_400_000_000


def cuts_of(reader: Reader, series: Series, rows: pl.DataFrame, as_of: datetime | None = None) -> list[Cut]:
    """Where rows of a series are cut, by what is known now or was known at a past moment.

    Args:
        reader: reads the splits.
        series: whose rows.
        rows: candles in order, with `end` and, where it is known, `contract_id`.
        as_of: a past moment; None is now.
    """
    if rows.is_empty():
        return []
    splits = believed_splits(reader, series.instrument, as_of)
    # A regular session lies within one UTC day: what ends after the date's midnight is of that date or later.
    cuts = [Cut((day - date(1970, 1, 1)).days * DAY_MICROS, ratio) for day, ratio in splits.items()]
    return cuts + changes_of_contract(rows)


def believed_splits(reader: Reader, instrument: Instrument, as_of: datetime | None = None) -> Mapping[date, Fraction]:
    """By execution date how many shares one became, by the source that has most splits."""
    if instrument.asset_class is AssetClass.CRYPTO:
        return {}
    known = newest_versions(reader.database, SPLITS, instrument, as_of=as_of)
    if known.is_empty():
        return {}
    most = known.group_by("source").len().sort(["len", "source"], descending=[True, False])["source"][0]
    rows = known.filter(pl.col("source") == most).select("execution_date", "split_from", "split_to")
    return {day: Fraction(after) / Fraction(before) for day, before, after in rows.iter_rows() if before and after}


def changes_of_contract(rows: pl.DataFrame) -> list[Cut]:
    """A cut before each row that is of another contract than the last one before it whose contract is known."""
    if "contract_id" not in rows.columns:
        return []
    known = rows["contract_id"].fill_null(strategy="forward")
    changed = ((known != known.shift(1)) & known.shift(1).is_not_null()).fill_null(value=False).arg_true()
    opens: IntArray = micros(rows["timestamp"])
    return [Cut(int(opens[row]), None) for row in np.asarray(changed)]


def note_splits_changed(connection: Connection, shelves: Shelves, instrument: Instrument, now: datetime) -> int:
    """Note as due every window that a split of the instrument lies in, whoever claims it or claimed it once.

    In the transaction that changes what is believed, under the instrument's lock; renewing writes what then differs.

    Returns:
        How many stretches were noted.
    """
    reach = {timeframe: shelves.lookback(Series(instrument, timeframe)) for timeframe in Timeframe}
    return note_due_after(connection, instrument, SPLITS, reach, "splits changed", now)
