"""What a change touches: derived columns of changed candles and of exactly the later ones whose lookback reaches them.

Changes that lie far apart are worked through in clusters, so that memory is bounded by the lookback and not by the time
between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from market_data.model.dataset import CANDLES, DATASETS, UTC_MICROS
from market_data.model.instrument import AssetClass, Series
from market_data.model.timeframe import MICROSECOND, TimeRange
from market_data.pipeline.write.derive import Shelves, derive
from market_data.pipeline.write.normalise import with_ends
from market_data.pipeline.write.observe import OBSERVED_SPANS
from market_data.pipeline.write.shares import changes_of_contract, cuts_of
from market_data.pipeline.write.weeks import has_weeks, with_made_weeks
from market_data.storage.series.present import PRESENT_VALUES
from market_data.storage.series.reader import Reader

# Reading this many rows costs about as much as the statements of one more cluster.
WORTH_READING: Final = 5_000
# The longest stretch of expected candles that one cluster spans.
CLUSTER_CANDLES: Final = 100_000
COLUMNS: Final = (*CANDLES.schema, "data_age_seconds", "contract_id")


@dataclass(frozen=True, slots=True)
class Touched:
    """Derived columns after a change: of `own`, the rows that changed, and of `later`, those they reach."""

    own: pl.DataFrame
    later: pl.DataFrame


@dataclass(frozen=True)
class Ripple:
    """A change about to be written to a series, in the caller's transaction and under the series' lock.

    Attributes:
        changed: rows about to stand at their timestamps, in order: `COLUMNS`.
        disputed: timestamps at which this change is the first to tell that another source disagrees.
    """

    reader: Reader
    shelves: Shelves
    series: Series
    changed: pl.DataFrame
    disputed: pl.Series

    def __iter__(self) -> Iterator[Touched]:
        """Each cluster of changes in turn; a touched row is in at least one of them, always with the same values."""
        lookback = self.shelves.lookback(self.series)
        touched = pl.concat([self.changed["timestamp"], self.disputed]).unique().sort()
        for cluster in clusters(touched, self.series, lookback):
            yield self._touched(cluster, lookback)

    def _touched(self, cluster: pl.Series, lookback: int) -> Touched:
        rows = self._standing(cluster, lookback)
        derived = computed(self.reader, self.shelves, self.series, rows, disputed=self.disputed)
        derived = derived.filter(reached(rows["timestamp"], cluster, lookback))
        changed = self.changed.select("timestamp")
        return Touched(
            own=derived.join(changed, on="timestamp", how="semi").filter(pl.col("timestamp").is_in(cluster.implode())),
            later=derived.join(changed, on="timestamp", how="anti"),
        )

    def _standing(self, cluster: pl.Series, lookback: int) -> pl.DataFrame:
        """The rows as they will stand: all that the cluster reaches and all that those look back on."""
        extent = extent_of(cluster)
        before = self.reader.candles(self.series, extent, before=lookback, after=lookback)
        stored = before.select(COLUMNS)
        # Where fewer rows came than were asked for, the series begins or ends: then every change out there belongs too.
        earlier = stored.filter(pl.col("timestamp") < extent.start)
        after = stored.filter(pl.col("timestamp") >= extent.end)
        changed = self.changed.select(COLUMNS)
        if earlier.height == lookback and lookback:
            changed = changed.filter(pl.col("timestamp") >= earlier["timestamp"][0])
        elif not lookback:
            changed = changed.filter(pl.col("timestamp") >= extent.start)
        if after.height == lookback and lookback:
            changed = changed.filter(pl.col("timestamp") <= after["timestamp"][-1])
        elif not lookback:
            changed = changed.filter(pl.col("timestamp") < extent.end)
        return pl.concat([stored.join(changed, on="timestamp", how="anti"), changed]).sort("timestamp")


def computed(
    reader: Reader,
    shelves: Shelves,
    series: Series,
    rows: pl.DataFrame,
    *,
    disputed: pl.Series | None = None,
    as_of: datetime | None = None,
    adjusted: bool = False,
) -> pl.DataFrame:
    """Derived columns of consecutive candles with what the database knows of them, or knew at a past moment.

    Args:
        reader: reads disagreements and observations.
        shelves: what to compute.
        series: whose candles.
        rows: `COLUMNS` of candles in order, the lookback of the first wanted one included.
        disputed: timestamps that count as disputed besides those on record.
        as_of: a past moment; None is now.
        adjusted: whether the rows are in the shares of one day already, so that no split cuts them.
    """
    rows = with_ends(series, rows)
    disagrees = disputed_before(reader, series, rows, as_of)
    if disputed is not None:
        disagrees = pl.concat([disagrees, disputed])
    rows = rows.with_columns(disagrees=pl.col("timestamp").is_in(disagrees.implode()))
    if adjusted or not has_weeks(series):
        cuts = changes_of_contract(rows) if adjusted else cuts_of(reader, series, rows, as_of)
        return derive(series, rows, observed(reader, shelves, series, rows, as_of), shelves, cuts)
    rows, cuts = with_made_weeks(reader, series, rows, cuts_of(reader, series, rows, as_of), as_of)
    # A week's own values may follow from its days.
    return derive(series, rows, {}, shelves, cuts).hstack(rows.select(PRESENT_VALUES))


def clusters(touched: pl.Series, series: Series, lookback: int) -> list[pl.Series]:
    """Touched timestamps, in order, parted where so much lies between two that reading it all would be waste."""
    if touched.is_empty():
        return []
    micros = touched.to_physical().to_numpy()
    step = series.timeframe.micros
    far = np.flatnonzero(np.diff(micros) > (2 * lookback + WORTH_READING) * step) + 1
    parts: list[pl.Series] = []
    for start, stop in zip([0, *far], [*far, len(micros)], strict=True):
        begin = int(start)
        while begin < stop:
            end = int(np.searchsorted(micros[:stop], micros[begin] + CLUSTER_CANDLES * step))
            parts.append(touched[begin:end])
            begin = end
    return parts


def extent_of(timestamps: pl.Series) -> TimeRange:
    """From the first of ordered timestamps up to and including the last."""
    return TimeRange(timestamps[0], timestamps[-1] + MICROSECOND)


def reached(timestamps: pl.Series, changed: pl.Series, lookback: int) -> pl.Series:
    """True where a row is changed or has a changed row among the `lookback` rows before it."""
    position = pl.int_range(pl.len())
    last_changed = pl.when(pl.col("changed")).then(position).forward_fill()
    frame = pl.DataFrame({"changed": timestamps.is_in(changed.implode())})
    return frame.select((position - last_changed <= lookback).fill_null(value=False)).to_series()


def disputed_before(reader: Reader, series: Series, rows: pl.DataFrame, as_of: datetime | None = None) -> pl.Series:
    """Timestamps within `rows` at which another source is on record with something else."""
    if rows.is_empty():
        return pl.Series("timestamp", [], UTC_MICROS)
    return reader.disagreements(series, extent_of(rows["timestamp"]), as_of)


def observed(
    reader: Reader, shelves: Shelves, series: Series, rows: pl.DataFrame, as_of: datetime | None = None
) -> Mapping[str, pl.DataFrame]:
    """Own-clock values that the derived columns of `rows` use, by dataset; empty for what has none."""
    if rows.is_empty():
        return {}
    extent = extent_of(rows["timestamp"])
    until: datetime = rows["end"].max()  # type: ignore[assignment]  # stored candles are on the grid
    found: dict[str, pl.DataFrame] = {}
    for name, history in histories(shelves, series).items():
        wanted = TimeRange(extent.start - history, until + MICROSECOND)
        found[name] = reader.observations(DATASETS[name], series.instrument, wanted, as_of)
    return found


def histories(shelves: Shelves, series: Series) -> dict[str, timedelta]:
    """By dataset how long before a candle's open its derived columns look at own-clock values."""
    if series.asset_class is not AssetClass.CRYPTO:
        return {}
    spans = dict(OBSERVED_SPANS)
    for name, span in shelves.history().items():
        spans[name] = max(span, spans.get(name, timedelta(0)))
    return {name: span + series.timeframe.duration for name, span in spans.items()}
