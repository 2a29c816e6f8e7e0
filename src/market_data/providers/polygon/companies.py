"""Massive on companies: dividends, splits, earnings, news."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import polars as pl

from market_data.model.contract import Listing
from market_data.model.dataset import DIVIDENDS, EARNINGS, NEWS, SPLITS
from market_data.model.errors import NotEntitled, UnknownInstrument, UnsupportedRequest
from market_data.model.instrument import AssetClass
from market_data.model.provider import Page
from market_data.model.rows import Rows
from market_data.model.session import session_of
from market_data.model.timeframe import TimeRange
from market_data.providers.polygon.client import Client
from market_data.providers.polygon.dialect import canonical
from market_data.providers.polygon.statements import reported
from market_data.transport.rows import read_rows

DAY = timedelta(days=1)
# What the plan or the host may not have yet: then the endpoint it replaced is asked.
NOT_THERE: Final = (NotEntitled, UnknownInstrument, UnsupportedRequest)
DIVIDEND_TYPES: Final = {
    "special": "special",
    "supplemental": "supplemental",
    "SC": "special",
    "LT": "long_term_gain",
    "ST": "short_term_gain",
}
SPLIT_FIELDS: Final = ("execution_date", "split_from", "split_to")
HALVES: Final = ("H1", "H2", "9M")
QUARTERS: Final = {"Q1": 1, "Q2": 2, "Q3": 3, "Q4": 4, "FY": 0}
# Times are New York's, as the source gives them.
NEW_YORK: Final = ZoneInfo("America/New_York")
CALENDAR: Final = AssetClass.STOCK.calendar


async def dividends(client: Client, listing: Listing, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """Dividends whose ex-date lies in `span`, announced ones included."""
    del now
    new, old = ("/stocks/v1/dividends", 5000), ("/v3/reference/dividends", 1000)
    async for page in _actions(client, listing, span, "ex_dividend_date", new, old):
        yield page


async def splits(client: Client, listing: Listing, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """Splits that take effect in `span`, announced ones included."""
    del now
    new, old = ("/stocks/v1/splits", 5000), ("/v3/reference/splits", 1000)
    async for page in _actions(client, listing, span, "execution_date", new, old):
        yield page


async def earnings(client: Client, listing: Listing, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """Quarters reported, or expected to be, in `span`; where the plan lacks those, what was filed in it."""
    del now
    dates = _dates(span, "date")
    params = {"ticker": listing.raw_symbol, "sort": "date.asc", "limit": 50_000}
    try:
        async for response, answer in client.product("earnings", "/benzinga/v1/earnings", **params, **dates):
            answer.must_be(listing.raw_symbol)
            yield client.page(parse_earnings(answer.results), response)
    except NotEntitled as refused:
        try:
            async for page in reported(client, listing, _dates(span, "filing_date")):
                yield page
        except (UnknownInstrument, UnsupportedRequest):
            # What there is to do is about the earnings, not about what was to stand in for them.
            raise refused from None


async def news(client: Client, listing: Listing, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """Articles on the instrument published in `span`."""
    params = {"ticker": listing.raw_symbol, "order": "asc", "sort": "published_utc", "limit": 1000}
    times = {
        "published_utc.gte": f"{span.start:%Y-%m-%dT%H:%M:%SZ}",
        "published_utc.lt": f"{min(span.end, now):%Y-%m-%dT%H:%M:%SZ}",
    }
    async for response, answer in client.pages("/v2/reference/news", **params, **times):
        yield client.page(parse_news(answer.results, listing.raw_symbol), response)


def parse_dividends(results: list[Any]) -> Rows:
    """Dividends in their schema, from the new endpoint or the old.

    Several amounts of one type and ex-date (a return of capital beside a dividend) are rows of their own.

    Raises:
        MalformedPayload: when not one row is a dividend.
    """
    return read_rows(results, DIVIDENDS, _dividend)


def _dividend(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "ex_date": row.get("ex_dividend_date"),
        "amount": row.get("cash_amount"),
        "currency": row.get("currency"),
        "declaration_date": row.get("declaration_date"),
        "record_date": row.get("record_date"),
        "pay_date": row.get("pay_date"),
        "frequency": row.get("frequency"),
        "dividend_type": DIVIDEND_TYPES.get(str(row.get("distribution_type") or row.get("dividend_type")), "cash"),
    }


def parse_splits(results: list[Any]) -> Rows:
    """Splits in their schema, from the new endpoint or the old.

    Raises:
        MalformedPayload: when not one row is a split.
    """
    return read_rows(results, SPLITS, lambda row: {name: row.get(name) for name in SPLIT_FIELDS})


def parse_earnings(results: list[Any]) -> Rows:
    """Quarters in their schema; half years, which some companies report besides, are left out.

    Raises:
        MalformedPayload: when not one row is a quarter.
    """
    # A quarter whose date moved is listed again: the later word counts.
    rows = read_rows(results, EARNINGS, _quarter)
    return rows.with_frame(lambda frame: _in_percent(frame).unique(EARNINGS.key, keep="last", maintain_order=True))


def _quarter(row: dict[str, Any]) -> dict[str, Any] | None:
    if row["fiscal_period"] in HALVES:
        return None
    return {
        "fiscal_year": row.get("fiscal_year"),
        "fiscal_quarter": QUARTERS[row["fiscal_period"]],
        "report_date": row.get("date"),
        "report_time": _report_time(row.get("time"), row.get("date")),
        "eps_estimate": row.get("estimated_eps"),
        "eps_actual": row.get("actual_eps"),
        "eps_surprise": row.get("eps_surprise"),
        "surprise_pct": row.get("eps_surprise_percent"),
        "revenue_estimate": row.get("estimated_revenue"),
        "revenue_actual": row.get("actual_revenue"),
        "currency": row.get("currency"),
        "notes": row.get("date_status"),
    }


def parse_news(results: list[Any], raw_symbol: str) -> Rows:
    """Articles in their schema; the sentiment is the one towards `raw_symbol` where no other is judged differently.

    Raises:
        MalformedPayload: when not one row is an article.
    """
    rows = read_rows(results, NEWS, lambda row: _article(row, raw_symbol))
    return rows.with_frame(lambda frame: frame.unique("news_id", maintain_order=True))


def _article(row: dict[str, Any], raw_symbol: str) -> dict[str, Any]:
    return {
        "news_id": row.get("id"),
        "published_at": row.get("published_utc"),
        "title": row.get("title"),
        "summary": row.get("description"),
        "url": row.get("article_url"),
        "author": row.get("author"),
        "publisher": (row.get("publisher") or {}).get("name"),
        "symbols": [canonical(name) for name in row.get("tickers") or []],
        "keywords": row.get("keywords") or [],
        "sentiment": _sentiment(row.get("insights") or [], raw_symbol),
    }


async def _actions(
    client: Client, listing: Listing, span: TimeRange, field: str, new: tuple[str, int], old: tuple[str, int]
) -> AsyncIterator[Page]:
    parse = parse_dividends if field == "ex_dividend_date" else parse_splits
    for (path, limit), order in ((new, {"sort": f"{field}.asc"}), (old, {"sort": field, "order": "asc"})):
        params = {"ticker": listing.raw_symbol, "limit": limit, **order, **_dates(span, field)}
        results: list[Any] = []
        try:
            async for response, answer in client.product(path, path, **params):
                answer.must_be(listing.raw_symbol)
                results += answer.results
                last = response
        except NOT_THERE:
            if path == old[0]:
                raise
            continue
        rows = parse(results)
        ordered = rows.with_frame(lambda frame: frame.sort(frame.columns[0], maintain_order=True))
        yield client.page(ordered, last, complete_for(ordered.frame[ordered.frame.columns[0]], span))
        return


def complete_for(days: pl.Series, span: TimeRange) -> TimeRange | None:
    """The part of a range that a list of events, whole and in order, is complete for.

    What lies before its oldest entry may be beyond what the plan tells; an entry without a date may be any.
    """
    if days.null_count():
        return None
    if days.is_empty():
        return span
    oldest = datetime.combine(days[0], datetime.min.time(), UTC)
    start = max(span.start, oldest)
    return TimeRange(start, span.end) if start < span.end else None


def _dates(span: TimeRange, field: str) -> dict[str, str]:
    # A date is in [start, end) when its midnight is.
    first = span.start if span.start.time() == span.start.min.time() else span.start + DAY
    return {
        f"{field}.gte": f"{first:%Y-%m-%d}",
        f"{field}.lt": f"{span.end + DAY - timedelta(microseconds=1):%Y-%m-%d}",
    }


def _report_time(clock: str | None, day: str | None) -> str | None:
    """When a report was published, held against the session of its day, whose close may be an early one."""
    if not clock or not day:
        return None
    try:
        session, told = session_of(CALENDAR, date.fromisoformat(day)), time.fromisoformat(clock)
    except ValueError:
        return None
    if session is None:
        return None
    opens, closes = (moment.astimezone(NEW_YORK).time() for moment in session)
    if told < opens:
        return "before_open"
    return "after_close" if told >= closes else "during_session"


def _in_percent(frame: pl.DataFrame) -> pl.DataFrame:
    """Surprises as percent of the estimate: the source tells some as a fraction, which the other figures show."""
    actual, estimate, told = pl.col("eps_actual"), pl.col("eps_estimate"), pl.col("surprise_pct")
    size = estimate.cast(pl.Float64).abs()
    right = 100 * (actual - estimate).cast(pl.Float64) / pl.when(size > 0).then(size)
    fraction = (100 * told - right).abs() < (told - right).abs()
    most = frame.select((fraction.cast(pl.Int8) * 2 - 1).sum()).item() or 0
    # Where neither estimate nor result is told, a figure is taken as the others of the answer are.
    return frame.with_columns(surprise_pct=pl.when(fraction.fill_null(value=most > 0)).then(100 * told).otherwise(told))


def _sentiment(insights: list[Any], raw_symbol: str) -> str | None:
    # An article is one row whoever asks for it: what is judged differently of several has no one word.
    told = {insight.get("ticker"): insight.get("sentiment") for insight in insights}
    (word, *others) = set(told.values()) or {None}
    alike = not others and word in ("positive", "neutral", "negative")
    return word if alike and raw_symbol in told else None
