"""Client: asks Yahoo, with cookie and crumb where it wants them, and finds listings."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from market_data.model.contract import Listing
from market_data.model.errors import BadCredentials, MalformedPayload, RateLimited, UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Page
from market_data.model.rows import Rows
from market_data.model.timeframe import EPOCH, Timeframe, TimeRange
from market_data.providers.yahoo.dialect import any_answer, dialect
from market_data.providers.yahoo.parse import CURRENCY, Chart, find_listing, parse_chart
from market_data.providers.yahoo.settings import YahooSettings
from market_data.transport.http import Http
from market_data.transport.payload import load_json
from market_data.transport.senders import Response

NAME: Final = "yahoo"
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
NO_TIME = timedelta(0)
# Where our stocks trade; the calendar is that of New York.
ZONE_OF_STOCKS = "America/New_York"
LONGEST_CRUMB = 64


class Client:
    """Yahoo's hosts. Over a plain connection (a sandbox) there is no fingerprint to show."""

    def __init__(self, settings: YahooSettings, http: Http) -> None:
        self._settings = settings
        # Charts go on while the search or the crumb is refused; the address is allowed one rate for all.
        self._charts = http.channel()
        self._rest = http.channel("search", budget="")
        self._browser = settings.rest_url.startswith("https:")
        self._listings: dict[Instrument, Listing] = {}
        # One per instrument: a slow search keeps nobody from what is known.
        self._listing_locks = defaultdict[Instrument, asyncio.Lock](asyncio.Lock)
        self._crumb: str | None = None
        self._crumb_lock = asyncio.Lock()

    async def listing(self, instrument: Instrument) -> Listing:
        """The instrument among the answers to a search for its symbol.

        Raises:
            UnknownInstrument: when it is not.
        """
        async with self._listing_locks[instrument]:
            if instrument not in self._listings:
                # In its own spelling of share classes: the search compares texts.
                text = instrument.symbol.replace(".", "-").replace("/", "-")
                response = await self.get("/v1/finance/search", q=text, quotesCount=20, newsCount=0)
                self._listings[instrument] = find_listing(instrument, response.body)
            return self._listings[instrument]

    async def chart(
        self, listing: Listing, asked: Timeframe, start: datetime, end: datetime
    ) -> tuple[Response, Chart | None]:
        """Candles and events of [start, end), and what the source appends; None when there are none."""
        response = await self._charts.get(
            self._url(f"/v8/finance/chart/{quote(listing.raw_symbol, safe='')}"),
            dialect(browser=self._browser),
            params={
                # Days are stamped with the session's open, now and then an hour or two before the local midnight.
                "period1": (start - (DAY if asked is Timeframe.D1 else NO_TIME) - EPOCH) // SECOND,
                "period2": -((EPOCH - end) // SECOND),
                "interval": asked.value,
                "includePrePost": "false",
                "events": "div,splits,capitalGains",
            },
        )
        chart = parse_chart(response.body)
        if chart is not None:
            _check(chart, listing, asked)
        return response, chart

    async def get(self, path: str, **params: object) -> Response:
        """An answer that needs neither cookie nor crumb."""
        return await self._rest.get(self._url(path), dialect(browser=self._browser), params=params)

    async def get_with_crumb(self, path: str, **params: object) -> tuple[Response, Any]:
        """An answer that needs both, and what it says; a crumb that expired is renewed once.

        Raises:
            BadCredentials: when a fresh crumb is refused too.
        """
        crumb = await self._fresh_crumb(None)
        try:
            response = await self.get(path, **params, crumb=crumb)
        except BadCredentials:
            response = await self.get(path, **params, crumb=await self._fresh_crumb(crumb))
        return response, load_json(response.body)

    def page(self, rows: Rows, response: Response, complete: TimeRange | None = None) -> Page:
        """A page of rows that came with `response`."""
        return Page(
            frame=rows.frame,
            rejected=rows.rejected,
            source=NAME,
            fetched_at=response.fetched_at,
            response_ms=response.elapsed_ms,
            complete=None if rows.rejected.height else complete,
        )

    async def _fresh_crumb(self, refused: str | None) -> str:
        async with self._crumb_lock:
            if self._crumb is None or self._crumb == refused:
                # Whatever its status, it sets the cookie.
                await self._rest.get(self._settings.cookie_url, any_answer(browser=self._browser))
                response = await self.get("/v1/test/getcrumb")
                crumb = response.body.decode("utf-8", "replace").strip()
                if crumb == "Too Many Requests":
                    raise RateLimited("yahoo gives no crumb: too many requests")
                if not crumb or len(crumb) > LONGEST_CRUMB or "<" in crumb or "{" in crumb:
                    raise BadCredentials(f"yahoo gives no crumb, it may want consent first: {response.excerpt()}")
                self._crumb = crumb
            return self._crumb

    def _url(self, path: str) -> str:
        return f"{self._settings.rest_url.rstrip('/')}{path}"


def _check(chart: Chart, listing: Listing, asked: Timeframe) -> None:
    if chart.granularity != asked.value and chart.rows.height:
        raise MalformedPayload(f"yahoo sent {chart.granularity} where {asked} was asked for")
    if chart.symbol != listing.raw_symbol:
        raise MalformedPayload(f"yahoo sent {chart.symbol} where {listing.raw_symbol} was asked for")
    if chart.currency != CURRENCY:
        raise UnknownInstrument(f"yahoo's {chart.symbol} is priced in {chart.currency}, not {CURRENCY}")
    if listing.instrument.asset_class is not AssetClass.CRYPTO and str(chart.zone) != ZONE_OF_STOCKS:
        raise UnknownInstrument(f"yahoo's {chart.symbol} trades in {chart.zone}: only US listings are served")
