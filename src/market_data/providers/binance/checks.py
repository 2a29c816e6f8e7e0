"""What Binance's candles say against themselves: another length, two rows of one moment, hours without a trade."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import polars as pl

from market_data.model.errors import MalformedPayload
from market_data.model.rows import INTERVAL_DIFFERS, NOTE_CUT_SHORT, Rows, rejections
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.providers.binance.client import MILLISECOND

NOTE_CONTRADICTED: Final = "archive_contradicted_itself"
NOTE_NOT_CONFIRMED: Final = "archive_not_held_against_rest"
# A stretch without a trade that lasts as long may be one that the file lost
# (github.com/binance/binance-public-data, issues 77 and 169).
LONG_QUIET: Final = timedelta(hours=1)
# Where more of a file is quiet, so is the market.
MOST_QUIET: Final = 0.1


def of_length(rows: Rows, timeframe: Timeframe) -> Rows:
    """Candles say how long they are: those of another length than asked for are rejected, shorter ones are noted.

    Some of the first years were cut short by an outage: what was traded until then is what they hold.

    Raises:
        MalformedPayload: when all of several are of one other timeframe.
    """
    frame = rows.frame
    lengths = frame["close_time"] - frame["timestamp"] + MILLISECOND
    if (lengths == timeframe.duration).all():
        return rows
    told = set(lengths.to_list())
    if len(told) == 1 and len(lengths) > 1 and told <= {other.duration for other in Timeframe}:
        raise MalformedPayload(f"binance sent candles of {told.pop()} where {timeframe} was asked for")
    wrong = (lengths > timeframe.duration) | (lengths <= timedelta(0))
    short = ~wrong & (lengths < timeframe.duration)
    noted = frame.with_columns(notes=pl.when(pl.lit(short)).then(with_note(NOTE_CUT_SHORT)).otherwise("notes"))
    refused = rejections(INTERVAL_DIFFERS, frame.filter(wrong))
    return Rows(noted.filter(~wrong), rows.rejected).rejecting(refused)


def doubtful(frame: pl.DataFrame, timeframe: Timeframe, near: timedelta) -> list[TimeRange]:
    """Spans of a file's candles that another answer should confirm; those that lie `near` each other in one."""
    twice = frame.filter(frame["timestamp"].is_duplicated())["timestamp"].unique()
    times = pl.concat([twice, _quiet(frame, timeframe)]).unique().sort().to_list()
    spans: list[TimeRange] = []
    for opens in times:
        if spans and opens - spans[-1].end <= near:
            spans[-1] = TimeRange(spans[-1].start, opens + timeframe.duration)
        else:
            spans.append(TimeRange(opens, opens + timeframe.duration))
    return spans


def settled(filed: pl.DataFrame, again: pl.DataFrame, differed: str) -> pl.DataFrame:
    """A file's candles with those of another answer where the two differ, and where the file has two of one moment."""
    twice = filed.filter(filed["timestamp"].is_duplicated())["timestamp"].unique()
    ours = again.filter(again["timestamp"].is_in(twice.implode()))
    kept = filed.join(ours, on="timestamp", how="anti", maintain_order="left")
    others = again.join(ours, on="timestamp", how="anti", maintain_order="left")
    differing = others.join(kept, on=list(filed.columns), how="anti", nulls_equal=True, maintain_order="left")
    rest = kept.join(differing, on="timestamp", how="anti", maintain_order="left")
    noted = differing.with_columns(notes=with_note(differed)), ours.with_columns(notes=with_note(NOTE_CONTRADICTED))
    return pl.concat([rest, *noted]).sort("timestamp", maintain_order=True)


def unconfirmed(frame: pl.DataFrame, spans: list[TimeRange]) -> pl.DataFrame:
    """The candles, noted within the spans."""
    inside = pl.any_horizontal(
        pl.lit(value=False), *(pl.col("timestamp").is_between(span.start, span.end, closed="left") for span in spans)
    )
    return frame.with_columns(notes=pl.when(inside).then(with_note(NOTE_NOT_CONFIRMED)).otherwise("notes"))


def with_note(note: str) -> pl.Expr:
    """The column of notes with one more."""
    return pl.concat_str("notes", pl.lit(note), separator="; ", ignore_nulls=True)


def _quiet(frame: pl.DataFrame, timeframe: Timeframe) -> pl.Series:
    """Opens of candles in long stretches without a trade and without a move, where the market is not a quiet one."""
    flat = (frame["volume"] == 0) & (frame["high"] == frame["low"])
    nothing: list[datetime] = []
    if not flat.any() or flat.sum() > MOST_QUIET * max(frame.height, 1 / MOST_QUIET):
        return pl.Series(nothing, dtype=frame["timestamp"].dtype)
    runs = frame.select("timestamp", flat=flat, run=flat.rle_id()).filter("flat")
    long = pl.len().over("run") * timeframe.duration.total_seconds() >= LONG_QUIET.total_seconds()
    return runs.filter(long)["timestamp"]
