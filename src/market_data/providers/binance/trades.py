"""Binance trades: aggregate trades, of the last two days from REST, older ones from the archive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import polars as pl

from market_data.model.contract import Listing
from market_data.model.dataset import EXACT, TRADES
from market_data.model.errors import MalformedPayload, MarketDataError, UnsupportedRequest
from market_data.model.provider import Page
from market_data.model.rows import VALUE_UNREADABLE, Rows, rejections
from market_data.model.timeframe import TimeRange
from market_data.providers.binance import archive
from market_data.providers.binance.client import Client, millis
from market_data.providers.binance.markets import SPOT_MARKET, Market
from market_data.transport.columns import Count, Field, moments_of
from market_data.transport.ordered import fetch_ordered
from market_data.transport.payload import load_json, read_compact_objects
from market_data.transport.rows import read_objects
from market_data.transport.senders import Response

# REST goes back 48 hours on futures; what is older is asked of the archive where it is there.
REST_REACH = timedelta(hours=47)
# With both times given, less than an hour may lie between them.
WINDOW = timedelta(minutes=59)
ROWS = 1000
FILES_AT_ONCE = 1
MILLIS: Final = Count("ms")
FIELDS: Final[dict[str, Field]] = {"a": pl.Int64(), "p": EXACT, "q": EXACT, "T": MILLIS, "m": pl.Boolean()}
COMPACT: Final[dict[str, pl.DataType]] = FIELDS | {"T": pl.Int64(), "m": pl.Int64()}  # type: ignore[assignment]
SINGLE_FIELDS: Final = dict(zip(("id", "price", "qty", "time", "isBuyerMaker"), FIELDS.values(), strict=True))
FILE_FIELDS: Final[dict[str, Field]] = {
    "agg_trade_id": pl.Int64(),
    "price": EXACT,
    "quantity": EXACT,
    "first_trade_id": pl.Int64(),
    "last_trade_id": pl.Int64(),
    "transact_time": archive.MOMENT,
    "is_buyer_maker": pl.String(),
}


async def trades(
    client: Client, market: Market, listing: Listing, span: TimeRange, now: datetime
) -> AsyncIterator[Page]:
    """Aggregate trades of a listing in `span`, oldest page first: fills of one taker order at one price are one row."""
    span = TimeRange(max(span.start, listing.valid_from or span.start), min(span.end, now))
    # Days that REST reaches in part are taken whole from the archive if it has them already. Spot's REST reaches all.
    oldest = span.start if market is SPOT_MARKET else now - REST_REACH
    recent = now - REST_REACH
    if not client.settings.use_archive and span.start < oldest:
        raise UnsupportedRequest(
            f"binance's interface tells trades of futures from {oldest:%Y-%m-%dT%H:%MZ} on; older ones are in its "
            "archive, which providers.binance.use_archive switches off"
        )
    files = archive.pieces(span, now, monthly=False) if client.settings.use_archive else []
    files = [piece for piece in files if piece.span.start < recent]

    unread, begin, found_any = archive.Unread(), span.start, False
    lacking: list[str] = []
    ask = partial(_file, client, f"{market.archive}/daily/aggTrades/{listing.raw_symbol}", listing, unread)
    async for piece, found in fetch_ordered(files, ask, concurrency=FILES_AT_ONCE):
        if found is None:
            if piece.span.start >= recent:
                break
            # Before the first file there is, the contract was not traded yet.
            lacking += [piece.label] if found_any and market is not SPOT_MARKET and piece not in unread else []
            if market is SPOT_MARKET:
                # The other door.
                unread.forget(piece)
                async for page in _from_rest(client, market, listing, piece.span):
                    yield page
        else:
            found_any = True
            csv, response = found
            try:
                for rows in file_rows(csv, piece.span):
                    yield _page(client, listing, rows, f"{listing.provider}:archive", response)
            except MarketDataError as error:
                unread.note(piece, error)
        begin = piece.span.end
    begin = max(begin, oldest)
    if begin < span.end:
        async for page in _from_rest(client, market, listing, TimeRange(begin, span.end)):
            yield page
    unread.tell()
    if lacking:
        raise MalformedPayload(f"binance's archive has no trades of {listing.raw_symbol} of {', '.join(lacking)}")


async def _file(
    client: Client, folder: str, listing: Listing, unread: archive.Unread, piece: archive.Piece
) -> tuple[archive.Piece, tuple[bytes, Response] | None]:
    """A day's file; None where there is none, or it cannot be read, which is kept in `unread`."""
    try:
        return piece, await archive.download(client, f"{folder}/{listing.raw_symbol}-aggTrades-{piece.label}.zip")
    except MarketDataError as error:
        unread.note(piece, error)
        return piece, None


async def _from_rest(client: Client, market: Market, listing: Listing, span: TimeRange) -> AsyncIterator[Page]:
    """By time until there are some, then on by number: the two may not be mixed.

    A page that is not full is not the end, since a server may give fewer than it was asked for: what ends it is an
    empty page, or a trade behind the range.
    """
    for window in span.split(WINDOW):
        times: dict[str, Any] = {"startTime": millis(window.start), "endTime": millis(window.end) - 1}
        response = await client.get(market, "/aggTrades", symbol=listing.raw_symbol, limit=ROWS, **times)
        rows = parse_aggregate_trades(response.body)
        if rows.frame.height:
            break
        if rows.rejected.height:
            yield client.page(Rows(TRADES.empty(), rows.rejected), market.source, response)
            rows = Rows(rows.frame)
    while rows.frame.height:
        inside = Rows(_frame(rows.frame).filter(_inside(span)), rows.rejected)
        yield _page(client, listing, inside, market.source, response)
        if rows.frame["T"][-1] >= span.end:
            return
        following = int(rows.frame["a"][-1]) + 1
        response = await client.get(market, "/aggTrades", symbol=listing.raw_symbol, limit=ROWS, fromId=following)
        rows = parse_aggregate_trades(response.body)
        if rows.frame.height and int(rows.frame["a"][0]) < following:
            first = rows.frame["a"][0]
            raise MalformedPayload(f"binance sent trade {first} where {following} and on were asked for")
    if rows.rejected.height:
        yield _page(client, listing, Rows(TRADES.empty(), rows.rejected), market.source, response)
        raise MalformedPayload("binance sent a page on which nothing is a trade: what follows it cannot be asked for")


def _page(client: Client, listing: Listing, rows: Rows, source: str, response: Response) -> Page:
    return replace(client.page(rows, source, response), contract=listing.contract)


def parse_aggregate_trades(body: bytes) -> Rows:
    """Number, price, size, time and whether the buyer was the maker, in the order sent.

    Raises:
        MalformedPayload: when it is no list of rows at all.
    """
    rows = read_compact_objects(body, COMPACT)
    if rows is not None:
        typed = rows.with_columns(moments_of(rows["T"], MILLIS), m=pl.col("m") == 1)
        if not typed["T"].null_count():
            return Rows(typed)
    return read_objects(load_json(body), FIELDS, tuple(FIELDS), time="T")


def parse_trades(body: bytes) -> Rows:
    """Single trades (`/trades`, `/historicalTrades`) in the TRADES schema, in the order sent.

    Raises:
        MalformedPayload: when it is no list of rows at all.
    """
    rows = read_objects(load_json(body), SINGLE_FIELDS, tuple(SINGLE_FIELDS), time="time")
    return rows.with_frame(lambda frame: _frame(frame.rename(dict(zip(SINGLE_FIELDS, FIELDS, strict=True)))))


def file_rows(csv: bytes, span: TimeRange) -> Iterator[Rows]:
    """Trades of an aggTrades file that lie in `span`, in the TRADES schema, some at a time.

    Raises:
        MalformedPayload: when not one line of many is a trade.
    """
    for block in archive.blocks(csv):
        rows = archive.read_lines(block, FILE_FIELDS, "transact_time", optional=("first_trade_id", "last_trade_id"))
        named = rows.frame.select(
            a="agg_trade_id", p="price", q="quantity", T="transact_time", m=_maker("is_buyer_maker")
        )
        unclear = named["m"].is_null()
        good = Rows(_frame(named.filter(~unclear)).filter(_inside(span)), rows.rejected)
        yield good.rejecting(_without_side(rows.frame.filter(unclear))) if unclear.any() else good


def _maker(column: str) -> pl.Expr:
    # True/False in spot files, true/false in futures files.
    word = pl.col(column).str.to_lowercase()
    return pl.when(word.is_in(["true", "false"])).then(word == "true")


def _without_side(rows: pl.DataFrame) -> pl.DataFrame:
    return rejections(f"{VALUE_UNREADABLE}: is_buyer_maker", rows.rename({"transact_time": "timestamp"}))


def _inside(span: TimeRange) -> pl.Expr:
    return pl.col("timestamp").is_between(span.start, span.end, closed="left")


def _frame(rows: pl.DataFrame) -> pl.DataFrame:
    return TRADES.conform(
        rows.select(
            timestamp="T",
            trade_id=pl.col("a").cast(pl.String),
            price="p",
            size="q",
            # The maker was the buyer: the taker sold.
            aggressor_side=pl.when("m").then(pl.lit("sell")).otherwise(pl.lit("buy")),
        )
    )
