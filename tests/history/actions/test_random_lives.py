"""Random lives of events, told by two sources, against a small model in rational arithmetic.

Events are announced, moved, cancelled, told late, twice, with a wrong ratio, in two currencies; sources join and leave.
What is believed in the end is what happened, the adjusted series is that of the model, and no later word changes what
was believed at an earlier moment.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from random import Random
from typing import Any

import pytest

from market_data.model.actions import Payment, PaymentClaim, Split, SplitClaim, joined_payments, joined_splits
from market_data.model.jumps import SessionPrice, settled
from market_data.model.session import sessions_apart
from market_data.pipeline.read.factors import Closes, DividendRule, Rates, cumulated, payment_effects, split_effects

SESSIONS = partial(sessions_apart, "XNYS")
CLOSED = ("2024-05-27", "2024-06-19", "2024-07-04")
DAYS = [
    day
    for number in range(140)
    if (day := date(2024, 3, 4) + timedelta(days=number)).weekday() < 5 and str(day) not in (*CLOSED, "2024-03-29")
]
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
RATIOS = [Fraction(2), Fraction(3), Fraction(4), Fraction(10), Fraction(3, 2), Fraction(1, 10), Fraction(1, 4)]


class Life:
    """One history: what happened, the raw closes, and what two sources said when."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        places = list(range(12, len(DAYS) - 12, 9))
        random.shuffle(places)
        self.splits = {DAYS[places.pop()]: random.choice(RATIOS) for _ in range(random.randint(0, 3))}
        self.paid = {DAYS[places.pop()]: Decimal(random.randint(5, 90)) / 100 for _ in range(random.randint(0, 3))}
        self.prices = self._walk()
        self.told: list[SplitClaim] = []
        self.told_paid: list[PaymentClaim] = []
        for day, ratio in self.splits.items():
            self._split_lives(day, ratio)
        for day, amount in self.paid.items():
            self._payment_lives(day, amount)
        for _ in range(random.randint(0, 2)):
            self._never_was(DAYS[places.pop()])

    def _walk(self) -> list[tuple[date, Decimal, Decimal]]:
        found, price = [], Decimal(self.random.randint(400, 900))
        for day in DAYS:
            ratio = self.splits.get(day, Fraction(1))
            opened = round(price * ratio.denominator / ratio.numerator, 4)
            price = round(opened * (1 + Decimal(self.random.randint(-20, 20)) / 1000), 4)
            found.append((day, opened, price))
        return found

    def _moment(self) -> datetime:
        return BEGIN + timedelta(hours=self.random.randint(0, 4000))

    def _near(self, day: date) -> date:
        return DAYS[DAYS.index(day) + self.random.randint(-3, 3)]

    def _split_lives(self, day: date, ratio: Fraction) -> None:
        right = self.random.choice(("polygon", "yahoo"))
        for source in ("polygon", "yahoo"):
            fate = "right" if source == right else self.random.choice(("right", "off", "wrong", "moved", "silent"))
            since = self._moment()
            claim = SplitClaim(
                source=source, date=day, since=since,
                split_from=Decimal(ratio.denominator), split_to=Decimal(ratio.numerator),
            )  # fmt: skip
            if fate == "right":
                self.told += [claim] * self.random.choice((1, 1, 2))
            elif fate == "off":
                self.told.append(replace(claim, date=self._near(day)))
            elif fate == "wrong":
                self.told.append(replace(claim, split_to=claim.split_to * 7))
            elif fate == "moved":
                later = since + timedelta(hours=self.random.randint(1, 500))
                away = DAYS[DAYS.index(day) + self.random.choice((-6, -5, 5, 6))]
                self.told.append(replace(claim, date=away, withdrawn=later))
                self.told.append(replace(claim, since=later))

    def _payment_lives(self, day: date, amount: Decimal) -> None:
        for source in self.random.sample(("polygon", "yahoo"), self.random.randint(1, 2)):
            claim = PaymentClaim(
                source=source, date=day, since=self._moment(), amount=amount, currency="USD", kind="cash"
            )
            self.told_paid += [claim] * self.random.choice((1, 1, 2))
            if self.random.random() < 0.3:
                self.told_paid.append(replace(claim, currency="CAD", amount=amount * 2))
            if self.random.random() < 0.3:
                gone = claim.since + timedelta(hours=5)
                self.told_paid.append(replace(claim, date=self._near(day), withdrawn=gone))

    def _never_was(self, day: date) -> None:
        """Announced and not so: a split that the price does not show, or a payment that was called off."""
        source, since = self.random.choice(("polygon", "yahoo")), self._moment()
        gone = since + timedelta(hours=self.random.randint(1, 900))
        if self.random.random() < 0.5:
            withdrawn = self.random.choice((None, gone))
            self.told.append(
                SplitClaim(
                    source=source, date=day, since=since, withdrawn=withdrawn,
                    split_from=Decimal(1), split_to=Decimal(self.random.choice((2, 5, 20))),
                )
            )  # fmt: skip
        else:
            self.told_paid.append(
                PaymentClaim(
                    source=source, date=day, since=since, withdrawn=gone, amount=Decimal("0.11"), currency="USD",
                    kind="cash",
                )
            )  # fmt: skip


def known(claims: list[Any], moment: datetime | None) -> list[Any]:
    """What of the claims was known by a moment."""
    if moment is None:
        return claims
    return [
        replace(claim, withdrawn=claim.withdrawn if claim.withdrawn and claim.withdrawn <= moment else None)
        for claim in claims
        if claim.since <= moment
    ]


def believed(life: Life, moment: datetime | None = None) -> tuple[list[Split], list[Payment]]:
    prices = [SessionPrice(day, float(opened), float(close)) for day, opened, close in life.prices]
    splits = settled(joined_splits(known(life.told, moment), SESSIONS), prices, SESSIONS)
    return splits, joined_payments(known(life.told_paid, moment), SESSIONS, "USD")


def adjusted(life: Life) -> list[float | None]:
    splits, payments = believed(life)
    closes = Closes([day for day, *_ in life.prices], [close for *_, close in life.prices])
    effects = split_effects(splits)
    effects += payment_effects(payments, splits, closes, Rates({}), DividendRule.PREVIOUS_CLOSE, "USD")
    found = cumulated(effects)
    after = [next((n for n, each in enumerate(found.dates) if each > day), None) for day, *_ in life.prices]
    factors = [1.0 if place is None else found.price[place] for place in after]
    return [None if f is None else float(c) * f for f, (*_, c) in zip(factors, life.prices, strict=True)]


def of_the_truth(life: Life) -> list[Fraction | None]:
    """Older closes by what really happened, step by step from the newest; None before what no price can have paid."""
    found: list[Fraction | None] = []
    factor: Fraction | None = Fraction(1)
    for place in range(len(life.prices) - 1, -1, -1):
        day, _, close = life.prices[place]
        found.append(None if factor is None else Fraction(close) * factor)
        if factor is None or place == 0:
            continue
        before = Fraction(life.prices[place - 1][2])
        factor /= life.splits.get(day, Fraction(1))
        paid = Fraction(life.paid.get(day, Decimal(0)))
        factor = factor * (1 - paid / before) if paid < before else None
    return found[::-1]


def check(seed: int) -> None:
    life = Life(seed)
    splits, _ = believed(life)
    assert {(each.date, each.ratio) for each in splits if each.applies} == set(life.splits.items()), seed
    for ours, theirs in zip(adjusted(life), of_the_truth(life), strict=True):
        if theirs is None:
            assert ours is None, seed
        else:
            assert ours is not None and ours > 0, seed
            assert abs(Fraction(ours) / theirs - 1) < Fraction(1, 10**12), seed
    # What was believed at a moment is what it was before anything later was said.
    moment = life._moment()
    cut = Life(seed)
    cut.told, cut.told_paid = known(life.told, moment), known(life.told_paid, moment)
    assert believed(life, moment) == believed(cut)


@pytest.mark.parametrize("seed", range(60))
def test_what_is_believed_in_the_end_is_what_happened(seed: int) -> None:
    check(seed)


@pytest.mark.prove
def test_thousands_of_lives() -> None:
    for seed in range(60, 4060):
        check(seed)
    print("4000 histories")
