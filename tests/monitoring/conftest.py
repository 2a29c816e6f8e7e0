"""Readings of a platform that is well, and of one that is broken in one way each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from market_data.model.instrument import AssetClass, Instrument
from market_data.monitoring.readings import InstrumentReading, Limits, Readings

AT = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
CRITICAL = {AssetClass.STOCK: 300.0, AssetClass.ETF: 300.0, AssetClass.CRYPTO: 120.0}
ALERT = {AssetClass.STOCK: 600.0, AssetClass.ETF: 600.0, AssetClass.CRYPTO: 60.0}
DAY = 86400.0


def instrument(symbol: str, asset_class: AssetClass, **changed: Any) -> InstrumentReading:
    well = InstrumentReading(
        instrument=Instrument(symbol, asset_class), status="healthy", age=1800.0, lag=0.0, overdue=0.0,
        quality_score=0.99,
    )  # fmt: skip
    return replace(well, **changed)


# Two tracked instruments that are up to date, and one that was enriched by hand a month ago: nobody's concern.
WELL = Readings(
    at=AT,
    limits=Limits(critical_seconds=CRITICAL, alert_seconds=ALERT, min_quality=0.85),
    instruments=[
        instrument("AAPL", AssetClass.STOCK, age=2 * DAY),
        instrument("BTC", AssetClass.CRYPTO),
        instrument("OLD", AssetClass.STOCK, age=30 * DAY, lag=30 * DAY, overdue=None, status="stale"),
    ],
    breakers={"binance": "closed", "yahoo": "closed"},
    fetch_success=1.0,
    compute_success=1.0,
    average_quality=0.99,
    gaps={"crypto": (2, 3600.0)},
    queue_depth={"enrich": 3},
    queue_idle=60.0,
    workers=1,
    scheduler="running",
)


def with_btc(**changed: Any) -> Readings:
    return replace(WELL, instruments=[WELL.instruments[0], instrument("BTC", AssetClass.CRYPTO, **changed)])


# Per rule: readings that break it and no other, and the labels of what is found.
BROKEN: dict[str, tuple[Readings, dict[str, str]]] = {
    "MarketDataStale": (with_btc(lag=1000.0, overdue=121.0), {"symbol": "BTC", "asset_class": "crypto"}),
    "MarketDataLate": (with_btc(lag=1000.0, overdue=61.0), {"symbol": "BTC", "asset_class": "crypto"}),
    # The schedule asked a moment ago; yet a day is missing.
    "MarketDataOld": (with_btc(lag=DAY + 1, overdue=50.0), {"symbol": "BTC", "asset_class": "crypto"}),
    "MarketDataFetchesFail": (replace(WELL, fetch_success=0.949), {}),
    "MarketDataComputationsFail": (replace(WELL, compute_success=0.949), {}),
    "MarketDataQualityLow": (replace(WELL, average_quality=0.8499), {}),
    "MarketDataNeverFetched": (with_btc(status="not_enriched", age=None, lag=None, overdue=None), {}),
    "MarketDataRunsFail": (with_btc(status="error"), {}),
    "MarketDataBreakerOpen": (replace(WELL, breakers={"binance": "open", "yahoo": "closed"}), {"source": "binance"}),
    "MarketDataGapsOld": (replace(WELL, gaps={"crypto": (2, 2 * DAY + 1)}), {"asset_class": "crypto"}),
    "MarketDataNoWorker": (replace(WELL, workers=0), {}),
    "MarketDataQueueStuck": (replace(WELL, queue_idle=3601.0), {}),
    "MarketDataSchedulerPaused": (replace(WELL, scheduler="paused"), {}),
    "MarketDataSchedulerStopped": (replace(WELL, scheduler="stopped"), {}),
}
# Readings on the right side of every limit, by a hair.
BARELY_WELL = replace(
    WELL,
    instruments=[
        instrument("AAPL", AssetClass.STOCK, lag=DAY, overdue=300.0),
        instrument("BTC", AssetClass.CRYPTO, lag=3700.0, overdue=60.0),
    ],
    fetch_success=0.95,
    compute_success=0.95,
    average_quality=0.85,
    gaps={"crypto": (2, 2 * DAY)},
    queue_idle=3600.0,
)


@pytest.fixture
def broken() -> dict[str, tuple[Readings, dict[str, str]]]:
    return BROKEN


@pytest.fixture
def well() -> Readings:
    return WELL


@pytest.fixture
def barely_well() -> Readings:
    return BARELY_WELL


@pytest.fixture
def with_crypto() -> Callable[..., Readings]:
    return with_btc
