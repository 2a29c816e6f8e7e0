"""The model of a stock's option chain: listed contracts, a smile, prices and greeks by Black–Scholes. Not recorded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np

from market_data.sandbox.block import DAY, SECOND
from market_data.sandbox.noise import seed_of, uniform
from market_data.sandbox.stocks import StockHistory, date_of, millis

RATE = 0.04
WEEKLY_EXPIRATIONS, MONTHLY_EXPIRATIONS = 6, 12
STRIKES_EACH_SIDE = 14
# A contract expires at 21:00 UTC, about the close.
EXPIRY_HOUR_MS = 21 * 3_600_000
YEAR_MS = 365.25 * DAY


@dataclass(frozen=True, slots=True)
class Contract:
    """One listed option and its state; greeks per year and per 1.00 of volatility; None where nobody quotes it."""

    expiration: date
    strike: float
    call: bool
    bid: float
    ask: float
    last: float
    volatility: float | None
    delta: float | None
    gamma: float | None
    theta: float | None
    vega: float | None
    interest: int
    volume: int
    in_the_money: bool

    def symbol(self, root: str) -> str:
        """The OCC symbol."""
        side = "C" if self.call else "P"
        return f"{root}{self.expiration:%y%m%d}{side}{round(self.strike * 1000):08d}"


class OptionChain:
    """The chain of one stock as of a moment."""

    def __init__(self, history: StockHistory, seed: int) -> None:
        self.history = history
        self._seed = seed_of(seed, history.stock.symbol, "options")

    def spot(self, now: int) -> float:
        """The stock's last price."""
        days = self.history.finest(DAY, now - 10 * DAY, now, now)
        return float(days.values[3, -1]) * 10.0**-self.history.stock.price_decimals

    def expirations(self, now: int) -> list[date]:
        """Fridays of the next weeks and third Fridays of the next months, or the session before when it is closed."""
        today = datetime.fromtimestamp(now // SECOND, UTC).date()
        friday = today + timedelta(days=(4 - today.weekday()) % 7)
        days = {friday + timedelta(weeks=week) for week in range(WEEKLY_EXPIRATIONS)}
        for month in range(MONTHLY_EXPIRATIONS):
            first = date(today.year + (today.month - 1 + month) // 12, (today.month - 1 + month) % 12 + 1, 1)
            days.add(first + timedelta(days=(4 - first.weekday()) % 7 + 14))
        known = self.history.opens
        found = set()
        for day in days:
            at = int(np.searchsorted(known, millis(day) + DAY)) - 1
            listed = date_of(int(known[at])) if millis(day) < known[-1] else day
            if millis(listed) + EXPIRY_HOUR_MS > now:
                found.add(listed)
        return sorted(found)

    def strikes(self, now: int) -> list[float]:
        """Strikes around the spot at a step that suits its size."""
        spot = self.spot(now)
        step = next(step for limit, step in ((25, 0.5), (60, 1.0), (200, 2.5), (1e9, 5.0)) if spot < limit)
        middle = round(spot / step)
        return [step * at for at in range(max(middle - STRIKES_EACH_SIDE, 1), middle + STRIKES_EACH_SIDE + 1)]

    def contracts(self, now: int, expirations: list[date] | None = None) -> list[Contract]:
        """Every contract, by expiration, then calls before puts, then strike."""
        spot, strikes = self.spot(now), self.strikes(now)
        days = self.expirations(now) if expirations is None else expirations
        listed = [(day, strike, call) for day in days for call in (True, False) for strike in strikes]
        keys = np.array([millis(day) + round(strike * 100) * 2 + call for day, strike, call in listed], np.int64)
        draws = np.array([uniform(self._seed, keys, lane) for lane in (1, 2, 3)]).T.tolist()
        return [self._contract(*one, spot, now, draw) for one, draw in zip(listed, draws, strict=True)]

    def _contract(self, day: date, strike: float, call: bool, spot: float, now: int, draw: list[float]) -> Contract:
        years = (millis(day) + EXPIRY_HOUR_MS - now) / YEAR_MS
        away = math.log(strike / spot) / math.sqrt(max(years, 0.02))
        at_the_money = self.history.stock.deviation * math.sqrt(252) * 1.1
        volatility = at_the_money * (1 + 0.35 * away * away - 0.18 * away)
        price, delta, gamma, theta, vega = black_scholes(spot, strike, years, volatility, call=call)
        half = max(0.01, round(price * 0.012, 2))
        # Far out of the money nobody bids, and a real chain has neither volatility nor greeks there.
        quoted = price >= 0.02
        known = quoted and abs(delta) <= 0.98
        interest = int(5000 * draw[0] ** 3 * math.exp(-away * away))
        return Contract(
            expiration=day,
            strike=strike,
            call=call,
            bid=max(round(price - half, 2), 0.0) if quoted else 0.0,
            ask=round(price + half, 2) if quoted else 0.05,
            last=round(max(price * (1 + 0.02 * (draw[2] - 0.5)), 0.01), 2),
            volatility=volatility if quoted else None,
            delta=delta if known else None,
            gamma=gamma if known else None,
            theta=theta if known else None,
            vega=vega if known else None,
            interest=interest,
            volume=int(interest * 0.3 * draw[1]),
            in_the_money=spot > strike if call else spot < strike,
        )


def black_scholes(
    spot: float, strike: float, years: float, volatility: float, *, call: bool
) -> tuple[float, float, float, float, float]:
    """Price, delta, gamma, theta per year and vega per 1.00 of volatility of a European option without dividends."""
    spread = volatility * math.sqrt(years)
    one = (math.log(spot / strike) + (RATE + volatility**2 / 2) * years) / spread
    two = one - spread
    paid = strike * math.exp(-RATE * years)
    density = math.exp(-one * one / 2) / math.sqrt(2 * math.pi)
    side = 1.0 if call else -1.0
    price = side * (spot * _normal(side * one) - paid * _normal(side * two))
    theta = -spot * density * volatility / (2 * math.sqrt(years)) - side * RATE * paid * _normal(side * two)
    return max(price, 0.0), side * _normal(side * one), density / (spot * spread), theta, spot * density * years**0.5


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
