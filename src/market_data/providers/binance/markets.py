"""The two markets of Binance we read, and which contracts each lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import structlog

from market_data.model.contract import Contract, Listing, Preference, means
from market_data.model.dataset import INSTRUMENTS
from market_data.model.errors import MalformedPayload, UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument, Kind, Status
from market_data.model.rows import Rows
from market_data.model.text import shown
from market_data.transport.columns import exact, moment
from market_data.transport.payload import load_json
from market_data.transport.rows import NOT_AS_PROMISED, read_rows

log = structlog.get_logger()

VENUE: Final = "BINANCE"
PREFERENCE: Final = Preference()
# What ends is called by another type from then on, and stays the perpetual it was.
ENDING: Final = "PERPETUAL_DELIVERING"
PERPETUAL: Final = ("PERPETUAL", "TRADIFI_PERPETUAL", ENDING)
# Spot: https://github.com/binance/binance-spot-api-docs/blob/master/enums.md; futures: the common definitions of USD-M.
STATUSES: Final = {
    "TRADING": Status.TRADING,
    "AUCTION_MATCH": Status.TRADING,
    "PENDING_TRADING": Status.NOT_YET_LISTED,
    "PRE_TRADING": Status.NOT_YET_LISTED,
    "PRE_DELIVERING": Status.DELIVERING,
    "DELIVERING": Status.DELIVERING,
    ENDING: Status.DELIVERING,
    "PRE_SETTLE": Status.DELIVERING,
    "SETTLING": Status.SETTLED,
    "DELIVERED": Status.SETTLED,
    "CLOSE": Status.DELISTED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """One of Binance's markets: its paths, its limits and the name rows from it carry as source."""

    source: str
    venue: str
    name: str
    path: str
    weight: float
    """Its limit of weight per minute and address in 2026, until its own list says otherwise."""
    page_limits: tuple[int, ...]
    """Rows per klines request, the largest first; the last has the best rows per weight."""
    archive: str
    """Its folder in the archive."""


USD_M = Market(
    source="binance",
    venue="BINANCE_USDM",
    name="usdm",
    path="/fapi/v1",
    weight=2400,
    page_limits=(1500, 499),
    archive="futures/um",
)
SPOT_MARKET = Market(
    source="binance:spot",
    venue="BINANCE_SPOT",
    name="spot",
    path="/api/v3",
    weight=6000,
    page_limits=(1000,),
    archive="spot",
)


def parse_contracts(body: bytes, market: Market) -> list[Contract]:
    """The contracts of an exchangeInfo answer; one that cannot be read costs itself, and is logged.

    Raises:
        MalformedPayload: when it is none, or none of its contracts can be read.
    """
    try:
        sent = list(load_json(body)["symbols"])
    except NOT_AS_PROMISED as error:
        raise MalformedPayload(f"exchangeInfo is not as promised: {error!r}") from None
    found: list[Contract] = []
    odd: list[tuple[str, Any]] = []
    for row in sent:
        try:
            found.append(_contract(row, market))
        except NOT_AS_PROMISED as error:
            odd.append((repr(error), row))
    if odd and not found:
        raise MalformedPayload(f"exchangeInfo is not as promised: {odd[0][0]}")
    for fault, row in odd:
        log.warning("contract_unreadable", source=market.source, fault=fault, row=shown(row))
    return found


def parse_weight_limit(body: bytes) -> float | None:
    """The limit of weight per minute that an exchangeInfo answer states; None when it states none."""
    try:
        for row in load_json(body)["rateLimits"]:
            if (row["rateLimitType"], row["interval"], row["intervalNum"]) == ("REQUEST_WEIGHT", "MINUTE", "1"):
                return float(exact(row["limit"]))
    except NOT_AS_PROMISED as error:
        raise MalformedPayload(f"exchangeInfo is not as promised: {error!r}") from None
    return None


def find(instrument: Instrument, contracts: Sequence[Contract], market: Market) -> Listing:
    """The listing of a symbol: an exact notation or a name of the market's own, else the preferred one of that coin.

    Whether it trades at the moment does not matter. A contract on a multiple (1000PEPE) has that multiple as its base
    asset, so it is never taken for the coin itself: PEPE is found on the spot market, and 1000PEPE is an instrument of
    its own.

    Raises:
        UnknownInstrument: when the market lists none.
    """
    named = [each for each in contracts if means(instrument.symbol, each)]
    precise = [each for each in named if each.symbol == instrument.symbol]
    own = [each for each in named if each.raw_symbol == instrument.symbol]
    found = next(iter(precise), None) or PREFERENCE.best(named) or next(iter(own), None)
    if instrument.asset_class is not AssetClass.CRYPTO or found is None:
        raise UnknownInstrument(f"{market.source} does not list {instrument}")
    return listing_of(found, instrument, market)


def listing_of(found: Contract, instrument: Instrument, market: Market) -> Listing:
    """A contract as the listing of an instrument."""
    return Listing(
        instrument, "binance", found.raw_symbol, market.venue, found.listed_from, found.listed_to, contract=found
    )


def listed_rows(contracts: Sequence[Contract], market: Market) -> Rows:
    """The market's instrument list in the INSTRUMENTS schema: the contract that each bare coin means."""
    coins: dict[str, list[Contract]] = {}
    for contract in contracts:
        coins.setdefault(contract.base, []).append(contract)
    best = [contract for contract in map(PREFERENCE.best, coins.values()) if contract is not None]
    rows = [
        {
            "raw_symbol": contract.raw_symbol,
            "symbol": contract.base,
            "asset_class": AssetClass.CRYPTO.value,
            "venue": market.venue,
            "currency": contract.quote,
            "status": contract.status.value,
            "valid_from": contract.listed_from,
            "valid_to": contract.listed_to,
        }
        for contract in best
    ]
    return read_rows(rows, INSTRUMENTS, dict)


def _contract(row: dict[str, Any], market: Market) -> Contract:
    sort, said = row.get("contractType"), row["status"]
    kind = _kind(sort)
    status = Status.DELIVERING if sort == ENDING else STATUSES.get(said, Status.HALTED)
    # A live perpetual carries a delivery date in the year 2100, a dated future its own.
    delivery = _moment(row.get("deliveryDate"))
    dated = delivery if kind is Kind.FUTURE else None
    return Contract(
        venue=VENUE,
        market=market.name,
        raw_symbol=row["symbol"],
        kind=kind,
        base=row["baseAsset"],
        quote=row["quoteAsset"],
        settlement=None if kind is Kind.SPOT else row.get("marginAsset", row["quoteAsset"]),
        multiplier=Decimal(str(row.get("contractSize", 1))),
        expires_on=dated.date() if dated else None,
        status=status,
        status_text=sort if sort == ENDING else said,
        listed_from=_moment(row.get("onboardDate")),
        listed_to=delivery if status.ended else None,
    )


def _kind(contract_type: str | None) -> Kind:
    if contract_type is None:
        return Kind.SPOT
    # An empty type is that of a contract that is only prepared.
    return Kind.PERPETUAL if contract_type in (*PERPETUAL, "") else Kind.FUTURE


def _moment(millis: str | None) -> datetime | None:
    return moment(millis, "ms") if millis else None
