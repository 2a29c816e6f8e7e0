"""Massive's lists: option chains of the present, and everything it lists."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

import polars as pl

from market_data.model.contract import Contract, Listing
from market_data.model.dataset import INSTRUMENTS, OPTIONS
from market_data.model.errors import MalformedPayload, UnsupportedRequest
from market_data.model.instrument import AssetClass
from market_data.model.provider import Page
from market_data.model.rows import Rows
from market_data.model.text import shown
from market_data.model.timeframe import TimeRange
from market_data.providers.polygon.client import Client
from market_data.providers.polygon.parse import ETF_TYPES, contract_of
from market_data.transport.rows import NOT_AS_PROMISED, read_rows

CONTRACTS: Final = "/v3/reference/options/contracts"
NOT_IN_SNAPSHOT: Final = "listed, but not in the snapshot"
PREFIX: Final = "O:"
KINDS: Final = ("call", "put")
STOCK_TYPES: Final = ("CS", "ADRC", "OS", "NYRS", "GDR", "PFD")
# A chain is of its moment; a range that ended longer ago is not what it speaks of.
PRESENT: Final = timedelta(days=1)


async def options(client: Client, listing: Listing, span: TimeRange, now: datetime) -> AsyncIterator[Page]:
    """The chain as it is now: every contract that is listed; without values where the snapshot lacks it.

    Raises:
        UnsupportedRequest: for a range in the past: there are no chains of it.
    """
    if span.end < now - PRESENT:
        raise UnsupportedRequest("polygon has option chains of the present only")
    underlying = listing.raw_symbol
    told: set[str] = set()
    path = f"/v3/snapshot/options/{quote(underlying, safe=':')}"
    async for response, answer in client.product("options", path, limit=250):
        _check_underlying(answer.results, underlying)
        # One moment for the whole chain, however long its pages take.
        rows = parse_options(answer.results, now)
        told.update(rows.frame["contract"])
        yield client.page(rows, response)
    listed = client.product("contracts", CONTRACTS, underlying_ticker=underlying, limit=1000)
    async for response, answer in listed:
        _check_underlying(answer.results, underlying)
        rest = parse_contracts(answer.results, now)
        yield client.page(rest.with_frame(lambda frame: frame.filter(~pl.col("contract").is_in(told))), response)


async def instruments(client: Client, asset_class: AssetClass) -> AsyncIterator[Page]:
    """Every instrument of a class, delisted ones included."""
    market = "crypto" if asset_class is AssetClass.CRYPTO else "stocks"
    seen: set[str] = set()
    for active in ("true", "false"):
        pages = client.pages("/v3/reference/tickers", market=market, active=active, limit=1000)
        async for response, answer in pages:
            # What is listed today counts, whoever had the symbol before.
            fresh = ~pl.col("raw_symbol").is_in(seen) & (pl.col("asset_class") == asset_class.value)
            rows = parse_instruments(answer.results).with_frame(functools.partial(_first_of_each, fresh))
            seen.update(rows.frame["raw_symbol"])
            # The contracts of both ends: a delisted company's name may be another's today.
            yield replace(client.page(rows, response), listed=_contracts(answer.results, asset_class))


def _first_of_each(fresh: pl.Expr, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(fresh).unique("raw_symbol", keep="first", maintain_order=True)


def parse_options(results: list[Any], moment: datetime) -> Rows:
    """A page of a chain in the OPTIONS schema. Zero for an ask or a volatility says that there is none.

    Raises:
        MalformedPayload: when not one row is a contract.
    """
    return read_rows(results, OPTIONS, lambda row: _contract(row, moment))


def parse_contracts(results: list[Any], moment: datetime) -> Rows:
    """A page of the list of contracts in the OPTIONS schema, without any value.

    Raises:
        MalformedPayload: when not one row is a contract.
    """
    rows = read_rows(results, OPTIONS, lambda row: _contract({"details": row}, moment))
    return rows.with_frame(lambda frame: frame.with_columns(iv_reason=pl.lit(NOT_IN_SNAPSHOT)))


def parse_instruments(results: list[Any]) -> Rows:
    """A page of the list of tickers in the INSTRUMENTS schema; other kinds of things are left out.

    Raises:
        MalformedPayload: when not one row is a ticker.
    """
    return read_rows(results, INSTRUMENTS, _instrument)


def _contracts(results: list[Any], asset_class: AssetClass) -> tuple[Contract, ...]:
    """The contracts of a page; a row that is none is told by `parse_instruments`."""
    found = []
    for row in results:
        try:
            contract = contract_of(row) if _instrument(row) is not None else None
        except NOT_AS_PROMISED:
            continue
        if contract is not None and contract.asset_class is asset_class:
            found.append(contract)
    return tuple(found)


def _check_underlying(results: list[Any], underlying: str) -> None:
    """Refuse a chain of another share than was asked for."""
    for row in results:
        if not isinstance(row, dict):
            continue
        asset = row.get("underlying_asset")
        said = row.get("underlying_ticker") or (asset.get("ticker") if isinstance(asset, dict) else None)
        if said not in (None, underlying):
            raise MalformedPayload(f"polygon sent options of {shown(said)} where {underlying} was asked for")


def _contract(row: dict[str, Any], moment: datetime) -> dict[str, Any] | None:
    if row["details"]["contract_type"] not in KINDS:
        return None
    details, greeks, quoted = row["details"], row.get("greeks") or {}, row.get("last_quote") or {}
    underlying = row.get("underlying_asset") or {}
    iv = row.get("implied_volatility")
    given = iv is not None and float(iv) > 0
    return {
        "timestamp": moment,
        "contract": details["ticker"].removeprefix(PREFIX),
        "option_type": details["contract_type"],
        "exercise_style": _style(details.get("exercise_style")),
        "expiration": details["expiration_date"],
        "strike": details["strike_price"],
        "bid": quoted.get("bid"),
        "ask": None if quoted.get("ask") == "0" else quoted.get("ask"),
        "last": (row.get("last_trade") or {}).get("price"),
        "volume": (row.get("day") or {}).get("volume"),
        "open_interest": row.get("open_interest"),
        "underlying_price": underlying.get("price", underlying.get("value")),
        "shares_per_contract": details.get("shares_per_contract"),
        "iv": iv if given else None,
        **{name: greeks.get(name) for name in ("delta", "gamma", "theta", "vega")},
        "iv_origin": "source" if given else None,
        "iv_reason": None if given and greeks else "not given by the source",
    }


def _style(style: str | None) -> str | None:
    return style if style in ("american", "european") else None


def _instrument(row: dict[str, Any]) -> dict[str, Any] | None:
    until = row.get("delisted_utc")
    kept = {
        "raw_symbol": row["ticker"],
        "venue": row.get("primary_exchange"),
        "name": row.get("name"),
        "status": "trading" if row.get("active") else "delisted",
        "valid_to": until,
    }
    if row["market"] == "crypto":
        coin = {"symbol": row.get("base_currency_symbol"), "currency": row.get("currency_symbol")}
        return kept | coin | {"asset_class": "crypto"} if coin["symbol"] and coin["currency"] == "USD" else None
    kind = row.get("type")
    if kind not in ETF_TYPES + STOCK_TYPES:
        return None
    asset_class = "etf" if kind in ETF_TYPES else "stock"
    currency = (row.get("currency_name") or "").upper() or None
    return kept | {"symbol": row["ticker"], "asset_class": asset_class, "currency": currency}
