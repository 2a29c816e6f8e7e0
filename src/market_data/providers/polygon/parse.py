"""Massive's JSON to frames: pure and exact."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

import polars as pl

from market_data.model.dataset import CANDLES, EXACT
from market_data.model.errors import MalformedPayload, UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument, Listing
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
NEW_YORK = "America/New_York"


@dataclass(frozen=True, slots=True)
class Answer:
    """A decoded body: its results, whether they are delayed, and the path and query of the next page."""

    results: list[Any]
    delayed: bool
    next_path: str | None


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
    return Answer(results, status == "DELAYED", _path_and_query(answer.get("next_url")))


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
                venue, until = row.get("primary_exchange"), row.get("delisted_utc")
                valid_to = datetime.fromisoformat(until) if until else None
                return Listing(instrument, "polygon", row["ticker"], venue, None, valid_to)
    except NOT_AS_PROMISED as error:
        raise MalformedPayload(f"the list of tickers is not as promised: {error!r}") from None
    raise UnknownInstrument(f"polygon does not list {instrument}")


def _is_it(instrument: Instrument, row: dict[str, Any]) -> bool:
    if instrument.asset_class is AssetClass.CRYPTO:
        return row.get("base_currency_symbol") == instrument.symbol and row.get("currency_symbol") == CRYPTO_QUOTE
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
