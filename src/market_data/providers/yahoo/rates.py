"""Yahoo on currencies: what a unit of one was worth in dollars at the end of each day."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote

from market_data.model.dataset import FX_RATES
from market_data.model.errors import MalformedPayload, UnknownInstrument
from market_data.model.provider import Page
from market_data.model.timeframe import EPOCH, TimeRange
from market_data.providers.yahoo.client import DAY, SECOND, Client
from market_data.providers.yahoo.parse import CURRENCY, Chart, parse_chart
from market_data.transport.rows import read_rows

SMALLEST: Final = Decimal(1).scaleb(-18)
NOTE_INVERSE: Final = "one over what a dollar was worth"


async def rates(client: Client, currency: str, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """The rates of days in `span` that were over by `now`; of the pair itself, else of its inverse."""
    for pair, inverse in ((f"{currency}{CURRENCY}=X", False), (f"{currency}=X", True)):
        try:
            response = await client.get(
                f"/v8/finance/chart/{quote(pair, safe='')}",
                period1=(span.start - DAY - EPOCH) // SECOND,
                period2=-((EPOCH - span.end) // SECOND),
                interval="1d",
                includePrePost="false",
            )
        except UnknownInstrument:
            continue
        chart = parse_chart(response.body)
        rows = [] if chart is None else parse_rates(chart, pair, currency, inverse=inverse)
        inside = [row for row in rows if span.start.date() <= row["date"] < min(span.end, now).date()]
        if inside:
            yield client.page(read_rows(inside, FX_RATES, dict), response)
            return


def parse_rates(chart: Chart, pair: str, currency: str, *, inverse: bool) -> list[dict[str, Any]]:
    """Rows of a chart of a pair in the schema of FX_RATES.

    Raises:
        MalformedPayload: when it is another chart than asked for.
    """
    if chart.symbol != pair or chart.currency != (currency if inverse else CURRENCY):
        raise MalformedPayload(f"yahoo sent {chart.symbol} in {chart.currency} where {pair} was asked for")
    return [
        {
            "date": moment.astimezone(chart.zone).date(),
            "currency": currency,
            "quote_currency": CURRENCY,
            "rate": (1 / close).quantize(SMALLEST) if inverse else close,
            "notes": NOTE_INVERSE if inverse else None,
        }
        for moment, close in chart.rows.select("timestamp", "close").iter_rows()
        if close > 0
    ]
