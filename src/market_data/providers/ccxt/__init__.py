"""ccxt: any of the 100+ exchanges the library of that name knows; it names and shapes, our transport asks.

The library is optional: ``pip install market-data-platform[ccxt]``.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import polars as pl

from market_data.model.aggregation import aggregate, agreeing, closed
from market_data.model.contract import Contract, Listing, Preference, means
from market_data.model.dataset import CANDLES, EXACT, FUNDING_RATES, OPEN_INTEREST, TRADES, Dataset
from market_data.model.errors import MalformedPayload, UnknownInstrument, UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument, Kind, Status
from market_data.model.provider import Capability, Page, Provider
from market_data.model.rows import NOT_A_ROW, Rows, joined
from market_data.model.session import Grid, grid
from market_data.model.text import shown
from market_data.model.timeframe import EPOCH, Timeframe, TimeRange, from_micros
from market_data.providers.ccxt.exchange import NAME, CcxtSettings, Exchange
from market_data.transport.columns import Count, Field, moment
from market_data.transport.http import Http
from market_data.transport.rows import NOT_AS_PROMISED, read_rows, read_values

QUOTES: Final = ("USDT", "USD", "USDC")
# Weeks begin on other days at some exchanges: ours are made of days.
FINER: Final = (Timeframe.D1, Timeframe.H4, Timeframe.H1, Timeframe.M30, Timeframe.M15, Timeframe.M5, Timeframe.M1)
MILLISECOND = timedelta(milliseconds=1)
FIELDS: Final[dict[str, Field]] = {
    "timestamp": Count("ms"),
    **dict.fromkeys(("open", "high", "low", "close", "volume"), EXACT),
}
CRYPTO = frozenset({AssetClass.CRYPTO})


class Ccxt(Provider):
    """Any exchange of the library, read without a key. Rows say which in their source: ``ccxt:kraken``.

    Numbers keep the digits that were sent; the library's candles have no taker volumes. It forgives answers that lack
    what they should hold, so that here, unlike elsewhere, such an answer passes for an empty one.
    """

    name = NAME
    Settings = CcxtSettings
    capabilities = (
        Capability(dataset=CANDLES, asset_classes=CRYPTO, timeframes=frozenset(Timeframe)),
        *(Capability(dataset=dataset, asset_classes=CRYPTO) for dataset in (TRADES, FUNDING_RATES, OPEN_INTEREST)),
    )

    def __init__(self, settings: CcxtSettings, http: Http) -> None:
        self._exchange = Exchange(settings, http)
        self._lock = asyncio.Lock()

    @property
    def ready(self) -> str | None:
        """See `Provider.ready`."""
        return self._exchange.ready

    async def resolve(self, instrument: Instrument) -> Listing:
        """See `Provider.resolve`."""
        found = await self.contracts(instrument)
        exact = [each for each in found if each.symbol == instrument.symbol]
        best = next(iter(exact), None) or self._preference.best(found)
        if best is None:
            raise UnknownInstrument(f"{self._exchange.source} does not list {instrument}")
        return Listing(instrument, self.name, best.raw_symbol, best.venue, best.listed_from, contract=best)

    async def contracts(self, instrument: Instrument) -> Sequence[Contract]:
        """See `Provider.contracts`; the library's notation is ours, and taken for the exchange's own name."""
        if instrument.asset_class is not AssetClass.CRYPTO:
            return ()
        return [each for each in await self._listed() if means(instrument.symbol, each)]

    @property
    def _preference(self) -> Preference:
        kind = Kind.SPOT if self._exchange.settings.market_type == "spot" else Kind.PERPETUAL
        return Preference(kinds=(kind,), quotes=QUOTES)

    async def _listed(self) -> list[Contract]:
        async with self._lock:
            markets = await self._exchange.calling(self._exchange.library.load_markets())
        venue = str(self._exchange.settings.exchange).upper()
        return [contract_of(market, venue) for market in markets.values() if not market.get("option")]

    async def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """See `Provider.fetch_candles`."""
        wanted = grid(instrument.asset_class, timeframe, TimeRange(start, end)).closed_by(now)
        if not len(wanted):
            return
        listing = await self.resolve(instrument)
        asked = self._asked(timeframe)
        step = asked.duration * self._exchange.page_rows("fetchOHLCV")
        # Whole candles to a window, so that none is made of half its parts.
        step -= step % timeframe.duration if asked is not timeframe else timedelta(0)
        span = TimeRange(from_micros(wanted.opens[0]), from_micros(wanted.ends[-1]))
        for window in span.split(max(step, timeframe.duration)):
            rows = await self._window(listing, asked, window)
            if self._exchange.last is None:
                continue
            known_until = min(now, self._exchange.last.server_time or now)
            base = grid(instrument.asset_class, asked, window)
            rows = Rows(closed(rows.frame, base, asked, known_until), rows.rejected)
            if asked is not timeframe:
                inside = (wanted.opens >= base.opens[0]) & (wanted.opens < base.ends[-1])
                made = Grid(wanted.opens[inside], wanted.ends[inside]).closed_by(known_until)
                rows = _made_of(rows, made, base)
            page = replace(self._page(rows), contract=listing.contract)
            if page.holds_something:
                yield page

    async def fetch_trades(
        self, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """See `Provider.fetch_trades`; as far back as the exchange goes, which most do for minutes only."""
        listing = await self.resolve(instrument)
        async for rows in self._by_time(
            "fetchTrades", self._exchange.library.fetch_trades, listing, start, min(end, now)
        ):
            fields = {"id": "trade_id", "price": "price", "amount": "size", "side": "aggressor_side"}
            page = self._page(read_rows(rows, TRADES, functools.partial(_named, fields)))
            yield replace(page, contract=listing.contract)

    async def fetch(
        self, dataset: Dataset, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """See `Provider.fetch`."""
        exchange = self._exchange.library
        calls: dict[str, tuple[str, Callable[..., Any], dict[str, str]]] = {
            FUNDING_RATES.name: (
                "fetchFundingRateHistory",
                exchange.fetch_funding_rate_history,
                {"fundingRate": "rate"},
            ),
            OPEN_INTEREST.name: (
                "fetchOpenInterestHistory",
                exchange.fetch_open_interest_history,
                {"openInterestAmount": "value", "openInterestValue": "value_quote"},
            ),
        }
        if dataset.name not in calls:
            raise UnsupportedRequest(f"{self.name} serves no {dataset.name}")
        name, call, fields = calls[dataset.name]
        listing = await self.resolve(instrument)
        async for rows in self._by_time(name, call, listing, start, min(end, now)):
            yield self._page(
                read_rows(rows, dataset, functools.partial(_observed, fields), rounded=tuple(fields.values()))
            )

    async def _window(self, listing: Listing, asked: Timeframe, window: TimeRange) -> Rows:
        """Rows of a window; exchanges that send fewer than asked for are asked again from where they stopped."""
        parts: list[Rows] = []
        since = window.start
        while since < window.end:
            limit = min(self._exchange.page_rows("fetchOHLCV"), -((since - window.end) // asked.duration))
            rows = await self._exchange.calling(
                self._exchange.library.fetch_ohlcv(
                    listing.raw_symbol, asked.value, (since - EPOCH) // MILLISECOND, limit
                )
            )
            inside = pl.col("timestamp").is_between(since, window.end, closed="left")
            read = _candles(rows)
            read = Rows(read.frame.filter(inside), read.rejected.filter(inside.fill_null(value=True)))
            parts.append(read)
            if read.frame.is_empty():
                break
            since = read.frame["timestamp"][-1] + asked.duration
        return joined(parts, CANDLES.empty()).with_frame(
            lambda frame: frame.unique(maintain_order=True).sort("timestamp", maintain_order=True)
        )

    async def _by_time(
        self, name: str, call: Callable[..., Any], listing: Listing, start: datetime, end: datetime
    ) -> AsyncIterator[list[dict[str, Any]]]:
        if not self._exchange.library.has.get(name):
            raise UnsupportedRequest(f"{self._exchange.source} has no {name}")
        since, last_ids = start, set[Any]()
        while since < end:
            rows = await self._exchange.calling(
                call(listing.raw_symbol, since=(since - EPOCH) // MILLISECOND, limit=self._exchange.page_rows(name))
            )
            timed, others = _timed(rows)
            fresh = [row for row in timed if since <= _moment(row) < end and _identity(row) not in last_ids]
            if fresh or others:
                yield fresh + others
            if not fresh:
                return
            since = _moment(fresh[-1])
            last_ids = {_identity(row) for row in timed if _moment(row) == since}

    def _asked(self, timeframe: Timeframe) -> Timeframe:
        native = self._exchange.library.timeframes or {}
        if timeframe is not Timeframe.W1 and timeframe.value in native:
            return timeframe
        for finer in FINER:
            if finer.duration < timeframe.duration and finer.value in native:
                return finer
        raise UnsupportedRequest(f"{self._exchange.source} has no candles that {timeframe} could be made of")

    def _page(self, rows: Rows) -> Page:
        assert self._exchange.last is not None, "rows come with an answer"
        last = self._exchange.last
        return Page(
            frame=rows.frame,
            rejected=rows.rejected,
            source=self._exchange.source,
            fetched_at=last.fetched_at,
            response_ms=last.elapsed_ms,
        )


def contract_of(market: dict[str, Any], venue: str) -> Contract:
    """A market of the library as a contract; of its status the library says only whether it is active."""
    kind = Kind.SPOT if market.get("spot") else Kind.PERPETUAL if market.get("swap") else Kind.FUTURE
    expires, listed = market.get("expiry"), market.get("created")
    ended = kind is Kind.FUTURE and market.get("active") is False
    return Contract(
        venue=venue,
        market=str(market.get("type") or kind),
        raw_symbol=market["symbol"],
        kind=kind,
        base=market["base"],
        quote=market["quote"],
        settlement=market.get("settle"),
        multiplier=Decimal(str(market.get("contractSize") or 1)),
        expires_on=(EPOCH + int(expires) * MILLISECOND).date() if expires and kind is Kind.FUTURE else None,
        status=Status.SETTLED if ended else Status.HALTED if market.get("active") is False else Status.TRADING,
        status_text="inactive" if market.get("active") is False else None,
        listed_from=EPOCH + int(listed) * MILLISECOND if listed else None,
    )


def _candles(rows: Any) -> Rows:
    if not isinstance(rows, list):
        raise MalformedPayload(f"candles are no list: {shown(rows)}")
    named: list[dict[str, Any] | str] = [
        dict(zip(FIELDS, row, strict=False)) if isinstance(row, list) and len(row) >= len(FIELDS) else NOT_A_ROW
        for row in rows
    ]
    return read_values(named, rows, FIELDS, tuple(FIELDS), "timestamp").with_frame(CANDLES.conform)


def _made_of(rows: Rows, made: Grid, base: Grid) -> Rows:
    return agreeing(rows).with_frame(lambda frame: aggregate(frame, made, base))


def _timed(rows: Any) -> tuple[list[Any], list[Any]]:
    """Rows in the order of their times, and those that have none."""
    timed, others = [], []
    for row in rows if isinstance(rows, list) else [rows]:
        try:
            timed.append((_moment(row), row))
        except NOT_AS_PROMISED:
            others.append(row)
    return [row for _, row in sorted(timed, key=lambda pair: pair[0])], others


def _named(fields: dict[str, str], row: dict[str, Any]) -> dict[str, Any]:
    return {"timestamp": _moment(row)} | {ours: row.get(theirs) for theirs, ours in fields.items()}


def _observed(fields: dict[str, str], row: dict[str, Any]) -> dict[str, Any]:
    named = _named(fields, row)
    return named | {"known_at": named["timestamp"], "rate_type": "Regular"}


def _moment(row: dict[str, Any]) -> datetime:
    return moment(row["timestamp"], "ms")


def _identity(row: dict[str, Any]) -> Any:
    return row.get("id") or row["timestamp"]
