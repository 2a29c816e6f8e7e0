"""Massive on currencies: what a unit of one was worth in dollars at the end of each day."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from market_data.model.dataset import FX_RATES
from market_data.model.provider import Page
from market_data.model.rows import Rows
from market_data.model.timeframe import TimeRange
from market_data.providers.polygon.client import Client
from market_data.providers.polygon.parse import CRYPTO_QUOTE, parse_aggregates

QUOTE: Final = CRYPTO_QUOTE
MILLISECOND: Final = timedelta(milliseconds=1)


async def rates(client: Client, currency: str, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """The rates of days in `span` that were over by `now`."""
    last = min(span.end, now) - MILLISECOND
    path = f"/v2/aggs/ticker/C:{currency}{QUOTE}/range/1/day/{span.start:%Y-%m-%d}/{last:%Y-%m-%d}"
    async for response, answer in client.product("currencies", path, adjusted="false", sort="asc", limit=50_000):
        rows = parse_aggregates(answer.results)
        days = rows.frame.select(
            pl.col("timestamp").dt.date().alias("date"),
            pl.lit(currency).alias("currency"),
            pl.lit(QUOTE).alias("quote_currency"),
            pl.col("close").alias("rate"),
        )
        over = days.filter(pl.col("date") < now.date()).unique("date", keep="last", maintain_order=True)
        yield client.page(Rows(FX_RATES.conform(over), rows.rejected), response)
