"""What is believed of splits and payments: who claims it since when, and what it does to older prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from market_data.model.actions import ActionState, Claim, Payment, PaymentClaim, Split, SplitClaim
from market_data.model.dataset import DIVIDENDS
from market_data.model.instrument import Instrument, Series
from market_data.model.timeframe import Timeframe
from market_data.pipeline.read.adjust import closes_of, rates_of
from market_data.pipeline.read.factors import DividendRule, Effect, payment_effects
from market_data.pipeline.write.believe import PRICED_IN, believed_payments, believed_splits, judged_splits
from market_data.storage.facts.actions import beliefs_of
from market_data.storage.facts.reads import newest_versions
from market_data.storage.series.reader import Reader

Day = date
_DATES = ("declaration_date", "record_date", "pay_date")


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An event as it is believed at a moment.

    Attributes:
        kind: split or dividend, which any payment is.
        date: from the open of which on older prices are of another share.
        ratio: new shares for an old one.
        factor: what older prices are multiplied by for it, with all that was paid on its day; None where it does not
            apply, or cannot be known.
        claims: per source what it says, since when, and since when it no longer does.
    """

    kind: str
    date: date
    state: ActionState
    reason: str | None
    split_from: Decimal | None = None
    split_to: Decimal | None = None
    ratio: float | None = None
    amount: Decimal | None = None
    currency: str | None = None
    dividend_type: str | None = None
    declaration_date: Day | None = None
    record_date: Day | None = None
    pay_date: Day | None = None
    factor: float | None = None
    claims: list[dict[str, Any]]


def believed(reader: Reader, instrument: Instrument, as_of: datetime) -> list[Action]:
    """Every event known at a moment, in order of its date, those that do not apply included."""
    splits, payments = believed_splits(reader, instrument, as_of), believed_payments(reader, instrument, as_of)
    told = {(each.date, each.ratio): each.claims for each in judged_splits(reader, instrument, as_of)}
    effects = _effects(reader, instrument, payments, splits, as_of)
    rows = newest_versions(reader.database, DIVIDENDS, instrument, as_of=as_of)
    found = [_of_split(each, told.get((each.date, each.ratio), ())) for each in splits]
    found += [_of_payment(each, effects.get(each.date), rows) for each in payments]
    return sorted(found, key=lambda each: (each.date, each.kind))


def history(reader: Reader, instrument: Instrument) -> list[dict[str, Any]]:
    """Every change of what was believed of splits, oldest first, each with its moment."""
    return beliefs_of(reader.database, instrument)


def _effects(
    reader: Reader, instrument: Instrument, payments: Sequence[Payment], splits: Sequence[Split], as_of: datetime
) -> dict[date, Effect]:
    due = [each for each in payments if each.date <= as_of.date()]
    if not due:
        return {}
    first = datetime.combine(due[0].date, datetime.min.time(), UTC) - timedelta(days=366)
    closes = closes_of(reader, Series(instrument, Timeframe.D1), first, as_of)
    rates = rates_of(reader, instrument, as_of)
    found = payment_effects(due, splits, closes, rates, DividendRule.PREVIOUS_CLOSE, PRICED_IN)
    return {effect.date: effect for effect in found}


def _of_split(split: Split, claims: Sequence[SplitClaim]) -> Action:
    return Action(
        kind="split",
        date=split.date,
        state=split.state,
        reason=split.reason,
        split_from=split.split_from,
        split_to=split.split_to,
        ratio=float(split.ratio),
        factor=float(1 / split.ratio) if split.applies else None,
        claims=[_claim(claim, split_from=claim.split_from, split_to=claim.split_to) for claim in claims],
    )


def _of_payment(payment: Payment, effect: Effect | None, rows: pl.DataFrame) -> Action:
    same = rows.filter((pl.col("ex_date") == payment.date) & (pl.col("amount") == payment.amount))
    dates = {name: next(iter(same[name].drop_nulls()), None) for name in _DATES}
    applies = payment.applies and effect is not None
    factor = float(effect.price) if applies and effect and effect.price is not None else None
    return Action(
        kind="dividend",
        date=payment.date,
        state=payment.state,
        reason=payment.reason or (effect.reason if applies and effect else None),
        amount=payment.amount,
        currency=payment.currency,
        dividend_type=payment.kind,
        factor=factor,
        claims=[_claim(claim, **_paid(claim)) for claim in payment.claims],
        **dates,
    )


def _paid(claim: PaymentClaim) -> dict[str, Any]:
    return {"amount": claim.amount, "currency": claim.currency}


def _claim(claim: Claim, **said: Any) -> dict[str, Any]:
    told = {"source": claim.source, "date": claim.date, **said}
    return told | {"since": claim.since, "withdrawn": claim.withdrawn}
