"""Yahoo on companies: dividends and splits from the chart's events, earnings, the option chain, news."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any, Final
from urllib.parse import quote

import polars as pl

from market_data.model.contract import Listing
from market_data.model.dataset import DIVIDENDS, EARNINGS, NEWS, OPTIONS, SPLITS
from market_data.model.errors import MalformedPayload, UnsupportedRequest
from market_data.model.provider import Page
from market_data.model.rows import Rows, joined
from market_data.model.text import shown
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.providers.yahoo.client import DAY, Client
from market_data.providers.yahoo.dialect import canonical
from market_data.providers.yahoo.parse import Chart, find_quotes
from market_data.providers.yahoo.payments import payments_settled
from market_data.providers.yahoo.repair import NOTE_UNADJUSTED
from market_data.transport.columns import moment
from market_data.transport.payload import load_json
from market_data.transport.rows import NOT_AS_PROMISED, read_rows

# A chain is of its moment; a range that ended longer ago is not what it speaks of.
PRESENT: Final = timedelta(days=1)
# What stands for "none" where a volatility should be.
LOWEST_VOLATILITY: Final = 1e-4
NEWS_COUNT = 50
SMALLEST: Final = Decimal(1).scaleb(-18)
DIGITS: Final = 60
KINDS: Final = (("call", "calls"), ("put", "puts"))
# Weekly expirations of three years; nobody lists more.
MOST_EXPIRATIONS: Final = 200


async def dividends(client: Client, listing: Listing, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """Dividends as declared, whose ex-date lies in `span`: the splits after it are taken back."""
    response, chart = await client.chart(listing, Timeframe.D1, span.start, max(span.end, now))
    if chart is not None:
        told = [row for row in _dividends(chart) if _inside(row["ex_date"], span)]
        rows = read_rows(told, DIVIDENDS, dict, rounded=("amount",)).rejecting(chart.rejected_payments)
        yield client.page(rows, response, _complete_for(chart, span, now))


async def splits(client: Client, listing: Listing, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """Splits that took effect in `span`; of days to come the source tells none."""
    if span.start > now:
        return
    response, chart = await client.chart(listing, Timeframe.D1, span.start, min(span.end, now + DAY))
    if chart is not None:
        told = [
            {"execution_date": day, "split_from": split.denominator, "split_to": split.numerator}
            for split in sorted(chart.splits, key=lambda each: each.moment)
            if _inside(day := split.moment.astimezone(chart.zone).date(), span)
        ]
        rows = read_rows(told, SPLITS, dict).rejecting(chart.rejected_splits)
        yield client.page(rows, response, _complete_for(chart, span, now))


async def earnings(client: Client, listing: Listing, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """The last four quarters and the one expected next, as far as they ended or are reported in `span`."""
    del now
    path = f"/v10/finance/quoteSummary/{quote(listing.raw_symbol, safe='')}"
    modules = "earningsHistory,earnings,calendarEvents"
    response, answer = await client.get_with_crumb(path, modules=modules, formatted="false")
    yield client.page(parse_earnings(answer).with_frame(lambda frame: frame.filter(_concerns(span))), response)


async def options(client: Client, listing: Listing, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """The chain as it is now, an expiration a page.

    Raises:
        UnsupportedRequest: for a range in the past: there are no chains of it.
    """
    if span.end < now - PRESENT:
        raise UnsupportedRequest("yahoo has option chains of the present only")
    path = f"/v7/finance/options/{quote(listing.raw_symbol, safe='')}"
    response, answer = await client.get_with_crumb(path)
    # One moment for the whole chain, however long its pages take.
    _check_underlying(answer, listing)
    first, expirations = parse_options(answer, now)
    yield client.page(first, response)
    for expiration in expirations[1:MOST_EXPIRATIONS]:
        response, answer = await client.get_with_crumb(path, date=expiration)
        _check_underlying(answer, listing)
        rows, _ = parse_options(answer, now)
        yield client.page(rows, response)


async def news(client: Client, listing: Listing, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """The latest articles on the instrument, as far as they were published in `span`."""
    del now
    response = await client.get("/v1/finance/search", q=listing.raw_symbol, quotesCount=0, newsCount=NEWS_COUNT)
    rows = parse_news(load_json(response.body), listing.raw_symbol)
    inside = pl.col("published_at").is_between(span.start, span.end, closed="left")
    yield client.page(rows.with_frame(lambda frame: frame.filter(inside)), response)


def parse_earnings(answer: Any) -> Rows:
    """Quarters by the calendar quarter they ended in, which the notes say: fiscal ones are not told.

    Raises:
        MalformedPayload: when the answer is not as promised.
    """
    try:
        (result,) = answer["quoteSummary"]["result"]
        chart = result.get("earnings") or {}
        quarterly = (chart.get("financialsChart") or {}).get("quarterly") or []
        revenues = {row["date"]: row.get("revenue") for row in quarterly}
        history = result["earningsHistory"]["history"]
        expected = [(chart.get("earningsChart") or {}, (result.get("calendarEvents") or {}).get("earnings") or {})]
    except NOT_AS_PROMISED as error:
        raise MalformedPayload(f"the earnings are not as promised ({error!r}): {shown(answer)}") from None
    reported = read_rows(history, EARNINGS, lambda row: _reported(row, revenues))
    announced = [{"chart": chart, "calendar": calendar} for chart, calendar in expected]
    return joined((reported, read_rows(announced, EARNINGS, _expected)), EARNINGS.empty())


def parse_options(answer: Any, now: datetime) -> tuple[Rows, list[str]]:
    """Contracts of one expiration, and all expirations (seconds since 1970, as texts).

    Raises:
        MalformedPayload: when the answer is not as promised.
    """
    try:
        (result,) = answer["optionChain"]["result"]
        price = result["quote"].get("regularMarketPrice")
        chains = [(kind, chain[name]) for chain in result["options"] for kind, name in KINDS]
        expirations = [str(int(told)) for told in result["expirationDates"]]
    except NOT_AS_PROMISED as error:
        raise MalformedPayload(f"the option chain is not as promised ({error!r}): {shown(answer)}") from None
    parts = [read_rows(rows, OPTIONS, functools.partial(_contract, kind, price, now)) for kind, rows in chains]
    return joined(parts, OPTIONS.empty()), expirations


def parse_news(answer: Any, raw_symbol: str) -> Rows:
    """Articles of a search that name the symbol.

    Raises:
        MalformedPayload: when the answer is not as promised.
    """
    return read_rows(find_quotes(answer, "news"), NEWS, lambda row: _article(row, raw_symbol))


def _article(row: dict[str, Any], raw_symbol: str) -> dict[str, Any] | None:
    if raw_symbol not in (row.get("relatedTickers") or []):
        return None
    return {
        "news_id": row["uuid"],
        "published_at": moment(row["providerPublishTime"], "s"),
        "title": row["title"],
        "url": row.get("link"),
        "publisher": row.get("publisher"),
        "symbols": [canonical(name) for name in row["relatedTickers"]],
        "keywords": [],
    }


def _check_underlying(answer: Any, listing: Listing) -> None:
    """Refuse a chain of another share than was asked for."""
    try:
        (result,) = answer["optionChain"]["result"]
        named = result.get("underlyingSymbol", listing.raw_symbol)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedPayload(f"the option chain is not as promised ({error!r}): {str(answer)[:200]}") from None
    if named != listing.raw_symbol:
        raise MalformedPayload(f"yahoo sent options of {named} where {listing.raw_symbol} was asked for")


def _dividends(chart: Chart) -> list[dict[str, Any]]:
    rows = []
    for payment, note in payments_settled(chart):
        day = payment.moment.astimezone(chart.zone).date()
        ratio = Decimal(1)
        for split in chart.splits:
            if split.moment.astimezone(chart.zone).date() > day:
                ratio *= split.numerator / split.denominator
        rows.append(
            {
                "ex_date": day,
                "amount": _rounded(payment.amount * ratio),
                "currency": payment.currency,
                "dividend_type": payment.kind,
                "notes": "; ".join(filter(None, (note, NOTE_UNADJUSTED if ratio != 1 else None))) or None,
            }
        )
    return rows


def _rounded(amount: Decimal) -> Decimal:
    with localcontext(prec=DIGITS):
        return amount.quantize(SMALLEST)


def _complete_for(chart: Chart, span: TimeRange, now: datetime) -> TimeRange | None:
    """The days whose events a chart holds all of: from its oldest price, whatever was asked for, to yesterday."""
    if chart.rows.is_empty():
        return None
    oldest: datetime = chart.rows["timestamp"].min()  # type: ignore[assignment]  # a column of moments
    start = max(span.start, oldest)
    end = min(span.end, now.replace(hour=0, minute=0, second=0, microsecond=0))
    return TimeRange(start, end) if start < end else None


def _reported(row: dict[str, Any], revenues: dict[str, Any]) -> dict[str, Any] | None:
    if not _raw(row.get("quarter")):
        return None
    ended = moment(_raw(row["quarter"]), "s").date()
    quarter = (ended.month + 2) // 3
    surprise = _raw(row.get("surprisePercent"))
    return {
        "fiscal_year": ended.year,
        "fiscal_quarter": quarter,
        "period_end": ended,
        "eps_estimate": _raw(row.get("epsEstimate")),
        "eps_actual": _raw(row.get("epsActual")),
        "eps_surprise": _raw(row.get("epsDifference")),
        # A fraction at the source.
        "surprise_pct": None if surprise is None else float(surprise) * 100,
        "revenue_actual": revenues.get(f"{quarter}Q{ended.year}"),
        "currency": row.get("currency"),
        "notes": "calendar_quarter",
    }


def _expected(row: dict[str, Any]) -> dict[str, Any] | None:
    chart, calendar = row["chart"], row["calendar"]
    name, year = chart.get("currentQuarterEstimateDate"), chart.get("currentQuarterEstimateYear")
    if not name or not year:
        return None
    days = [moment(told, "s").date() for told in calendar.get("earningsDate") or []]
    return {
        "fiscal_year": int(year),
        "fiscal_quarter": int(name.rstrip("Q")),
        "report_date": days[0] if days else None,
        "eps_estimate": chart.get("currentQuarterEstimate"),
        "revenue_estimate": calendar.get("revenueAverage"),
        "notes": "calendar_quarter; projected",
    }


def _contract(kind: str, price: Any, now: datetime, row: dict[str, Any]) -> dict[str, Any]:
    iv = row.get("impliedVolatility")
    given = iv is not None and float(iv) > LOWEST_VOLATILITY
    return {
        "timestamp": now,
        "contract": row["contractSymbol"],
        "option_type": kind,
        "expiration": moment(row["expiration"], "s").date(),
        "strike": row["strike"],
        "bid": row.get("bid"),
        "ask": None if row.get("ask") == "0" else row.get("ask"),
        "last": row.get("lastPrice"),
        "volume": row.get("volume"),
        "open_interest": row.get("openInterest"),
        "underlying_price": price,
        "iv": iv if given else None,
        "iv_origin": "source" if given else None,
        "iv_reason": "the source gives no greeks" if given else "not given by the source",
    }


def _concerns(span: TimeRange) -> pl.Expr:
    """A quarter that ended or is reported in the span."""
    days = (pl.col(name).cast(pl.Datetime("us")).dt.replace_time_zone("UTC") for name in ("period_end", "report_date"))
    return pl.any_horizontal(day.is_between(span.start, span.end, closed="left").fill_null(value=False) for day in days)


def _inside(day: date, span: TimeRange) -> bool:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) in span


def _raw(value: Any) -> Any:
    # Numbers come bare or with their formatted text beside them.
    return value.get("raw") if isinstance(value, dict) else value
