"""Massive's JSON to frames: pure and exact."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

import polars as pl

from market_data.model.contract import SHARES, US_VENUE, Contract, Listing
from market_data.model.dataset import CANDLES, EXACT
from market_data.model.errors import MalformedPayload, UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument, Kind, Status
from market_data.model.rows import Rows
from market_data.model.text import shown
from market_data.transport.columns import Count, Field, Rounded
from market_data.transport.payload import load_json
from market_data.transport.rows import NOT_AS_PROMISED, read_objects

AGGREGATE_FIELDS: Final[dict[str, Field]] = {
    "t": Count("ms"),
    "o": EXACT,
    "h": EXACT,
    "l": EXACT,
    "c": EXACT,
    "v": EXACT,
    "vw": Rounded(),
    "n": pl.Int64(),
}
NAMES: Final = {"t": "timestamp", "o": "open", "h": "high", "l": "low", "c": "close", "v": "volume", "vw": "vwap",
                "n": "trade_count"}  # fmt: skip
CRYPTO_QUOTE = "USD"
CRYPTO_VENUE: Final = "MASSIVE"
ETF_TYPES: Final = ("ETF", "ETV", "ETN", "ETS")
NEW_YORK = "America/New_York"


@dataclass(frozen=True, slots=True)
class Answer:
    """A decoded body: its results, whether they are delayed, and the path and query of the next page."""

    results: list[Any]
    delayed: bool
    next_path: str | None
    ticker: str | None = None
    """Whose it says it is, where it says so once for all rows."""
    adjusted: bool | None = None
    """Whether its prices are adjusted for splits, where it says so."""

    def must_be(self, ticker: str) -> None:
        """Refuse an answer about something else than was asked for.

        Raises:
            MalformedPayload: saying what came instead.
        """
        for named in (self.ticker, *(row.get("ticker") for row in self.results if isinstance(row, dict))):
            if named not in (None, ticker):
                raise MalformedPayload(f"polygon sent {shown(named)} where {ticker} was asked for")
        if self.adjusted:
            raise MalformedPayload(f"polygon sent adjusted prices of {ticker} where unadjusted ones were asked for")


def parse_answer(body: bytes) -> Answer:
    """The envelope every endpoint shares.

    Raises:
        MalformedPayload: when it is not one.
    """
    answer = load_json(body)
    if not isinstance(answer, dict):
        raise MalformedPayload(f"not an object: {shown(answer)}")
    status = answer.get("status")
    if status not in ("OK", "DELAYED"):
        raise MalformedPayload(f"status is {shown(status)}, not OK or DELAYED: {shown(answer)}")
    # Aggregates leave the key out when there is nothing, and then say that the count is zero.
    results = answer.get("results")
    if results is None and str(answer.get("resultsCount", answer.get("count", "0"))) == "0":
        results = []
    if not isinstance(results, list):
        raise MalformedPayload(f"no list of results: {shown(answer)}")
    following = _path_and_query(answer.get("next_url"))
    return Answer(results, status == "DELAYED", following, answer.get("ticker"), answer.get("adjusted"))


def parse_aggregates(results: list[Any]) -> Rows:
    """Candles in the CANDLES schema, by their own time stamps, in the order sent.

    Raises:
        MalformedPayload: when not one row is a candle.
    """
    rows = read_objects(results, AGGREGATE_FIELDS, ("t", "o", "h", "l", "c", "v"), time="t")
    return rows.with_frame(lambda frame: CANDLES.conform(frame.rename(NAMES)))


def at_session_open(days: pl.DataFrame, opens: pl.Series) -> pl.DataFrame:
    """Daily rows stamped with the open of their session, found by New York date.

    A row of a date without session keeps its own time stamp: the rules refuse it.

    Args:
        days: rows stamped anywhere within their New York day (Massive: 00:00).
        opens: opens of the sessions, UTC.
    """
    by_date = pl.DataFrame({"open_of_session": opens}).with_columns(date=_new_york_date("open_of_session"))
    joined = days.with_columns(date=_new_york_date("timestamp")).join(
        by_date, on="date", how="left", maintain_order="left"
    )
    return joined.with_columns(timestamp=pl.coalesce("open_of_session", "timestamp")).select(days.columns)


def find_listing(instrument: Instrument, results: list[Any]) -> Listing:
    """The instrument among rows of the list of tickers.

    Raises:
        UnknownInstrument: when it is not there.
        MalformedPayload: when a row is not as promised.
    """
    try:
        for row in results:
            # A row that is none says nothing of the others.
            if isinstance(row, dict) and _is_it(instrument, row):
                contract = contract_of(row)
                venue, valid_to = row.get("primary_exchange"), contract.listed_to
                return Listing(instrument, "polygon", row["ticker"], venue, None, valid_to, contract)
    except NOT_AS_PROMISED as error:
        raise MalformedPayload(f"the list of tickers is not as promised: {error!r}") from None
    raise UnknownInstrument(f"polygon does not list {instrument}")


def contract_of(row: dict[str, Any]) -> Contract:
    """A row of the list of tickers as a contract; a share is the same one whoever sells its prices."""
    until = row.get("delisted_utc")
    ended = until is not None or row.get("active") is False
    said: dict[str, Any] = {
        "status": Status.DELISTED if ended else Status.TRADING,
        "listed_to": datetime.fromisoformat(until) if until else None,
        "name": row.get("name"),
    }
    if row.get("market") == "crypto":
        base, currency = row["base_currency_symbol"], row["currency_symbol"]
        return Contract(
            venue=CRYPTO_VENUE,
            market="crypto",
            raw_symbol=row["ticker"],
            kind=Kind.SPOT,
            base=base,
            quote=currency,
            **said,
        )
    kind = Kind.ETF if row.get("type") in ETF_TYPES else Kind.STOCK
    currency = (row.get("currency_name") or "").upper() or None
    return Contract(
        venue=US_VENUE, market=SHARES, raw_symbol=row["ticker"], kind=kind, base=row["ticker"], quote=currency, **said
    )


def _is_it(instrument: Instrument, row: dict[str, Any]) -> bool:
    if instrument.asset_class is AssetClass.CRYPTO:
        base, currency = row.get("base_currency_symbol"), row.get("currency_symbol")
        return currency == CRYPTO_QUOTE and instrument.symbol in (base, f"{base}/{currency}", row.get("ticker"))
    return bool(row.get("ticker") == instrument.symbol)


def _new_york_date(column: str) -> pl.Expr:
    return pl.col(column).dt.convert_time_zone(NEW_YORK).dt.date()


def _path_and_query(url: Any) -> str | None:
    if not url:
        return None
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
    except ValueError:
        parts = None
    # What does not begin with a slash would become a part of the host, and that host would get the key.
    if parts is None or not parts.path.startswith("/"):
        raise MalformedPayload(f"next_url is {shown(url)}")
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
