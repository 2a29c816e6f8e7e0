"""The two markets of Binance we read, and which instruments each lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from market_data.model.dataset import INSTRUMENTS
from market_data.model.errors import MalformedPayload, UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument, Listing
from market_data.model.rows import Rows
from market_data.transport.columns import exact, moment
from market_data.transport.payload import load_json
from market_data.transport.rows import NOT_AS_PROMISED, read_rows

# What a canonical crypto symbol is quoted in, best first.
QUOTE_ASSETS: Final = ("USDT", "USDC", "FDUSD", "USD")
PERPETUAL: Final = ("PERPETUAL", "TRADIFI_PERPETUAL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """One of Binance's markets: its paths, its limits and the name rows from it carry as source."""

    source: str
    venue: str
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
    path="/fapi/v1",
    weight=2400,
    page_limits=(1500, 499),
    archive="futures/um",
)
SPOT_MARKET = Market(
    source="binance:spot", venue="BINANCE_SPOT", path="/api/v3", weight=6000, page_limits=(1000,), archive="spot"
)


@dataclass(frozen=True, slots=True)
class Contract:
    """One row of an instrument list."""

    raw_symbol: str
    base: str
    quote: str
    trading: bool
    listed: datetime | None
    delisted: datetime | None


def parse_contracts(body: bytes) -> list[Contract]:
    """The plain spot pairs or linear perpetuals of an exchangeInfo answer.

    Raises:
        MalformedPayload: when it is not one.
    """
    try:
        return [_contract(row) for row in _rows(load_json(body))]
    except NOT_AS_PROMISED as error:
        raise MalformedPayload(f"exchangeInfo is not as promised: {error!r}") from None


def parse_weight_limit(body: bytes) -> float | None:
    """The limit of weight per minute that an exchangeInfo answer states; None when it states none."""
    try:
        for row in load_json(body)["rateLimits"]:
            if (row["rateLimitType"], row["interval"], row["intervalNum"]) == ("REQUEST_WEIGHT", "MINUTE", "1"):
                return float(exact(row["limit"]))
    except NOT_AS_PROMISED as error:
        raise MalformedPayload(f"exchangeInfo is not as promised: {error!r}") from None
    return None


def find(instrument: Instrument, contracts: list[Contract], market: Market) -> Listing:
    """The listing of a canonical symbol: the contract whose base asset it is, in the best quote asset.

    A contract on a multiple (1000PEPE) has that multiple as its base asset, so it is never taken for the coin itself:
    PEPE is found on the spot market, and 1000PEPE is an instrument of its own.

    Raises:
        UnknownInstrument: when the market lists none.
    """
    found = [
        contract for contract in contracts if contract.base == instrument.symbol and contract.quote in QUOTE_ASSETS
    ] or [contract for contract in contracts if contract.raw_symbol == instrument.symbol]
    if instrument.asset_class is not AssetClass.CRYPTO or not found:
        raise UnknownInstrument(f"{market.source} does not list {instrument}")
    best = min(found, key=lambda each: (not each.trading, _preference(each.quote), each.raw_symbol))
    return Listing(instrument, "binance", best.raw_symbol, market.venue, best.listed, best.delisted)


def listed_rows(body: bytes, market: Market) -> Rows:
    """The market's instrument list in the INSTRUMENTS schema; of several quote assets the best has the bare symbol.

    Raises:
        MalformedPayload: when it is not one.
    """
    best: dict[str, Contract] = {}
    for contract in sorted(parse_contracts(body), key=lambda each: (not each.trading, _preference(each.quote))):
        best.setdefault(contract.base, contract)
    rows = [
        {
            "raw_symbol": contract.raw_symbol,
            "symbol": base,
            "asset_class": AssetClass.CRYPTO.value,
            "venue": market.venue,
            "currency": contract.quote,
            "status": "trading" if contract.trading else "not trading",
            "valid_from": contract.listed,
            "valid_to": contract.delisted,
        }
        for base, contract in best.items()
        if contract.quote in QUOTE_ASSETS
    ]
    return read_rows(rows, INSTRUMENTS, dict)


def _rows(answer: Any) -> Iterator[dict[str, Any]]:
    for row in answer["symbols"]:
        # Since 2026-06 the futures list may hold coin-margined contracts too; spot rows have no margin asset.
        linear = row.get("marginAsset", row["quoteAsset"]) == row["quoteAsset"]
        if linear and row.get("contractType", PERPETUAL[0]) in PERPETUAL:
            yield row


def _contract(row: dict[str, Any]) -> Contract:
    delivery = row.get("deliveryDate")
    trading = row["status"] == "TRADING"
    return Contract(
        raw_symbol=row["symbol"],
        base=row["baseAsset"],
        quote=row["quoteAsset"],
        trading=trading,
        listed=_moment(row.get("onboardDate")),
        # A live perpetual carries a delivery date in the year 2100.
        delisted=None if trading else _moment(delivery),
    )


def _preference(quote: str) -> int:
    return QUOTE_ASSETS.index(quote) if quote in QUOTE_ASSETS else len(QUOTE_ASSETS)


def _moment(millis: str | None) -> datetime | None:
    return moment(millis, "ms") if millis else None
