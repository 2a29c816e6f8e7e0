"""Yahoo Finance: candles from the chart that its own pages draw. Unofficial: for personal use, may change any day."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl
from pydantic import Field

from market_data.model.aggregation import aggregate, closed, runs
from market_data.model.dataset import CANDLES
from market_data.model.errors import MalformedPayload, TransientError, UnknownInstrument, UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument, Listing
from market_data.model.provider import Capability, Page, Provider, ProviderSettings
from market_data.model.session import Grid, grid
from market_data.model.timeframe import EPOCH, Timeframe, TimeRange, from_micros
from market_data.providers.yahoo.dialect import BROWSER, PLAIN
from market_data.providers.yahoo.parse import CURRENCY, Chart, Split, find_listing, parse_chart
from market_data.providers.yahoo.repair import (
    NOTE_SPLITS_UNKNOWN,
    at_session_open,
    noted,
    unadjusted,
    without_live_row,
)
from market_data.transport.http import Http
from market_data.transport.ordered import fetch_ordered
from market_data.transport.senders import Response

# What is asked for to make a timeframe. Its 30m has been known to hold hours, its weeks are not ours.
ASKED: Final = {
    Timeframe.M1: Timeframe.M1,
    Timeframe.M5: Timeframe.M5,
    Timeframe.M15: Timeframe.M15,
    Timeframe.M30: Timeframe.M15,
    Timeframe.H1: Timeframe.H1,
    Timeframe.H4: Timeframe.H1,
    Timeframe.D1: Timeframe.D1,
    Timeframe.W1: Timeframe.D1,
}
# The server refuses more than 8 days of minutes at once.
LONGEST: Final = {Timeframe.M1: timedelta(days=7)}
FOREVER = timedelta(days=40_000)
SPLITS_FRESH = timedelta(hours=1)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
NO_TIME = timedelta(0)
# Where our stocks trade; the calendar is that of New York.
ZONE_OF_STOCKS = "America/New_York"
CONCURRENCY = 2


class YahooSettings(ProviderSettings):
    """Settings of the provider `yahoo`."""

    requests_per_minute: float = Field(default=60, gt=0)
    """There is no published quota; more than one or two a second gets an address refused."""
    rate_window_seconds: float = Field(default=5, gt=0)
    """The window the limit is counted in: a short one spreads requests evenly, a long one allows bursts."""
    rest_url: str = "https://query2.finance.yahoo.com"
    """Chart, search and the rest."""
    cookie_url: str = "https://fc.yahoo.com"
    """Where the cookie comes from that everything but the chart asks for."""
    ws_url: str = "wss://streamer.finance.yahoo.com"
    """Streams."""


@dataclass(frozen=True, slots=True)
class _KnownSplits:
    since: datetime
    fetched_at: datetime
    splits: tuple[Split, ...]


class Yahoo(Provider):
    """Yahoo Finance. Its prices are adjusted for splits: those after each row are taken back, and the notes say so.

    Prices went through a 32-bit float at the source and are kept with the digits it sends, but for those taken
    back over a split (see `repair.unadjusted`). Where the later splits could not be fetched the notes say that.
    """

    name = "yahoo"
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
    )

    def __init__(self, settings: YahooSettings, http: Http) -> None:
        self._settings = settings
        self._http = http
        # Over a plain connection there is no fingerprint to show.
        self._dialect = BROWSER if settings.rest_url.startswith("https:") else PLAIN
        self._listings: dict[Instrument, Listing] = {}
        self._listing_lock = asyncio.Lock()
        self._splits: dict[str, _KnownSplits] = {}

    async def resolve(self, instrument: Instrument) -> Listing:
        """See `Provider.resolve`."""
        async with self._listing_lock:
            if instrument not in self._listings:
                response = await self._get("/v1/finance/search", q=instrument.symbol, quotesCount=20, newsCount=0)
                self._listings[instrument] = find_listing(instrument, response.body)
            return self._listings[instrument]

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
        listing = await self.resolve(instrument)

        async def fetch(window: Grid) -> Page | None:
            return await self._candles(listing, timeframe, window, now)

        async for page in fetch_ordered(runs(wanted, LONGEST.get(timeframe, FOREVER)), fetch, concurrency=CONCURRENCY):
            if page is not None and page.frame.height:
                yield page

    async def _candles(self, listing: Listing, timeframe: Timeframe, wanted: Grid, now: datetime) -> Page | None:
        asset_class = listing.instrument.asset_class
        asked = ASKED[timeframe]
        span = TimeRange(from_micros(wanted.opens[0]), from_micros(wanted.ends[-1]))
        splits, until = await self._known_splits(listing, asked, span, now)
        response, chart = await self._chart(listing, asked, span.start, until)
        if chart is None:
            return None
        if splits is None and asked is Timeframe.D1:
            splits = self._remember(listing, span.start, response, chart)
        known_until = min(now, response.server_time or now)
        base = grid(asset_class, asked, TimeRange(span.start - DAY, max(span.end, now) + DAY))
        rows = at_session_open(chart.rows, base, chart.zone) if asked is Timeframe.D1 else chart.rows
        rows = without_live_row(rows, base).unique(maintain_order=True).sort("timestamp", maintain_order=True)
        rows = rows.filter(pl.col("timestamp").is_between(span.start, span.end, closed="left"))
        rows = closed(rows, base, asked, known_until)
        if asset_class is not AssetClass.CRYPTO:
            known = splits is not None
            rows = unadjusted(rows, splits or (), chart.zone, chart.price_hint)
            rows = rows if known else noted(rows, NOTE_SPLITS_UNKNOWN)
        if asked is not timeframe:
            rows = aggregate(rows.unique("timestamp", keep="last", maintain_order=True), wanted.closed_by(known_until))
        return Page(frame=rows, source=self.name, fetched_at=response.fetched_at, response_ms=response.elapsed_ms)

    async def _known_splits(
        self, listing: Listing, asked: Timeframe, span: TimeRange, now: datetime
    ) -> tuple[tuple[Split, ...] | None, datetime]:
        """All splits since the span's start, None where not known yet, and until when to ask for candles.

        Days are asked for until now where the splits are not known: they come with them.
        """
        known = self._splits.get(listing.raw_symbol)
        if listing.instrument.asset_class is AssetClass.CRYPTO:
            return (), span.end
        if known and known.since <= span.start and known.fetched_at > datetime.now(UTC) - SPLITS_FRESH:
            return known.splits, span.end
        if asked is Timeframe.D1:
            return None, max(span.end, now)
        try:
            response, chart = await self._chart(listing, Timeframe.D1, span.start, max(span.end, now))
        except TransientError:
            # The candles are worth having; their notes say what is not known.
            return None, span.end
        return (None if chart is None else self._remember(listing, span.start, response, chart)), span.end

    def _remember(self, listing: Listing, since: datetime, response: Response, chart: Chart) -> tuple[Split, ...]:
        self._splits[listing.raw_symbol] = _KnownSplits(since, response.fetched_at, chart.splits)
        return chart.splits

    async def _chart(
        self, listing: Listing, asked: Timeframe, start: datetime, end: datetime
    ) -> tuple[Response, Chart | None]:
        response = await self._get(
            f"/v8/finance/chart/{listing.raw_symbol}",
            # Days are stamped with the session's open, now and then an hour or two before the local midnight.
            period1=(start - (DAY if asked is Timeframe.D1 else NO_TIME) - EPOCH) // SECOND,
            period2=-((EPOCH - end) // SECOND),
            interval=asked.value,
            includePrePost="false",
            events="div,splits,capitalGains",
        )
        chart = parse_chart(response.body)
        if chart is not None:
            _check(chart, listing, asked)
        return response, chart

    async def _get(self, path: str, **params: object) -> Response:
        return await self._http.get(f"{self._settings.rest_url.rstrip('/')}{path}", self._dialect, params=params)


def _check(chart: Chart, listing: Listing, asked: Timeframe) -> None:
    if chart.granularity != asked.value and chart.rows.height:
        raise MalformedPayload(f"yahoo sent {chart.granularity} where {asked} was asked for")
    if chart.symbol != listing.raw_symbol:
        raise MalformedPayload(f"yahoo sent {chart.symbol} where {listing.raw_symbol} was asked for")
    if chart.currency != CURRENCY:
        raise UnknownInstrument(f"yahoo's {chart.symbol} is priced in {chart.currency}, not {CURRENCY}")
    if listing.instrument.asset_class is not AssetClass.CRYPTO and str(chart.zone) != ZONE_OF_STOCKS:
        raise UnknownInstrument(f"yahoo's {chart.symbol} trades in {chart.zone}: only US listings are served")
