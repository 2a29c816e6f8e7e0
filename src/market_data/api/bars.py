"""The route of bars: of a length, of a volume, or of an amount of money, made of stored trades when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import polars as pl
from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from market_data.api.arguments import LATEST, AssetClassQuery, End, Limit, Start, Symbol
from market_data.api.bodies import Form, accepted
from market_data.api.documents import Class, Count, Document, Exact, SymbolName, Time
from market_data.api.market import Accept, forms
from market_data.api.selections import download, json_limit, page
from market_data.api.served import Backing
from market_data.model.bars import SCHEMA
from market_data.model.timeframe import EPOCH, TimeRange
from market_data.pipeline.read.bars import bars, parse_cut

router = APIRouter(prefix="/market", tags=["market"])
Every = Annotated[
    str | None,
    Query(max_length=32, description="Length of a bar: 90s, 7m30s, 2h; a day is a multiple.", examples=["90s"]),
]
Volume = Annotated[str | None, Query(max_length=32, description="Units after which a bar ends.", examples=["1000"])]
Dollars = Annotated[
    str | None,
    Query(max_length=32, description="Money after which a bar ends, in the quote currency.", examples=["1e6"]),
]


class BarRow(Document):
    """A bar: what its trades make, by the rules of their sale conditions."""

    timestamp: Time
    """Where it begins: its length's place, or its first trade."""
    end: Time
    """Where it ends: its length's place, or its last trade."""
    open: Exact | None
    high: Exact | None
    low: Exact | None
    close: Exact | None
    volume: Exact
    quote_volume: Exact
    vwap: Exact | None
    trade_count: Annotated[int, Field(examples=[240])]
    taker_buy_volume: Exact | None
    complete: bool
    """Whether nothing more can belong to it."""


class BarsPage(Document):
    """Bars in order of time."""

    symbol: SymbolName
    asset_class: Class
    count: Count
    next: Time | None
    """`start` of the next page; null on the last."""
    bars: list[BarRow]


@router.get("/bars/{symbol}", responses=forms(BarsPage))
def market_bars(
    served: Backing,
    symbol: Symbol,
    asset_class: AssetClassQuery = None,
    every: Every = None,
    volume: Volume = None,
    dollars: Dollars = None,
    start: Start = None,
    end: End = None,
    limit: Limit = None,
    accept: Accept = None,
) -> Response:
    """Bars that begin in [start, end), made of the stored trades: by `every`, `volume` or `dollars`, one of them."""
    cut = parse_cut(every, volume, dollars)
    instrument = served.stored_instrument(symbol, asset_class)
    form = accepted(accept)
    headers = {"Cache-Control": "private, no-cache", "Vary": "Accept, Accept-Encoding"}
    frames = bars(served.database, instrument, TimeRange(start or EPOCH, end or LATEST), cut)
    if form is not Form.JSON:
        return download(served, form, _limited(frames, limit), f"{instrument.symbol.replace('/', '-')}-bars", headers)
    most = json_limit(limit)
    rows = pl.concat([pl.DataFrame(schema=SCHEMA), *_limited(frames, most + 1)])
    following = rows["timestamp"][most] if rows.height > most else None
    lead = {
        "symbol": instrument.symbol,
        "asset_class": instrument.asset_class.value,
        "count": min(rows.height, most),
        "next": following,
    }
    return page(lead, "bars", rows.head(most), headers)


def _limited(frames: Iterator[pl.DataFrame], limit: int | None) -> Iterator[pl.DataFrame]:
    """The first `limit` rows; the first frame comes even when it is empty."""
    left, sent = limit, False
    for frame in frames:
        part = frame if left is None else frame.head(left)
        left = None if left is None else left - part.height
        yield part
        sent = True
        if left == 0:
            return
    if not sent:
        yield pl.DataFrame(schema=SCHEMA)
