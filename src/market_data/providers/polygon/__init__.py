"""Massive, formerly Polygon.io: candles of stocks, ETFs and crypto.

Facts: massive.com/docs and its OpenAPI document, read in 2026. The old host api.polygon.io still answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import polars as pl
from pydantic import Field, SecretStr

from market_data.model.aggregation import aggregate, closed, runs
from market_data.model.dataset import CANDLES
from market_data.model.errors import BadCredentials, MalformedPayload, UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument, Listing
from market_data.model.provider import Capability, Page, Provider, ProviderSettings
from market_data.model.session import Grid, grid
from market_data.model.timeframe import EPOCH, Timeframe, TimeRange, from_micros
from market_data.providers.polygon.dialect import MASSIVE
from market_data.providers.polygon.parse import Answer, at_session_open, find_listing, parse_aggregates, parse_answer
from market_data.transport.http import Http
from market_data.transport.ordered import fetch_ordered
from market_data.transport.senders import Response

# The most a request may ask for; it counts minutes, whatever is made of them, or days.
MOST_ROWS = 50_000
INTRADAY_WINDOW = timedelta(days=30)
DAILY_WINDOW = timedelta(days=40_000)
# How late an answer marked DELAYED is.
DELAY = timedelta(minutes=15)
NOTE_DELAYED = "delayed"
NOTE_EXTENDED_VOLUME = "volume_includes_extended_hours"
CONCURRENCY = 4
MOST_PAGES = 10_000
MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class _Ask:
    """What is asked for to make a timeframe."""

    timeframe: Timeframe
    multiplier: int
    timespan: str


_MINUTES: Final = {
    Timeframe.M1: _Ask(Timeframe.M1, 1, "minute"),
    Timeframe.M5: _Ask(Timeframe.M5, 5, "minute"),
    Timeframe.M15: _Ask(Timeframe.M15, 15, "minute"),
    Timeframe.M30: _Ask(Timeframe.M30, 30, "minute"),
}
_DAY: Final = _Ask(Timeframe.D1, 1, "day")
_HOUR: Final = _Ask(Timeframe.H1, 1, "hour")
# Massive's own hours of stocks begin on the clock's hour and weeks on Sunday: neither is our grid.
_STOCK_ASKS: Final = _MINUTES | {
    Timeframe.H1: _MINUTES[Timeframe.M30],
    Timeframe.H4: _MINUTES[Timeframe.M30],
    Timeframe.D1: _DAY,
    Timeframe.W1: _DAY,
}
_CRYPTO_ASKS: Final = _MINUTES | {
    Timeframe.H1: _HOUR,
    Timeframe.H4: _HOUR,
    Timeframe.D1: _DAY,
    Timeframe.W1: _DAY,
}


class PolygonSettings(ProviderSettings):
    """Settings of the provider `polygon`."""

    requests_per_minute: float = Field(default=5, gt=0)
    """What the plan allows: 5 on the free one."""
    rest_url: str = "https://api.massive.com"
    """REST."""
    ws_url: str = "wss://socket.massive.com"
    """Streams; the delayed ones are at wss://delayed.massive.com."""
    api_key: SecretStr | None = None
    """The key of the account."""


class Polygon(Provider):
    """Massive (Polygon.io), for prices as they were: unadjusted.

    Intraday candles of stocks hold the regular session only, made of finer ones where the source's own begin elsewhere.
    Its day candles take open, high, low and close from the regular session and count the volume of the extended hours
    too: the notes say so.
    """

    name = "polygon"
    Settings = PolygonSettings
    capabilities = (Capability(dataset=CANDLES, asset_classes=frozenset(AssetClass), timeframes=frozenset(Timeframe)),)

    def __init__(self, settings: PolygonSettings, http: Http) -> None:
        self._settings = settings
        self._http = http
        self._listings: dict[Instrument, Listing] = {}
        self._listing_lock = asyncio.Lock()

    @property
    def ready(self) -> str | None:
        """See `Provider.ready`."""
        return None if self._settings.api_key else "no key: set POLYGON_API_KEY to ask Massive (Polygon.io)"

    async def resolve(self, instrument: Instrument) -> Listing:
        """See `Provider.resolve`."""
        async with self._listing_lock:
            if instrument not in self._listings:
                self._listings[instrument] = await self._look_up(instrument)
            return self._listings[instrument]

    async def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """See `Provider.fetch_candles`."""
        wanted = grid(instrument.asset_class, timeframe, TimeRange(start, end)).closed_by(now)
        listing = await self.resolve(instrument)
        ask = (_CRYPTO_ASKS if instrument.asset_class is AssetClass.CRYPTO else _STOCK_ASKS)[timeframe]

        longest = INTRADAY_WINDOW if ask.timeframe.intraday else DAILY_WINDOW

        async def fetch(window: Grid) -> Page:
            return await self._candles(listing, timeframe, ask, window, now)

        async for page in fetch_ordered(runs(wanted, longest), fetch, concurrency=CONCURRENCY):
            if page.frame.height:
                yield page

    async def _candles(self, listing: Listing, timeframe: Timeframe, ask: _Ask, wanted: Grid, now: datetime) -> Page:
        span = TimeRange(from_micros(wanted.opens[0]), from_micros(wanted.ends[-1]))
        path = f"/v2/aggs/ticker/{listing.raw_symbol}/range/{ask.multiplier}/{ask.timespan}/{_bounds(ask, span)}"
        frames, delayed, elapsed = [CANDLES.empty()], False, 0.0
        async for response, answer in self._pages(path, adjusted="false", sort="asc", limit=MOST_ROWS):
            frames.append(parse_aggregates(answer.results))
            delayed |= answer.delayed
            elapsed += response.elapsed_ms
            last = response
        known_until = min(now, last.server_time or now) - (DELAY if delayed else timedelta(0))
        rows = self._on_grid(pl.concat(frames), listing.instrument.asset_class, ask, span)
        if ask.timeframe is not timeframe:
            _refuse_contradictions(rows)
            rows = aggregate(rows, wanted)
        rows = closed(rows, wanted, timeframe, known_until)
        if delayed:
            rows = _noted(rows, NOTE_DELAYED)
        return Page(frame=rows, source=self.name, fetched_at=last.fetched_at, response_ms=elapsed)

    def _on_grid(self, rows: pl.DataFrame, asset_class: AssetClass, ask: _Ask, span: TimeRange) -> pl.DataFrame:
        """Rows of the span, in order, each once; of stocks those of the regular session."""
        if asset_class is not AssetClass.CRYPTO:
            days = grid(asset_class, Timeframe.D1, TimeRange(span.start - timedelta(days=1), span.end))
            if ask is _DAY:
                opens = pl.Series(days.opens).cast(CANDLES.schema["timestamp"])
                rows = _noted(at_session_open(rows, opens), NOTE_EXTENDED_VOLUME)
            else:
                rows = rows.filter(_inside(rows, days))
        inside = pl.col("timestamp").is_between(span.start, span.end, closed="left")
        return rows.filter(inside).unique(maintain_order=True).sort("timestamp", maintain_order=True)

    async def _pages(self, path: str, **params: object) -> AsyncIterator[tuple[Response, Answer]]:
        """Every page of an answer; the next one is asked for on our own address, whatever host the source names."""
        asked: set[str] = set()
        following: str | None = path
        while following is not None:
            if following in asked or len(asked) >= MOST_PAGES:
                raise MalformedPayload(f"polygon's pages do not end: {following[:200]} was asked for already")
            asked.add(following)
            response = await self._get(following, **params)
            answer = parse_answer(response.body)
            yield response, answer
            # What follows is encoded in the cursor.
            params = {}
            following = answer.next_path

    async def _look_up(self, instrument: Instrument) -> Listing:
        crypto = instrument.asset_class is AssetClass.CRYPTO
        which = {"market": "crypto", "search": instrument.symbol} if crypto else {"ticker": instrument.symbol}
        for active in ("true", "false"):
            async for _, answer in self._pages("/v3/reference/tickers", **which, active=active, limit=1000):
                try:
                    return find_listing(instrument, answer.results)
                except UnknownInstrument:
                    continue
        raise UnknownInstrument(f"polygon does not list {instrument}")

    async def _get(self, path: str, **params: object) -> Response:
        if self._settings.api_key is None:
            raise BadCredentials(self.ready)
        headers = {"Authorization": f"Bearer {self._settings.api_key.get_secret_value()}"}
        address = self._settings.rest_url.rstrip("/")
        return await self._http.get(f"{address}{path}", MASSIVE, params=params, headers=headers)


def _bounds(ask: _Ask, span: TimeRange) -> str:
    """From and to as the path wants them; both are inclusive."""
    last = span.end - MILLISECOND
    if ask is _DAY:
        return f"{span.start:%Y-%m-%d}/{last:%Y-%m-%d}"
    return f"{(span.start - EPOCH) // MILLISECOND}/{(last - EPOCH) // MILLISECOND}"


def _inside(rows: pl.DataFrame, sessions: Grid) -> pl.Series:
    times = rows["timestamp"].cast(pl.Int64).to_numpy()
    session = np.searchsorted(sessions.opens, times, side="right") - 1
    inside = session >= 0
    inside[inside] = times[inside] < sessions.ends[session[inside]]
    return pl.Series(inside)


def _noted(rows: pl.DataFrame, note: str) -> pl.DataFrame:
    return rows.with_columns(notes=pl.concat_str("notes", pl.lit(note), separator="; ", ignore_nulls=True))


def _refuse_contradictions(rows: pl.DataFrame) -> None:
    if rows["timestamp"].n_unique() < rows.height:
        twice: Any = rows.filter(rows["timestamp"].is_duplicated())["timestamp"][0]
        raise MalformedPayload(f"polygon sent two different rows for {twice}: nothing can be made of them")
