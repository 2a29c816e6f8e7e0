"""Writes judged rows of a series and everything that follows from them, in the caller's transaction."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from market_data.model.dataset import EXACT, UTC_MICROS
from market_data.model.instrument import Series
from market_data.model.timeframe import TimeRange
from market_data.pipeline.write.derive import Shelves
from market_data.pipeline.write.ripple import Ripple, extent_of
from market_data.pipeline.write.tolerance import relative_difference, tolerance
from market_data.storage.series.present import Counts, Origin, note_moment, refresh_derived, write
from market_data.storage.series.reader import Reader
from market_data.storage.series.verdict import COMPARED, MANUAL, Verdict
from market_data.storage.wire.connection import Connection
from market_data.storage.work import audit


@dataclass(slots=True)
class Change:
    """What was done to a series.

    Attributes:
        counts: what became of the judged rows.
        reached: later rows that were computed again because a changed one is within their lookback.
        refreshed: those of them whose values then differed and were written.
        spans: stretches of the series in which anything was touched.
        compute_seconds: time spent reading what is needed and computing.
    """

    counts: Counts = field(default_factory=Counts)
    reached: int = 0
    refreshed: int = 0
    spans: list[TimeRange] = field(default_factory=list)
    compute_seconds: float = 0.0


def apply(
    connection: Connection, reader: Reader, shelves: Shelves, series: Series, judged: pl.DataFrame, origin: Origin
) -> Change:
    """Write judged rows, the later rows they reach, corrections and disagreements.

    The caller holds the series' lock, so that the committed rows that `reader` sees are those before this change.

    Args:
        judged: what `upsert.classify` returned, with `data_age_seconds`.
    """
    change = Change()
    changed = judged.filter(pl.col("verdict").is_in([Verdict.INSERTED, Verdict.UPDATED]))
    disputes = disagreements(judged, origin.source)
    own: list[pl.DataFrame] = []
    started = time.perf_counter()
    for touched in Ripple(reader, shelves, series, changed, disputes["timestamp"]):
        change.compute_seconds += time.perf_counter() - started
        own.append(touched.own)
        change.reached += touched.later.height
        change.refreshed += refresh_derived(connection, series, touched.later, origin.now)
        times = pl.concat([touched.own["timestamp"], touched.later["timestamp"]]).sort()
        change.spans.append(extent_of(times))
        started = time.perf_counter()
    derived = pl.concat(own) if own else pl.DataFrame(schema={"timestamp": UTC_MICROS})
    change.counts = write(connection, series, judged, derived, origin)
    if change.counts.unchanged < judged.height:
        note_moment(connection, series, origin.now)
    if own:
        names = [feature.name for feature in shelves.features]
        audit.record_disagreements(connection, series, disputes, origin.now)
        audit.log_compute(connection, series, derived, names, change.compute_seconds * 1000, origin.now)
    return change


_DISAGREEMENTS: Final[dict[str, pl.DataType]] = {
    "timestamp": UTC_MICROS,
    "field": pl.String(),
    "source_a": pl.String(),
    "value_a": EXACT,
    "source_b": pl.String(),
    "value_b": EXACT,
}


def disagreements(judged: pl.DataFrame, source: str) -> pl.DataFrame:
    """Where an offered value differs beyond tolerance from the one standing from another source, field by field.

    Returns:
        timestamp, field, source_a, value_a (what stands afterwards), source_b, value_b.
    """
    wins = pl.col("verdict") == Verdict.UPDATED
    offered = judged.filter(
        (pl.col("present_source") != source)
        & (pl.col("verdict") != Verdict.UNCHANGED)
        # Candles of two contracts differ by right.
        & (pl.col("contract_id") == pl.col("present_contract")).fill_null(value=True)
        # A person's correction says which value is right, and so does taking it back: they are no second opinions.
        & (source != MANUAL)
        & ~(wins & (pl.col("present_source") == MANUAL))
    )
    if offered.is_empty():
        return pl.DataFrame(schema=_DISAGREEMENTS)
    parts = [
        offered.filter(_beyond_tolerance(name, source)).select(
            "timestamp",
            field=pl.lit(name),
            source_a=pl.when(wins).then(pl.lit(source)).otherwise("present_source"),
            value_a=pl.when(wins).then(name).otherwise(f"{name}_present").cast(EXACT),
            source_b=pl.when(wins).then("present_source").otherwise(pl.lit(source)),
            value_b=pl.when(wins).then(f"{name}_present").otherwise(name).cast(EXACT),
        )
        for name in COMPARED
    ]
    return pl.concat(parts)


def _beyond_tolerance(field: str, source: str) -> pl.Expr:
    """Whether an offered value differs from the one standing by more than two such sources usually do."""
    apart = relative_difference(pl.col(field).cast(EXACT), pl.col(f"{field}_present").cast(EXACT))
    family = source.partition(":")[0]
    related = pl.col("present_source").str.split(":").list.first() == family
    allowed = float(tolerance(field, f"other than {family}", source))
    return (apart > pl.when(related).then(0.0).otherwise(allowed)).fill_null(value=False)
