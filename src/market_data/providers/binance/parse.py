"""Binance's JSON to frames: pure, exact, and fast where there are many rows."""

from __future__ import annotations

from typing import Final

import polars as pl

from market_data.model.dataset import CANDLES, EXACT, UTC_MICROS
from market_data.model.errors import MalformedPayload
from market_data.transport.payload import NUMBERS, exact_column, load_json, require_columns

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
NEEDED: Final = tuple(name for name in KLINE_FIELDS if name != "ignored")
# A row as it is sent, without digits: whatever else is in a body shows against this.
ROW_WITHOUT_NUMBERS = b'[,"","","","","",,"",,"","",""]'
# Turns `[[1,"2"],[3,"4"]]` into one line per row in a single pass; the comma after a row leaves an empty last field.
LINE_PER_ROW = bytes.maketrans(b"[", b"\n")


def parse_klines(body: bytes) -> pl.DataFrame:
    """Candles of a klines answer in the CANDLES schema plus `close_time` (UTC), in the order sent.

    Raises:
        MalformedPayload: naming what is not as the protocol promises.
    """
    rows = _read_compact(body)
    if rows is None:
        rows = _read_strictly(body)
    return _candles(rows)


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
    return rows if rows.height == count and not any(rows.null_count().row(0)) else None


def _read_strictly(body: bytes) -> pl.DataFrame:
    rows = load_json(body)
    if not isinstance(rows, list):
        raise MalformedPayload(f"klines are not a list but {str(rows)[:200]}")
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) < len(KLINE_FIELDS) - 1:
            raise MalformedPayload(f"kline {number} is not a row of {len(KLINE_FIELDS)} values: {str(row)[:200]}")
    columns = enumerate(NEEDED)
    frame = pl.DataFrame([exact_column(n, [row[place] for row in rows], KLINE_FIELDS[n]) for place, n in columns])
    require_columns(frame, frame.columns)
    return frame
