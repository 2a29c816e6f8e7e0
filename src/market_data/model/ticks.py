"""Ticks: the day and number that tell trades and quotes of a contract apart, and which trades count for what."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

import polars as pl

# A text id becomes a number that sorts by time: the microsecond of its day, then bits of the text.
HASH_BITS: Final = 26
_PLAIN: Final = r"^(0|[1-9][0-9]{0,17})$"
_DAY_MICROS: Final = 86_400_000_000

# What a share's sale conditions keep a trade from moving, by the source's codes: the consolidated guidelines of the
# tapes (CTA and UTP specifications, as polygon.io/glossary/us/stocks/conditions-indicators lists them, read in 2026).
# Codes that are not here move everything.
NO_HIGH_LOW: Final = frozenset({2, 7, 12, 13, 15, 16, 20, 21, 37, 52, 53})
# Those of the second set may stand for the price of a stretch that has no other.
NO_OPEN_CLOSE: Final = NO_HIGH_LOW | frozenset({5, 10, 22, 29, 33})
NO_VOLUME: Final = frozenset({15, 16, 38})
# Cancelled, cancelled as of another day, in error.
VOID_CONDITIONS: Final = frozenset({44, 49, 54})
# Correction indicators: later said to be an error (7), later cancelled (8); or the row only says so of another one:
# a cancel (10), an error (11), the record of a correction (12), whose trade itself carries 1 and the right values.
VOID_CORRECTIONS: Final = frozenset({7, 8, 10, 11, 12})


def numbered(frame: pl.DataFrame, own: str, *, restarts: bool) -> pl.DataFrame:
    """The rows with `day` and `number`; `trade_id` is kept only where it is not that number itself.

    Args:
        frame: rows with `timestamp` and the venue's own number or id.
        own: the column of that.
        restarts: whether numbers begin anew within a day, so that time has to tell them apart.
    """
    day = pl.col("timestamp").dt.date()
    if frame.schema[own].is_integer():
        number = pl.col(own)
        if restarts:
            number = _by_time(number % 2**HASH_BITS)
        return frame.with_columns(day=day, number=number)
    plain = frame[own].str.contains(_PLAIN)
    if restarts:
        plain = plain & False
    if plain.all():
        return frame.with_columns(pl.lit(None, pl.String).alias(own), day=day, number=pl.col(own).cast(pl.Int64))
    texts = frame[own].to_list()
    hashed = pl.Series("hashed", [_hash(text) for text in texts], pl.Int64)
    number = pl.when(plain).then(pl.col(own).cast(pl.Int64, strict=False)).otherwise(_by_time(pl.col("hashed")))
    return (
        frame.with_columns(hashed)
        .with_columns(day=day, number=number)
        .drop("hashed")
        .with_columns(pl.when(~plain).then(own).alias(own))
    )


def _hash(text: str) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:8]) >> (64 - HASH_BITS)


def _by_time(bits: pl.Expr) -> pl.Expr:
    moment = pl.col("timestamp").cast(pl.Datetime("us")).cast(pl.Int64) % _DAY_MICROS
    sorted_by_time: pl.Expr = moment * 2**HASH_BITS + bits
    return sorted_by_time


def counting(trades: pl.DataFrame, *, shares: bool) -> pl.DataFrame:
    """Trades that happened, with what each may move: `moves_price`, `moves_range`, `moves_volume`.

    What a source says was cancelled or in error is left out, and so is what only says it of another trade.

    Args:
        trades: in the schema of TRADES.
        shares: whether conditions are those of shares; a coin's trades move everything.
    """
    if not shares:
        everything = [pl.lit(value=True).alias(name) for name in ("moves_price", "moves_range", "moves_volume")]
        return trades.with_columns(everything)
    codes = pl.col("conditions").list.eval(pl.element().cast(pl.Int64, strict=False))

    def any_of(barred: frozenset[int]) -> pl.Expr:
        return codes.list.set_intersection(sorted(barred)).list.len().fill_null(0) > 0

    void = pl.col("correction").is_in(sorted(VOID_CORRECTIONS)).fill_null(value=False) | any_of(VOID_CONDITIONS)
    return trades.filter(~void).with_columns(
        moves_price=~any_of(NO_OPEN_CLOSE), moves_range=~any_of(NO_HIGH_LOW), moves_volume=~any_of(NO_VOLUME)
    )
