"""Fixtures of the history tests; their desk, model and steps are modules beside this file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from market_data.bootstrap.shelves import open_shelves
from market_data.model.dataset import CANDLES, EXACT
from market_data.pipeline.write.derive import Shelves
from market_data.sandbox.recordings import FOLDER
from market_data.storage.server.database import Database

sys.path.insert(0, str(Path(__file__).parent))

from history_desk import BTC_HOURS, Desk


@pytest.fixture(scope="session")
def shelves() -> Shelves:
    """Every feature and rule there is."""
    return open_shelves()


@pytest.fixture
def desk(database: Database, shelves: Shelves, request: pytest.FixtureRequest) -> Desk:
    """A desk for hours of BTC, or the series asked for, in a fresh database."""
    return Desk(database, shelves, getattr(request, "param", BTC_HOURS))


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
