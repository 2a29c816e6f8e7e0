"""Binance's JSON to frames: pure, exact, and fast where there are many rows."""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from market_data.model.dataset import CANDLES, EXACT, UTC_MICROS
from market_data.model.errors import MalformedPayload
from market_data.model.rows import NOT_A_ROW, Rows
from market_data.model.text import shown
from market_data.transport.columns import EARLIEST, LATEST, Count, Field
from market_data.transport.payload import NUMBERS, has_fine_numbers, load_json
from market_data.transport.rows import read_values

# Row layout: https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data/rest-api/Kline-Candlestick-Data
KLINE_FIELDS: Final[dict[str, pl.DataType]] = {
    "open_time": pl.Int64(),
    "open": EXACT,
    "high": EXACT,
    "low": EXACT,
    "close": EXACT,
    "volume": EXACT,
    "close_time": pl.Int64(),
    "quote_volume": EXACT,
    "trade_count": pl.Int64(),
    "taker_buy_volume": EXACT,
    "taker_buy_quote_volume": EXACT,
    "ignored": pl.String(),
}
TIMES: Final = ("open_time", "close_time")
FIRST_MILLIS, LAST_MILLIS = (int(bound.timestamp()) * 1000 for bound in (EARLIEST, LATEST))
NEEDED: Final = tuple(name for name in KLINE_FIELDS if name != "ignored")
STRICT_FIELDS: Final[dict[str, Field]] = {name: Count("ms") if name in TIMES else KLINE_FIELDS[name] for name in NEEDED}
# A row as it is sent, without digits: whatever else is in a body shows against this.
ROW_WITHOUT_NUMBERS = b'[,"","","","","",,"",,"","",""]'
# Turns `[[1,"2"],[3,"4"]]` into one line per row in a single pass; the comma after a row leaves an empty last field.
LINE_PER_ROW = bytes.maketrans(b"[", b"\n")


def parse_klines(body: bytes) -> Rows:
    """Candles of a klines answer in the CANDLES schema plus `close_time` (UTC), in the order sent.

    Raises:
        MalformedPayload: when it is no list of rows at all.
    """
    rows = _read_compact(body)
    return _read_one_by_one(body) if rows is None else Rows(_candles(rows))


def _candles(rows: pl.DataFrame) -> pl.DataFrame:
    # Column by column: pages are many and small, and planning a query takes as long as a third of reading one.
    given = dict(zip(rows.columns, rows.get_columns(), strict=True))
    given["timestamp"], given["close_time"] = (
        (given[name] * 1000).cast(UTC_MICROS).alias(alias)
        for name, alias in (("open_time", "timestamp"), ("close_time", "close_time"))
    )
    unknown = ((name, dtype) for name, dtype in CANDLES.schema.items() if name not in given)
    given |= {name: pl.Series(name, [None], dtype).new_from_index(0, rows.height) for name, dtype in unknown}
    return pl.DataFrame([given[name] for name in (*CANDLES.schema, "close_time")])


def _read_compact(body: bytes) -> pl.DataFrame | None:
    """The rows when the body is laid out exactly as Binance sends it; None for any deviation."""
    if body == b"[]":
        return pl.DataFrame(schema={name: KLINE_FIELDS[name] for name in NEEDED})
    if has_fine_numbers(body):
        return None
    skeleton = body.translate(None, NUMBERS)
    count = (len(skeleton) - 1) // (len(ROW_WITHOUT_NUMBERS) + 1)
    if skeleton != b"[" + b",".join([ROW_WITHOUT_NUMBERS] * count) + b"]":
        return None
    lines = body[2:-2].translate(LINE_PER_ROW, b']"')
    try:
        rows = pl.read_csv(
            lines,
            has_header=False,
            schema={**KLINE_FIELDS, "rest": pl.String()},
            quote_char=None,
            columns=list(range(len(NEEDED))),
        )
    except pl.exceptions.PolarsError:
        return None
    whole = rows.height == count and not any(rows.null_count().row(0))
    return rows if whole and all(_is_plausible(rows[name]) for name in TIMES) else None


def _is_plausible(millis: pl.Series) -> bool:
    return bool(millis.is_between(FIRST_MILLIS, LAST_MILLIS, closed="left").all())


def _read_one_by_one(body: bytes) -> Rows:
    sent = load_json(body)
    if not isinstance(sent, list):
        raise MalformedPayload(f"klines are not a list but {shown(sent)}")
    return read_values([_named(row) for row in sent], sent, STRICT_FIELDS, NEEDED, "open_time").with_frame(_conformed)


def _named(row: Any) -> dict[str, Any] | str:
    if not isinstance(row, list) or len(row) < len(NEEDED):
        return NOT_A_ROW
    return dict(zip(NEEDED, row, strict=False))


def _conformed(rows: pl.DataFrame) -> pl.DataFrame:
    return CANDLES.conform(rows.rename({"open_time": "timestamp"})).with_columns(rows["close_time"])


def refuse_others(body: bytes, raw_symbol: str) -> None:
    """Refuse an answer that names another symbol than was asked for; rows that name none are taken.

    Raises:
        MalformedPayload: saying what came instead.
    """
    answer = load_json(body)
    rows = answer if isinstance(answer, list) else [answer]
    named = {str(row["symbol"]) for row in rows if isinstance(row, dict) and "symbol" in row} - {raw_symbol}
    if named:
        raise MalformedPayload(f"binance sent {shown(sorted(named))} where {raw_symbol} was asked for")
