"""Corporate actions: what each source claims of splits and payments, joined into the events that are believed.

A source's claim is its word on one event. Claims of any sources are of one event when their ratio or amount is the same
and their dates lie at most three sessions apart. Several answers to the same question are rivals: one of them counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Final, TypeVar

APART: Final = 3
"""Dates of one event differ by so many sessions at most."""

Sessions = Callable[[date, date], int]
"""How many sessions lie between two dates, by the calendar of the instrument."""


class ActionState(StrEnum):
    """What is thought of an event."""

    CONFIRMED = "confirmed"
    UNCONFIRMED = "unconfirmed"
    CONTRADICTED = "contradicted"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one source says of one event: on which date, since when, and when it took that back."""

    source: str
    date: date
    since: datetime
    withdrawn: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitClaim(Claim):
    """`split_to` shares for every `split_from` held."""

    split_from: Decimal
    split_to: Decimal

    @property
    def ratio(self) -> Fraction:
        """New shares for an old one, exactly."""
        return Fraction(self.split_to) / Fraction(self.split_from)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentClaim(Claim):
    """Money paid on a share that was held before the date."""

    amount: Decimal
    currency: str | None
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A split as it is believed: from the open of `date` on, a share is `ratio` shares."""

    date: date
    split_from: Decimal
    split_to: Decimal
    state: ActionState
    reason: str | None = None
    claims: tuple[SplitClaim, ...] = ()

    @property
    def ratio(self) -> Fraction:
        """New shares for an old one, exactly: older prices are divided by it, older volumes multiplied."""
        return Fraction(self.split_to) / Fraction(self.split_from)

    @property
    def applies(self) -> bool:
        """Whether prices are adjusted for it."""
        return self.state in (ActionState.CONFIRMED, ActionState.UNCONFIRMED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A dividend or another distribution as it is believed."""

    date: date
    amount: Decimal
    currency: str | None
    kind: str
    state: ActionState
    reason: str | None = None
    claims: tuple[PaymentClaim, ...] = ()

    @property
    def applies(self) -> bool:
        """Whether prices are adjusted for it."""
        return self.state in (ActionState.CONFIRMED, ActionState.UNCONFIRMED)


AnyClaim = TypeVar("AnyClaim", SplitClaim, PaymentClaim)


def joined_splits(claims: Sequence[SplitClaim], sessions: Sessions) -> list[Split]:
    """The events that split claims tell of, in order of time, not held against any price yet."""
    groups = _grouped(claims, sessions, lambda a, b: a.ratio == b.ratio)
    return sorted((_split_of(group) for group in groups), key=lambda split: (split.date, split.ratio))


def joined_payments(claims: Sequence[PaymentClaim], sessions: Sessions, priced_in: str) -> list[Payment]:
    """The payments that claims tell of, in order of time; of rivals one applies.

    Args:
        claims: of all sources, those taken back included.
        sessions: counts sessions.
        priced_in: the currency of the prices: a payment told in it and in another on one day counts in this one.
    """
    groups = _grouped(claims, sessions, lambda a, b: a.amount == b.amount and _same_currency(a, b))
    events = _without_sums([_payment_of(group) for group in groups], sessions)
    return sorted(
        _rivals_told(events, sessions, priced_in), key=lambda each: (each.date, each.currency or "", each.amount)
    )


def _grouped(
    claims: Sequence[AnyClaim], sessions: Sessions, same: Callable[[AnyClaim, AnyClaim], bool]
) -> list[list[AnyClaim]]:
    """Claims of one event each; those that stand first, so that one taken back never makes a date."""
    groups: list[list[AnyClaim]] = []
    for claim in sorted(claims, key=lambda each: (each.withdrawn is not None, each.date, each.source, each.since)):
        near = [
            group
            for group in groups
            if same(group[0], claim) and abs(sessions(group[0].date, claim.date)) <= APART
        ]  # fmt: skip
        if near:
            min(near, key=lambda group: abs(sessions(group[0].date, claim.date))).append(claim)
        else:
            groups.append([claim])
    return groups


def _date_of(claims: Iterable[Claim]) -> date:
    """The date most sources name; of several the one named first."""
    standing = [claim for claim in claims if claim.withdrawn is None] or list(claims)
    named = {day: {claim.source for claim in standing if claim.date == day} for day in {c.date for c in standing}}
    first = {day: min(claim.since for claim in standing if claim.date == day) for day in named}
    return min(named, key=lambda day: (-len(named[day]), first[day], day))


def _split_of(group: list[SplitClaim]) -> Split:
    gone = all(claim.withdrawn is not None for claim in group)
    state = ActionState.WITHDRAWN if gone else ActionState.UNCONFIRMED
    first = group[0]
    return Split(
        date=_date_of(group), split_from=first.split_from, split_to=first.split_to, state=state, claims=tuple(group)
    )


def _payment_of(group: list[PaymentClaim]) -> Payment:
    standing = [claim for claim in group if claim.withdrawn is None]
    state = ActionState.UNCONFIRMED if standing else ActionState.WITHDRAWN
    if len({claim.source for claim in standing}) > 1:
        state = ActionState.CONFIRMED
    first = group[0]
    currency = next((claim.currency for claim in group if claim.currency), None)
    return Payment(
        date=_date_of(group), amount=first.amount, currency=currency, kind=first.kind, state=state, claims=tuple(group)
    )


def _same_currency(one: PaymentClaim, other: PaymentClaim) -> bool:
    return one.currency == other.currency or one.currency is None or other.currency is None


def _sources(event: Payment) -> frozenset[str]:
    return frozenset(claim.source for claim in event.claims if claim.withdrawn is None)


def _without_sums(events: list[Payment], sessions: Sessions) -> list[Payment]:
    """Where one source tells the sum of what another tells in parts, the parts stand, and both claim them."""
    kept = list(events)
    for whole in events:
        if not _sources(whole):
            continue
        parts = [
            part
            for part in kept
            if part is not whole
            and _sources(part)
            and not _sources(part) & _sources(whole)
            and part.currency == whole.currency
            and abs(sessions(part.date, whole.date)) <= APART
        ]
        for source in sorted({name for part in parts for name in _sources(part)}):
            of_source = [part for part in parts if source in _sources(part)]
            if len(of_source) > 1 and sum(part.amount for part in of_source) == whole.amount:
                kept = [part for part in kept if part is not whole]
                kept = [_also_claimed(part, whole) if part in of_source else part for part in kept]
                break
    return kept


def _also_claimed(part: Payment, whole: Payment) -> Payment:
    reason = f"part of {whole.amount.normalize():f} told by {', '.join(sorted(_sources(whole)))}"
    return replace(part, state=ActionState.CONFIRMED, reason=reason, claims=part.claims + whole.claims)


def _rivals_told(events: list[Payment], sessions: Sessions, priced_in: str) -> list[Payment]:
    """Events of which another one stands instead are contradicted, and say so."""
    standing = [event for event in events if event.applies]
    return [_beaten(event, standing, sessions, priced_in) if event.applies else event for event in events]


def _beaten(event: Payment, standing: list[Payment], sessions: Sessions, priced_in: str) -> Payment:
    for other in standing:
        if other is event or abs(sessions(event.date, other.date)) > APART:
            continue
        if (event.currency or priced_in) != (other.currency or priced_in):
            # Two currencies on one day are two ways to tell one payment: they are never added.
            if event.date == other.date and _before_in_currency(other, event, priced_in):
                return _contradicted(event, f"told in {other.currency or priced_in} for the same day")
        elif _rival(event, other) and _rank(other) < _rank(event):
            told = f"{other.amount.normalize():f} {other.currency or priced_in}"
            return _contradicted(event, f"{', '.join(sorted(_sources(other)))} tells {told}")
    return event


def _before_in_currency(one: Payment, other: Payment, priced_in: str) -> bool:
    ours = [(event.currency or priced_in) != priced_in for event in (one, other)]
    return (ours[0], one.currency or "") < (ours[1], other.currency or "")


def _rival(one: Payment, other: Payment) -> bool:
    """Whether two sources answer the same question differently: each has one of the two, none has both."""
    if _sources(one) & _sources(other) or one.amount == other.amount:
        return False
    close = 0.8 < one.amount / other.amount < 1.25 if other.amount else False
    return (one.date == other.date and one.kind == other.kind) or close


def _rank(event: Payment) -> tuple[int, list[str], date]:
    names = sorted(_sources(event))
    return -len(names), names, event.date


def _contradicted(event: Payment, reason: str) -> Payment:
    return replace(event, state=ActionState.CONTRADICTED, reason=reason)
