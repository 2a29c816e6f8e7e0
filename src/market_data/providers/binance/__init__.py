"""Binance: USD-M perpetuals, the spot market, their statistics and the public archive of both.

Facts: developers.binance.com (USD-M), github.com/binance/binance-spot-api-docs and binance/binance-public-data, read in
2026. Liquidations are not among them: their REST endpoint closed in 2021 and the archive never had them reliably.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime

from market_data.model.contract import Contract, Listing, means
from market_data.model.dataset import (
    CANDLES,
    FUNDING_RATES,
    INSTRUMENTS,
    LONG_SHORT_RATIOS,
    OPEN_INTEREST,
    PREMIUM_INDEX,
    SPOT_FLOW,
    TAKER_VOLUMES,
    TRADES,
    Dataset,
)
from market_data.model.errors import UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Capability, Page, Provider
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.providers.binance.client import Client
from market_data.providers.binance.klines import ARCHIVE_SOURCE, REST, candles
from market_data.providers.binance.markets import SPOT_MARKET, USD_M, listed_rows, parse_contracts
from market_data.providers.binance.settings import BinanceSettings
from market_data.providers.binance.statistics import funding, premium_index, spot_flow, statistics, taker_volumes
from market_data.providers.binance.trades import trades
from market_data.transport.http import Http

__all__ = ["Binance", "BinanceSettings"]

CRYPTO = frozenset({AssetClass.CRYPTO})


class Binance(Provider):
    """Binance. A coin is its USDT-margined perpetual; spot where there is none or 451 is answered.

    Exact notations (BTC/USDT, BTC/USDT:USDT, BTC/USDT:USDT-270326) and Binance's own names are taken as they are.

    Rows from the spot market or the archive say so in `Page.source`. Contracts on a multiple of a coin (1000PEPE) are
    never taken for the coin: PEPE comes from spot, unscaled.
    """

    name = "binance"
    Settings = BinanceSettings
    capabilities = (
        Capability(dataset=CANDLES, asset_classes=CRYPTO, timeframes=frozenset(Timeframe)),
        *(
            Capability(dataset=dataset, asset_classes=CRYPTO)
            for dataset in (
                TRADES,
                OPEN_INTEREST,
                FUNDING_RATES,
                LONG_SHORT_RATIOS,
                TAKER_VOLUMES,
                SPOT_FLOW,
                PREMIUM_INDEX,
                INSTRUMENTS,
            )
        ),
    )

    def __init__(self, settings: BinanceSettings, http: Http) -> None:
        self._client = Client(settings, http)

    async def resolve(self, instrument: Instrument) -> Listing:
        """See `Provider.resolve`."""
        return (await self._client.find(instrument))[1]

    async def contracts(self, instrument: Instrument) -> Sequence[Contract]:
        """See `Provider.contracts`."""
        if instrument.asset_class is not AssetClass.CRYPTO:
            return ()
        return [each for each in await self._client.listed() if means(instrument.symbol, each)]

    async def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """See `Provider.fetch_candles`."""
        market, listing = await self._client.find(instrument)
        async for page in candles(self._client, market, listing, timeframe, TimeRange(start, end), now):
            yield page

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
        """See `Provider.fetch_candles_from`: ``binance`` and ``binance:spot`` are REST, ``binance:archive`` files."""
        channels = {self.name: REST, SPOT_MARKET.source: REST, f"{self.name}:{ARCHIVE_SOURCE}": ARCHIVE_SOURCE}
        if source not in channels:
            raise UnsupportedRequest(f"{self.name} has no source {source!r}, only {', '.join(channels)}")
        return self._candles_only(source, channels[source], instrument, timeframe, TimeRange(start, end), now)

    async def _candles_only(
        self, source: str, only: str, instrument: Instrument, timeframe: Timeframe, span: TimeRange, now: datetime
    ) -> AsyncIterator[Page]:
        client = self._client
        if source == SPOT_MARKET.source:
            market, listing = SPOT_MARKET, await client.find_pair(instrument)
        else:
            market, listing = await client.find(instrument)
        async for page in candles(client, market, listing, timeframe, span, now, only=only):
            yield page

    async def fetch_trades(
        self, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """See `Provider.fetch_trades`; the trades are aggregate ones."""
        market, listing = await self._client.find(instrument)
        async for page in trades(self._client, market, listing, TimeRange(start, end), now):
            yield page

    async def fetch(
        self, dataset: Dataset, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """See `Provider.fetch`; INSTRUMENTS are all that both markets list, whatever instrument is named."""
        async for page in await self._pages(dataset, instrument, TimeRange(start, end), now):
            if page.holds_something:
                yield page

    async def _pages(
        self, dataset: Dataset, instrument: Instrument, span: TimeRange, now: datetime
    ) -> AsyncIterator[Page]:
        client = self._client
        if dataset in (OPEN_INTEREST, LONG_SHORT_RATIOS):
            return statistics(client, dataset, await client.find_perpetual(instrument), span, now)
        if dataset is FUNDING_RATES:
            return funding(client, await client.find_perpetual(instrument), span, now)
        if dataset is PREMIUM_INDEX:
            return premium_index(client, await client.find_perpetual(instrument), span, now)
        if dataset is TAKER_VOLUMES:
            market, listing = await client.find(instrument)
            return taker_volumes(client, market, listing, span, now)
        if dataset is SPOT_FLOW:
            return spot_flow(client, SPOT_MARKET, await client.find_pair(instrument), span, now)
        if dataset is INSTRUMENTS:
            return self._instruments()
        raise UnsupportedRequest(f"{self.name} serves no {dataset.name}")

    async def _instruments(self) -> AsyncIterator[Page]:
        for market in (USD_M, SPOT_MARKET):
            response = await self._client.instruments(market)
            listed = parse_contracts(response.body, market)
            page = self._client.page(listed_rows(listed, market), market.source, response)
            yield replace(page, listed=tuple(listed))
