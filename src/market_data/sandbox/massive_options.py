"""Massive's option contracts and chain snapshots (PROVIDERS §2.7)."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from market_data.sandbox.block import MINUTE
from market_data.sandbox.marketplace import Marketplace
from market_data.sandbox.massive_gate import guarded, paged, request_id, within, within_number
from market_data.sandbox.options import Contract, OptionChain

Row = dict[str, Any]
NANOSECONDS = 1_000_000


class MassiveOptions:
    """The routes over a marketplace."""

    def __init__(self, market: Marketplace) -> None:
        self._market = market

    def routes(self) -> list[Route]:
        """Every path answered."""
        return [
            Route("/v3/reference/options/contracts", guarded(self.contracts)),
            Route("/v3/snapshot/options/{underlying}", guarded(self.chain, paid=True)),
        ]

    async def contracts(self, request: Request) -> Response:
        """Listed contracts of the underlyings asked for."""
        rows = []
        for symbol in self._market.stocks:
            if within(request, "underlying_ticker", symbol):
                rows += [self._listed(symbol, one) for one in self._chain(symbol) if _passes(request, one)]
        return paged(request, rows, 10, 1000)

    async def chain(self, request: Request) -> Response:
        """The state of every contract of one underlying."""
        symbol = request.path_params["underlying"]
        if symbol not in self._market.stocks:
            return JSONResponse({"status": "OK", "request_id": request_id(request), "results": []})
        spot = self._options(symbol).spot(self._market.now())
        rows = [self._state(symbol, one, spot) for one in self._chain(symbol) if _passes(request, one)]
        return paged(request, rows, 10, 250)

    def _options(self, symbol: str) -> OptionChain:
        return OptionChain(self._market.stock(symbol), self._market.seed)

    def _chain(self, symbol: str) -> list[Contract]:
        return self._options(symbol).contracts(self._market.now())

    def _details(self, symbol: str, one: Contract) -> Row:
        return {
            "contract_type": "call" if one.call else "put", "exercise_style": "american",
            "expiration_date": one.expiration.isoformat(), "shares_per_contract": 100, "strike_price": one.strike,
            "ticker": f"O:{one.symbol(symbol.replace('.', ''))}",
        }  # fmt: skip

    def _listed(self, symbol: str, one: Contract) -> Row:
        cfi = "OCASPS" if one.call else "OPASPS"
        return self._details(symbol, one) | {"cfi": cfi, "primary_exchange": "BATO", "underlying_ticker": symbol}

    def _state(self, symbol: str, one: Contract, spot: float) -> Row:
        now = self._market.now() // MINUTE * MINUTE * NANOSECONDS
        middle = round((one.bid + one.ask) / 2, 4)
        even = one.strike + one.last if one.call else one.strike - one.last
        day = {} if not one.volume else {
            "change": 0.0, "change_percent": 0.0, "close": one.last, "high": round(one.last * 1.05, 2),
            "last_updated": now, "low": round(one.last * 0.95, 2), "open": one.last, "previous_close": one.last,
            "volume": one.volume, "vwap": one.last,
        }  # fmt: skip
        greeks = {} if one.delta is None else {
            # Massive states theta per day and vega per point.
            "delta": one.delta, "gamma": one.gamma, "theta": (one.theta or 0.0) / 365, "vega": (one.vega or 0.0) / 100,
        }  # fmt: skip
        row: Row = {
            "break_even_price": round(even, 4), "day": day, "details": self._details(symbol, one), "greeks": greeks,
            "last_quote": {"ask": one.ask, "ask_size": 10, "bid": one.bid, "bid_size": 10 if one.bid else 0,
                           "last_updated": now, "midpoint": middle, "timeframe": "REAL-TIME"},
            "open_interest": one.interest,
            "underlying_asset": {"change_to_break_even": round(even - spot, 4), "last_updated": now,
                                 "price": round(spot, 4), "ticker": symbol, "timeframe": "REAL-TIME"},
        }  # fmt: skip
        if one.volatility is not None:
            row["implied_volatility"] = one.volatility
        return row


def _passes(request: Request, one: Contract) -> bool:
    return (
        within(request, "contract_type", "call" if one.call else "put")
        and within(request, "expiration_date", one.expiration.isoformat())
        and within_number(request, "strike_price", one.strike)
    )
