"""Client: asks Binance's hosts, and knows which market lists an instrument."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import polars as pl

from market_data.model.errors import GeoBlocked, MalformedPayload, UnknownInstrument
from market_data.model.instrument import Instrument, Listing
from market_data.model.provider import Page
from market_data.model.timeframe import EPOCH
from market_data.providers.binance.dialect import ARCHIVE, dialect
from market_data.providers.binance.markets import (
    SPOT_MARKET,
    USD_M,
    Contract,
    Market,
    find,
    parse_contracts,
    parse_weight_limit,
)
from market_data.providers.binance.settings import BinanceSettings
from market_data.transport.http import Dialect, Http
from market_data.transport.payload import load_json
from market_data.transport.senders import Response

MILLISECOND = timedelta(milliseconds=1)
INSTRUMENTS_FRESH = timedelta(hours=1)
FIVE_MINUTES = 300.0
# Per five minutes and address, counted apart from the weights.
STATISTICS_REQUESTS = 1000
FUNDING_REQUESTS = 500
# The archive is a bucket without a published limit.
ARCHIVE_REQUESTS_PER_MINUTE = 1200
# With this share of a minute's weight left, pages may be large: fifty coins' year of hours then fits into a minute.
PLENTY = 0.8


class Client:
    """Binance's hosts: futures, spot, statistics and archive, each within its own limits."""

    def __init__(self, settings: BinanceSettings, http: Http) -> None:
        self.settings = settings
        self._http = http
        self._lists: dict[str, tuple[datetime, list[Contract]]] = {}
        self._listing_lock = asyncio.Lock()
        self._futures_blocked: GeoBlocked | None = None
        self._weights = {market.venue: market.weight for market in (USD_M, SPOT_MARKET)}
        http.limit("statistics", STATISTICS_REQUESTS, FIVE_MINUTES)
        http.limit("funding", FUNDING_REQUESTS, FIVE_MINUTES)
        http.limit("archive", ARCHIVE_REQUESTS_PER_MINUTE)

    async def find(self, instrument: Instrument) -> tuple[Market, Listing]:
        """The market to take candles and trades from, and the instrument's listing there: futures, else spot.

        Raises:
            UnknownInstrument: when neither lists it.
        """
        if self._futures_blocked is None:
            try:
                return USD_M, await self.find_perpetual(instrument)
            except GeoBlocked as error:
                self._futures_blocked = error
            except UnknownInstrument:
                pass
        return SPOT_MARKET, await self.find_pair(instrument)

    async def find_perpetual(self, instrument: Instrument) -> Listing:
        """The instrument's perpetual.

        Raises:
            UnknownInstrument: when there is none.
            GeoBlocked: when the futures market refuses our location.
        """
        if self._futures_blocked is not None:
            raise GeoBlocked(str(self._futures_blocked))
        return find(instrument, await self.contracts(USD_M), USD_M)

    async def find_pair(self, instrument: Instrument) -> Listing:
        """The instrument's spot pair.

        Raises:
            UnknownInstrument: when there is none.
        """
        return find(instrument, await self.contracts(SPOT_MARKET), SPOT_MARKET)

    async def contracts(self, market: Market) -> list[Contract]:
        """The market's instrument list, at most an hour old."""
        async with self._listing_lock:
            known = self._lists.get(market.venue)
            if known is None or known[0] < datetime.now(UTC) - INSTRUMENTS_FRESH:
                response = await self.get(market, "/exchangeInfo")
                known = (response.fetched_at, parse_contracts(response.body))
                self._weights[market.venue] = parse_weight_limit(response.body) or market.weight
                self._lists[market.venue] = known
            return known[1]

    async def server_time(self, market: Market) -> datetime:
        """The source's clock."""
        response = await self.get(market, "/time")
        answer = load_json(response.body)
        try:
            return EPOCH + int(answer["serverTime"]) * MILLISECOND
        except (KeyError, TypeError, ValueError, OverflowError):
            raise MalformedPayload(f"binance's time is not as promised: {response.excerpt()}") from None

    async def get(self, market: Market, path: str, *, counted: str | None = None, **params: object) -> Response:
        """An answer of one of the markets; `counted` names another limit than the market's own."""
        address = self.settings.rest_url if market is USD_M else self.settings.spot_rest_url
        url = f"{address.rstrip('/')}{market.path}{path}"
        return await self._http.get(url, self._dialect(market), params=params, limit=counted or market.venue)

    async def get_statistics(self, path: str, **params: object) -> Response:
        """An answer of the futures market's statistics; their documents ask for a key, the endpoints do not."""
        key = self.settings.api_key
        headers = {"X-MBX-APIKEY": key.get_secret_value()} if key else None
        url = f"{self.settings.rest_url.rstrip('/')}/futures/data{path}"
        return await self._http.get(url, self._dialect(USD_M), params=params, headers=headers, limit="statistics")

    async def get_file(self, path: str) -> Response | None:
        """A file of the archive; None where there is none, or not yet."""
        url = f"{self.settings.archive_url.rstrip('/')}/data/{path}"
        response = await self._http.get(url, ARCHIVE, limit="archive")
        return None if response.status == 404 else response

    def has_plenty(self, market: Market) -> bool:
        """Whether `PLENTY` of a minute's weight was left when the source last told."""
        left = self._http.quota_remaining
        return left is None or left > PLENTY * self._weights[market.venue]

    def _dialect(self, market: Market) -> Dialect:
        return dialect(lambda: self._weights[market.venue])

    def page(self, frame: pl.DataFrame, source: str, response: Response) -> Page:
        """A page of rows that came with `response`."""
        return Page(
            frame=frame,
            source=source,
            fetched_at=response.fetched_at,
            response_ms=response.elapsed_ms,
            quota_remaining=self._http.quota_remaining,
        )


def millis(moment: datetime) -> int:
    """Milliseconds since 1970, as Binance counts."""
    return (moment - EPOCH) // MILLISECOND
