"""What each split and payment does to older prices and volumes, as exact factors, or why there is none.

For a candle of session date D, over the actions that apply and whose date lies after D:

- splits: a price is divided by the new shares for an old one, a volume multiplied;
- total: a price is also multiplied by one factor per day of payments. `previous_close`, the convention of Yahoo, CRSP
  and LEAN, is 1 - d / c with c the last close before the ex-date, whatever lies between; `ex_date_close`, Quandl's, is
  c / (c + d) with c the close of the ex-date. Both mean a return with the payment reinvested, at that close.

An amount is per share as traded on the ex-date: a close from before a split is converted. An amount in another currency
is converted by the rate of its day. A payment that is not below the price is none that a price could be adjusted for.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from math import prod
from typing import Final

from market_data.model.actions import Payment, Split
from market_data.model.instrument import AssetClass
from market_data.model.session import sessions_apart

LONGEST_HALT: Final = timedelta(days=366)
"""Without any close for so long prices are missing rather than not made."""
RATE_AGE: Final = timedelta(days=4)
"""Currencies are not traded on every day that shares are: a rate this much older stands in."""


class DividendRule(StrEnum):
    """Which close a dividend is measured against."""

    PREVIOUS_CLOSE = "previous_close"
    """1 - d / c, c the last close before the ex-date: ours."""
    EX_DATE_CLOSE = "ex_date_close"
    """c / (c + d), c the close of the ex-date."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What happened at the open of a date does to all that is older.

    Attributes:
        price: what prices are multiplied by; None where that cannot be known.
        shares: what volumes are multiplied by.
        reason: why the factor cannot be known.
    """

    date: date
    price: Fraction | None
    shares: Fraction
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Closes:
    """Raw closes by session date, in order.

    Attributes:
        of_weeks: those of them that only a weekly candle tells: sessions after them may have had closes of their own.
        calendar: of the sessions.
    """

    dates: Sequence[date]
    closes: Sequence[Decimal]
    of_weeks: frozenset[date] = frozenset()
    calendar: str = AssetClass.STOCK.calendar

    def before(self, day: date) -> tuple[date, Decimal] | None:
        """The last close before a day, and its date; None where there may have been a later one."""
        place = bisect_left(self.dates, day) - 1
        if place < 0 or day - self.dates[place] > LONGEST_HALT:
            return None
        found = self.dates[place]
        if found in self.of_weeks and sessions_apart(self.calendar, found, day) > 1:
            return None
        return found, self.closes[place]

    def on(self, day: date) -> Decimal | None:
        """The close of a day."""
        place = bisect_left(self.dates, day)
        found = place < len(self.dates) and self.dates[place] == day
        return self.closes[place] if found else None


@dataclass(frozen=True, slots=True)
class Rates:
    """What one unit of a currency was worth in the currency of the prices, by date in order, per currency."""

    by_currency: Mapping[str, tuple[Sequence[date], Sequence[Decimal]]]

    def of(self, currency: str, day: date) -> Decimal | None:
        """The rate of a day, or the last one shortly before it."""
        dates, rates = self.by_currency.get(currency, ((), ()))
        place = bisect_right(dates, day) - 1
        return rates[place] if place >= 0 and dates[place] >= day - RATE_AGE else None


def split_effects(splits: Iterable[Split]) -> list[Effect]:
    """The effects of the splits that apply."""
    return [Effect(each.date, 1 / each.ratio, each.ratio) for each in splits if each.applies]


def payment_effects(
    payments: Iterable[Payment], splits: Sequence[Split], closes: Closes, rates: Rates, rule: DividendRule, unit: str
) -> list[Effect]:
    """One effect per day on which payments that apply went ex.

    Args:
        payments: what is believed to have been paid.
        splits: what is believed of splits.
        closes: raw closes.
        rates: of currencies in `unit`.
        rule: the close to measure against.
        unit: the currency of the prices.
    """
    days: dict[date, list[Payment]] = {}
    for payment in payments:
        if payment.applies:
            days.setdefault(payment.date, []).append(payment)
    return [_effect(day, days[day], splits, closes, rates, rule, unit) for day in sorted(days)]


def _effect(
    day: date,
    paid: Sequence[Payment],
    splits: Sequence[Split],
    closes: Closes,
    rates: Rates,
    rule: DividendRule,
    unit: str,
) -> Effect:
    amount = Fraction(0)
    for each in paid:
        currency = each.currency or unit
        rate = Decimal(1) if currency == unit else rates.of(currency, day)
        if rate is None:
            return _unknown(day, f"no rate of {currency} for the dividend of {day}")
        amount += Fraction(each.amount) * Fraction(rate)
    if rule is DividendRule.EX_DATE_CLOSE:
        close = closes.on(day)
        if close is None or close <= 0:
            return _unknown(day, f"no close of {day} to measure its dividend against")
        return Effect(day, Fraction(close) / (Fraction(close) + amount), Fraction(1))
    found = closes.before(day)
    if found is None or found[1] <= 0:
        return _unknown(day, f"no close before {day} to measure its dividend against")
    since, close = found
    # In the shares of the ex-date.
    between = (each.ratio for each in splits if each.applies and since < each.date <= day)
    before = Fraction(close) / prod(between, start=Fraction(1))
    if amount >= before:
        return _unknown(day, f"the dividend of {day}, {float(amount):.6g}, is not below the price, {float(before):.6g}")
    return Effect(day, 1 - amount / before, Fraction(1))


def _unknown(day: date, reason: str) -> Effect:
    return Effect(day, None, Fraction(1), reason)


@dataclass(frozen=True, slots=True)
class Cumulated:
    """Per date of effects, in order, the product of it and all later ones: what a candle just before it takes."""

    dates: Sequence[date]
    price: Sequence[float | None]
    shares: Sequence[float]
    reasons: Sequence[str | None]


def cumulated(effects: Iterable[Effect]) -> Cumulated:
    """The products of effects from each date on, each rounded once."""
    dates: list[date] = []
    price: list[float | None] = []
    shares: list[float] = []
    reasons: list[str | None] = []
    all_prices: Fraction | None = Fraction(1)
    all_shares, reason = Fraction(1), None
    for effect in sorted(effects, key=lambda each: each.date, reverse=True):
        all_shares *= effect.shares
        all_prices = None if all_prices is None or effect.price is None else all_prices * effect.price
        reason = reason or effect.reason
        if dates and dates[-1] == effect.date:
            for column in (dates, price, shares, reasons):
                column.pop()
        dates.append(effect.date)
        price.append(None if all_prices is None else float(all_prices))
        shares.append(float(all_shares))
        reasons.append(reason)
    return Cumulated(dates[::-1], price[::-1], shares[::-1], reasons[::-1])
