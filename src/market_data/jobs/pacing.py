"""Paced: a provider asked no faster than backfills may, so that live work always finds room."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime

from market_data.model.dataset import Dataset
from market_data.model.instrument import AssetClass, Instrument, Listing
from market_data.model.provider import Capability, Page, Provider
from market_data.model.timeframe import Timeframe
from market_data.transport.ratelimit import RateLimit

SECONDS = 60.0


class Paced(Provider):
    """A provider whose pages are handed out at a rate; all who share the limit share the rate.

    A page is one request of its source, or the few it was made of, so the rate is that of requests or a little below.
    """

    def __init__(self, inner: Provider, limit: RateLimit) -> None:
        self._inner = inner
        self._limit = limit
        self.name = inner.name  # type: ignore[misc]  # a class's own elsewhere, the inner one's here
        self.capabilities = inner.capabilities  # type: ignore[misc]

    async def resolve(self, instrument: Instrument) -> Listing:
        """As the inner provider."""
        return await self._inner.resolve(instrument)

    def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """As the inner provider, paced."""
        return self._paced(self._inner.fetch_candles(instrument, timeframe, start, end, now=now))

    def fetch_candles_from(
        self,
        source: str,
        instrument: Instrument,
        timeframe: Timeframe,
        start: datetime,
        end: datetime,
        *,
        now: datetime,
    ) -> AsyncIterator[Page]:
        """As the inner provider, paced."""
        return self._paced(self._inner.fetch_candles_from(source, instrument, timeframe, start, end, now=now))

    def fetch_trades(
        self, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """As the inner provider, paced."""
        return self._paced(self._inner.fetch_trades(instrument, start, end, now=now))

    def fetch(
        self, dataset: Dataset, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """As the inner provider, paced."""
        return self._paced(self._inner.fetch(dataset, instrument, start, end, now=now))

    @property
    def ready(self) -> str | None:
        """As the inner provider."""
        return self._inner.ready

    def capability(self, dataset: Dataset, instrument: Instrument, timeframe: Timeframe | None) -> Capability | None:
        """As the inner provider."""
        return self._inner.capability(dataset, instrument, timeframe)

    async def _paced(self, pages: AsyncIterator[Page]) -> AsyncIterator[Page]:
        await self._limit.acquire()
        async for page in pages:
            yield page
            await self._limit.acquire()


def paced(
    providers: Mapping[AssetClass, Sequence[Provider]], requests_per_minute: float
) -> dict[AssetClass, list[Provider]]:
    """The same providers by priority, each with one rate for all its backfills."""
    wrapped: dict[str, Paced] = {}
    for group in providers.values():
        for provider in group:
            if provider.name not in wrapped:
                wrapped[provider.name] = Paced(provider, RateLimit(requests_per_minute, SECONDS))
    return {asset_class: [wrapped[one.name] for one in group] for asset_class, group in providers.items()}
