"""A source whose answers are written by the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import pytest

from market_data.model.contract import Listing
from market_data.model.dataset import CANDLES
from market_data.model.instrument import Instrument, Series
from market_data.model.provider import Capability, Page, Provider
from market_data.model.timeframe import Timeframe, TimeRange


class Source(Provider):
    """Has some candles, or fails."""

    name = "source"
    capabilities = ()

    def __init__(
        self, desk: Any, name: str, positions: Any = (), error: Exception | None = None, series: Series | None = None
    ) -> None:
        self.desk, self.error = desk, error
        series = series or desk.series
        self.capabilities = (  # type: ignore[misc]  # each its own
            Capability(
                dataset=CANDLES,
                asset_classes=frozenset({series.asset_class}),
                timeframes=frozenset({series.timeframe}),
            ),
        )
        self.rows = [desk.candle(i) if isinstance(i, int) else i for i in positions]
        self.name = name  # type: ignore[misc]
        self.asked: list[TimeRange] = []

    async def resolve(self, instrument: Instrument) -> Listing:
        return Listing(instrument, self.name, instrument.symbol)

    async def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        self.asked.append(TimeRange(start, end))
        if self.error is not None:
            raise self.error
        rows = [row for row in self.rows if start <= row["timestamp"] < end]
        if rows:
            yield Page(frame=self.desk.frame(rows), source=self.name, fetched_at=now, response_ms=1.0)


@pytest.fixture
def make_source(desk: Any) -> Callable[..., Source]:
    """Makes a source: make_source(name, positions or rows, error=None, series=None); series: the desk's by default."""
    return lambda name, positions=(), error=None, series=None: Source(desk, name, positions, error, series)
