"""Massive's corporate actions, earnings and news (PROVIDERS §2.5–2.6)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from market_data.sandbox.block import DAY, SECOND
from market_data.sandbox.facts import CompanyFacts, Earnings
from market_data.sandbox.marketplace import Marketplace
from market_data.sandbox.massive_gate import BadRequest, guarded, paged, within
from market_data.sandbox.stocks import Dividend, Split, StockHistory, millis

Row = dict[str, Any]
# A dividend is declared, recorded and paid this many days from its ex-date.
DECLARED, RECORDED, PAID = -24, 0, 18
NEWS_DAYS = 400
PUBLISHER = {
    "name": "Sandbox Wire",
    "homepage_url": "https://example.com/",
    "logo_url": "https://example.com/logo.svg",
    "favicon_url": "https://example.com/favicon.ico",
}


class MassiveReference:
    """The routes over a marketplace."""

    def __init__(self, market: Marketplace) -> None:
        self._market = market

    def routes(self) -> list[Route]:
        """Every path answered."""
        return [
            Route("/stocks/v1/dividends", guarded(self.dividends)),
            Route("/stocks/v1/splits", guarded(self.splits)),
            Route("/v3/reference/dividends", guarded(self.old_dividends)),
            Route("/v3/reference/splits", guarded(self.old_splits)),
            Route("/benzinga/v1/earnings", guarded(self.earnings, paid=True)),
            Route("/v2/reference/news", guarded(self.news)),
        ]

    async def dividends(self, request: Request) -> Response:
        """The endpoint of 2026."""
        rows = [
            self._dividend(history, fact)
            for history, fact in self._actions(request, "dividends")
            if within(request, "ex_dividend_date", fact.day.isoformat())
        ]
        return paged(request, _sorted(request, rows, "ex_dividend_date"), 100, 5000)

    async def splits(self, request: Request) -> Response:
        """The endpoint of 2026."""
        rows = [
            {"id": _id(history, fact), "ticker": history.stock.symbol, "execution_date": fact.day.isoformat(),
             "split_from": fact.of, "split_to": fact.into,
             "adjustment_type": "forward_split" if fact.into > fact.of else "reverse_split",
             "historical_adjustment_factor": fact.of / fact.into}
            for history, fact in self._actions(request, "splits")
            if within(request, "execution_date", fact.day.isoformat())
        ]  # fmt: skip
        return paged(request, _sorted(request, rows, "execution_date"), 100, 5000)

    async def old_dividends(self, request: Request) -> Response:
        """The deprecated endpoint, still served."""
        rows = [
            {"cash_amount": float(fact.amount), "currency": "USD", "dividend_type": "CD", "frequency": 4,
             "ticker": history.stock.symbol, "id": _id(history, fact), **_dates(fact.day)}
            for history, fact in self._actions(request, "dividends")
            if within(request, "ex_dividend_date", fact.day.isoformat())
        ]  # fmt: skip
        return paged(request, _ordered(request, rows, "ex_dividend_date"), 10, 1000)

    async def old_splits(self, request: Request) -> Response:
        """The deprecated endpoint, still served."""
        rows = [
            {"execution_date": fact.day.isoformat(), "id": _id(history, fact), "split_from": fact.of,
             "split_to": fact.into, "ticker": history.stock.symbol}
            for history, fact in self._actions(request, "splits")
            if within(request, "execution_date", fact.day.isoformat())
        ]  # fmt: skip
        return paged(request, _ordered(request, rows, "execution_date"), 10, 1000)

    async def earnings(self, request: Request) -> Response:
        """Reports of the partner's add-on, the newest change first."""
        now = self._market.now()
        rows = []
        for symbol in self._symbols(request):
            quarters = CompanyFacts(self._market.stock(symbol), self._market.seed).earnings(now)
            previous = [None, *quarters[:-1]]
            rows += [_report(symbol, one, before) for one, before in zip(quarters, previous, strict=True)]
        rows = [row for row in rows if within(request, "date", row["date"])]
        return paged(request, _sorted(request, rows, "last_updated", descending=True), 100, 50_000)

    async def news(self, request: Request) -> Response:
        """Articles, newest first unless asked otherwise."""
        now = self._market.now()
        rows = []
        for symbol in self._symbols(request):
            facts = CompanyFacts(self._market.stock(symbol), self._market.seed)
            start = _news_start(request, now)
            rows += [_article(symbol, article) for article in facts.news(start, now)]
        rows = [row for row in rows if within(request, "published_utc", row["published_utc"])]
        return paged(request, _ordered(request, rows, "published_utc"), 10, 1000)

    def _symbols(self, request: Request) -> list[str]:
        return [symbol for symbol in self._market.stocks if within(request, "ticker", symbol)]

    def _actions(self, request: Request, kind: str) -> list[tuple[StockHistory, Any]]:
        """Announced facts: declared by now, so a dividend shows before its ex-date."""
        ahead = -DECLARED * DAY if kind == "dividends" else 0
        now = self._market.now()
        return [
            (history, fact)
            for history in map(self._market.stock, self._symbols(request))
            for fact in getattr(history, kind)
            if millis(fact.day) <= now + ahead
        ]

    def _dividend(self, history: StockHistory, fact: Dividend) -> Row:
        later = 1.0
        for split in history.splits:
            if fact.day < split.day and millis(split.day) <= self._market.now():
                later *= split.of / split.into
        return {
            "id": _id(history, fact), "ticker": history.stock.symbol, "cash_amount": float(fact.amount),
            "split_adjusted_cash_amount": round(float(fact.amount) * later, 6), "currency": "USD", "frequency": 4,
            "distribution_type": "recurring", "historical_adjustment_factor": later, **_dates(fact.day),
        }  # fmt: skip


def _dates(ex_date: date) -> Row:
    return {
        "declaration_date": (ex_date + timedelta(days=DECLARED)).isoformat(),
        "ex_dividend_date": ex_date.isoformat(),
        "record_date": (ex_date + timedelta(days=RECORDED)).isoformat(),
        "pay_date": (ex_date + timedelta(days=PAID)).isoformat(),
    }


def _id(history: StockHistory, fact: Dividend | Split) -> str:
    name = f"{history.stock.symbol}/{type(fact).__name__}/{fact.day}"
    return "E" + blake2b(name.encode(), digest_size=16).hexdigest()


def _report(symbol: str, one: Earnings, before: Earnings | None) -> Row:
    """A quarter as the partner sends it; what is not known yet is absent."""
    confirmed = one.actual is not None
    row: Row = {
        "ticker": symbol, "date": one.day.isoformat(), "time": "16:30:00" if one.after_close else "07:00:00",
        "date_status": "confirmed" if confirmed else "projected", "fiscal_period": f"Q{one.fiscal_quarter}",
        "fiscal_year": one.quarter_end.year, "estimated_eps": round(one.estimate, 2), "eps_method": "gaap",
        "estimated_revenue": one.revenue_estimate, "revenue_method": "gaap", "importance": 3, "currency": "USD",
        "last_updated": f"{(one.day if confirmed else one.quarter_end - timedelta(days=45)).isoformat()}T23:00:00Z",
        "benzinga_id": blake2b(f"{symbol}/{one.quarter_end}".encode(), digest_size=12).hexdigest(),
    }  # fmt: skip
    if before is not None and before.actual is not None:
        row |= {"previous_eps": before.actual, "previous_revenue": before.revenue}
    if one.actual is not None and one.revenue is not None:
        surprise, more = one.actual - row["estimated_eps"], one.revenue - one.revenue_estimate
        row |= {
            "actual_eps": one.actual, "eps_surprise": round(surprise, 4),
            "eps_surprise_percent": round(surprise / row["estimated_eps"], 4), "actual_revenue": one.revenue,
            "revenue_surprise": more, "revenue_surprise_percent": round(more / one.revenue_estimate, 6),
        }  # fmt: skip
    return row


def _article(symbol: str, article: Any) -> Row:
    address = f"https://example.com/news/{article.id}"
    row: Row = {
        "id": article.id, "publisher": PUBLISHER, "title": article.title, "author": PUBLISHER["name"],
        "published_utc": article.published.strftime("%Y-%m-%dT%H:%M:%SZ"), "article_url": address,
        "tickers": [symbol], "keywords": ["price"], "description": f"{article.title}. Made by the sandbox.",
    }  # fmt: skip
    if article.sentiment:
        reason = "The direction of the price in the last session."
        row["insights"] = [{"ticker": symbol, "sentiment": article.sentiment, "sentiment_reasoning": reason}]
    return row


def _news_start(request: Request, now: int) -> int:
    """How far back to look: to the filter's bound, else a little over a year."""
    query = request.query_params
    bound = query.get("published_utc.gte") or query.get("published_utc.gt") or query.get("published_utc")
    if bound is None:
        return now - NEWS_DAYS * DAY
    try:
        return int(datetime.fromisoformat(bound[:10]).replace(tzinfo=UTC).timestamp()) * SECOND
    except ValueError:
        raise BadRequest(f"Could not parse the parameter 'published_utc': {bound}") from None


def _sorted(request: Request, rows: list[Row], default: str, *, descending: bool = False) -> list[Row]:
    """By ``sort=field.asc,field.desc``, the new endpoints' way."""
    order = request.query_params.get("sort", f"{default}.{'desc' if descending else 'asc'}")
    for part in reversed(order.split(",")):
        name, _, way = part.partition(".")
        if rows and name not in rows[0]:
            raise BadRequest(f"Cannot sort by '{name}'")
        rows = sorted(rows, key=lambda row, name=name: row[name], reverse=way == "desc")  # type: ignore[misc]
    return rows


def _ordered(request: Request, rows: list[Row], default: str) -> list[Row]:
    """By ``sort=field&order=asc``, the old endpoints' way; newest first by default."""
    name = request.query_params.get("sort", default)
    if rows and name not in rows[0]:
        raise BadRequest(f"Cannot sort by '{name}'")
    return sorted(rows, key=lambda row: str(row[name]), reverse=request.query_params.get("order", "desc") != "asc")
