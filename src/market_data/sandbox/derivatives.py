"""The model of what surrounds a perpetual future: open interest, funding, who is long. None of it is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

import numpy as np

from market_data.sandbox.block import BUY, DAY, HOUR, MINUTE, SELL, Int, aggregated
from market_data.sandbox.coins import CoinHistory
from market_data.sandbox.noise import Float, seed_of, uniform
from market_data.sandbox.wander import wander

# Coins whose funding interval went from eight hours to four on a day, as many real ones did.
FOUR_HOURLY_SINCE = {"SOL": date(2024, 1, 1), "PEPE": date(2023, 5, 5), "WLD": date(2025, 3, 1)}
FUNDING_HOURS, SHORT_FUNDING_HOURS = 8, 4
FUNDING_DECIMALS = 8
INTEREST = 0.0001
# Real funding times come up to 19 ms after the hour.
FUNDING_LATE_MS = 20


@dataclass(frozen=True, slots=True, eq=False)
class Funding:
    """Funding facts: moments in ms, rates in units of 10^-8, mark prices in dollars."""

    time: Int
    rate: Int
    mark: Float


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """State at the end of periods: ``time`` is that end, ms; interest in volume ticks, ratios of longs to shorts."""

    time: Int
    interest: Int
    price: Float
    everyone: Float
    top_accounts: Float
    top_positions: Float
    bought: Int
    sold: Int


class Derivatives:
    """What surrounds one coin's perpetual; times are ms UTC."""

    def __init__(self, history: CoinHistory, seed: int) -> None:
        self.history = history
        self._seed = seed_of(seed, history.coin.symbol, "derivatives")

    def funding(self, start: int, end: int) -> Funding:
        """Funding facts in [start, end)."""
        start = max(start - HOUR, self.history.start)
        hours = np.arange(-(-start // HOUR) * HOUR, end, HOUR, dtype=np.int64)
        hours = hours[hours // HOUR % self._interval(hours) == 0]
        late = (uniform(self._seed, hours, 1) * FUNDING_LATE_MS).astype(np.int64)
        # The exchange's formula: the rate rests at its interest part of 0.01 % unless the premium is large.
        premium = self.premium(hours)
        rate = premium + np.clip(INTEREST - premium, -0.0005, 0.0005)
        time = hours + late
        kept = (time >= start) & (time < end)
        rates = np.rint(rate * 10**FUNDING_DECIMALS).astype(np.int64)
        return Funding(time[kept], rates[kept], self._opens(hours)[kept])

    def funding_hours(self, at: int) -> int:
        """Hours between fundings at a moment."""
        return int(self._interval(np.array([at], np.int64))[0])

    def next_funding(self, now: int) -> int:
        """The next funding's nominal moment."""
        hour = now // HOUR + 1
        while hour % self.funding_hours(hour * HOUR):
            hour += 1
        return hour * HOUR

    def premium(self, time: Int) -> Float:
        """The premium index at moments, a fraction: what funding rates are made of."""
        return INTEREST + 0.0007 * wander(self._seed, time, 2)

    def positions(self, period: int, start: int, end: int) -> Positions:
        """States at the ends of periods of ``period`` ms, those ends in [start, end)."""
        start = max(start, self.history.start + period)
        time = np.arange(-(-start // period) * period, end, period, dtype=np.int64)
        if not len(time):
            none = np.empty(0)
            return Positions(time, time, none, none, none, none, time, time)
        minutes = self.history.finest(MINUTE if period < HOUR else HOUR if period < DAY else DAY,
                                      int(time[0]) - period, int(time[-1]), int(time[-1]))  # fmt: skip
        candles = aggregated(minutes, minutes.time // period * period)
        at = np.searchsorted(candles.time, time - period)
        coin = self.history.coin
        typical = coin.turnover / coin.level * 10.0**coin.volume_decimals
        interest = typical * 0.4 * np.exp(0.1 * wander(self._seed, time, 3))
        return Positions(
            time,
            np.rint(interest).astype(np.int64),
            candles.values[3, at] * self.history.price_tick,
            np.exp(0.2 + 0.3 * wander(self._seed, time, 4)),
            np.exp(0.3 + 0.25 * wander(self._seed, time, 5)),
            np.exp(0.1 + 0.15 * wander(self._seed, time, 6)),
            candles.values[BUY, at],
            candles.values[SELL, at],
        )

    def _interval(self, time: Int) -> Int:
        since = FOUR_HOURLY_SINCE.get(self.history.coin.symbol)
        if since is None:
            return np.full(len(time), FUNDING_HOURS, np.int64)
        changed = int(datetime(since.year, since.month, since.day, tzinfo=UTC).timestamp()) * 1000
        return np.where(time >= changed, SHORT_FUNDING_HOURS, FUNDING_HOURS).astype(np.int64)

    def _opens(self, hours: Int) -> Float:
        """Price at each of the given hours, in dollars."""
        if not len(hours):
            return np.empty(0)
        block = self.history.hours(int(hours[0]), int(hours[-1]) + HOUR)
        prices: Float = block.values[0, np.searchsorted(block.time, hours)] * self.history.price_tick
        return prices
