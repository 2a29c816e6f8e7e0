"""Massive's income statements as what companies earned: for plans without the earnings of Benzinga.

A statement tells what was earned, by the day of its filing: later than the announcement, and never before it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import polars as pl

from market_data.model.contract import Listing
from market_data.model.dataset import EARNINGS
from market_data.model.provider import Page
from market_data.model.rows import Rows
from market_data.providers.polygon.client import Client
from market_data.transport.rows import read_rows

PATH: Final = "/stocks/financials/v1/income-statements"
# The sums of the trailing twelve months are neither quarters nor years.
TIMEFRAMES: Final = ("quarterly", "annual")
WHOLE_YEAR: Final = 0
MOST_ROWS: Final = 50_000


async def reported(client: Client, listing: Listing, dates: dict[str, str]) -> AsyncIterator[Page]:
    """Quarters and years whose statements were filed on the dates wanted.

    Args:
        client: asks.
        listing: the company's.
        dates: bounds of `filing_date`, as the source names them.

    Raises:
        NotEntitled: when the plan does not include them.
    """
    for timeframe in TIMEFRAMES:
        params = {"tickers": listing.raw_symbol, "timeframe": timeframe, "sort": "filing_date.asc", "limit": MOST_ROWS}
        async for response, answer in client.product("income statements", PATH, **params, **dates):
            yield client.page(parse_statements(answer.results), response)


def parse_statements(results: list[Any]) -> Rows:
    """Statements in the schema of EARNINGS; the filing is the report, the notes say which earnings per share these are.

    Raises:
        MalformedPayload: when not one row is a statement.
    """
    return read_rows(results, EARNINGS, _row).with_frame(_last_filed)


def _last_filed(frame: pl.DataFrame) -> pl.DataFrame:
    # Filed again: the later word counts.
    return frame.sort("report_date", maintain_order=True).unique(EARNINGS.key, keep="last", maintain_order=True)


def _row(row: dict[str, Any]) -> dict[str, Any] | None:
    if row["timeframe"] not in TIMEFRAMES:
        return None
    diluted, basic = row.get("diluted_earnings_per_share"), row.get("basic_earnings_per_share")
    kind = "diluted_eps" if diluted is not None else "basic_eps" if basic is not None else "no_eps"
    return {
        "fiscal_year": row.get("fiscal_year"),
        "fiscal_quarter": row.get("fiscal_quarter") if row["timeframe"] == "quarterly" else str(WHOLE_YEAR),
        "period_end": row.get("period_end"),
        "report_date": row.get("filing_date"),
        "eps_actual": diluted if diluted is not None else basic,
        "revenue_actual": row.get("revenue"),
        "notes": f"income_statement; {kind}; report_date_is_filing",
    }
