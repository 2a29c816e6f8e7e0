"""Rows of one answer: those of their dataset's shape, and those that are none, kept as sent with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from market_data.model.dataset import UTC_MICROS

# Reasons to turn a row away before a rule can look at it.
NOT_A_ROW: Final = "not_a_row"
VALUE_MISSING: Final = "value_missing"
VALUE_UNREADABLE: Final = "value_unreadable"
VALUE_TOO_FINE: Final = "value_too_fine"
TEXT_TOO_LONG: Final = "text_too_long"
INTERVAL_DIFFERS: Final = "interval_differs"
PARTS_CONTRADICT: Final = "parts_contradict"
TIME_UNIT_UNCLEAR: Final = "time_unit_unclear"
DUPLICATE_KEY: Final = "duplicate_key"
# A remark on a candle whose source ended it early.
NOTE_CUT_SHORT: Final = "cut_short"
# What holds for a row that is not turned away so; listed with the rules.
UNREADABLE: Final = {
    NOT_A_ROW: "It is a row: it has the fields of one.",
    VALUE_MISSING: "The fields that no row of the dataset is without hold a value.",
    VALUE_UNREADABLE: "Numbers, dates and moments are written as such, and lie in the years 1800 to 2199.",
    VALUE_TOO_FINE: "No number has more than 18 decimals.",
    TEXT_TOO_LONG: "A text that tells rows apart has at most 200 characters.",
    INTERVAL_DIFFERS: "A candle is as long as was asked for, or was cut short.",
    PARTS_CONTRADICT: "A candle that another one is made of was sent once, or again with the same values.",
    TIME_UNIT_UNCLEAR: "A count of seconds, or of parts of one, is a moment of 1900 to 2099 in one unit only.",
    DUPLICATE_KEY: "No row before it in the answer has its key and other values.",
}

# `rule` is one of UNREADABLE, with what it is about after a colon; `payload` the row as JSON.
REJECTED: Final = pl.Schema({"timestamp": UTC_MICROS, "rule": pl.String(), "payload": pl.String()})


def none_rejected() -> pl.DataFrame:
    """A frame of rejected rows without any."""
    return REJECTED.to_frame()


@dataclass(frozen=True, slots=True)
class Rows:
    """Every row of an answer is in one of the two frames."""

    frame: pl.DataFrame
    rejected: pl.DataFrame = field(default_factory=none_rejected)

    def with_frame(self, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Rows:
        """The good rows changed, the rejected ones kept."""
        return Rows(change(self.frame), self.rejected)

    def rejecting(self, more: pl.DataFrame) -> Rows:
        """With more rows rejected, which no longer are among the good ones."""
        return Rows(self.frame, pl.concat([self.rejected, more]))


def joined(some: Iterable[Rows], empty: pl.DataFrame) -> Rows:
    """The rows of several answers; `empty` is a frame of their schema."""
    every = list(some)
    return Rows(
        pl.concat([empty, *(rows.frame for rows in every)]),
        pl.concat([none_rejected(), *(rows.rejected for rows in every)]),
    )


def rejections(rule: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Candles as rejected rows; exact numbers and moments of their payload as text."""
    texts = frame.select(pl.struct(pl.col(name).cast(pl.String) for name in frame.columns).struct.json_encode())
    rules = pl.repeat(rule, frame.height, dtype=pl.String, eager=True)
    return pl.DataFrame(
        {"timestamp": frame["timestamp"], "rule": rules, "payload": texts.to_series()}, schema=dict(REJECTED)
    )
