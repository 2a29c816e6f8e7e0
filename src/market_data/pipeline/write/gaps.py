"""Gaps: what a batch tells the coverage ledger, the audit of a whole series, and the proof that nothing was traded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from market_data.model.dataset import EXACT, UTC_MICROS
from market_data.model.instrument import Series
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange, to_micros
from market_data.pipeline.write.ledger import Coverage, Sighting, proved_empty, revise, tally
from market_data.pipeline.write.normalise import with_ends
from market_data.storage.facts.expectations import expected_until, halts
from market_data.storage.series.coverage import State, Stretch, replace_stretches, stretches, stretches_around
from market_data.storage.series.present import lock_series
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.wire.gathered import Writes

if TYPE_CHECKING:
    from numpy.typing import NDArray

# An audit reads this many expected candles at a time, so that its memory is bounded.
AUDITED_CANDLES: Final = 500_000
# Proofs are looked for in stretches of this many candles.
EVIDENCE_CANDLES: Final = 1_500
_DAY: Final = timedelta(days=1)
_ABSENT: Final = (State.MISSING, State.UNRECOVERABLE)
_OF_SERIES: Final = "symbol = %s AND asset_class = %s AND timeframe = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit of a series found.

    Attributes:
        span: What was looked through; None when nothing is stored or asked for.
        coverage: Expected candles of the span by state, afterwards.
        corrected: Rows of the ledger written because it said something else.
        proved: Candles newly proved to be without trades.
    """

    series: Series
    span: TimeRange | None
    coverage: Coverage
    corrected: int = 0
    proved: int = 0


def note_batch(
    connection: Connection,
    series: Series,
    span: TimeRange,
    timestamps: pl.Series,
    source: str,
    fetched_at: datetime,
    now: datetime,
) -> int:
    """Bring the ledger up to date with a batch, inside its transaction and under the series' lock.

    Costs one small read, and writes only when the batch filled a gap, showed one or went beyond what was known.

    Args:
        span: what was asked for.
        timestamps: open times that are stored after the batch, in order; all that came in and were not rejected.

    Returns:
        How many rows of the ledger were written.
    """
    closed_by = min(fetched_at, expected_until(connection, series, now))
    sighting = Sighting(
        span=span, opens=timestamps.cast(pl.Int64).to_numpy(), source=source, closed_by=closed_by, now=now
    )
    ledger = stretches_around(connection, series, span)
    revised = _halted(connection, series, span, revise(series, ledger, sighting), now)
    return replace_stretches(connection, series, ledger, revised)


def note_seen(
    connection: Writes,
    series: Series,
    ledger: Sequence[Stretch],
    span: TimeRange,
    timestamps: pl.Series,
    source: str,
    fetched_at: datetime,
    now: datetime,
) -> int:
    """`note_batch` of a contract that trades, where the stretches around the span have been read already."""
    sighting = Sighting(
        span=span, opens=timestamps.cast(pl.Int64).to_numpy(), source=source, closed_by=fetched_at, now=now
    )
    return replace_stretches(connection, series, ledger, revise(series, ledger, sighting))


def _halted(
    connection: Connection, series: Series, span: TimeRange, ledger: list[Stretch], now: datetime
) -> list[Stretch]:
    """The ledger with what was asked for and not had while the own contract was halted as without trades.

    A stretch counts whole: a halt began before we saw it and ended before we saw that.
    """
    gone = [s for s in ledger if s.state in _ABSENT and s.start >= span.start and s.end <= span.end]
    proofs: dict[int, str] = {}
    for stretch in gone:
        for halt, words in halts(connection, series, stretch.span):
            asked = f"asked at {now:%Y-%m-%d %H:%M} UTC for {span.start:%Y-%m-%d %H:%M} to {span.end:%Y-%m-%d %H:%M}"
            proof = f"{words}, seen {halt.start:%Y-%m-%d %H:%M} to {halt.end:%Y-%m-%d %H:%M}; {asked}: no candles"
            opens = grid(series.asset_class, series.timeframe, stretch.span).opens
            proofs |= dict.fromkeys(opens.tolist(), proof)
    return proved_empty(series, ledger, span, proofs, now) if proofs else ledger


def audit_series(database: Database, series: Series, now: datetime, span: TimeRange | None = None) -> Audit:
    """Compare the ledger with the stored candles and the calendar, correct it, and prove what can be proved.

    Args:
        span: what to look through; by default from the first to the last candle ever stored or asked for.
    """
    span = span or covered_span(database, series)
    if span is None:
        return Audit(series=series, span=None, coverage=Coverage())
    corrected = proved = 0
    for part in span.split(series.timeframe.duration * AUDITED_CANDLES):
        with database.transaction() as connection:
            lock_series(connection, series)
            corrected += _audit_part(connection, series, part, now)
            proved += _prove_part(connection, series, part, now)
    return Audit(
        series=series, span=span, coverage=coverage(database, series, span, now), corrected=corrected, proved=proved
    )


def coverage(database: Database, series: Series, span: TimeRange, now: datetime) -> Coverage:
    """Candles expected in a span by state, from the ledger."""
    with database.transaction() as connection:
        return tally(series, stretches(connection, series, span), span, expected_until(connection, series, now))


def covered_span(database: Database, series: Series) -> TimeRange | None:
    """From the first to the last candle that was ever stored or asked for; None when there is none.

    Candles after that are not missing: nobody asked for them. How old the newest one is, the status tells.
    """
    (row,) = database.rows(
        f"SELECT least(m.first, c.first) AS first, greatest(m.last + interval '1 microsecond', c.last) AS last FROM "
        f"(SELECT min(timestamp) AS first, max(timestamp) AS last FROM market_data_v2 WHERE {_OF_SERIES}) m, "
        f"(SELECT min(start_time) AS first, max(end_time) AS last FROM coverage WHERE {_OF_SERIES}) c",
        (*series.key, *series.key),
    )
    return None if row["first"] is None else TimeRange(row["first"], row["last"])


def empty_by_proof(
    fine: NDArray[np.int64], stored: pl.DataFrame, coarse: pl.DataFrame
) -> list[tuple[NDArray[np.int64], str]]:
    """Which missing candles had no trades: those inside a coarser candle whose volume the stored ones make up.

    The sums are exact and count only within one source, since sources count volume differently. Volumes are never
    negative, so nothing is left for the missing candles. A candle that a source sent with volume 0 needs no proof: it
    is stored and present.

    Args:
        fine: open times of missing candles, in order.
        stored: `timestamp`, `volume`, `source` of the stored candles of the same series.
        coarse: `timestamp`, `end`, `volume`, `source` of coarser stored candles of the instrument, in order.

    Returns:
        Open times with the proof in words.
    """
    proofs = []
    times = stored["timestamp"].cast(pl.Int64).to_numpy()
    for opened, ended, volume, source in coarse.select("timestamp", "end", "volume", "source").iter_rows():
        start, end = to_micros(opened), to_micros(ended)
        within = fine[np.searchsorted(fine, start) : np.searchsorted(fine, end)]
        parts = stored[int(np.searchsorted(times, start)) : int(np.searchsorted(times, end))]
        if len(within) and (parts["source"] == source).all() and (parts["volume"].sum() or 0) == volume:
            proofs.append((within, f"{source}: the coarser candle's volume is made up by the others"))
    return proofs


def _audit_part(connection: Connection, series: Series, part: TimeRange, now: datetime) -> int:
    found = connection.execute(
        f"SELECT timestamp FROM market_data_v2 WHERE {_OF_SERIES} AND timestamp >= %s AND timestamp < %s "
        "ORDER BY timestamp",
        (*series.key, part.start, part.end),
    )
    opens = np.fromiter((to_micros(moment) for (moment,) in found), np.int64)
    ledger = stretches_around(connection, series, part)
    closed_by = expected_until(connection, series, now)
    sighting = Sighting(span=part, opens=opens, source="audit", closed_by=closed_by, now=now, whole=True)
    return replace_stretches(connection, series, ledger, revise(series, ledger, sighting))


def _prove_part(connection: Connection, series: Series, part: TimeRange, now: datetime) -> int:
    """Mark missing candles of a span as no_trade where a coarser candle proves it; returns how many."""
    if not series.timeframe.intraday:
        return 0
    proved = 0
    for span in part.split(series.timeframe.duration * EVIDENCE_CANDLES):
        gone = [s for s in stretches(connection, series, span) if s.state in _ABSENT]
        if not gone:
            continue
        opens = np.concatenate([grid(series.asset_class, series.timeframe, s.span).opens for s in gone])
        opens = opens[(opens >= to_micros(span.start)) & (opens < to_micros(span.end))]
        proofs = {
            int(moment): reason
            for within, reason in empty_by_proof(opens, *_evidence(connection, series, span))
            for moment in within
        }
        if proofs:
            ledger = stretches_around(connection, series, span)
            replace_stretches(connection, series, ledger, proved_empty(series, ledger, span, proofs, now))
            proved += len(proofs)
    return proved


def _evidence(connection: Connection, series: Series, span: TimeRange) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Stored candles of the series around a span, and the coarser intraday and daily ones that overlap it."""
    around = TimeRange(span.start - _DAY, span.end + _DAY)
    coarser = [t for t in Timeframe if series.timeframe.duration < t.duration <= _DAY]
    coarse = [
        with_ends(other, _volumes(connection, other, around))
        for other in (Series(series.instrument, timeframe) for timeframe in coarser)
    ]
    overlapping = (pl.col("timestamp") < span.end) & (pl.col("end") > span.start)
    return _volumes(connection, series, around), pl.concat(coarse).filter(overlapping)


def _volumes(connection: Connection, series: Series, span: TimeRange) -> pl.DataFrame:
    rows = connection.execute(
        f"SELECT timestamp, volume, source FROM market_data_v2 WHERE {_OF_SERIES} AND timestamp >= %s "
        "AND timestamp < %s ORDER BY timestamp",
        (*series.key, span.start, span.end),
    )
    return pl.DataFrame(rows.fetchall(), {"timestamp": UTC_MICROS, "volume": EXACT, "source": pl.String}, orient="row")
