"""Which cuts a series has: the splits that are believed, and the changes of contract."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Final

import numpy as np
import polars as pl

from market_data.model.actions import Split
from market_data.model.cuts import Cut
from market_data.model.instrument import AssetClass, Series
from market_data.model.observation import IntArray, micros
from market_data.pipeline.write.believe import believed_splits
from market_data.storage.series.reader import Reader

DAY_MICROS: Final = 86_400_000_000
EPOCH: Final = date(1970, 1, 1)
# As of which everything is known.
EVER: Final = datetime(9999, 1, 1, tzinfo=UTC)


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
    if series.asset_class is AssetClass.CRYPTO:
        return changes_of_contract(rows)
    return cuts_at(believed_splits(reader, series.instrument, as_of or EVER)) + changes_of_contract(rows)


def cuts_at(splits: Iterable[Split]) -> list[Cut]:
    """The cuts of those splits that apply."""
    # A regular session lies within one UTC day: what ends after the date's midnight is of that date or later.
    return [Cut((each.date - EPOCH).days * DAY_MICROS, each.ratio) for each in splits if each.applies]


def changes_of_contract(rows: pl.DataFrame) -> list[Cut]:
    """A cut before each row that is of another contract than the last one before it whose contract is known."""
    if "contract_id" not in rows.columns:
        return []
    known = rows["contract_id"].fill_null(strategy="forward")
    changed = ((known != known.shift(1)) & known.shift(1).is_not_null()).fill_null(value=False).arg_true()
    opens: IntArray = micros(rows["timestamp"])
    return [Cut(int(opens[row]), None) for row in np.asarray(changed)]
