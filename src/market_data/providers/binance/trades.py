"""Binance trades: aggregate trades, of the last two days from REST, older ones from the archive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl
import structlog

from market_data.model.dataset import EXACT, TRADES, UTC_MICROS
from market_data.model.errors import MalformedPayload
from market_data.model.instrument import Listing
from market_data.model.provider import Page
from market_data.model.timeframe import TimeRange
from market_data.providers.binance import archive
from market_data.providers.binance.client import Client, millis
from market_data.providers.binance.markets import Market
from market_data.transport.ordered import fetch_ordered
from market_data.transport.payload import exact_frame, load_json, read_compact_objects, require_columns
from market_data.transport.senders import Response

# REST goes back 48 hours on futures; what is older is asked of the archive where it is there.
REST_REACH = timedelta(hours=47)
# With both times given, less than an hour may lie between them.
WINDOW = timedelta(minutes=59)
ROWS = 1000
FILES_AT_ONCE = 1
FIELDS: Final[dict[str, pl.DataType]] = {
    "a": pl.Int64(),
    "p": EXACT,
    "q": EXACT,
    "T": pl.Int64(),
    "m": pl.Int64(),
}
FILE_FIELDS: Final[dict[str, pl.DataType]] = {
    "agg_trade_id": pl.Int64(),
    "price": EXACT,
    "quantity": EXACT,
    "first_trade_id": pl.Int64(),
    "last_trade_id": pl.Int64(),
    "transact_time": pl.Int64(),
    "is_buyer_maker": pl.String(),
}

log = structlog.get_logger(__name__)


async def trades(
    client: Client, market: Market, listing: Listing, span: TimeRange, now: datetime
) -> AsyncIterator[Page]:
    """Aggregate trades of a listing in `span`, oldest page first: fills of one taker order at one price are one row."""
    span = TimeRange(max(span.start, listing.valid_from or span.start), min(span.end, now))
    # Days that REST reaches in part are taken whole from the archive if it has them already.
    recent = now - REST_REACH
    files = archive.pieces(span, now, monthly=False) if client.settings.use_archive else []
    files = [piece for piece in files if piece.span.start < recent]

    async def ask(piece: archive.Piece) -> tuple[archive.Piece, tuple[bytes, Response] | None]:
        name = f"{listing.raw_symbol}-aggTrades-{piece.label}.zip"
        path = f"{market.archive}/{piece.period}/aggTrades/{listing.raw_symbol}/{name}"
        return piece, await archive.download(client, path)

    begin = span.start
    async for piece, found in fetch_ordered(files, ask, concurrency=FILES_AT_ONCE):
        if found is None:
            if piece.span.start >= recent:
                break
            log.warning("no trades in the archive yet", symbol=listing.raw_symbol, day=piece.label)
        else:
            csv, response = found
            for frame in file_frames(csv, piece.span):
                yield client.page(frame, f"{listing.provider}:archive", response)
        begin = piece.span.end
    begin = max(begin, recent)
    if begin < span.end:
        async for page in _from_rest(client, market, listing, TimeRange(begin, span.end)):
            yield page


async def _from_rest(client: Client, market: Market, listing: Listing, span: TimeRange) -> AsyncIterator[Page]:
    """By time until a page is full, then on by number: the two may not be mixed."""
    for window in span.split(WINDOW):
        times: dict[str, Any] = {"startTime": millis(window.start), "endTime": millis(window.end) - 1}
        response = await client.get(market, "/aggTrades", symbol=listing.raw_symbol, limit=ROWS, **times)
        rows = parse_aggregate_trades(response.body)
        while rows.height:
            frame = _frame(rows).filter(pl.col("timestamp").is_between(window.start, window.end, closed="left"))
            if frame.height:
                yield client.page(frame, market.source, response)
            if rows.height < ROWS or frame.height < rows.height:
                break
            following = int(rows["a"][-1]) + 1
            response = await client.get(market, "/aggTrades", symbol=listing.raw_symbol, limit=ROWS, fromId=following)
            rows = parse_aggregate_trades(response.body)
            if rows.height and int(rows["a"][0]) < following:
                raise MalformedPayload(f"binance sent trade {rows['a'][0]} where {following} and on were asked for")


def parse_aggregate_trades(body: bytes) -> pl.DataFrame:
    """Number, price, size, time (ms) and whether the buyer was the maker (1, 0), in the order sent.

    Raises:
        MalformedPayload: naming what is not as promised.
    """
    rows = read_compact_objects(body, FIELDS)
    if rows is not None:
        return rows
    decoded = load_json(body)
    texts = {name: dtype for name, dtype in FIELDS.items() if name != "m"}
    rows = exact_frame(decoded, texts)
    flags = [row.get("m") for row in decoded]
    if not all(isinstance(flag, bool) for flag in flags):
        raise MalformedPayload("a trade does not say who was the maker")
    rows = rows.with_columns(m=pl.Series(flags, dtype=pl.Boolean).cast(pl.Int64))
    require_columns(rows, tuple(FIELDS))
    return rows


def parse_trades(body: bytes) -> pl.DataFrame:
    """Single trades (`/trades`, `/historicalTrades`) in the TRADES schema, in the order sent.

    Raises:
        MalformedPayload: naming what is not as promised.
    """
    names: dict[str, pl.DataType] = {"id": pl.Int64(), "price": EXACT, "qty": EXACT, "time": pl.Int64()}
    decoded = load_json(body)
    rows = exact_frame(decoded, names)
    flags = [row.get("isBuyerMaker") for row in decoded]
    if not all(isinstance(flag, bool) for flag in flags):
        raise MalformedPayload("a trade does not say who was the maker")
    require_columns(rows, tuple(names))
    maker = pl.Series(flags, dtype=pl.Boolean).cast(pl.Int64)
    return _frame(rows.rename({"id": "a", "price": "p", "qty": "q", "time": "T"}).with_columns(m=maker))


def file_frames(csv: bytes, span: TimeRange) -> Iterator[pl.DataFrame]:
    """Trades of an aggTrades file that lie in `span`, in the TRADES schema, some at a time.

    Raises:
        MalformedPayload: when a row is not one.
    """
    for block in archive.blocks(csv):
        rows = archive.read_rows(block, FILE_FIELDS).select(
            a="agg_trade_id", p="price", q="quantity", T="transact_time", m="is_buyer_maker"
        )
        # True/False in spot files, true/false in futures files.
        maker = pl.col("m").str.to_lowercase().replace_strict({"true": 1, "false": 0}, default=None)
        rows = rows.with_columns(m=maker.cast(pl.Int64))
        require_columns(rows, tuple(FIELDS))
        frame = _frame(rows).filter(pl.col("timestamp").is_between(span.start, span.end, closed="left"))
        if frame.height:
            yield frame


def _frame(rows: pl.DataFrame) -> pl.DataFrame:
    return TRADES.conform(
        rows.select(
            timestamp=archive.moments("T").cast(UTC_MICROS),
            trade_id=pl.col("a").cast(pl.String),
            price="p",
            size="q",
            # The maker was the buyer: the taker sold.
            aggressor_side=pl.when(pl.col("m") == 1).then(pl.lit("sell")).otherwise(pl.lit("buy")),
        )
    )
