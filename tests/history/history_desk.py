"""A desk to work a series from: offers of sources in, what stands and what is on record out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import polars as pl

from market_data.model.contract import Contract
from market_data.model.dataset import CANDLES, UTC_MICROS
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.read.history import enriched
from market_data.pipeline.write.derive import Shelves
from market_data.pipeline.write.ingest import Batch, Outcome, Purpose, ingest
from market_data.storage.series.reader import Reader
from market_data.storage.server.database import Database

START = datetime(2024, 12, 31, 12, tzinfo=UTC)
FIRST_OFFER = datetime(2025, 3, 1, tzinfo=UTC)
BTC_HOURS = Series(Instrument("BTC", AssetClass.CRYPTO), Timeframe.H1)


class Desk:
    """One series in one database, with a clock that is set by hand."""

    def __init__(self, database: Database, shelves: Shelves, series: Series = BTC_HOURS) -> None:
        self.database, self.shelves, self.series = database, shelves, series
        self.reader = Reader(database)
        self.now = FIRST_OFFER

    def at(self, position: int) -> datetime:
        """Open time of the candle at a position."""
        return START + position * self.series.timeframe.duration

    def candle(self, position: int, close: str = "100", **values: Any) -> dict[str, Any]:
        """A good candle of a crypto exchange, with any values replaced."""
        return {
            "timestamp": self.at(position),
            "open": "100",
            "high": "150",
            "low": "50",
            "close": close,
            "volume": "10",
            "taker_buy_volume": "4",
        } | values

    def frame(self, rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
        """Rows as a provider's page."""
        texts = {name: [None if row.get(name) is None else str(row[name]) for row in rows] for name in CANDLES.values}
        columns = [
            pl.Series("timestamp", [row["timestamp"] for row in rows], UTC_MICROS),
            *(pl.Series(name, texts[name], pl.String).cast(CANDLES.schema[name]) for name in CANDLES.values),
        ]
        return pl.DataFrame(columns)

    def offer(
        self,
        rows: Sequence[dict[str, Any]] | pl.DataFrame,
        source: str = "binance",
        *,
        late_seconds: float = 0.0,
        contract: Contract | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> Outcome:
        """What a source sends now, written; the clock then moves on by a minute."""
        frame = rows if isinstance(rows, pl.DataFrame) else self.frame(rows)
        times = frame["timestamp"].drop_nulls()
        first = times.min() if len(times) else START
        last = times.max() if len(times) else START
        span = TimeRange(first, last + self.series.timeframe.duration)  # type: ignore[arg-type,operator]
        batch = Batch(
            series=self.series,
            frame=frame,
            source=source,
            fetched_at=self.now,
            requested_at=self.now - timedelta(seconds=late_seconds),
            span=span,
            response_ms=1.0,
            quota_remaining=None,
            contract=contract,
        )
        run_id = uuid5(NAMESPACE_OID, f"{self.now} {source}")  # the same when the same is done again
        outcome = ingest(
            self.database, self.shelves, batch, Purpose(run_id=run_id, span=span), clock or (lambda: self.now)
        )
        self.now += timedelta(minutes=1)
        return outcome

    def present(self) -> pl.DataFrame:
        """market_data_v2 of the series."""
        return self.reader.features(self.series)

    def known(self, moment: datetime) -> pl.DataFrame:
        """The series as known at a moment."""
        return enriched(self.reader, self.shelves, self.series, as_of=moment)

    def table(self, name: str, columns: str, order: str) -> list[tuple[Any, ...]]:
        """Columns of a table's rows as tuples, decimals in their shortest form."""
        rows = self.database.rows(f"SELECT {columns} FROM {name} ORDER BY {order}")
        return [tuple(row.values()) for row in rows]


def content(frame: pl.DataFrame) -> pl.DataFrame:
    """Enriched candles without when they were written."""
    return frame.drop("computed_at", "updated_at")


# What a series is made of, and what does not depend on when and how often something was tried.
STATE = {
    "candles": "*",
    "market_data_v2": "*",
    "data_corrections": "*",
    "disagreements": "*",
    "quarantine": "*",
    "coverage": "*",
    "data_quality_metrics": "*",
    "series_moments": "*",
    "recompute_due": "*",
}


def state(database: Database) -> dict[str, list[str]]:
    """Every row of the tables that hold data, as sorted text without its number."""
    return {
        table: sorted(row["row"] for row in database.rows(f"SELECT (to_jsonb(t) - 'id')::text AS row FROM {table} t"))
        for table in STATE
    }


def clear(database: Database) -> None:
    """An empty database again."""
    logs = ("enrichment_fetch_log", "enrichment_compute_log", "backfill_state", "runs")
    database.rows(f"TRUNCATE {', '.join([*STATE, *logs])}")
