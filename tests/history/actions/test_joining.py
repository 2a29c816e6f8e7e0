"""Claims of several sources joined into events, and splits held against the raw price: answers by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial

import pytest

from market_data.model.actions import ActionState, PaymentClaim, SplitClaim, joined_payments, joined_splits
from market_data.model.jumps import SessionPrice, settled
from market_data.model.session import sessions_apart

SESSIONS = partial(sessions_apart, "XNYS")
KNOWN = datetime(2024, 1, 1, tzinfo=UTC)
# June 2024 in New York: the 19th is a holiday, the 15th and 16th a weekend.
CLOSED = ("2024-05-27", "2024-06-19")
DAYS = [
    day
    for number in range(75)
    if (day := date(2024, 4, 15) + timedelta(days=number)).weekday() < 5 and str(day) not in CLOSED
]


def split(day: str, to: str, of: str = "1", source: str = "polygon", gone: bool = False) -> SplitClaim:
    return SplitClaim(
        source=source,
        date=date.fromisoformat(day),
        since=KNOWN,
        withdrawn=KNOWN + timedelta(days=1) if gone else None,
        split_from=Decimal(of),
        split_to=Decimal(to),
    )


def paid(
    day: str, amount: str, currency: str | None = "USD", source: str = "polygon", kind: str = "cash", gone: bool = False
) -> PaymentClaim:
    return PaymentClaim(
        source=source,
        date=date.fromisoformat(day),
        since=KNOWN,
        withdrawn=KNOWN + timedelta(days=1) if gone else None,
        amount=Decimal(amount),
        currency=currency,
        kind=kind,
    )


def prices(*changes: tuple[str, float], start: float = 100.0, days: list[date] = DAYS) -> list[SessionPrice]:
    """Flat prices that are divided by a ratio at the open of some days."""
    at = {date.fromisoformat(day): ratio for day, ratio in changes}
    found, price = [], start
    for day in days:
        price /= at.get(day, 1.0)
        found.append(SessionPrice(day, price, price))
    return found


def judged(claims: list[SplitClaim], known: list[SessionPrice]) -> list[tuple[str, Fraction, str]]:
    found = settled(joined_splits(claims, SESSIONS), known, SESSIONS)
    return [(str(each.date), each.ratio, each.state.value) for each in found]


def test_sessions_are_counted_by_the_calendar() -> None:
    assert SESSIONS(date(2024, 6, 18), date(2024, 6, 20)) == 1
    assert SESSIONS(date(2024, 6, 17), date(2024, 6, 14)) == -1
    assert sessions_apart("24/7", date(2024, 6, 14), date(2024, 6, 17)) == 3
    assert SESSIONS(date(1962, 1, 2), date(1962, 1, 5)) == 3


def test_a_split_that_the_price_shows_is_confirmed_on_the_day_of_the_jump() -> None:
    known = prices(("2024-06-11", 4))
    assert judged([split("2024-06-11", "4")], known) == [("2024-06-11", Fraction(4), "confirmed")]
    # Told for a day too early, and a day too late.
    for told in ("2024-06-10", "2024-06-12", "2024-06-14"):
        assert judged([split(told, "4")], known) == [("2024-06-11", Fraction(4), "confirmed")]
    # Five sessions are another event.
    assert judged([split("2024-06-04", "4")], known) == [("2024-06-04", Fraction(4), "contradicted")]


def test_a_split_whose_prices_are_not_known_applies_unconfirmed() -> None:
    before = [price for price in prices() if price.date < date(2024, 6, 11)]
    assert judged([split("2024-06-11", "4")], before) == [("2024-06-11", Fraction(4), "unconfirmed")]
    assert judged([split("2024-06-11", "4")], []) == [("2024-06-11", Fraction(4), "unconfirmed")]


def test_a_ratio_within_the_noise_of_returns_is_never_contradicted() -> None:
    assert judged([split("2024-06-11", "1.05")], prices()) == [("2024-06-11", Fraction(21, 20), "unconfirmed")]
    wild = [
        SessionPrice(price.date, price.open, (price.close or 0) * (1.12 if number % 2 else 0.9))
        for number, price in enumerate(prices())
    ]
    assert judged([split("2024-06-11", "1.5")], wild) == [("2024-06-11", Fraction(3, 2), "unconfirmed")]


@pytest.mark.parametrize("ratio", ["2", "3", "1.5", "10", "0.1"])
def test_a_ratio_that_the_price_does_not_show_is_contradicted(ratio: str) -> None:
    assert judged([split("2024-06-11", ratio)], prices())[0][2] == "contradicted"
    wrong = str(Decimal(ratio) * 4)
    known = prices(("2024-06-11", float(ratio)))
    assert judged([split("2024-06-11", wrong)], known)[0][2] == "contradicted"


def test_of_two_ratios_for_one_day_the_jump_decides() -> None:
    claims = [split("2024-06-11", "10"), split("2024-06-11", "4", source="yahoo")]
    assert judged(claims, prices(("2024-06-11", 4))) == [
        ("2024-06-11", Fraction(4), "confirmed"),
        ("2024-06-11", Fraction(10), "contradicted"),
    ]
    # Where no price tells, one of them applies, never both.
    assert [state for _, _, state in judged(claims, [])].count("unconfirmed") == 1


def test_two_sources_tell_one_split_a_day_apart_and_a_third_event_on_its_own() -> None:
    claims = [
        split("2024-06-10", "4"),
        split("2024-06-11", "4", source="yahoo"),
        split("2020-08-31", "4", source="yahoo"),
    ]
    assert judged(claims, prices(("2024-06-11", 4))) == [
        ("2020-08-31", Fraction(4), "unconfirmed"),
        ("2024-06-11", Fraction(4), "confirmed"),
    ]


def test_a_halt_lies_between_the_prices() -> None:
    open_days = [day for day in DAYS if not date(2024, 6, 5) <= day <= date(2024, 6, 14)]
    known = prices(("2024-06-17", 0.1), days=open_days)
    assert judged([split("2024-06-10", "1", of="10")], known) == [("2024-06-10", Fraction(1, 10), "confirmed")]


def test_what_was_taken_back_does_not_apply_and_is_told() -> None:
    claims = [split("2024-06-11", "4", gone=True)]
    assert judged(claims, prices()) == [("2024-06-11", Fraction(4), "withdrawn")]
    # Another source still says it.
    claims.append(split("2024-06-12", "4", source="yahoo"))
    (one,) = settled(joined_splits(claims, SESSIONS), prices(("2024-06-12", 4)), SESSIONS)
    assert (one.date, one.state, len(one.claims)) == (date(2024, 6, 12), ActionState.CONFIRMED, 2)


def events(*claims: PaymentClaim) -> list[tuple[str, str, str | None, str]]:
    found = joined_payments(claims, SESSIONS, "USD")
    return [(str(each.date), str(each.amount), each.currency, each.state.value) for each in found]


def test_payments_of_two_sources() -> None:
    assert events(paid("2024-06-10", "0.25"), paid("2024-06-11", "0.25", source="yahoo")) == [
        ("2024-06-10", "0.25", "USD", "confirmed")
    ]
    # One tells a special dividend that the other lacks.
    assert events(
        paid("2024-06-10", "0.25"), paid("2024-06-10", "5", kind="special"), paid("2024-06-10", "0.25", source="yahoo")
    ) == [("2024-06-10", "0.25", "USD", "confirmed"), ("2024-06-10", "5", "USD", "unconfirmed")]
    # Parts by one, their sum by the other: once.
    assert events(
        paid("2024-06-10", "0.10"), paid("2024-06-10", "0.05"), paid("2024-06-10", "0.15", source="yahoo")
    ) == [("2024-06-10", "0.05", "USD", "confirmed"), ("2024-06-10", "0.10", "USD", "confirmed")]
    # Two answers to one question: never added.
    told = events(paid("2024-06-10", "0.25"), paid("2024-06-10", "0.52", source="yahoo"))
    assert [state for *_, state in told] == ["unconfirmed", "contradicted"]


def test_two_currencies_of_one_day_are_one_payment() -> None:
    assert events(paid("2024-06-10", "0.81", "CAD"), paid("2024-06-10", "0.575", "USD")) == [
        ("2024-06-10", "0.81", "CAD", "contradicted"),
        ("2024-06-10", "0.575", "USD", "unconfirmed"),
    ]
    assert events(paid("2024-06-10", "830", "KRW")) == [("2024-06-10", "830", "KRW", "unconfirmed")]
    assert events(paid("2024-06-10", "0.25", gone=True)) == [("2024-06-10", "0.25", "USD", "withdrawn")]
