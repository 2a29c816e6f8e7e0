"""Yahoo's chart JSON to frames: pure and exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, tzinfo
from decimal import Decimal
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

import polars as pl

from market_data.model.contract import SHARES, US_VENUE, Contract, Listing
from market_data.model.dataset import CANDLES
from market_data.model.errors import MalformedPayload, UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument, Kind
from market_data.model.rows import VALUE_UNREADABLE, Rows, none_rejected
from market_data.model.text import kept, shown
from market_data.providers.yahoo.dialect import NOTHING_THERE
from market_data.transport.columns import Count, Field, Rounded, column, exact, moment
from market_data.transport.payload import load_json
from market_data.transport.rows import NOT_AS_PROMISED, read_objects, rejected_row

VALUES: Final = ("open", "high", "low", "close", "volume")
QUOTE_TYPES: Final = {
    AssetClass.STOCK: ("EQUITY", "ETF"),
    AssetClass.ETF: ("ETF", "EQUITY"),
    AssetClass.CRYPTO: ("CRYPTOCURRENCY",),
}
CURRENCY: Final = "USD"
# What a fund gained and hands on is paid as a dividend is.
PAYMENTS: Final = {"dividends": "cash", "capitalGains": "capital_gain"}
CRYPTO_VENUE: Final = "YAHOO"
DIGITS: Final = "0123456789"
# Its prices went through a 32-bit float.
ROW_FIELDS: Final[dict[str, Field]] = {"timestamp": Count("s"), **dict.fromkeys(VALUES, Rounded())}
MOST_DECIMALS: Final = 12
# No share was ever split so: what says more is no ratio, and would take every price with it.
MOST_SHARES_FOR_ONE: Final = 1_000_000
Event = TypeVar("Event")
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
    """A payment per share of today: divided by the ratios of all later splits. Paid to holders before `moment`."""

    moment: datetime
    amount: Decimal
    currency: str | None
    kind: str = "cash"


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
    # What is no row, no split and no payment, as `model.rows.REJECTED`.
    rejected: pl.DataFrame = field(default_factory=none_rejected)
    rejected_splits: pl.DataFrame = field(default_factory=none_rejected)
    rejected_payments: pl.DataFrame = field(default_factory=none_rejected)


def parse_chart(body: bytes) -> Chart | None:
    """The chart of an answer; None when it says that there is nothing in the range.

    An adjusted close may be Infinity: a text, refused where a price is wanted.

    Raises:
        MalformedPayload: naming what is not as promised.
    """
    answer = load_json(body, constant=str)
    try:
        chart = answer["chart"]
        if chart["result"] is None:
            _check_nothing(chart["error"])
            return None
        (result,) = chart["result"]
        meta, events = result["meta"], result.get("events") or {}
        currency = meta.get("currency")
        rows = _rows(result)
        splits, bad_splits = _events(events.get("splits"), _split)
        paid = [_events(events.get(name), _payments_of(kind, currency)) for name, kind in PAYMENTS.items()]
        return Chart(
            symbol=str(meta["symbol"]),
            currency=None if currency is None else str(currency),
            zone=_zone(meta["exchangeTimezoneName"]),
            price_hint=_price_hint(meta.get("priceHint", 2)),
            granularity=_granularity(str(meta["dataGranularity"])),
            rows=rows.frame,
            splits=splits,
            payments=tuple(payment for told, _ in paid for payment in told),
            adjusted=_adjusted(result),
            rejected=rows.rejected,
            rejected_splits=bad_splits,
            rejected_payments=pl.concat([bad for _, bad in paid]),
        )
    except NOT_AS_PROMISED as error:
        raise MalformedPayload(f"the chart is not as promised ({error!r}): {shown(answer)}") from None


def _zone(name: Any) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, *NOT_AS_PROMISED):
        raise ValueError(f"no time zone {shown(name)}") from None


def _price_hint(told: Any) -> int:
    if not 0 <= (hint := int(told)) <= MOST_DECIMALS:
        raise ValueError(f"prices of {hint} decimals")
    return hint


def _adjusted(result: dict[str, Any]) -> pl.DataFrame:
    times, closes = _list(result, "timestamp"), _list(result["indicators"]["quote"][0], "close")
    adjusted: dict[str, Any] = next(iter(result["indicators"].get("adjclose") or ()), {})
    values = _list(adjusted, "adjclose")
    given: dict[str, tuple[list[Any], Field]] = {
        "timestamp": (times, Count("s")),
        "close": (closes, Rounded()),
        "adjusted": (values, Rounded()),
    }
    # A witness only: what of it cannot be read is left out.
    columns = [column(name, values, kind)[0] for name, (values, kind) in given.items()]
    if len({len(each) for each in columns}) > 1:
        # Intraday charts have none.
        columns = [each.clear() for each in columns]
    return pl.DataFrame(columns).drop_nulls().sort("timestamp")


def _check_nothing(error: dict[str, Any]) -> None:
    if not str(error["description"]).startswith(NOTHING_THERE):
        raise MalformedPayload(f"an error with status 200: {shown(error)}")


def _rows(result: dict[str, Any]) -> Rows:
    times = _list(result, "timestamp")
    quote = result["indicators"]["quote"][0]
    if not times and not any(quote.get(name) for name in VALUES):
        return Rows(CANDLES.empty())
    columns = [_list(quote, name) for name in VALUES]
    for name, values in zip(VALUES, columns, strict=True):
        if len(values) != len(times):
            raise MalformedPayload(f"{len(values)} values of {name} for {len(times)} time stamps")
    # A row of nulls is a hole: the source has no trade there, or lost it.
    sent = [
        dict(zip(ROW_FIELDS, row, strict=True))
        for row in zip(times, *columns, strict=True)
        if any(value is not None for value in row[1:])
    ]
    return read_objects(sent, ROW_FIELDS, tuple(ROW_FIELDS), time="timestamp").with_frame(CANDLES.conform)


def _list(holder: Any, name: str) -> list[Any]:
    values = holder.get(name) or []
    if not isinstance(values, list):
        raise TypeError(f"{name} is no list: {shown(values)}")
    return values


def _events(held: Any, read: Callable[[dict[str, Any]], Event]) -> tuple[tuple[Event, ...], pl.DataFrame]:
    """The events that can be read, and the others as rejected rows: one bad event says nothing of the chart."""
    events: list[Event] = []
    rejected = [none_rejected()]
    for event in held.values() if isinstance(held, dict) else held or ():
        try:
            events.append(read(event))
        except NOT_AS_PROMISED as error:
            rejected.append(rejected_row(f"{VALUE_UNREADABLE}: {kept(str(error), 100)}", event, _date(event)))
    return tuple(events), pl.concat(rejected)


def _date(event: Any) -> datetime | None:
    try:
        return moment(event["date"], "s")
    except NOT_AS_PROMISED:
        return None


def _split(event: dict[str, Any]) -> Split:
    split = Split(moment(event["date"], "s"), exact(event["numerator"]), exact(event["denominator"]))
    if not min(split.numerator, split.denominator) > 0:
        raise ValueError(f"a split of {split.numerator.normalize()} for {split.denominator.normalize()}")
    if not 1 / MOST_SHARES_FOR_ONE <= split.numerator / split.denominator <= MOST_SHARES_FOR_ONE:
        raise ValueError(f"a split beyond {MOST_SHARES_FOR_ONE} shares for one")
    return split


def _payments_of(kind: str, currency: Any) -> Callable[[dict[str, Any]], Payment]:
    def read(event: dict[str, Any]) -> Payment:
        amount = exact(event["amount"], Rounded())
        return Payment(moment(event["date"], "s"), amount, event.get("currency", currency), kind)

    return read


def _granularity(name: str) -> str:
    return SAME_GRANULARITY.get(name, name)


def find_quotes(answer: Any, name: str) -> list[Any]:
    """One of the lists in the answer to a search.

    Raises:
        MalformedPayload: when it is not there.
    """
    rows = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(rows, list):
        raise MalformedPayload(f"the search holds no list of {name}: {shown(answer)}")
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
        if not isinstance(quote, dict):
            continue
        # Some answers are companies without a symbol.
        symbol = str(quote.get("symbol", ""))
        if quote.get("quoteType") in QUOTE_TYPES[instrument.asset_class] and _is_it(instrument, symbol):
            exchange, contract = quote.get("exchange"), _contract(instrument, symbol, quote)
            return Listing(instrument, "yahoo", symbol, exchange, contract=contract)
    raise UnknownInstrument(f"yahoo does not list {instrument}")


def _contract(instrument: Instrument, symbol: str, quote: dict[str, Any]) -> Contract:
    name = quote.get("longname") or quote.get("shortname")
    if instrument.asset_class is AssetClass.CRYPTO:
        return Contract(
            venue=CRYPTO_VENUE,
            market="crypto",
            raw_symbol=symbol,
            kind=Kind.SPOT,
            base=_coin(instrument),
            quote=CURRENCY,
            name=name,
        )
    # A share is the same one whoever sells its prices: by the name it is listed under.
    kind, own = Kind.ETF if quote.get("quoteType") == "ETF" else Kind.STOCK, symbol.replace("-", ".")
    return Contract(venue=US_VENUE, market=SHARES, raw_symbol=own, kind=kind, base=own, quote=CURRENCY, name=name)


def _coin(instrument: Instrument) -> str:
    return instrument.symbol.removesuffix(f"/{CURRENCY}").removesuffix(f"-{CURRENCY}")


def _is_it(instrument: Instrument, symbol: str) -> bool:
    if instrument.asset_class is AssetClass.CRYPTO:
        coin, _, currency = symbol.rpartition("-")
        wanted = _coin(instrument)
        return currency == CURRENCY and wanted in (coin, coin.rstrip(DIGITS))
    return symbol.replace("-", ".") == instrument.symbol
