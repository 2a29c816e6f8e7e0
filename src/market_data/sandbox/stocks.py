"""The history of a stock: recorded days, then modelled ones, each refined to the minutes of its session."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np

from market_data.model.session import sessions
from market_data.sandbox.block import DAY, FIELDS, HOUR, MINUTE, SECOND, Block, Int, aggregated, joined
from market_data.sandbox.chunks import Chunks
from market_data.sandbox.noise import normal, seed_of, uniform
from market_data.sandbox.recordings import recorded_days
from market_data.sandbox.refine import refined
from market_data.sandbox.symbols import Stock
from market_data.sandbox.walk import candles_around, walked, with_flow

CALENDAR = "XNYS"
SESSION_CHUNK = 16
TRADE_SHARES = 120.0
# Share of minutes with a trade outside the session, and what a day's such trading is of the session's volume.
EXTENDED_ACTIVE = 0.35
EXTENDED_VOLUME = 0.02
# Dividends are modelled in these months, the middle one of each quarter.
PAYING_MONTHS = (2, 5, 8, 11)
DIVIDEND_GROWTH = 1.04


@dataclass(frozen=True, slots=True)
class Dividend:
    """Cash per share as declared, not adjusted for later splits; recorded or modelled."""

    day: date
    amount: Decimal
    recorded: bool


@dataclass(frozen=True, slots=True)
class Split:
    """``into`` shares for every ``of``, from the open of ``day``."""

    day: date
    of: int
    into: int
    recorded: bool


def millis(day: date) -> int:
    """UTC midnight of a date, ms."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * SECOND


def date_of(time: int) -> date:
    """The UTC date of a moment, which for a session's open is the session's date."""
    return datetime.fromtimestamp(time // SECOND, UTC).date()


class StockHistory:
    """Candles of one stock in its sessions; times are milliseconds UTC, a day's is its session's open."""

    def __init__(self, stock: Stock, seed: int, chunks: Chunks[Block], until: int) -> None:
        self.stock = stock
        self._chunks = chunks
        levels = ("day", "minute", "second", "past", "off")
        self._seeds = {level: seed_of(seed, stock.symbol, level) for level in levels}
        opens, closes = sessions(CALENDAR, millis(stock.listed) * 1000, until * 1000)
        self.opens, self.closes = opens // 1000, closes // 1000
        self.start = int(self.opens[0])
        recording = recorded_days(stock) if stock.recorded else None
        self.recorded_sessions = len(recording.midnight) if recording else 0
        self.splits = self._splits()
        self._days = self._daily()
        self.dividends = self._dividends()

    def days(self, start: int, end: int) -> Block:
        """Sessions that open in [start, end)."""
        return self._days.between(start, end)

    def minutes(self, start: int, end: int) -> Block:
        """Minutes of regular sessions that open in [start, end)."""
        first, last = np.searchsorted(self.opens, (start - DAY, end))
        chunks = range(int(first) // SESSION_CHUNK, -(-int(last) // SESSION_CHUNK))
        return joined([self._chunk("minute", at).between(start, end) for at in chunks])

    def extended(self, start: int, end: int) -> Block:
        """Minutes with a trade from 04:00 to 20:00 New York, sessions included, that open in [start, end)."""
        first, last = np.searchsorted(self.opens, (start - DAY, end + DAY))
        chunks = range(int(first) // SESSION_CHUNK, -(-int(last) // SESSION_CHUNK))
        return joined([self._chunk("extended", at).between(start, end) for at in chunks])

    def finest(self, unit: int, start: int, end: int, now: int, *, extended: bool = False) -> Block:
        """History in [start, end) as traded by ``now``, to be aggregated: sessions for DAY, else minutes.

        What is not closed by ``now`` comes in finer pieces.
        """
        minutes = self.extended if extended else self.minutes
        end = min(end, now)
        if unit != DAY:
            closed = now // MINUTE * MINUTE
            past = minutes(start, min(end, closed))
            last = minutes(closed, closed + MINUTE) if closed < end else past.where(slice(0, 0))
            return joined([past, refined(last, 60, SECOND, self._seeds["second"]).between(start, end)])
        done = int(np.searchsorted(self.closes, now, side="right"))
        whole = self._days.where(slice(0, done)).between(start, end)
        if done < len(self.opens) and self.opens[done] < end and self.opens[done] >= start:
            opened = int(self.opens[done])
            today = self.finest(MINUTE, opened, end, now)
            return joined([whole, aggregated(today, np.full(len(today), opened))])
        return whole

    def factor(self, time: Int, now: int) -> Int:
        """Product of the ratios of splits that come after each moment and are known by ``now``."""
        product = np.ones(len(time), np.int64)
        for split in self.splits:
            if millis(split.day) <= now:
                product = np.where(time < millis(split.day), product * split.into // split.of, product)
        return product

    def _chunk(self, level: str, at: int) -> Block:
        make = self._make_minutes if level == "minute" else self._make_extended
        return self._chunks.get((self.stock.symbol, level, at), lambda: make(at * SESSION_CHUNK))

    def _make_minutes(self, first: int) -> Block:
        chosen = slice(first, first + SESSION_CHUNK)
        days = self._days.where(chosen)
        lengths = (self.closes[chosen] - self.opens[chosen]) // MINUTE
        pieces = []
        for length in np.unique(lengths).tolist():
            # Trading is busiest after the open and before the close.
            profile = 0.6 + 1.6 * np.abs(np.linspace(-1, 1, length)) ** 3
            pieces.append(refined(days.where(lengths == length), length, MINUTE, self._seeds["minute"], profile))
        whole = joined(pieces)
        order = np.argsort(whole.time, kind="stable")
        return Block(whole.time[order], whole.values[:, order])

    def _make_extended(self, first: int) -> Block:
        last = min(first + SESSION_CHUNK, len(self.opens))
        pieces = []
        regular = self._make_minutes(first)
        for at in range(first, last):
            pieces += [self._outside(at, before=True), regular.between(int(self.opens[at]), int(self.closes[at]))]
            pieces.append(self._outside(at, before=False))
        return joined(pieces)

    def _outside(self, at: int, *, before: bool) -> Block:
        """Minutes with a trade before the open (from 04:00) or after the close (to 20:00) of one session."""
        opened, closed = int(self.opens[at]), int(self.closes[at])
        four = opened - 5 * HOUR - 30 * MINUTE
        start, end = (four, opened) if before else (closed, four + 16 * HOUR)
        day = self._days.values[:, at]
        reference = self._days.values[3, at - 1] if at else day[0]
        first, last = (self._unsplit(at, int(reference)), int(day[0])) if before else (int(day[3]), int(day[3]))
        reach = max(int(last * 0.002), 1)
        prices = [first, max(first, last) + reach, max(min(first, last) - reach, 1), last]
        parent = Block(np.array([start], np.int64), np.array([[*prices, 0, 0, 0, 0, 0]], np.int64).T)
        volume = np.array([int((day[4] + day[5]) * EXTENDED_VOLUME)])
        parent = with_flow(parent, volume, None, TRADE_SHARES, self._seeds["off"])
        block = refined(parent, (end - start) // MINUTE, MINUTE, self._seeds["off"])
        active = uniform(self._seeds["off"], block.time, 21) < EXTENDED_ACTIVE
        return block.where(active & (block.volume > 0))

    def _unsplit(self, at: int, price: int) -> int:
        """Yesterday's price in today's shares."""
        for split in self.splits:
            if split.day == date_of(int(self.opens[at])):
                return price * split.of // split.into
        return price

    def _splits(self) -> tuple[Split, ...]:
        recorded = recorded_days(self.stock).splits if self.stock.recorded else ()
        return tuple(Split(*split, True) for split in recorded) + tuple(Split(*s, False) for s in self.stock.splits)

    def _daily(self) -> Block:
        stock, count = self.stock, self.recorded_sessions
        scale = 10.0**stock.price_decimals
        past, before = [], stock.start
        if count:
            recording = recorded_days(stock)
            values = np.empty((FIELDS, count), np.int64)
            values[:4] = recording.prices
            block = Block(self.opens[:count], values)
            past = [with_flow(block, recording.volume, None, TRADE_SHARES, self._seeds["past"])]
            before = float(recording.prices[3, -1]) / scale
        time = self.opens[count:]
        closes = walked(before, before * 1.25, stock.deviation, time, self._seeds["day"])
        gaps = np.exp(0.3 * stock.deviation * normal(self._seeds["day"], time, 18))
        opens = np.r_[before, closes[:-1]] * gaps
        # The walk is in the shares of the beginning; a split makes prices smaller and volumes larger from its day on.
        ratio = np.ones(len(time))
        for split in stock.splits:
            ratio = np.where(time >= millis(split[0]), ratio * split[2] / split[1], ratio)
        length = (self.closes[count:] - time) / (6.5 * HOUR)
        model = candles_around(
            opens / ratio * scale, closes / ratio * scale, stock.volume * ratio * length, stock.deviation, TRADE_SHARES,
            time, self._seeds["day"],
        )  # fmt: skip
        return joined([*past, model])

    def _dividends(self) -> tuple[Dividend, ...]:
        recorded = recorded_days(self.stock).dividends if self.stock.recorded else ()
        facts = [Dividend(day, Decimal(amount).normalize(), True) for day, amount in recorded]
        if not self.stock.dividend:
            return tuple(facts)
        modelled_from = date_of(int(self.opens[self.recorded_sessions]))
        # The tenth to nineteenth of the month, the same day every time, moved to a session.
        day_of_month = 10 + self._seeds["day"] % 10
        for year in range(modelled_from.year, date_of(int(self.opens[-1])).year + 1):
            for month in PAYING_MONTHS:
                at = int(np.searchsorted(self.opens, millis(date(year, month, day_of_month))))
                if self.recorded_sessions < at < len(self.opens):
                    grown = self.stock.dividend * DIVIDEND_GROWTH ** (year - modelled_from.year)
                    day = date_of(int(self.opens[at]))
                    facts.append(Dividend(day, self._in_shares_of(day, grown), False))
        return tuple(facts)

    def _in_shares_of(self, day: date, amount: float) -> Decimal:
        for split_day, of, into in self.stock.splits:
            if split_day <= day:
                amount = amount * of / into
        return Decimal(str(round(amount, 3)))
