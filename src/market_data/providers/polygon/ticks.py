"""Massive trades and quotes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import polars as pl

from market_data.model.contract import Listing
from market_data.model.dataset import EXACT, QUOTES, TRADES
from market_data.model.instrument import AssetClass
from market_data.model.provider import Page
from market_data.model.rows import Rows
from market_data.model.timeframe import TimeRange, to_micros
from market_data.providers.polygon.client import Client
from market_data.transport.columns import Count, Field
from market_data.transport.rows import read_objects

ROWS = 50_000
TIME: Final = pl.coalesce("sip_timestamp", "participant_timestamp")
TEXTS = pl.List(pl.String())
TRADE_FIELDS: Final[dict[str, Field]] = {
    "id": pl.String(),
    "exchange": pl.String(),
    "price": EXACT,
    "size": EXACT,
    # A text with the fraction of a share that `size` leaves out.
    "decimal_size": EXACT,
    "participant_timestamp": Count("ns"),
    "sip_timestamp": Count("ns"),
    "conditions": TEXTS,
    "trf_id": pl.String(),
    "correction": pl.Int64(),
}
QUOTE_FIELDS: Final[dict[str, Field]] = {
    "sip_timestamp": Count("ns"),
    "participant_timestamp": Count("ns"),
    "sequence_number": pl.Int64(),
    "bid_price": EXACT,
    "bid_size": EXACT,
    "ask_price": EXACT,
    "ask_size": EXACT,
}
# The conditions of crypto trades say which side the taker was on.
SOLD, BOUGHT = "1", "2"
# What is traded off the exchanges is reported to one of several facilities under this code, and numbered by each.
OFF_EXCHANGE = "4"


async def trades(client: Client, listing: Listing, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """Trades of a listing in `span`, extended hours included, oldest page first."""
    crypto = listing.instrument.asset_class is AssetClass.CRYPTO
    async for response, answer in client.pages(f"/v3/trades/{_raw(listing)}", **_within(span, now)):
        rows = parse_trades(answer.results, crypto=crypto)
        page = client.page(rows.with_frame(lambda frame: _inside(frame, span)), response)
        yield replace(page, contract=listing.contract)


async def quotes(client: Client, listing: Listing, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """Best bids and asks of a listing in `span`, oldest page first."""
    async for response, answer in client.pages(f"/v3/quotes/{_raw(listing)}", **_within(span, now)):
        rows = parse_quotes(answer.results)
        page = client.page(rows.with_frame(lambda frame: _inside(frame, span)), response)
        yield replace(page, contract=listing.contract)


def parse_trades(results: list[Any], *, crypto: bool) -> Rows:
    """Trades in their schema, in the order sent; numbered by exchange, since numbers repeat between exchanges.

    Raises:
        MalformedPayload: when not one row is a trade.
    """
    needed = ("id", "exchange", "price", "size", "participant_timestamp")
    rows = read_objects(results, TRADE_FIELDS, needed, time="participant_timestamp")
    return rows.with_frame(lambda frame: _trades(frame, crypto=crypto))


def _trades(rows: pl.DataFrame, *, crypto: bool) -> pl.DataFrame:
    sold, bought = (pl.col("conditions").list.contains(code) for code in (SOLD, BOUGHT))
    side = pl.when(sold).then(pl.lit("sell")).when(bought).then(pl.lit("buy"))
    facility = pl.when(pl.col("exchange") == OFF_EXCHANGE).then("trf_id")
    return TRADES.conform(
        rows.select(
            timestamp=TIME,
            trade_id=pl.concat_str("exchange", facility, "id", separator="-", ignore_nulls=True),
            price="price",
            size=pl.coalesce("decimal_size", "size"),
            aggressor_side=side.otherwise(None) if crypto else pl.lit(None, pl.String()),
            venue="exchange",
            conditions="conditions",
            correction="correction",
        )
    )


def parse_quotes(results: list[Any]) -> Rows:
    """Quotes in their schema, in the order sent; a price of 0 says that the side is empty.

    Raises:
        MalformedPayload: when not one row is a quote.
    """
    rows = read_objects(results, QUOTE_FIELDS, ("sequence_number",), time="sip_timestamp")
    return rows.with_frame(_quotes)


def _quotes(rows: pl.DataFrame) -> pl.DataFrame:
    sides = {}
    for side in ("bid", "ask"):
        there = pl.col(f"{side}_price") > 0
        sides[f"{side}_price"] = pl.when(there).then(f"{side}_price")
        sides[f"{side}_size"] = pl.when(there).then(f"{side}_size")
    return QUOTES.conform(rows.select(timestamp=TIME, sequence="sequence_number", **sides))


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
    # What has no time is for the rules to reject.
    return frame.filter(pl.col("timestamp").is_between(span.start, span.end, closed="left").fill_null(value=True))
