"""Binance's USD-M data besides trades: open interest, funding, ratios, taker volumes, premium index."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from market_data.sandbox.binance import BinanceHouse, window
from market_data.sandbox.block import DAY, HOUR, MINUTE, SECOND, Int
from market_data.sandbox.buckets import BINANCE
from market_data.sandbox.derivatives import SHORT_FUNDING_HOURS, Derivatives, Positions
from market_data.sandbox.limits import Weights
from market_data.sandbox.premium import premium_rows
from market_data.sandbox.refusals import Refused, refuse, whole_number

PERIODS = {
    "5m": 5 * MINUTE,
    "15m": 15 * MINUTE,
    "30m": 30 * MINUTE,
    "1h": HOUR,
    "2h": 2 * HOUR,
    "4h": 4 * HOUR,
    "6h": 6 * HOUR,
    "12h": 12 * HOUR,
    "1d": DAY,
}
REACH = 30 * DAY
MOST_STATES, STATES = 500, 30
MOST_FUNDINGS, FUNDINGS = 1000, 100
# From this moment on rows carry the start of their period, before it the end (PROVIDERS §1.4, §1.8).
START_LABELLED = int(datetime(2026, 6, 25, tzinfo=UTC).timestamp()) * SECOND
FIVE_MINUTES_SECONDS = 300
Row: TypeAlias = dict[str, Any]
Describe: TypeAlias = Callable[[str, Derivatives, Positions, Int], list[Row]]


def labels(period_ends: Int, period: int) -> Int:
    """The time each period is labelled with, given its end."""
    return np.where(period_ends > START_LABELLED, period_ends - period, period_ends)


class DerivativesCounter:
    """The routes over one house, USD-M futures."""

    def __init__(self, house: BinanceHouse, *, limits: bool = True) -> None:
        self._house = house
        self._market = house.market
        self._known: dict[str, Derivatives] = {}
        self._data_limit = Weights(1000, enforced=limits, window_seconds=FIVE_MINUTES_SECONDS)
        self._funding_limit = Weights(500, enforced=limits, window_seconds=FIVE_MINUTES_SECONDS)

    def routes(self) -> list[Route]:
        """Every path answered."""
        states: dict[str, Describe] = {
            "openInterestHist": self._interest_rows,
            "globalLongShortAccountRatio": lambda raw, _, p, at: _ratio_rows(raw, p.everyone, at),
            "topLongShortAccountRatio": lambda raw, _, p, at: _ratio_rows(raw, p.top_accounts, at),
            "topLongShortPositionRatio": lambda raw, _, p, at: _ratio_rows(raw, p.top_positions, at),
            "takerlongshortRatio": self._taker_rows,
        }
        data = [Route(f"/futures/data/{name}", self._states(describe)) for name, describe in states.items()]
        return [
            *data,
            Route("/fapi/v1/openInterest", self._counted(self._interest_now, 1)),
            Route("/fapi/v1/premiumIndex", self._counted(self._premium_index, 1)),
            Route("/fapi/v1/premiumIndexKlines", self._premium_klines),
            Route("/fapi/v1/fundingRate", self._counted(self._funding, 0, self._funding_limit)),
            Route("/fapi/v1/fundingInfo", self._counted(self._funding_info, 0, self._funding_limit)),
        ]

    def of(self, symbol: str) -> Derivatives:
        """The derivatives data of a coin."""
        if symbol not in self._known:
            self._known[symbol] = Derivatives(self._market.coin(symbol), self._market.seed)
        return self._known[symbol]

    def _counted(
        self, answer: Callable[[Request], Any], weight: int, limit: Weights | None = None
    ) -> Callable[[Request], Awaitable[Response]]:
        async def counted(request: Request) -> Response:
            """Count the request, then answer."""
            refused = (limit.spend(1) if limit else None) or self._house.weights.spend(weight)
            if refused:
                return refused
            headers = self._house.weights.headers()
            try:
                return JSONResponse(answer(request), headers=headers)
            except Refused as refusal:
                return JSONResponse(refusal.body, 400, headers=headers)

        return counted

    def _states(self, describe: Describe) -> Callable[[Request], Awaitable[Response]]:
        def answer(request: Request) -> list[Row]:
            history = self._house.history(request)
            period = PERIODS.get(request.query_params.get("period", ""))
            if period is None:
                refuse(-1120, "Invalid interval.")
            limit, now = whole_number(request, "limit", STATES), self._market.now()
            if not 1 <= limit <= MOST_STATES:
                refuse(-1130, "Data sent for parameter 'limit' is not valid.")
            start, end = whole_number(request, "startTime", None), whole_number(request, "endTime", None)
            if start is not None and start < now - REACH:
                refuse(-1130, "parameter 'startTime' is invalid.")
            if start is not None and end is not None and start > end:
                refuse(-1130, "parameter 'endTime' is invalid.")
            last = min(now, end + period if end is not None else now)
            first = start if start is not None else last - (limit + 1) * period
            known = self.of(history.coin.symbol)
            states = known.positions(period, max(first, now - REACH), last + 1)
            label = labels(states.time, period)
            chosen = np.flatnonzero((label >= first) & (label <= (end if end is not None else now)))[-limit:]
            described = describe(request.query_params["symbol"], known, states, label)
            return [described[at] for at in chosen]

        return self._counted(answer, 0, self._data_limit)

    def _interest_rows(self, raw: str, known: Derivatives, states: Positions, label: Int) -> list[Row]:
        price, volume = self._house.venue.decimals(known.history.coin)
        amounts = states.interest * 10.0**-volume
        prices = states.price * 10.0 ** (known.history.coin.price_decimals - price)
        return [
            {"symbol": raw, "sumOpenInterest": f"{amount:.8f}", "sumOpenInterestValue": f"{amount * at_price:.8f}",
             "CMCCirculatingSupply": "0.00000000", "timestamp": int(at)}
            for amount, at_price, at in zip(amounts, prices, label, strict=True)
        ]  # fmt: skip

    def _taker_rows(self, raw: str, known: Derivatives, states: Positions, label: Int) -> list[Row]:
        _, volume = self._house.venue.decimals(known.history.coin)
        scale = 10.0**-volume
        return [
            {"buySellRatio": f"{bought / max(sold, 1):.4f}", "buyVol": f"{bought * scale:.4f}",
             "sellVol": f"{sold * scale:.4f}", "timestamp": int(at)}
            for bought, sold, at in zip(states.bought, states.sold, label, strict=True)
        ]  # fmt: skip

    def _interest_now(self, request: Request) -> Row:
        known = self.of(self._house.history(request).coin.symbol)
        now = self._market.now()
        closed = now // (5 * MINUTE) * 5 * MINUTE
        _, volume = self._house.venue.decimals(known.history.coin)
        amount = known.positions(5 * MINUTE, closed, closed + 1).interest[0] * 10.0**-volume
        return {"openInterest": f"{amount:.{volume}f}", "symbol": request.query_params["symbol"], "time": closed}

    def _premium_index(self, request: Request) -> Row:
        known = self.of(self._house.history(request).coin.symbol)
        now = self._market.now()
        last = known.funding(now - 9 * HOUR, now)
        moved = 10.0 ** (known.history.coin.price_decimals - self._house.venue.decimals(known.history.coin)[0])
        minute = known.history.minutes(now // MINUTE * MINUTE, now // MINUTE * MINUTE + MINUTE)
        mark = minute.values[0, 0] * known.history.price_tick * moved
        index = mark / (1 + known.premium(np.array([now], np.int64))[0])
        return {
            "symbol": request.query_params["symbol"], "markPrice": f"{mark:.8f}", "indexPrice": f"{index:.8f}",
            "estimatedSettlePrice": f"{mark:.8f}", "lastFundingRate": f"{last.rate[-1] * 1e-8:.8f}",
            "interestRate": "0.00010000", "nextFundingTime": known.next_funding(now), "time": now,
        }  # fmt: skip

    async def _premium_klines(self, request: Request) -> Response:
        """Candles of the premium index; they weigh as others do."""
        try:
            limit = whole_number(request, "limit", 500)
            if not 1 <= limit <= self._house.venue.most_candles:
                refuse(-1130, "Data sent for parameter 'limit' is not valid.")
            return await self._counted(lambda asked: self._premium_rows(asked, limit), self._house.kline_weight(limit))(
                request
            )
        except Refused as refusal:
            return JSONResponse(refusal.body, 400, headers=self._house.weights.headers())

    def _premium_rows(self, request: Request, limit: int) -> list[list[object]]:
        known = self.of(self._house.history(request).coin.symbol)
        span = BINANCE.get(request.query_params.get("interval", ""))
        if span is None or span.months:
            refuse(-1120, "Invalid interval.")
        start, end = self._house.moment(request, "startTime"), self._house.moment(request, "endTime")
        now = self._market.now()
        first, after = window(span, known.history.start, start, end, limit, now)
        return premium_rows(known, span, first, after, now)

    def _funding(self, request: Request) -> list[Row]:
        known = self.of(self._house.history(request).coin.symbol)
        limit, now = whole_number(request, "limit", FUNDINGS), self._market.now()
        if not 1 <= limit <= MOST_FUNDINGS:
            refuse(-1130, "Data sent for parameter 'limit' is not valid.")
        start, end = whole_number(request, "startTime", None), whole_number(request, "endTime", None)
        last = min(now, end) if end is not None else now
        facts = known.funding(start if start is not None else last - (limit + 1) * 8 * HOUR, last + 1)
        chosen = slice(0, limit) if start is not None else slice(-limit, None)
        moved = 10.0 ** (known.history.coin.price_decimals - self._house.venue.decimals(known.history.coin)[0])
        raw = request.query_params["symbol"]
        return [
            {"symbol": raw, "fundingTime": int(at), "fundingRate": f"{rate * 1e-8:.8f}",
             "markPrice": f"{mark * moved:.8f}", "rateType": "Regular"}
            for at, rate, mark in zip(facts.time[chosen], facts.rate[chosen], facts.mark[chosen], strict=True)
        ]  # fmt: skip

    def _funding_info(self, request: Request) -> list[Row]:
        now = self._market.now()
        return [
            {"symbol": self._house.venue.raw_symbol(coin), "adjustedFundingRateCap": "0.02000000",
             "adjustedFundingRateFloor": "-0.02000000", "fundingIntervalHours": SHORT_FUNDING_HOURS,
             "disclaimer": False}
            for coin in self._market.coins.values()
            if self.of(coin.symbol).funding_hours(now) == SHORT_FUNDING_HOURS
        ]  # fmt: skip


def _ratio_rows(raw: str, ratio: Any, label: Int) -> list[Row]:
    long = ratio / (1 + ratio)
    return [
        {"symbol": raw, "longAccount": f"{part:.4f}", "longShortRatio": f"{one:.4f}", "shortAccount": f"{1 - part:.4f}",
         "timestamp": int(at)}
        for one, part, at in zip(ratio, long, label, strict=True)
    ]  # fmt: skip
