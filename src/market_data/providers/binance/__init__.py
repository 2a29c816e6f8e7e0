"""Binance: candles of USD-M perpetuals, or of the spot market where futures are not to be had.

Facts: developers.binance.com (USD-M) and github.com/binance/binance-spot-api-docs, read in 2026.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import polars as pl
from pydantic import Field, SecretStr

from market_data.model.dataset import CANDLES
from market_data.model.errors import GeoBlocked, MalformedPayload, UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument, Listing
from market_data.model.provider import Capability, Page, Provider, ProviderSettings
from market_data.model.session import grid
from market_data.model.timeframe import EPOCH, Timeframe, TimeRange, from_micros
from market_data.providers.binance.markets import SPOT_MARKET, USD_M, Contract, Market, find, parse_contracts
from market_data.providers.binance.parse import parse_klines
from market_data.transport.http import Http
from market_data.transport.ordered import fetch_ordered
from market_data.transport.payload import load_json
from market_data.transport.senders import Response

MILLISECOND = timedelta(milliseconds=1)
INSTRUMENTS_FRESH = timedelta(hours=1)
# Ranges that end longer ago than this are closed whatever our clock's error.
CLOCK_DOUBT = timedelta(hours=1)
# Weight of a 1500-row page is 10, of a 499-row page 2 (a fifth for a third): large pages while they use at most half
# of a minute's 2400, small ones for long ranges, where the weight and not the round trip is what we wait for.
MOST_LARGE_PAGES = 120
CONCURRENCY = 4


class BinanceSettings(ProviderSettings):
    """Settings of the provider `binance`."""

    requests_per_minute: float = Field(default=1200, gt=0)
    """Our own limit, kept under the source's and shared by all tasks of a process."""
    rest_url: str = "https://fapi.binance.com"
    """USD-M futures."""
    spot_rest_url: str = "https://data-api.binance.vision"
    """Spot; this host serves market data only and is reachable where the others are geo-blocked."""
    archive_url: str = "https://data.binance.vision"
    """The public archive."""
    ws_url: str = "wss://fstream.binance.com"
    """USD-M streams."""
    spot_ws_url: str = "wss://data-stream.binance.vision"
    """Spot streams."""
    api_key: SecretStr | None = None
    """Needed by few endpoints; sent where it is."""


@dataclass(frozen=True, slots=True)
class _Window:
    start: datetime
    end: datetime
    limit: int


class Binance(Provider):
    """Binance. A symbol is the base asset of a USDT-margined perpetual; spot where there is none or 451 is answered.

    Rows from the spot market say so in `Page.source`. Contracts on a multiple of a coin (1000PEPE) are never taken for
    the coin: PEPE comes from spot, unscaled.
    """

    name = "binance"
    Settings = BinanceSettings
    capabilities = (
        Capability(dataset=CANDLES, asset_classes=frozenset({AssetClass.CRYPTO}), timeframes=frozenset(Timeframe)),
    )

    def __init__(self, settings: BinanceSettings, http: Http) -> None:
        self._settings = settings
        self._http = http
        self._lists: dict[str, tuple[datetime, list[Contract]]] = {}
        self._listing_lock = asyncio.Lock()
        self._futures_blocked = False

    async def resolve(self, instrument: Instrument) -> Listing:
        """See `Provider.resolve`."""
        return (await self._find(instrument))[1]

    async def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """See `Provider.fetch_candles`."""
        market, listing = await self._find(instrument)
        end = min(end, now)
        closed_by = now if end < now - CLOCK_DOUBT else min(now, await self._server_time(market))
        first = await self._first_candle(market, listing, timeframe, start)
        if first is None or first >= end:
            return

        async def ask(window: _Window) -> Page:
            return await self._candles(market, listing, timeframe, window, closed_by)

        windows = _windows(TimeRange(first, end), timeframe, market)
        async for page in fetch_ordered(windows, ask, concurrency=CONCURRENCY):
            if page.frame.height:
                yield page

    async def _candles(
        self, market: Market, listing: Listing, timeframe: Timeframe, window: _Window, closed_by: datetime
    ) -> Page:
        response = await self._get(
            market,
            "/klines",
            symbol=listing.raw_symbol,
            interval=timeframe.value,
            startTime=_millis(window.start),
            # Inclusive at the source.
            endTime=_millis(window.end) - 1,
            limit=window.limit,
        )
        frame = parse_klines(response.body)
        if frame.height > window.limit:
            raise MalformedPayload(f"binance sent {frame.height} klines where at most {window.limit} were asked for")
        inside = pl.col("timestamp").is_between(window.start, window.end, closed="left")
        ends = pl.max_horizontal(pl.col("timestamp") + timeframe.duration, pl.col("close_time") + MILLISECOND)
        kept = frame.filter(inside & (ends <= closed_by)).drop("close_time")
        if not kept["timestamp"].is_sorted():
            kept = kept.sort("timestamp", maintain_order=True)
        # A row repeated exactly says nothing new; one that differs is left for the rules to judge.
        if kept["timestamp"].n_unique() < kept.height:
            kept = kept.unique(maintain_order=True)
        return self._page(kept, market, response)

    async def _find(self, instrument: Instrument) -> tuple[Market, Listing]:
        if not self._futures_blocked:
            try:
                return USD_M, find(instrument, await self._contracts(USD_M), USD_M)
            except GeoBlocked:
                self._futures_blocked = True
            except UnknownInstrument:
                pass
        return SPOT_MARKET, find(instrument, await self._contracts(SPOT_MARKET), SPOT_MARKET)

    async def _contracts(self, market: Market) -> list[Contract]:
        async with self._listing_lock:
            known = self._lists.get(market.venue)
            if known is None or known[0] < datetime.now(UTC) - INSTRUMENTS_FRESH:
                response = await self._get(market, "/exchangeInfo")
                known = (response.fetched_at, parse_contracts(response.body))
                self._lists[market.venue] = known
            return known[1]

    async def _first_candle(
        self, market: Market, listing: Listing, timeframe: Timeframe, start: datetime
    ) -> datetime | None:
        """Where to begin: the futures list says since when, the spot market is asked for its first row."""
        if market is USD_M:
            # The first candle opens before the first trade.
            since = listing.valid_from
            return start if since is None else max(start, since - timeframe.duration)
        interval = timeframe.value
        response = await self._get(
            market, "/klines", symbol=listing.raw_symbol, interval=interval, startTime=_millis(start), limit=1
        )
        first = parse_klines(response.body)
        return max(start, first["timestamp"][0]) if first.height else None

    async def _server_time(self, market: Market) -> datetime:
        response = await self._get(market, "/time")
        answer = load_json(response.body)
        try:
            return EPOCH + int(answer["serverTime"]) * MILLISECOND
        except (KeyError, TypeError, ValueError, OverflowError):
            raise MalformedPayload(f"binance's time is not as promised: {response.excerpt()}") from None

    async def _get(self, market: Market, path: str, **params: object) -> Response:
        address = self._settings.rest_url if market is USD_M else self._settings.spot_rest_url
        return await self._http.get(
            f"{address.rstrip('/')}{market.path}{path}", market.dialect, params=params, limit=market.venue
        )

    def _page(self, frame: pl.DataFrame, market: Market, response: Response) -> Page:
        return Page(
            frame=frame,
            source=market.source,
            fetched_at=response.fetched_at,
            response_ms=response.elapsed_ms,
            quota_remaining=self._http.quota_remaining,
        )


def _windows(span: TimeRange, timeframe: Timeframe, market: Market) -> Iterator[_Window]:
    """Consecutive pieces of `span`, each of at most one page of candles."""
    opens = grid(AssetClass.CRYPTO, timeframe, span).opens
    large = market.page_limits[0]
    limit = large if len(opens) <= large * MOST_LARGE_PAGES else market.page_limits[-1]
    bounds = [span.start, *(from_micros(moment) for moment in opens[limit::limit]), span.end]
    for start, end in pairwise(bounds):
        yield _Window(start, end, limit)


def _millis(moment: datetime) -> int:
    return (moment - EPOCH) // MILLISECOND
