"""Yahoo Finance: what its own pages draw. Unofficial: for personal use, may change any day."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from market_data.model.contract import Listing
from market_data.model.dataset import CANDLES, DIVIDENDS, EARNINGS, FX_RATES, NEWS, OPTIONS, SPLITS, Dataset
from market_data.model.errors import UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Capability, Page, Provider
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.providers.yahoo.candles import Candles
from market_data.providers.yahoo.client import NAME, Client
from market_data.providers.yahoo.companies import dividends, earnings, news, options, splits
from market_data.providers.yahoo.rates import rates
from market_data.providers.yahoo.settings import YahooSettings
from market_data.transport.http import Http

__all__ = ["Yahoo", "YahooSettings"]

BY_DATASET = {
    DIVIDENDS.name: dividends,
    SPLITS.name: splits,
    EARNINGS.name: earnings,
    OPTIONS.name: options,
    NEWS.name: news,
}


class Yahoo(Provider):
    """Yahoo Finance. Its prices are adjusted for splits: those after each row are taken back, and the notes say so.

    Prices went through a 32-bit float at the source and are kept with the digits it sends, but for those taken
    back over a split (see `repair.unadjusted`). Where the later splits could not be fetched the notes say that.
    Options and news are of the present only. A coin's volume is stated in dollars: it is kept as quote volume, and
    what it is in coins is estimated and noted as unknown.
    """

    name = NAME
    Settings = YahooSettings
    capabilities = (
        Capability(
            dataset=CANDLES,
            asset_classes=frozenset(AssetClass),
            timeframes=frozenset(Timeframe),
            # One day within what the server allows: it counts from its own clock.
            reach={
                Timeframe.M1: timedelta(days=29),
                Timeframe.M5: timedelta(days=59),
                Timeframe.M15: timedelta(days=59),
                Timeframe.M30: timedelta(days=59),
                Timeframe.H1: timedelta(days=729),
                Timeframe.H4: timedelta(days=729),
            },
        ),
        *(
            Capability(dataset=dataset, asset_classes=frozenset({AssetClass.STOCK, AssetClass.ETF}))
            for dataset in (DIVIDENDS, SPLITS, OPTIONS, FX_RATES)
        ),
        Capability(dataset=EARNINGS, asset_classes=frozenset({AssetClass.STOCK})),
        Capability(dataset=NEWS, asset_classes=frozenset(AssetClass)),
    )

    def __init__(self, settings: YahooSettings, http: Http) -> None:
        self._client = Client(settings, http)
        self._candles = Candles(self._client)

    async def resolve(self, instrument: Instrument) -> Listing:
        """See `Provider.resolve`."""
        return await self._client.listing(instrument)

    async def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """See `Provider.fetch_candles`.

        Raises:
            UnsupportedRequest: when `start` is before what the source still has, naming the earliest.
        """
        earliest = self.capabilities[0].reaches_back(timeframe, now)
        if earliest is not None and start < earliest:
            raise UnsupportedRequest(
                f"yahoo has {timeframe} candles of the last {(now - earliest).days} days only: "
                f"the earliest start is {earliest:%Y-%m-%dT%H:%M:%SZ}"
            )
        wanted = grid(instrument.asset_class, timeframe, TimeRange(start, end)).closed_by(now)
        if not len(wanted):
            return
        async for page in self._candles.fetch(await self.resolve(instrument), timeframe, wanted, now):
            yield page

    async def fetch(
        self, dataset: Dataset, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """See `Provider.fetch`."""
        if self.capability(dataset, instrument, None) is None:
            raise UnsupportedRequest(f"{self.name} serves no {dataset.name} of {instrument}")
        listing = await self.resolve(instrument)
        async for page in BY_DATASET[dataset.name](self._client, listing, TimeRange(start, end), now):
            if page.holds_something or page.complete is not None:
                yield page

    async def fetch_rates(
        self, instrument: Instrument, currency: str, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """See `Provider.fetch_rates`."""
        async for page in rates(self._client, currency, TimeRange(start, end), now):
            yield page
