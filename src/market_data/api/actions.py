"""The route of corporate actions: what is believed of splits and dividends, and who claims it since when."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field

from market_data.api.arguments import AsOf, AssetClassQuery, Symbol
from market_data.api.documents import Class, Document, Exact, SymbolName, Time
from market_data.api.problems import described
from market_data.api.served import Backing
from market_data.pipeline.read.actions import believed

router = APIRouter(prefix="/market", tags=["market"])
Day = Annotated[date, Field(examples=["2020-08-31"])]


class ClaimDocument(Document):
    """What one source says of the event."""

    source: Annotated[str, Field(examples=["polygon"])]
    date: Day
    split_from: Exact | None = None
    split_to: Exact | None = None
    amount: Exact | None = None
    currency: str | None = None
    since: Time
    """When it said so first."""
    withdrawn: Time | None
    """Since when it no longer does."""


class ActionDocument(Document):
    """A split or a payment as it is believed."""

    kind: Literal["split", "dividend"]
    date: Day
    """From its open on older prices are of another share."""
    state: Literal["confirmed", "unconfirmed", "contradicted", "withdrawn"]
    """Confirmed and unconfirmed ones adjust prices."""
    reason: str | None
    split_from: Exact | None
    split_to: Exact | None
    ratio: Annotated[float | None, Field(examples=[4.0])]
    """New shares for an old one."""
    amount: Exact | None
    currency: Annotated[str | None, Field(examples=["USD"])]
    dividend_type: Annotated[str | None, Field(examples=["cash"])]
    declaration_date: Day | None
    record_date: Day | None
    pay_date: Day | None
    factor: Annotated[float | None, Field(examples=[0.25])]
    """What older prices are multiplied by for it and all that was paid on its day."""
    claims: list[ClaimDocument]


class ActionsPage(Document):
    """Every event that is known of an instrument."""

    symbol: SymbolName
    asset_class: Class
    as_of: Time | None
    actions: list[ActionDocument]


@router.get("/actions/{symbol}", responses=described(404))
def actions(served: Backing, symbol: Symbol, asset_class: AssetClassQuery = None, as_of: AsOf = None) -> ActionsPage:
    """Splits and dividends of all sources joined, each with its state, who claims it since when, and its factor."""
    instrument = served.known_instrument(symbol, asset_class)
    found: list[dict[str, Any]] = [asdict(each) for each in believed(served.reader, instrument, as_of or served.now())]
    return ActionsPage.model_validate(
        {"symbol": instrument.symbol, "asset_class": instrument.asset_class, "as_of": as_of, "actions": found}
    )
