"""Massive, formerly Polygon.io: stocks, ETFs and crypto with their trades, corporate actions, options and news.

Facts: massive.com/docs and its OpenAPI document, read in 2026. The old host api.polygon.io still answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

from market_data.model.contract import Listing
from market_data.model.dataset import (
    CANDLES,
    DIVIDENDS,
    EARNINGS,
    FX_RATES,
    INSTRUMENTS,
    NEWS,
    OPTIONS,
    QUOTES,
    SPLITS,
    TRADES,
    Dataset,
)
from market_data.model.errors import UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Capability, Page, Provider
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.providers.polygon.candles import candles
from market_data.providers.polygon.client import NAME, Client
from market_data.providers.polygon.companies import dividends, earnings, news, splits
from market_data.providers.polygon.lists import instruments, options
from market_data.providers.polygon.rates import rates
from market_data.providers.polygon.settings import PolygonSettings
from market_data.providers.polygon.ticks import quotes, trades
from market_data.transport.http import Http

__all__ = ["Polygon", "PolygonSettings"]

EVERYTHING = frozenset(AssetClass)
SHARES = frozenset({AssetClass.STOCK, AssetClass.ETF})
OF_SHARES = (QUOTES, DIVIDENDS, SPLITS, OPTIONS, FX_RATES)
BY_DATASET = {
    QUOTES.name: quotes,
    DIVIDENDS.name: dividends,
    SPLITS.name: splits,
    EARNINGS.name: earnings,
    NEWS.name: news,
    OPTIONS.name: options,
}


class Polygon(Provider):
    """Massive (Polygon.io), for prices as they were: unadjusted.

    Intraday candles of stocks hold the regular session only, made of finer ones where the source's own begin elsewhere.
    Its day candles take open, high, low and close from the regular session and count the volume of the extended hours
    too: the notes say so. Options are the present chain only.
    """

    name = NAME
    Settings = PolygonSettings
    capabilities = (
        Capability(dataset=CANDLES, asset_classes=EVERYTHING, timeframes=frozenset(Timeframe)),
        Capability(dataset=TRADES, asset_classes=EVERYTHING),
        Capability(dataset=NEWS, asset_classes=EVERYTHING),
        Capability(dataset=INSTRUMENTS, asset_classes=EVERYTHING),
        *(Capability(dataset=dataset, asset_classes=SHARES) for dataset in OF_SHARES),
        Capability(dataset=EARNINGS, asset_classes=frozenset({AssetClass.STOCK})),
    )

    def __init__(self, settings: PolygonSettings, http: Http) -> None:
        self._client = Client(settings, http)

    @property
    def ready(self) -> str | None:
        """See `Provider.ready`."""
        return self._client.ready

    async def resolve(self, instrument: Instrument) -> Listing:
        """See `Provider.resolve`."""
        return await self._client.listing(instrument)

    async def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """See `Provider.fetch_candles`."""
        listing = await self.resolve(instrument)
        async for page in candles(self._client, listing, timeframe, TimeRange(start, end), now):
            yield page

    async def fetch_trades(
        self, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """See `Provider.fetch_trades`."""
        async for page in trades(self._client, await self.resolve(instrument), TimeRange(start, end), now):
            yield page

    async def fetch(
        self, dataset: Dataset, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """See `Provider.fetch`; INSTRUMENTS are all of the instrument's asset class, whichever it is."""
        if self.capability(dataset, instrument, None) is None:
            raise UnsupportedRequest(f"{self.name} serves no {dataset.name} of {instrument}")
        if dataset is INSTRUMENTS:
            pages = instruments(self._client, instrument.asset_class)
        else:
            listing = await self.resolve(instrument)
            pages = BY_DATASET[dataset.name](self._client, listing, TimeRange(start, end), now)
        async for page in pages:
            if page.holds_something or page.complete is not None:
                yield page

    async def fetch_rates(
        self, instrument: Instrument, currency: str, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """See `Provider.fetch_rates`."""
        async for page in rates(self._client, currency, TimeRange(start, end), now):
            yield page
