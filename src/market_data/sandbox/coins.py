"""The history of a coin: recorded hours, then modelled days refined to hours and minutes; the same however asked."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from market_data.sandbox.block import DAY, FIELDS, HOUR, MINUTE, SECOND, TRADES, Block, Int, aggregated, joined
from market_data.sandbox.chunks import Chunks
from market_data.sandbox.noise import seed_of
from market_data.sandbox.recordings import recorded_hours
from market_data.sandbox.refine import refined
from market_data.sandbox.symbols import Coin
from market_data.sandbox.walk import candles_around, walked, with_flow

HOUR_CHUNK = 64 * DAY
MINUTE_CHUNK = 8 * DAY
HORIZON_STEP = 512 * DAY
TRADE_DOLLARS = 3000.0
FEWEST_TRADES_A_DAY = 40_000
# Trading is busiest when Europe and America are both awake.
DAY_PROFILE = 1.0 + 0.45 * np.cos((np.arange(24) - 15) * (2 * np.pi / 24))


class CoinHistory:
    """Candles of one coin at any time since it was listed, around the clock; times are milliseconds UTC."""

    def __init__(self, coin: Coin, seed: int, chunks: Chunks[Block]) -> None:
        self.coin = coin
        self._chunks = chunks
        levels = ("day", "hour", "minute", "second", "past")
        self._seeds = {level: seed_of(seed, coin.symbol, level) for level in levels}
        self._recorded = self._recording() if coin.recorded else None
        listed = datetime(coin.listed.year, coin.listed.month, coin.listed.day, tzinfo=UTC)
        self.start = int(self._recorded.time[0]) if self._recorded else int(listed.timestamp()) * 1000
        self.modelled_from = int(self._recorded.time[-1]) + HOUR if self._recorded else self.start
        self._horizon = 0
        self._modelled: Block | None = None

    @property
    def price_tick(self) -> float:
        """Value of one price tick in dollars."""
        return float(10.0**-self.coin.price_decimals)

    def days(self, start: int, end: int) -> Block:
        """Days that open in [start, end); a day of which only a part exists holds that part."""
        model = self._days_of_model(end).between(start - DAY, end)
        past = self._recorded.between(start, end) if self._recorded else model.where(slice(0, 0))
        both = joined([past, model])
        return aggregated(both, both.time // DAY * DAY).between(start, end)

    def hours(self, start: int, end: int) -> Block:
        """Hours that open in [start, end)."""
        return self._in_chunks("hour", HOUR_CHUNK, start, end)

    def minutes(self, start: int, end: int) -> Block:
        """Minutes that open in [start, end)."""
        return self._in_chunks("minute", MINUTE_CHUNK, start, end)

    def seconds(self, minute: int) -> Block:
        """The sixty seconds of the minute that opens at ``minute``."""
        return refined(self.minutes(minute, minute + MINUTE), 60, SECOND, self._seeds["second"])

    def trades_before(self, minute: int) -> int:
        """Trades since the listing before the minute that opens at ``minute``."""
        day, hour = minute // DAY * DAY, minute // HOUR * HOUR
        before = (self.days(0, day), self.hours(day, hour), self.minutes(hour, minute))
        return sum(int(block.values[TRADES].sum()) for block in before)

    def minute_of_trade(self, wanted: int, now: int) -> int:
        """The minute that holds the trade of a number, counted from the listing; the newest when there is none."""
        at, before = self.start // DAY * DAY, 0
        for candles, length in ((self.days, DAY), (self.hours, HOUR), (self.minutes, MINUTE)):
            end = now // DAY * DAY + DAY if length == DAY else at + (DAY if length == HOUR else HOUR)
            block = candles(at, end)
            until = before + np.cumsum(block.values[TRADES])
            place = min(int(np.searchsorted(until, wanted, side="right")), len(block) - 1)
            at = int(block.time[place])
            before = int(until[place]) - int(block.values[TRADES, place])
        return at

    def finest(self, unit: int, start: int, end: int, now: int) -> Block:
        """History in [start, end) as traded by ``now``, to be aggregated.

        Candles of ``unit`` (DAY, HOUR or MINUTE) as far as they are closed, then finer ones down to seconds.
        """
        pieces = []
        at = start
        for level, closed in ((DAY, self.days), (HOUR, self.hours), (MINUTE, self.minutes)):
            edge = min(end, now // level * level)
            if level <= unit and edge > at:
                pieces.append(closed(at, edge))
                at = edge
        if at < min(end, now):
            pieces.append(self.seconds(at).between(at, min(now // SECOND * SECOND, end)))
        return joined(pieces)

    def _in_chunks(self, level: str, length: int, start: int, end: int) -> Block:
        start = max(start, self.start)
        if end <= start:
            return self._chunk(level, length, start // length * length).where(slice(0, 0))
        first = start // length * length
        pieces = [self._chunk(level, length, at) for at in range(first, end, length)]
        return joined([piece.between(start, end) for piece in pieces])

    def _chunk(self, level: str, length: int, at: int) -> Block:
        make = self._make_hours if level == "hour" else self._make_minutes
        return self._chunks.get((self.coin.symbol, level, at), lambda: make(at, at + length))

    def _make_hours(self, start: int, end: int) -> Block:
        model = self._days_of_model(end).between(start, end)
        # The recording ends within a day: what is left of that day is the model's first, shorter parent.
        whole = model.time % DAY == 0
        pieces = [self._recorded.between(start, end)] if self._recorded else []
        for parent in (model.where(~whole), model.where(whole)):
            if len(parent):
                count = int((DAY - parent.time[0] % DAY) // HOUR)
                pieces.append(refined(parent, count, HOUR, self._seeds["hour"], DAY_PROFILE[24 - count :]))
        return joined(pieces)

    def _make_minutes(self, start: int, end: int) -> Block:
        return refined(self.hours(start, end), 60, MINUTE, self._seeds["minute"])

    def _recording(self) -> Block:
        hours = recorded_hours(self.coin)
        values = np.empty((FIELDS, len(hours.time)), np.int64)
        values[:4] = hours.prices
        size = TRADE_DOLLARS / np.maximum(hours.prices[3] * self.price_tick, 1e-12) * 10**self.coin.volume_decimals
        return with_flow(Block(hours.time, values), hours.volume, hours.quote, float(size.mean()), self._seeds["past"])

    def _days_of_model(self, until: int) -> Block:
        until = max(until, self.modelled_from + DAY)
        if self._modelled is None or until > self._horizon:
            self._horizon = until // HORIZON_STEP * HORIZON_STEP + HORIZON_STEP
            self._modelled = self._walk(self._horizon)
        return self._modelled

    def _walk(self, until: int) -> Block:
        coin = self.coin
        first_day = self.modelled_from // DAY * DAY
        midnights: Int = np.arange(first_day, until, DAY, dtype=np.int64)
        time = np.maximum(midnights, self.modelled_from)
        tick = 10.0**coin.price_decimals
        before = self._recorded.values[3, -1] / tick if self._recorded else coin.start
        closes = walked(float(before), coin.level, coin.deviation, midnights, self._seeds["day"])
        opens = np.r_[before, closes[:-1]]
        length = (midnights + DAY - time) / DAY
        per_dollar = 10.0**coin.volume_decimals / closes
        # Small coins trade in smaller pieces: every minute shows a few trades.
        trade_dollars = min(TRADE_DOLLARS, coin.turnover / FEWEST_TRADES_A_DAY)
        # A day opens exactly where the last one closed, so opens are rounded from the same numbers as closes.
        return candles_around(
            opens * tick, closes * tick, coin.turnover * length * per_dollar, coin.deviation,
            trade_dollars * per_dollar, time, self._seeds["day"],
        )  # fmt: skip
