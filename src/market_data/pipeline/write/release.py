"""Offers rows in quarantine again, by the same path as fetched ones; those that are fine now leave it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from uuid import uuid4

import polars as pl

from market_data.model.dataset import CANDLES
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.write.derive import Shelves
from market_data.pipeline.write.ingest import Batch, Purpose, ingest
from market_data.storage.series.present import Counts
from market_data.storage.series.verdict import COMPARED
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.work.quarantine import candles_of, resolve, unresolved

_SAME = ["timestamp", *COMPARED]


def retry(
    database: Database,
    shelves: Shelves,
    clock: Callable[[], datetime],
    *,
    instrument: Instrument | None = None,
    numbers: Sequence[int] | None = None,
) -> Counts:
    """Check rows in quarantine again and ingest those that pass; resolution and rows commit together.

    Args:
        database: where they are.
        shelves: the rules and features as they are now.
        clock: when it is.
        instrument: only its rows.
        numbers: only these rows.

    Returns:
        What became of them; `rejected` stay in quarantine.
    """
    counts = Counts()
    for series, source, fetched_at, waiting in _stretches(unresolved(database, instrument, numbers)):
        span = TimeRange(waiting["timestamp"][0], waiting["timestamp"][-1] + series.timeframe.duration)
        batch = Batch(
            series=series,
            frame=waiting.select(CANDLES.schema.names()),
            source=source,
            fetched_at=fetched_at,
            requested_at=fetched_at,
            span=span,
            response_ms=0.0,
            quota_remaining=None,
        )

        def also(connection: Connection, judged: pl.DataFrame, now: datetime, waiting: pl.DataFrame = waiting) -> None:
            passed = waiting.join(judged.select(*_SAME, "verdict"), on=_SAME, how="inner", nulls_equal=True)
            resolve(connection, dict(passed.select("id", "verdict").iter_rows()), now)

        purpose = Purpose(run_id=uuid4(), span=span, actor="quarantine")
        counts += ingest(database, shelves, batch, purpose, clock, also).counts
    return counts


def _stretches(waiting: pl.DataFrame) -> Iterator[tuple[Series, str, datetime, pl.DataFrame]]:
    """Rows of one series, source and moment without a gap between them: nothing was asked for in the gaps."""
    if waiting.is_empty():
        return
    candles = pl.concat([waiting.drop("payload"), candles_of(waiting["payload"])], how="horizontal")
    keys = ("symbol", "asset_class", "timeframe", "source", "created_at")
    for (symbol, asset_class, timeframe, source, created_at), rows in candles.group_by(keys, maintain_order=True):
        series = Series(Instrument(str(symbol), AssetClass(asset_class)), Timeframe(timeframe))
        # A row without a time can never be stored; it stays.
        timed = rows.filter(pl.col("timestamp").is_not_null()).sort("timestamp")
        apart = (pl.col("timestamp").diff() > series.timeframe.duration).fill_null(value=False).cum_sum()
        for part in timed.with_columns(stretch=apart).partition_by("stretch", maintain_order=True, include_key=False):
            assert isinstance(created_at, datetime)
            yield series, str(source), created_at, part
