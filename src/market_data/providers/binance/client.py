"""Client: asks Binance's hosts, and knows which market lists an instrument."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import UTC, datetime, timedelta

from market_data.model.contract import Contract, Listing
from market_data.model.errors import GeoBlocked, MalformedPayload, UnknownInstrument
from market_data.model.instrument import Instrument
from market_data.model.provider import Page
from market_data.model.rows import Rows
from market_data.model.timeframe import EPOCH
from market_data.providers.binance.dialect import ARCHIVE, UNCOUNTED, dialect
from market_data.providers.binance.markets import (
    SPOT_MARKET,
    USD_M,
    Market,
    find,
    parse_contracts,
    parse_weight_limit,
)
from market_data.providers.binance.settings import BinanceSettings
from market_data.transport.channel import Channel, Dialect
from market_data.transport.columns import moment
from market_data.transport.http import Http
from market_data.transport.ledger import Rate
from market_data.transport.payload import load_json
from market_data.transport.rows import NOT_AS_PROMISED
from market_data.transport.senders import Response

MILLISECOND = timedelta(milliseconds=1)
INSTRUMENTS_FRESH = timedelta(hours=1)
FIVE_MINUTES = 300.0
# Counted apart from the weights, by address.
STATISTICS_RATE = Rate(1000, FIVE_MINUTES)
FUNDING_RATE = Rate(500, FIVE_MINUTES)
# The archive is a bucket without a published limit; a month of a coin's trades is a file of hundreds of megabytes.
ARCHIVE_RATE = Rate(1200, 60.0)
ARCHIVE_BYTES = 2**30
# The spot market's list of instruments was 20 MB in 2026.
LIST_BYTES = 64 * 2**20
MARKETS = (USD_M, SPOT_MARKET)
MARKETS = (USD_M, SPOT_MARKET)
# With this share of a minute's weight left, pages may be large: fifty coins' year of hours then fits into a minute.
PLENTY = 0.8


class Client:
    """Binance's hosts: futures, spot, statistics and archive, each within its own limits."""

    def __init__(self, settings: BinanceSettings, http: Http) -> None:
        self.settings = settings
        self._lists: dict[str, tuple[datetime, list[Contract]]] = {}
        # One per market: who has its list never waits for the other's.
        self._listing_locks = defaultdict[str, asyncio.Lock](asyncio.Lock)
        self._futures_blocked: GeoBlocked | None = None
        self._weights = {market.venue: market.weight for market in MARKETS}
        # Named as the rows that come by them. A ban is of the address, whatever was asked of the host.
        self._channels = {USD_M.venue: http.channel(), SPOT_MARKET.venue: http.channel("spot")}
        self._funding = http.channel("funding", rate=FUNDING_RATE, host="")
        self._statistics = http.channel("statistics", rate=STATISTICS_RATE, host="")
        self._archive = http.channel("archive", rate=ARCHIVE_RATE, most_bytes=ARCHIVE_BYTES)

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

    async def listed(self) -> list[Contract]:
        """The contracts of both markets; of the spot market alone where the other refuses our location."""
        found: list[Contract] = []
        if self._futures_blocked is None:
            try:
                found += await self.contracts(USD_M)
            except GeoBlocked as error:
                self._futures_blocked = error
        return found + await self.contracts(SPOT_MARKET)

    async def contracts(self, market: Market) -> list[Contract]:
        """The market's instrument list, at most an hour old."""
        async with self._listing_locks[market.venue]:
            known = self._lists.get(market.venue)
            if known is None or known[0] < datetime.now(UTC) - INSTRUMENTS_FRESH:
                response = await self.instruments(market)
                known = (response.fetched_at, parse_contracts(response.body, market))
                self._weights[market.venue] = parse_weight_limit(response.body) or market.weight
                self._lists[market.venue] = known
            return known[1]

    async def server_time(self, market: Market) -> datetime:
        """The source's clock."""
        response = await self.get(market, "/time")
        answer = load_json(response.body)
        try:
            return moment(answer["serverTime"], "ms")
        except NOT_AS_PROMISED:
            raise MalformedPayload(f"binance's time is not as promised: {response.excerpt()}") from None

    async def get(self, market: Market, path: str, **params: object) -> Response:
        """An answer of one of the markets."""
        return await self._get(self._channels[market.venue], market, path, params)

    async def instruments(self, market: Market) -> Response:
        """A market's list of all its instruments."""
        url = f"{self._address(market)}/exchangeInfo"
        return await self._channels[market.venue].get(url, self._dialect(market), most_bytes=LIST_BYTES)

    async def get_funding(self, path: str, **params: object) -> Response:
        """An answer of the futures market's funding, whose requests are counted apart."""
        return await self._get(self._funding, USD_M, path, params)

    async def get_statistics(self, path: str, **params: object) -> Response:
        """An answer of the futures market's statistics; their documents ask for a key, the endpoints do not."""
        key = self.settings.api_key
        headers = {"X-MBX-APIKEY": key.get_secret_value()} if key else None
        url = f"{self.settings.rest_url.rstrip('/')}/futures/data{path}"
        return await self._statistics.get(url, UNCOUNTED, params=params, headers=headers)

    def _address(self, market: Market) -> str:
        address = self.settings.rest_url if market is USD_M else self.settings.spot_rest_url
        return f"{address.rstrip('/')}{market.path}"

    async def _get(self, channel: Channel, market: Market, path: str, params: dict[str, object]) -> Response:
        counted = channel is self._channels[market.venue]
        how = self._dialect(market) if counted else UNCOUNTED
        return await channel.get(f"{self._address(market)}{path}", how, params=params)

    async def get_file(self, path: str) -> Response | None:
        """A file of the archive; None where there is none, or not yet."""
        url = f"{self.settings.archive_url.rstrip('/')}/data/{path}"
        response = await self._archive.get(url, ARCHIVE)
        return None if response.status == 404 else response

    def has_plenty(self, market: Market) -> bool:
        """Whether `PLENTY` of a minute's weight was left when the source last told."""
        left = self._channels[market.venue].quota_remaining
        return left is None or left > PLENTY * self._weights[market.venue]

    def _dialect(self, market: Market) -> Dialect:
        return dialect(lambda: self._weights[market.venue])

    def page(self, rows: Rows, source: str, response: Response) -> Page:
        """A page of rows that came with `response`."""
        return Page(
            frame=rows.frame,
            rejected=rows.rejected,
            source=source,
            fetched_at=response.fetched_at,
            response_ms=response.elapsed_ms,
            quota_remaining=next(
                (self._channels[one.venue].quota_remaining for one in MARKETS if one.source == source), None
            ),
        )


def millis(moment: datetime) -> int:
    """Milliseconds since 1970, as Binance counts."""
    return (moment - EPOCH) // MILLISECOND
