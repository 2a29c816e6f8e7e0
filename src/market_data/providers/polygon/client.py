"""Client: asks Massive page by page, finds listings, remembers what the plan does not include."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

from market_data.model.contract import Listing
from market_data.model.errors import BadCredentials, MalformedPayload, NotEntitled, UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Page
from market_data.model.rows import Rows
from market_data.model.timeframe import TimeRange
from market_data.providers.polygon.dialect import MASSIVE
from market_data.providers.polygon.parse import Answer, find_listing, parse_answer
from market_data.providers.polygon.settings import PolygonSettings
from market_data.transport.http import Http
from market_data.transport.senders import Response

NAME = "polygon"
NO_KEY = "no key: set POLYGON_API_KEY to ask Massive (Polygon.io)"
MOST_PAGES = 10_000
# A page of 50,000 quotes is 15 MB.
PAGE_BYTES = 32 * 2**20


class Client:
    """Massive's REST host."""

    def __init__(self, settings: PolygonSettings, http: Http) -> None:
        self._settings = settings
        self._channel = http.channel(most_bytes=PAGE_BYTES)
        self._listings: dict[Instrument, Listing] = {}
        # One per instrument: a slow look-up keeps nobody from what is known.
        self._listing_locks = defaultdict[Instrument, asyncio.Lock](asyncio.Lock)
        self._refused: dict[str, NotEntitled] = {}

    @property
    def ready(self) -> str | None:
        """None when there is a key; else what to do."""
        return None if self._settings.api_key else NO_KEY

    async def listing(self, instrument: Instrument) -> Listing:
        """The instrument's row in the list of tickers.

        Raises:
            UnknownInstrument: when it has none.
        """
        async with self._listing_locks[instrument]:
            if instrument not in self._listings:
                self._listings[instrument] = await self._look_up(instrument)
            return self._listings[instrument]

    async def product(self, name: str, path: str, **params: object) -> AsyncIterator[tuple[Response, Answer]]:
        """Every page of something that plans include or do not; what they do not is asked for once.

        Raises:
            NotEntitled: when the plan does not include it.
        """
        if name in self._refused:
            raise NotEntitled(str(self._refused[name]))
        try:
            async for page in self.pages(path, **params):
                yield page
        except NotEntitled as error:
            self._refused[name] = error
            raise

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

    async def pages(self, path: str, **params: object) -> AsyncIterator[tuple[Response, Answer]]:
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
        # An exact notation (BTC/USD) is found by its coin.
        coin = instrument.symbol.partition("/")[0]
        which = {"market": "crypto", "search": coin} if crypto else {"ticker": instrument.symbol}
        for active in ("true", "false"):
            async for _, answer in self.pages("/v3/reference/tickers", **which, active=active, limit=1000):
                try:
                    return find_listing(instrument, answer.results)
                except UnknownInstrument:
                    continue
        raise UnknownInstrument(f"polygon does not list {instrument}")

    async def _get(self, path: str, **params: object) -> Response:
        if self._settings.api_key is None:
            raise BadCredentials(NO_KEY)
        headers = {"Authorization": f"Bearer {self._settings.api_key.get_secret_value()}"}
        address = self._settings.rest_url.rstrip("/")
        return await self._channel.get(f"{address}{path}", MASSIVE, params=params, headers=headers)
