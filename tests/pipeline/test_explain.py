"""The numbers behind a feature are the stored ones, and redo the arithmetic."""

from __future__ import annotations

import statistics
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import polars as pl
import pytest

from market_data.bootstrap.shelves import open_shelves
from market_data.model.dataset import CANDLES
from market_data.model.errors import UsageError
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.read.explain import explain
from market_data.pipeline.write.ingest import Batch, Purpose, ingest
from market_data.storage.series.reader import Reader
from market_data.storage.server.database import Database

START = datetime(2024, 3, 4, tzinfo=UTC)
NOW = START + timedelta(days=5)
HOURS = Series(Instrument("BTC", AssetClass.CRYPTO), Timeframe.H1)
SHELVES = open_shelves()


@pytest.fixture
def stored(database: Database) -> Reader:
    price = [Decimal(100 + i * i % 11) for i in range(60)]
    frame = pl.DataFrame(
        {
            "timestamp": [START + timedelta(hours=i) for i in range(60)],
            **dict.fromkeys(("open", "high", "low", "close"), price),
            "volume": [Decimal(i + 1) for i in range(60)],
        }
    )
    span = TimeRange(START, START + timedelta(hours=60))
    batch = Batch(
        series=HOURS,
        frame=CANDLES.conform(frame),
        source="binance",
        fetched_at=NOW,
        requested_at=NOW,
        span=span,
        response_ms=1.0,
        quota_remaining=None,
    )
    ingest(database, SHELVES, batch, Purpose(run_id=uuid4(), span=span), lambda: NOW)
    return Reader(database)


def test_the_inputs_redo_the_value(stored: Reader) -> None:
    at = START + timedelta(hours=59)
    by_name = {each.feature: each for each in explain(stored, SHELVES, HOURS, at)}
    mean = by_name["sma_20"]
    assert (mean.rows.height, mean.timestamp, mean.complete) == (20, at, True)
    closes = mean.rows["close"].to_list()
    assert closes == [float(100 + i * i % 11) for i in range(40, 60)]
    assert mean.value == pytest.approx(statistics.fmean(closes), rel=1e-15)
    # Volumes 41 to 60: 60 over their mean, 50.5.
    assert by_name["volume_spike_score"].value == pytest.approx(60 / 50.5, rel=1e-15)
    (row,) = stored.features(HOURS, TimeRange(at, at + timedelta(hours=1))).rows(named=True)
    assert {name: each.value for name, each in by_name.items()} == {name: row[name] for name in by_name}


def test_a_candle_that_is_not_there_is_said_with_the_newest(stored: Reader) -> None:
    with pytest.raises(UsageError, match="newest stored opens at 2024-03-06T11:00:00Z"):
        explain(stored, SHELVES, HOURS, START + timedelta(hours=60))
