"""Yahoo candles: holes and the live row left out, splits taken back, coarser ones made of finer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

import polars as pl
import structlog

from market_data.model.aggregation import aggregate, agreeing, closed, runs
from market_data.model.contract import Listing
from market_data.model.errors import TransientError
from market_data.model.instrument import AssetClass
from market_data.model.provider import Page
from market_data.model.rows import Rows
from market_data.model.session import Grid, grid
from market_data.model.timeframe import Timeframe, TimeRange, from_micros
from market_data.providers.yahoo.client import DAY, Client
from market_data.providers.yahoo.defects import (
    splits_settled,
    with_split_notes,
    with_units_settled,
    with_volumes_doubted,
)
from market_data.providers.yahoo.parse import Chart, Split
from market_data.providers.yahoo.repair import (
    NOTE_SPLITS_UNKNOWN,
    at_session_open,
    in_coins,
    noted,
    unadjusted,
    without_live_row,
)
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
CONCURRENCY = 2

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _KnownSplits:
    since: datetime
    fetched_at: datetime
    splits: tuple[Split, ...]


@dataclass(frozen=True, slots=True)
class Candles:
    """Fetches candles; remembers the splits it saw."""

    client: Client
    _splits: dict[str, _KnownSplits] = field(default_factory=dict)

    async def fetch(self, listing: Listing, timeframe: Timeframe, wanted: Grid, now: datetime) -> AsyncIterator[Page]:
        """The candles of `wanted` that the source has, oldest page first."""

        async def ask(window: Grid) -> Page | None:
            return await self._candles(listing, timeframe, window, now)

        windows = runs(wanted, LONGEST.get(timeframe, FOREVER))
        async for page in fetch_ordered(windows, ask, concurrency=CONCURRENCY):
            if page is not None and page.holds_something:
                yield page

    async def _candles(self, listing: Listing, timeframe: Timeframe, wanted: Grid, now: datetime) -> Page | None:
        asset_class = listing.instrument.asset_class
        asked = ASKED[timeframe]
        span = TimeRange(from_micros(wanted.opens[0]), from_micros(wanted.ends[-1]))
        splits, until = await self._known_splits(listing, asked, span, now)
        response, chart = await self.client.chart(listing, asked, span.start, until)
        if chart is None:
            return None
        if splits is None and asked is Timeframe.D1:
            splits = self._remember(listing, span.start, response, chart)
        known_until = min(now, response.server_time or now)
        base = grid(asset_class, asked, TimeRange(span.start - DAY, max(span.end, now) + DAY))
        rows = with_units_settled(chart.rows, splits or ())
        rows = at_session_open(rows, base, chart.zone) if asked is Timeframe.D1 else rows
        rows = without_live_row(rows, base).unique(maintain_order=True).sort("timestamp", maintain_order=True)
        rows = rows.filter(pl.col("timestamp").is_between(span.start, span.end, closed="left"))
        rows = with_volumes_doubted(closed(rows, base, asked, known_until))
        if asset_class is AssetClass.CRYPTO:
            rows = in_coins(rows)
        else:
            known = splits is not None
            rows = unadjusted(rows, splits or (), chart.zone, chart.price_hint)
            rows = with_split_notes(rows, splits or (), chart.zone)
            rows = rows if known else noted(rows, NOTE_SPLITS_UNKNOWN)
        asked_for = pl.col("timestamp").is_between(span.start - DAY, span.end, closed="left").fill_null(value=True)
        found = Rows(rows, chart.rejected.filter(asked_for))
        if asked is not timeframe:
            made = wanted.closed_by(known_until)
            found = agreeing(found).with_frame(lambda parts: aggregate(parts, made, base))
        return replace(self.client.page(found, response), contract=listing.contract)

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
            response, chart = await self.client.chart(listing, Timeframe.D1, span.start, max(span.end, now))
        except TransientError:
            # The candles are worth having; their notes say what is not known.
            return None, span.end
        return (None if chart is None else self._remember(listing, span.start, response, chart)), span.end

    def _remember(self, listing: Listing, since: datetime, response: Response, chart: Chart) -> tuple[Split, ...]:
        days = with_units_settled(chart.rows, chart.splits)
        splits = (*splits_settled(days, chart.splits, chart.zone), *_unread(listing, chart))
        self._splits[listing.raw_symbol] = _KnownSplits(since, response.fetched_at, splits)
        return splits


def _unread(listing: Listing, chart: Chart) -> tuple[Split, ...]:
    """A split whose ratio cannot be read takes nothing back; whether the source did, is in doubt for all before it."""
    moments = chart.rejected_splits["timestamp"].drop_nulls().to_list()
    if chart.rejected_splits.height:
        log.warning(
            "splits_not_understood", symbol=listing.raw_symbol, events=chart.rejected_splits["payload"].to_list()
        )
    return tuple(Split(moment, Decimal(1), Decimal(1), in_doubt=True) for moment in moments)
