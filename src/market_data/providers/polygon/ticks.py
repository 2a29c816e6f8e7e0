"""Massive trades and quotes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import polars as pl

from market_data.model.dataset import EXACT, QUOTES, TRADES, UTC_MICROS
from market_data.model.instrument import AssetClass, Listing
from market_data.model.provider import Page
from market_data.model.timeframe import TimeRange, to_micros
from market_data.providers.polygon.client import Client
from market_data.transport.payload import exact_frame, require_columns

ROWS = 50_000
TEXTS = pl.List(pl.String())
TRADE_FIELDS: Final[dict[str, pl.DataType]] = {
    "id": pl.String(),
    "exchange": pl.String(),
    "price": EXACT,
    "size": EXACT,
    # A text with the fraction of a share that `size` leaves out.
    "decimal_size": EXACT,
    "participant_timestamp": pl.Int64(),
    "sip_timestamp": pl.Int64(),
    "conditions": TEXTS,
}
QUOTE_FIELDS: Final[dict[str, pl.DataType]] = {
    "sip_timestamp": pl.Int64(),
    "participant_timestamp": pl.Int64(),
    "sequence_number": pl.Int64(),
    "bid_price": EXACT,
    "bid_size": EXACT,
    "ask_price": EXACT,
    "ask_size": EXACT,
}
# The conditions of crypto trades say which side the taker was on.
SOLD, BOUGHT = "1", "2"


async def trades(client: Client, listing: Listing, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """Trades of a listing in `span`, extended hours included, oldest page first."""
    crypto = listing.instrument.asset_class is AssetClass.CRYPTO
    async for response, answer in client.pages(f"/v3/trades/{_raw(listing)}", **_within(span, now)):
        frame = parse_trades(answer.results, crypto=crypto)
        if frame.height:
            yield client.page(_inside(frame, span), response)


async def quotes(client: Client, listing: Listing, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """Best bids and asks of a listing in `span`, oldest page first."""
    async for response, answer in client.pages(f"/v3/quotes/{_raw(listing)}", **_within(span, now)):
        frame = parse_quotes(answer.results)
        if frame.height:
            yield client.page(_inside(frame, span), response)


def parse_trades(results: list[Any], *, crypto: bool) -> pl.DataFrame:
    """Trades in their schema, in the order sent; numbered by exchange, since numbers repeat between exchanges.

    Raises:
        MalformedPayload: when a row lacks what a trade needs.
    """
    rows = exact_frame(results, TRADE_FIELDS)
    require_columns(rows, ("id", "exchange", "price", "size", "participant_timestamp"))
    sold, bought = (pl.col("conditions").list.contains(code) for code in (SOLD, BOUGHT))
    side = pl.when(sold).then(pl.lit("sell")).when(bought).then(pl.lit("buy"))
    return TRADES.conform(
        rows.select(
            timestamp=_moment("sip_timestamp", "participant_timestamp"),
            trade_id=pl.concat_str("exchange", "id", separator="-"),
            price="price",
            size=pl.coalesce("decimal_size", "size"),
            aggressor_side=side.otherwise(None) if crypto else pl.lit(None, pl.String()),
            venue="exchange",
            conditions="conditions",
        )
    )


def parse_quotes(results: list[Any]) -> pl.DataFrame:
    """Quotes in their schema, in the order sent; a price of 0 says that the side is empty.

    Raises:
        MalformedPayload: when a row lacks what a quote needs.
    """
    rows = exact_frame(results, QUOTE_FIELDS)
    require_columns(rows, ("sequence_number",))
    sides = {}
    for side in ("bid", "ask"):
        there = pl.col(f"{side}_price") > 0
        sides[f"{side}_price"] = pl.when(there).then(f"{side}_price")
        sides[f"{side}_size"] = pl.when(there).then(f"{side}_size")
    time = _moment("sip_timestamp", "participant_timestamp")
    return QUOTES.conform(rows.select(timestamp=time, sequence="sequence_number", **sides))


def _moment(*nanoseconds: str) -> pl.Expr:
    return (pl.coalesce(*nanoseconds) // 1000).cast(UTC_MICROS)


def _raw(listing: Listing) -> str:
    return quote(listing.raw_symbol, safe=":")


def _within(span: TimeRange, now: datetime) -> dict[str, object]:
    return {
        "timestamp.gte": to_micros(span.start) * 1000,
        "timestamp.lt": to_micros(min(span.end, now)) * 1000,
        "order": "asc",
        "sort": "timestamp",
        "limit": ROWS,
    }


def _inside(frame: pl.DataFrame, span: TimeRange) -> pl.DataFrame:
    return frame.filter(pl.col("timestamp").is_between(span.start, span.end, closed="left"))
