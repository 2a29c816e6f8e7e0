"""The model of what companies report and what is written about them: earnings and news. None of it is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b

import numpy as np

from market_data.sandbox.block import DAY, HOUR, SECOND
from market_data.sandbox.noise import normal, seed_of, uniform
from market_data.sandbox.stocks import StockHistory, millis

# A price of about twenty times a year's earnings.
EARNINGS_YIELD_QUARTER = 1 / 80
SALES_PER_EARNINGS = 6.0
SHARES = 4e9
REPORT_DELAY_DAYS = 28
FRIDAY = 4
# On how many of a hundred sessions an article appears.
NEWS_SHARE = 0.4
# Articles carry an opinion of theirs since then.
INSIGHTS_SINCE = date(2024, 6, 1)


@dataclass(frozen=True, slots=True)
class Earnings:
    """One fiscal quarter: reported on ``day`` after the close (else before the open); actuals None while to come."""

    quarter_end: date
    day: date
    after_close: bool
    estimate: float
    actual: float | None
    revenue_estimate: float
    revenue: float | None

    @property
    def fiscal_quarter(self) -> int:
        """1 to 4, calendar quarters."""
        return (self.quarter_end.month + 2) // 3


@dataclass(frozen=True, slots=True)
class Article:
    """One piece of news about a stock."""

    id: str
    published: datetime
    title: str
    sentiment: str | None


class CompanyFacts:
    """Earnings and news of one stock."""

    def __init__(self, history: StockHistory, seed: int) -> None:
        self.history = history
        self._seed = seed_of(seed, history.stock.symbol, "facts")

    def earnings(self, now: int) -> list[Earnings]:
        """Quarters reported by ``now`` and the next one, oldest first; none for a fund."""
        if self.history.stock.etf:
            return []
        found = []
        end = _quarter_end(datetime.fromtimestamp(self.history.start // SECOND, UTC).date())
        while True:
            report = self._report(end, now)
            found.append(report)
            if report.actual is None:
                return found
            end = _quarter_end(end + timedelta(days=1))

    def _report(self, quarter_end: date, now: int) -> Earnings:
        key = np.array([millis(quarter_end)], np.int64)
        day = quarter_end + timedelta(days=REPORT_DELAY_DAYS + int(uniform(self._seed, key, 1)[0] * 14))
        day += timedelta(days=max(7 - day.weekday(), 0) if day.weekday() > FRIDAY else 0)
        # The price a quarter earlier scales it, so that nobody can read the future off an estimate.
        price = self._close(min(millis(quarter_end), now) - 90 * DAY)
        estimate = price * EARNINGS_YIELD_QUARTER
        surprise = 0.04 * float(normal(self._seed, key, 2)[0])
        after_close = bool(uniform(self._seed, key, 3)[0] < 0.7)
        known = millis(day) + (21 if after_close else 12) * HOUR <= now
        revenue = estimate * SALES_PER_EARNINGS * SHARES
        return Earnings(
            quarter_end, day, after_close, round(estimate, 4),
            round(estimate * (1 + surprise), 2) if known else None,
            round(revenue, -6), round(revenue * (1 + surprise / 3), -6) if known else None,
        )  # fmt: skip

    def news(self, start: int, end: int) -> list[Article]:
        """Articles published in [start, end) ms, oldest first."""
        opens = self.history.opens
        first, last = np.searchsorted(opens, (start - 2 * DAY, end + DAY))
        at = np.arange(max(int(first), 1), int(last))
        moment = opens[at] + (uniform(self._seed, opens[at], 5) * 6 * HOUR).astype(np.int64)
        chosen = (uniform(self._seed, opens[at], 4) < NEWS_SHARE) & (moment >= start) & (moment < end)
        at, moment = at[chosen], moment[chosen]
        # Published within the session, so only what was known the evening before is told.
        days = self.history.days(0, end).values
        moves = (days[3, at - 1] / days[0, at - 1] - 1) * 100
        return [self._article(when, move) for when, move in zip(moment.tolist(), moves.tolist(), strict=True)]

    def _article(self, moment: int, move: float) -> Article:
        stock = self.history.stock
        title = f"{stock.name} {'rose' if move > 0 else 'fell'} {abs(move):.1f}% in the last session"
        published = datetime.fromtimestamp(moment // SECOND, UTC)
        opinion = "positive" if move > 0.7 else "negative" if move < -0.7 else "neutral"
        name = blake2b(f"{stock.symbol}/{moment}".encode(), digest_size=16).hexdigest()
        return Article(name, published, title, opinion if published.date() >= INSIGHTS_SINCE else None)

    def _close(self, before: int) -> float:
        days = self.history.days(before - 10 * DAY, before)
        if not len(days):
            days = self.history.days(0, self.history.start + 1)
        return float(days.values[3, -1]) * 10.0**-self.history.stock.price_decimals


def _quarter_end(day: date) -> date:
    """The last day of a date's calendar quarter."""
    month = (day.month + 2) // 3 * 3
    following = date(day.year + month // 12, month % 12 + 1, 1)
    return following - timedelta(days=1)
