"""Rows parsed per second and core: Binance's JSON pages and archive files, from bytes to exact canonical frames."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import polars as pl

from bench.figures import RUNS, Figure
from bench.rows import ORIGIN, minutes

PAGE_ROWS = 1500
MONTH_ROWS = 44_640
TRADES_PAGE_ROWS = 1000
TRADES_FILE_ROWS = 500_000
REPEATS = 20
PLACES = {"volume": 3, "taker_buy_volume": 3, "quote_volume": 5, "taker_buy_quote_volume": 5}
KLINE_HEADER = (
    b"open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    b"taker_buy_volume,taker_buy_quote_volume,ignore\n"
)
TRADE_HEADER = b"agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"


def measure() -> Iterator[Figure]:
    """In a process of its own whose frames may use one thread: the figures are per core."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.parsing"],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"POLARS_MAX_THREADS": "1"},
    )
    rates: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    yield Figure(
        name="parse_klines_mrows_s",
        value=rates["kline_page"],
        unit="M/s",
        target=">= 1",
        peer="json.loads of the same pages, which is not yet a frame",
        detail=f"JSON pages of {PAGE_ROWS} rows, one core, median of {RUNS}; archive files of a month "
        f"{rates['kline_file']:.2f}; the peer {rates['kline_json']:.2f}",
    )
    yield Figure(
        name="parse_trades_mrows_s",
        value=rates["trade_page"],
        unit="M/s",
        target=">= 0.5",
        peer="json.loads of the same pages, which is not yet a frame",
        detail=f"aggregate trades, JSON pages of {TRADES_PAGE_ROWS}, one core, median of {RUNS}; archive files "
        f"{rates['trade_file']:.2f}; the peer {rates['trade_json']:.2f}",
    )


def kline_rows(count: int) -> list[list[Any]]:
    """Rows as Binance sends them."""
    frame = minutes(count).with_columns(open_time=pl.col("timestamp").dt.epoch("ms"))
    close_time = frame["open_time"] + 59_999
    named = frame.with_columns(close_time=close_time, ignored=pl.lit("0"))
    texts = ("open", "high", "low", "close", "volume")
    more = ("taker_buy_volume", "taker_buy_quote_volume")
    columns = ("open_time", *texts, "close_time", "quote_volume", "trade_count", *more, "ignored")
    # As many digits as the futures market writes for BTCUSDT: "67843.10", "28.723", "1948739.84213".
    written = named.with_columns(
        pl.col(name).cast(pl.Decimal(38, PLACES.get(name, 2))).cast(pl.String)
        for name in (*texts, *more, "quote_volume")
    )
    return [list(row) for row in written.select(columns).iter_rows()]


def trade_rows(count: int) -> list[dict[str, Any]]:
    """Aggregate trades as Binance sends them: some a millisecond, buyers and sellers in turns."""
    first = int(ORIGIN.timestamp()) * 1000
    return [
        {
            "a": 3_000_000_000 + number,
            "p": f"{60_000 + number % 977 / 10:.2f}",
            "q": f"{(number % 613 + 1) / 1000:.3f}",
            "f": 5_000_000_000 + 2 * number,
            "l": 5_000_000_001 + 2 * number,
            "T": first + number // 3,
            "m": number % 3 == 0,
        }
        for number in range(count)
    ]


def _rate(work: Callable[[], object], rows: int) -> float:
    work()
    taken = []
    for _ in range(RUNS):
        # Processor time of all threads: what one core would need, whatever else the machine does.
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return rows / statistics.median(taken) / 1e6


def _compact(rows: object) -> bytes:
    return json.dumps(rows, separators=(",", ":")).encode()


def _lines(header: bytes, rows: list[list[Any]]) -> bytes:
    return header + "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


def _child() -> None:
    from market_data.model.timeframe import TimeRange
    from market_data.providers.binance.klines import parse_file
    from market_data.providers.binance.parse import parse_klines
    from market_data.providers.binance.trades import _frame, file_frames, parse_aggregate_trades

    klines = kline_rows(MONTH_ROWS)
    page, month = _compact(klines[:PAGE_ROWS]), _lines(KLINE_HEADER, klines)
    told = trade_rows(TRADES_FILE_ROWS)
    trade_page = _compact(told[:TRADES_PAGE_ROWS])
    listed = [[*list(row.values())[:6], str(row["m"]).lower()] for row in told]
    trade_file = _lines(TRADE_HEADER, listed)
    span = TimeRange(ORIGIN, ORIGIN + timedelta(days=1))
    assert parse_klines(page).height == PAGE_ROWS
    assert sum(frame.height for frame in file_frames(trade_file, span)) == TRADES_FILE_ROWS

    def pages(parse: Callable[[bytes], object], body: bytes) -> Callable[[], object]:
        return lambda: [parse(body) for _ in range(REPEATS)]

    def trade_frame(body: bytes) -> pl.DataFrame:
        return _frame(parse_aggregate_trades(body))

    rates = {
        "kline_page": _rate(pages(parse_klines, page), PAGE_ROWS * REPEATS),
        "kline_json": _rate(pages(json.loads, page), PAGE_ROWS * REPEATS),
        "kline_file": _rate(lambda: parse_file(month), MONTH_ROWS),
        "trade_page": _rate(pages(trade_frame, trade_page), TRADES_PAGE_ROWS * REPEATS),
        "trade_json": _rate(pages(json.loads, trade_page), TRADES_PAGE_ROWS * REPEATS),
        "trade_file": _rate(lambda: list(file_frames(trade_file, span)), TRADES_FILE_ROWS),
    }
    print(json.dumps(rates))


if __name__ == "__main__":
    _child()
