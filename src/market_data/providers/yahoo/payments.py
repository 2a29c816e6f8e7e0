"""What Yahoo's own prices say about its dividends: amounts a hundred times off, doubled ones, ones never paid.

Its adjusted close falls against its close by the dividend over the close before: a second witness to every amount.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta, tzinfo
from decimal import Decimal
from typing import Final

import polars as pl

from market_data.providers.yahoo.parse import Chart, Payment
from market_data.providers.yahoo.repair import local_date

NOTE_AMOUNT_REPAIRED: Final = "amount_100x_repaired"
NOTE_AMOUNT_UNKNOWN: Final = "amount_100x_unknown"
NOTE_REPEATED_UNKNOWN: Final = "repeated_within_a_week_unknown"
NOTE_NOT_ADJUSTED_UNKNOWN: Final = "missing_in_adjusted_close_unknown"

NOTE_GAIN_INCLUDED: Final = "capital_gain_taken_out"

UNIT: Final = Decimal(100)
# How far from its amount what the adjusted close took off may be: its 32-bit floats are worth a ten-thousandth.
TOLERANCE: Final = 0.1
ROUNDING: Final = 2e-4
WEEK: Final = timedelta(days=7)
# Nobody pays out a third of the price without its falling.
LARGE: Final = 0.3


def payments_settled(chart: Chart) -> list[tuple[Payment, str | None]]:
    """Payments by date, each with what is to be noted on it.

    An amount is repaired where the adjusted close took off a hundredth of it, or a hundred times it, and the other
    payments' are of the repaired size; doubts are noted and the amount left as sent.
    """
    given = sorted(chart.payments, key=lambda each: each.moment)
    falls = _falls(chart.adjusted, chart.zone)
    ordered = [_without_gain(payment, given, falls, chart.zone) for payment in given]
    taken_off = _taken_off(chart.adjusted, chart.zone)
    found = [_settled(payment, ordered, taken_off, chart.zone) for payment in ordered]
    return [
        (payment, note if payment.amount == before.amount or note else NOTE_GAIN_INCLUDED)
        for (payment, note), before in zip(found, given, strict=True)
    ]


def _without_gain(
    payment: Payment, given: list[Payment], falls: dict[date, tuple[float, float]], zone: tzinfo
) -> Payment:
    """The dividend less a capital gain of the same day that it already holds, where the price fell by it alone."""
    day = payment.moment.astimezone(zone).date()
    gains = [each.amount for each in given if each.kind != payment.kind and each.moment.astimezone(zone).date() == day]
    fall, usual = falls.get(day, (None, 0.0))
    if payment.kind != "cash" or not gains or fall is None or sum(gains) >= payment.amount:
        return payment
    gain, amount = float(sum(gains)), float(payment.amount)
    plain = gain > 3 * usual and abs(fall - amount) <= max(2 * usual, gain / 4)
    return replace(payment, amount=payment.amount - sum(gains)) if plain else payment


def _falls(adjusted: pl.DataFrame, zone: tzinfo) -> dict[date, tuple[float, float]]:
    """By date how much the close fell below the one before, and how much it usually moves."""
    close = pl.col("close").cast(pl.Float64)
    rows = adjusted.select(local_date("timestamp", zone).alias("date"), fall=close.shift(1) - close).drop_nulls()
    usual = rows["fall"].abs().median()
    return {day: (fall, float(usual or 0.0)) for day, fall in rows.iter_rows()}  # type: ignore[arg-type]


def _settled(
    payment: Payment, everyone: list[Payment], taken_off: dict[date, tuple[float, float]], zone: tzinfo
) -> tuple[Payment, str | None]:
    others = sorted(float(each.amount) for each in everyone if each is not payment and each.amount > 0)
    usual = others[len(others) // 2] if others else None
    amount = float(payment.amount)
    before, by = taken_off.get(payment.moment.astimezone(zone).date(), (None, None))
    if before is not None and by is not None and amount > 0:
        for factor, times in ((1 / UNIT, 0.01), (UNIT, 100.0)):
            if abs(by / (amount * times) - 1) < TOLERANCE and by > ROUNDING * before:
                proved = usual is not None and 1 / 3 < amount * times / usual < 3
                fixed = replace(payment, amount=payment.amount * factor)
                return (fixed, NOTE_AMOUNT_REPAIRED) if proved else (payment, NOTE_AMOUNT_UNKNOWN)
        if amount > LARGE * before and usual is not None and amount > 30 * usual:
            return payment, NOTE_AMOUNT_UNKNOWN
        if amount > 10 * ROUNDING * before and abs(by) < ROUNDING * before:
            return payment, NOTE_NOT_ADJUSTED_UNKNOWN
    again = any(
        each is not payment and each.amount == payment.amount and abs(each.moment - payment.moment) <= WEEK
        for each in everyone
    )
    return payment, NOTE_REPEATED_UNKNOWN if again else None


def _taken_off(adjusted: pl.DataFrame, zone: tzinfo) -> dict[date, tuple[float, float]]:
    """By ex-date: the close before it, and what the adjusted close took off that for the dividend."""
    share = pl.col("adjusted").cast(pl.Float64) / pl.col("close").cast(pl.Float64)
    before = pl.col("close").cast(pl.Float64).shift(1)
    rows = adjusted.select(
        local_date("timestamp", zone).alias("date"), before=before, by=before * (1 - share.shift(1) / share)
    ).drop_nulls()
    return {day: (close, by) for day, close, by in rows.filter(pl.col("by").is_finite()).iter_rows()}
