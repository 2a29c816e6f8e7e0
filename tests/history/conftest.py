"""A desk to work a series from: offers of sources in, what stands and what is on record out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import polars as pl
import pytest

from market_data.bootstrap import open_shelves
from market_data.model.dataset import CANDLES, EXACT, UTC_MICROS
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.derive import Shelves
from market_data.pipeline.history import enriched
from market_data.pipeline.ingest import Batch, Outcome, Purpose, ingest
from market_data.sandbox.recordings import FOLDER
from market_data.storage.database import Database
from market_data.storage.reader import Reader

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
        )
        outcome = ingest(
            self.database, self.shelves, batch, Purpose(run_id=uuid4(), span=span), clock or (lambda: self.now)
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


# When something was computed or last written is not part of what it is.
TIMES_OF_WRITING = ("computed_at", "updated_at")


def content(frame: pl.DataFrame) -> pl.DataFrame:
    """Enriched candles without when they were written."""
    return frame.drop(TIMES_OF_WRITING)


@pytest.fixture(scope="session")
def shelves() -> Shelves:
    """Every feature and rule there is."""
    return open_shelves()


@pytest.fixture
def desk(database: Database, shelves: Shelves) -> Desk:
    """A desk for hours of BTC in a fresh database."""
    return Desk(database, shelves)


@pytest.fixture
def new_desk(shelves: Shelves) -> Callable[..., Desk]:
    """Makes a desk over any database and series."""
    return lambda database, series=BTC_HOURS: Desk(database, shelves, series)


@pytest.fixture(scope="session")
def bitcoin_hours() -> pl.DataFrame:
    """Real hours of BTC in USD that the sandbox bundles, as a provider's page; takers' share is made up, 3 of 8."""
    stored = pl.read_parquet(FOLDER / "BTC.parquet")
    timed = stored.with_columns(pl.col("timestamp").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
    exact = timed.with_columns(pl.col(name).cast(EXACT) for name in timed.columns if name != "timestamp")
    return CANDLES.conform(exact.with_columns(taker_buy_volume=(pl.col("volume") * pl.lit("0.375").cast(EXACT))))
