"""Yahoo's endpoints behind cookie and crumb: earnings, calendars, options (PROVIDERS §3.5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from hashlib import blake2b
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from market_data.sandbox.block import DAY, HOUR, SECOND
from market_data.sandbox.facts import CompanyFacts, Earnings
from market_data.sandbox.marketplace import Marketplace
from market_data.sandbox.options import Contract, OptionChain
from market_data.sandbox.stocks import millis
from market_data.sandbox.yahoo import EXCHANGES

Row = dict[str, Any]
Answer = Callable[[Request], Awaitable[Response]]
COOKIE = "A3"
QUARTERS_SHOWN = 4


class YahooPrivate:
    """The routes over a marketplace."""

    def __init__(self, market: Marketplace) -> None:
        self._market = market
        self._stocks = {symbol.replace(".", "-"): symbol for symbol in market.stocks}

    def routes(self) -> list[Route]:
        """Every path answered."""
        return [
            Route("/fc", self.cookie),
            Route("/fc/", self.cookie),
            Route("/v1/test/getcrumb", self.crumb),
            Route("/v10/finance/quoteSummary/{raw}", self._behind_crumb(self.summary)),
            Route("/v7/finance/options/{raw}", self._behind_crumb(self.options)),
        ]

    async def cookie(self, request: Request) -> Response:
        """What the cookie host does: an error page that sets the cookie."""
        answer = PlainTextResponse("", 404)
        value = blake2b(str(self._market.now()).encode(), digest_size=12).hexdigest()
        answer.set_cookie(COOKIE, f"d={value}", max_age=31_536_000, httponly=True)
        return answer

    async def crumb(self, request: Request) -> Response:
        """The crumb of the caller's cookie, as plain text."""
        cookie = request.cookies.get(COOKIE)
        if not cookie:
            return PlainTextResponse("Too Many Requests", 429)
        return PlainTextResponse(crumb_of(cookie))

    def _behind_crumb(self, answer: Answer) -> Answer:
        async def checked(request: Request) -> Response:
            """Check the crumb against the cookie, then answer."""
            cookie = request.cookies.get(COOKIE, "")
            if not cookie or request.query_params.get("crumb") != crumb_of(cookie):
                error = {"code": "Unauthorized", "description": "Invalid Crumb"}
                return JSONResponse({"finance": {"result": None, "error": error}}, 401)
            return await answer(request)

        return checked

    async def summary(self, request: Request) -> Response:
        """The modules asked for."""
        raw = request.path_params["raw"]
        wanted = request.query_params.get("modules", "").split(",")
        known: dict[str, Callable[[str], Row | None]] = {
            "earningsHistory": self._earnings_history,
            "calendarEvents": self._calendar,
            "price": self._price,
        }
        found = {}
        if raw in self._stocks:
            modules = {name: known[name](self._stocks[raw]) for name in wanted if name in known}
            found = {name: module for name, module in modules.items() if module is not None}
        if not found:
            text = f"No fundamentals data found for any of the summaryTypes={','.join(wanted)}"
            if raw not in self._stocks:
                text = f"Quote not found for symbol: {raw}"
            error = {"code": "Not Found", "description": text}
            return JSONResponse({"quoteSummary": {"result": None, "error": error}}, 404)
        return JSONResponse({"quoteSummary": {"result": [found], "error": None}})

    async def options(self, request: Request) -> Response:
        """The chain of one expiration, the first when none is named."""
        raw, now = request.path_params["raw"], self._market.now()
        symbol = self._stocks.get(raw)
        if symbol is None:
            return JSONResponse({"optionChain": {"result": [], "error": None}})
        chain = OptionChain(self._market.stock(symbol), self._market.seed)
        listed = chain.expirations(now)
        asked = request.query_params.get("date")
        day = datetime.fromtimestamp(int(asked), UTC).date() if asked else listed[0]
        contracts = chain.contracts(now, [day]) if day in listed else []
        result = {
            "underlyingSymbol": raw, "expirationDates": [millis(one) // SECOND for one in listed],
            "strikes": chain.strikes(now), "hasMiniOptions": False, "quote": self._quote(raw, symbol, chain.spot(now)),
            "options": [{
                "expirationDate": millis(day) // SECOND, "hasMiniOptions": False,
                "calls": [self._contract(raw, one) for one in contracts if one.call],
                "puts": [self._contract(raw, one) for one in contracts if not one.call],
            }],
        }  # fmt: skip
        return JSONResponse({"optionChain": {"result": [result], "error": None}})

    def _facts(self, symbol: str) -> list[Earnings]:
        return CompanyFacts(self._market.stock(symbol), self._market.seed).earnings(self._market.now())

    def _earnings_history(self, symbol: str) -> Row | None:
        reported = [one for one in self._facts(symbol) if one.actual is not None][-QUARTERS_SHOWN:]
        if not reported:
            return None
        return {"history": [_quarter(one, len(reported) - at) for at, one in enumerate(reported)], "maxAge": 86_400}

    def _calendar(self, symbol: str) -> Row | None:
        quarters = self._facts(symbol)
        if not quarters:
            return None
        history, now = self._market.stock(symbol), self._market.now()
        coming = quarters[-1]
        at = millis(coming.day) + (21 * HOUR if coming.after_close else 12 * HOUR)
        row: Row = {
            "maxAge": 1,
            "earnings": {
                "earningsDate": [at // SECOND], "earningsCallDate": [], "isEarningsDateEstimate": True,
                "earningsAverage": coming.estimate, "earningsLow": round(coming.estimate * 0.94, 4),
                "earningsHigh": round(coming.estimate * 1.06, 4), "revenueAverage": int(coming.revenue_estimate),
                "revenueLow": int(coming.revenue_estimate * 0.96), "revenueHigh": int(coming.revenue_estimate * 1.04),
            },
        }  # fmt: skip
        paid = [fact for fact in history.dividends if millis(fact.day) <= now + 24 * DAY]
        if paid:
            row |= {"exDividendDate": millis(paid[-1].day) // SECOND, "dividendDate": millis(paid[-1].day) // SECOND}
        return row

    def _price(self, symbol: str) -> Row:
        spot = OptionChain(self._market.stock(symbol), self._market.seed).spot(self._market.now())
        return self._quote(symbol.replace(".", "-"), symbol, spot) | {"maxAge": 1}

    def _quote(self, raw: str, symbol: str, spot: float) -> Row:
        stock = self._market.stocks[symbol]
        return {
            "language": "en-US", "region": "US", "quoteType": "ETF" if stock.etf else "EQUITY", "symbol": raw,
            "currency": "USD", "regularMarketPrice": round(spot, 4), "regularMarketTime": self._market.now() // SECOND,
            "longName": stock.name, "shortName": stock.name, "exchange": EXCHANGES[stock.exchange][0],
            "exchangeTimezoneName": "America/New_York", "market": "us_market",
        }  # fmt: skip

    def _contract(self, raw: str, one: Contract) -> Row:
        row: Row = {
            "contractSymbol": one.symbol(raw.replace("-", "")), "strike": one.strike, "currency": "USD",
            "lastPrice": one.last, "change": 0, "percentChange": 0, "openInterest": one.interest, "bid": one.bid,
            "ask": one.ask, "contractSize": "REGULAR", "expiration": millis(one.expiration) // SECOND,
            "lastTradeDate": self._market.now() // SECOND - 600,
            # Yahoo shows this in place of a volatility it could not find.
            "impliedVolatility": 1e-05 if one.volatility is None else one.volatility, "inTheMoney": one.in_the_money,
        }  # fmt: skip
        return row | ({"volume": one.volume} if one.volume else {})


def crumb_of(cookie: str) -> str:
    """The crumb that belongs to a cookie."""
    return blake2b(cookie.encode(), digest_size=6).hexdigest()[:11]


def _both(raw: float, text: str) -> Row:
    return {"raw": raw, "fmt": text}


def _quarter(one: Earnings, back: int) -> Row:
    actual = one.actual or 0.0
    surprise = (actual - one.estimate) / one.estimate
    end: date = one.quarter_end
    return {
        "maxAge": 1, "epsActual": _both(actual, f"{actual:.2f}"),
        "epsEstimate": _both(one.estimate, f"{one.estimate:.2f}"),
        "epsDifference": _both(round(actual - one.estimate, 2), f"{actual - one.estimate:.2f}"),
        "surprisePercent": _both(round(surprise, 4), f"{surprise:.2%}"),
        "quarter": _both(millis(end) // SECOND, end.isoformat()), "currency": "USD", "period": f"-{back}q",
    }  # fmt: skip
