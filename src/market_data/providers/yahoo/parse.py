"""Yahoo's chart JSON to frames: pure and exact."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from market_data.model.dataset import CANDLES, EXACT, UTC_MICROS
from market_data.model.errors import MalformedPayload, UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument, Listing
from market_data.providers.yahoo.dialect import NOTHING_THERE
from market_data.transport.payload import exact_column, load_json

VALUES: Final = ("open", "high", "low", "close", "volume")
QUOTE_TYPES: Final = {
    AssetClass.STOCK: ("EQUITY", "ETF"),
    AssetClass.ETF: ("ETF", "EQUITY"),
    AssetClass.CRYPTO: ("CRYPTOCURRENCY",),
}
CURRENCY: Final = "USD"
DIGITS: Final = "0123456789"
NO_NUMBERS: Final = ("Infinity", "-Infinity", "NaN")
# Granularity under another name.
SAME_GRANULARITY: Final = {"60m": "1h"}


@dataclass(frozen=True, slots=True)
class Split:
    """`numerator` new shares for `denominator` old ones, from `moment` on.

    The source divides older prices by the ratio, but now and then leaves some as they were: those of the dates
    [raw_from, raw_before), where None is the beginning; `in_doubt` where the rows do not tell.
    """

    moment: datetime
    numerator: Decimal
    denominator: Decimal
    raw_from: date | None = None
    raw_before: date | None = None
    in_doubt: bool = False


@dataclass(frozen=True, slots=True)
class Payment:
    """A dividend per share of today: divided by the ratios of all later splits. Paid to holders before `moment`."""

    moment: datetime
    amount: Decimal
    currency: str | None


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart answer: rows in the CANDLES schema without holes, split-adjusted, by Yahoo's own time stamps."""

    symbol: str
    currency: str | None
    zone: tzinfo
    price_hint: int
    granularity: str
    rows: pl.DataFrame
    splits: tuple[Split, ...]
    payments: tuple[Payment, ...]
    # Daily charts: `timestamp`, `close` and `adjusted`, the close less all later dividends; where it is a number.
    adjusted: pl.DataFrame


def parse_chart(body: bytes) -> Chart | None:
    """The chart of an answer; None when it says that there is nothing in the range.

    Raises:
        MalformedPayload: naming what is not as promised.
    """
    answer = _load(body)
    try:
        chart = answer["chart"]
        if chart["result"] is None:
            _check_nothing(chart["error"])
            return None
        (result,) = chart["result"]
        meta, events = result["meta"], result.get("events", {})
        return Chart(
            symbol=meta["symbol"],
            currency=meta.get("currency"),
            zone=ZoneInfo(meta["exchangeTimezoneName"]),
            price_hint=int(meta.get("priceHint", 2)),
            granularity=_granularity(meta["dataGranularity"]),
            rows=_rows(result),
            splits=tuple(_split(event) for event in events.get("splits", {}).values()),
            payments=tuple(_payment(event, meta) for event in events.get("dividends", {}).values()),
            adjusted=_adjusted(result),
        )
    except (KeyError, TypeError, ValueError, AttributeError, InvalidOperation, ZoneInfoNotFoundError) as error:
        raise MalformedPayload(f"the chart is not as promised ({error!r}): {str(answer)[:200]}") from None


def _load(body: bytes) -> Any:
    """JSON where an adjusted close may be Infinity, as Yahoo's may: a text, refused where a price is wanted."""
    try:
        return json.loads(body, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        return load_json(body)


def _adjusted(result: dict[str, Any]) -> pl.DataFrame:
    times, closes = result.get("timestamp", []), result["indicators"]["quote"][0].get("close", [])
    adjusted: dict[str, Any] = next(iter(result["indicators"].get("adjclose", ())), {})
    values = [None if value in NO_NUMBERS else value for value in adjusted.get("adjclose") or []]
    columns = [
        exact_column("timestamp", times, pl.Int64()),
        exact_column("close", closes, EXACT),
        exact_column("adjusted", values, EXACT),
    ]
    if len({len(column) for column in columns}) > 1:
        # Intraday charts have none.
        columns = [column.clear() for column in columns]
    frame = pl.DataFrame(columns).with_columns(pl.from_epoch("timestamp", "s").cast(UTC_MICROS))
    return frame.drop_nulls().sort("timestamp")


def _check_nothing(error: dict[str, Any]) -> None:
    if not str(error["description"]).startswith(NOTHING_THERE):
        raise MalformedPayload(f"an error with status 200: {error}")


def _rows(result: dict[str, Any]) -> pl.DataFrame:
    times = result.get("timestamp", [])
    quote = result["indicators"]["quote"][0]
    if not times and not any(quote.get(name) for name in VALUES):
        return CANDLES.empty()
    columns = [exact_column("timestamp", times, pl.Int64())]
    for name in VALUES:
        if len(quote[name]) != len(times):
            raise MalformedPayload(f"{len(quote[name])} values of {name} for {len(times)} time stamps")
        columns.append(exact_column(name, quote[name], EXACT))
    frame = pl.DataFrame(columns).with_columns(pl.from_epoch("timestamp", "s").cast(UTC_MICROS))
    if frame["timestamp"].null_count():
        raise MalformedPayload("a time stamp is null")
    # A null is a hole: the source has no trade there, or lost it.
    return CANDLES.conform(frame.drop_nulls(VALUES))


def _split(event: dict[str, Any]) -> Split:
    split = Split(
        datetime.fromtimestamp(int(event["date"]), UTC), Decimal(event["numerator"]), Decimal(event["denominator"])
    )
    if split.numerator <= 0 or split.denominator <= 0:
        raise MalformedPayload(f"a split of {event['numerator']} for {event['denominator']}")
    return split


def _payment(event: dict[str, Any], meta: dict[str, Any]) -> Payment:
    moment = datetime.fromtimestamp(int(event["date"]), UTC)
    return Payment(moment, Decimal(event["amount"]), event.get("currency", meta.get("currency")))


def _granularity(name: str) -> str:
    return SAME_GRANULARITY.get(name, name)


def find_quotes(answer: Any, name: str) -> list[dict[str, Any]]:
    """One of the lists in the answer to a search.

    Raises:
        MalformedPayload: when it is not there.
    """
    rows = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MalformedPayload(f"the search holds no list of {name}: {str(answer)[:200]}")
    return rows


def find_listing(instrument: Instrument, body: bytes) -> Listing:
    """The instrument among the answers to a search.

    A stock is listed under its own symbol, with the class after a dash; a coin under one that begins with it, followed
    by a number where several share the symbol, and ends with the currency.

    Raises:
        UnknownInstrument: when it is not there.
        MalformedPayload: when the answer is not as promised.
    """
    for quote in find_quotes(load_json(body), "quotes"):
        # Some answers are companies without a symbol.
        symbol = str(quote.get("symbol", ""))
        if quote.get("quoteType") in QUOTE_TYPES[instrument.asset_class] and _is_it(instrument, symbol):
            return Listing(instrument, "yahoo", symbol, quote.get("exchange"))
    raise UnknownInstrument(f"yahoo does not list {instrument}")


def _is_it(instrument: Instrument, symbol: str) -> bool:
    if instrument.asset_class is AssetClass.CRYPTO:
        coin, _, currency = symbol.rpartition("-")
        return currency == CURRENCY and (coin == instrument.symbol or coin.rstrip(DIGITS) == instrument.symbol)
    return symbol.replace("-", ".") == instrument.symbol
