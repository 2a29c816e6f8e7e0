"""Massive candles: asked for on a grid of ours, or made of finer ones that are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote

import numpy as np
import polars as pl

from market_data.model.aggregation import aggregate, agreeing, closed, runs
from market_data.model.contract import Listing
from market_data.model.dataset import CANDLES
from market_data.model.errors import MalformedPayload
from market_data.model.instrument import AssetClass
from market_data.model.provider import Page
from market_data.model.rows import joined
from market_data.model.session import Grid, grid
from market_data.model.timeframe import EPOCH, Timeframe, TimeRange, from_micros
from market_data.providers.polygon.client import NAME, Client
from market_data.providers.polygon.parse import at_session_open, parse_aggregates
from market_data.transport.ordered import fetch_ordered

# The most a request may ask for; it counts minutes, whatever is made of them, or days.
MOST_ROWS = 50_000
INTRADAY_WINDOW = timedelta(days=30)
DAILY_WINDOW = timedelta(days=40_000)
# How late an answer marked DELAYED is.
DELAY = timedelta(minutes=15)
NOTE_DELAYED = "delayed"
NOTE_EXTENDED_VOLUME = "volume_includes_extended_hours"
CONCURRENCY = 4
MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class _Ask:
    """What is asked for to make a timeframe."""

    timeframe: Timeframe
    multiplier: int
    timespan: str


_MINUTES: Final = {
    Timeframe.M1: _Ask(Timeframe.M1, 1, "minute"),
    Timeframe.M5: _Ask(Timeframe.M5, 5, "minute"),
    Timeframe.M15: _Ask(Timeframe.M15, 15, "minute"),
    Timeframe.M30: _Ask(Timeframe.M30, 30, "minute"),
}
_DAY: Final = _Ask(Timeframe.D1, 1, "day")
_HOUR: Final = _Ask(Timeframe.H1, 1, "hour")
# Massive's own hours of stocks begin on the clock's hour and weeks on Sunday: neither is our grid.
_STOCK_ASKS: Final = _MINUTES | {
    Timeframe.H1: _MINUTES[Timeframe.M30],
    Timeframe.H4: _MINUTES[Timeframe.M30],
    Timeframe.D1: _DAY,
    Timeframe.W1: _DAY,
}
_CRYPTO_ASKS: Final = _MINUTES | {
    Timeframe.H1: _HOUR,
    Timeframe.H4: _HOUR,
    Timeframe.D1: _DAY,
    Timeframe.W1: _DAY,
}


async def candles(
    client: Client, listing: Listing, timeframe: Timeframe, span: TimeRange, now: datetime
) -> AsyncIterator[Page]:
    """Closed candles of a listing that open in `span`, oldest page first."""
    asset_class = listing.instrument.asset_class
    wanted = grid(asset_class, timeframe, span).closed_by(now)
    ask = (_CRYPTO_ASKS if asset_class is AssetClass.CRYPTO else _STOCK_ASKS)[timeframe]
    longest = INTRADAY_WINDOW if ask.timeframe.intraday else DAILY_WINDOW

    async def fetch(window: Grid) -> Page:
        return await _window(client, listing, timeframe, ask, window, now)

    async for page in fetch_ordered(runs(wanted, longest), fetch, concurrency=CONCURRENCY):
        if page.holds_something:
            yield page


async def _window(
    client: Client, listing: Listing, timeframe: Timeframe, ask: _Ask, wanted: Grid, now: datetime
) -> Page:
    span = TimeRange(from_micros(wanted.opens[0]), from_micros(wanted.ends[-1]))
    raw_symbol = quote(listing.raw_symbol, safe=":")
    path = f"/v2/aggs/ticker/{raw_symbol}/range/{ask.multiplier}/{ask.timespan}/{_bounds(ask, span)}"
    answers, delayed, elapsed = [], False, 0.0
    async for response, answer in client.pages(path, adjusted="false", sort="asc", limit=MOST_ROWS):
        answer.must_be(listing.raw_symbol)
        answers.append(parse_aggregates(answer.results))
        delayed |= answer.delayed
        elapsed += response.elapsed_ms
        last = response
    known_until = min(now, last.server_time or now) - (DELAY if delayed else timedelta(0))
    asset_class = listing.instrument.asset_class
    _check_interval([part.frame for part in answers], ask)
    rows = joined(answers, CANDLES.empty()).with_frame(lambda frame: _on_grid(frame, asset_class, ask, span))
    if ask.timeframe is not timeframe:
        parts = grid(asset_class, ask.timeframe, span)
        rows = agreeing(rows).with_frame(lambda frame: aggregate(frame, wanted, parts))
    frame = closed(rows.frame, wanted, timeframe, known_until)
    if delayed:
        frame = _noted(frame, NOTE_DELAYED)
    return Page(
        frame=frame,
        rejected=rows.rejected,
        source=NAME,
        fetched_at=last.fetched_at,
        response_ms=elapsed,
        contract=listing.contract,
    )


def _check_interval(frames: list[pl.DataFrame], ask: _Ask) -> None:
    """Refuse candles that are finer than those asked for; a single one off the grid is left to the rules."""
    steps = pl.concat([CANDLES.empty(), *frames])["timestamp"].sort().diff().drop_nulls()
    # A day in which the clocks change has 23 hours.
    shortest = ask.timeframe.duration - (timedelta(hours=2) if ask is _DAY else timedelta(0))
    finer = ((steps > timedelta(0)) & (steps < shortest)).sum()
    if 2 * finer > len(steps):
        raise MalformedPayload(f"polygon sent candles finer than the {ask.multiplier} {ask.timespan} asked for")


def _on_grid(rows: pl.DataFrame, asset_class: AssetClass, ask: _Ask, span: TimeRange) -> pl.DataFrame:
    """Rows of the span, in order, each once; of stocks those of the regular session."""
    if asset_class is not AssetClass.CRYPTO:
        days = grid(asset_class, Timeframe.D1, TimeRange(span.start - timedelta(days=1), span.end))
        if ask is _DAY:
            opens = pl.Series(days.opens).cast(CANDLES.schema["timestamp"])
            rows = _noted(at_session_open(rows, opens), NOTE_EXTENDED_VOLUME)
        else:
            rows = rows.filter(_inside(rows, days))
    inside = pl.col("timestamp").is_between(span.start, span.end, closed="left")
    return rows.filter(inside).unique(maintain_order=True).sort("timestamp", maintain_order=True)


def _bounds(ask: _Ask, span: TimeRange) -> str:
    """From and to as the path wants them; both are inclusive."""
    last = span.end - MILLISECOND
    if ask is _DAY:
        return f"{span.start:%Y-%m-%d}/{last:%Y-%m-%d}"
    return f"{(span.start - EPOCH) // MILLISECOND}/{(last - EPOCH) // MILLISECOND}"


def _inside(rows: pl.DataFrame, sessions: Grid) -> pl.Series:
    times = rows["timestamp"].cast(pl.Int64).to_numpy()
    session = np.searchsorted(sessions.opens, times, side="right") - 1
    inside = session >= 0
    inside[inside] = times[inside] < sessions.ends[session[inside]]
    return pl.Series(inside)


def _noted(rows: pl.DataFrame, note: str) -> pl.DataFrame:
    return rows.with_columns(notes=pl.concat_str("notes", pl.lit(note), separator="; ", ignore_nulls=True))
