"""Whole ticks to JSON text, a column at a time, so that serving is never what a benchmark measures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from market_data.sandbox.block import Int


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """JSON of consecutive rows, each followed by a comma: row i is ``data[offsets[i]:offsets[i + 1]]``."""

    time: Int
    data: memoryview
    offsets: NDArray[np.int64]

    def between(self, start: int, end: int) -> bytes:
        """Rows that open in [start, end), ms, each followed by a comma."""
        first, last = np.searchsorted(self.time, (start, end))
        return bytes(self.data[self.offsets[first] : self.offsets[last]])


def decimal(name: str, decimals: int, *, places: int | None = None) -> pl.Expr:
    """A column of whole 10^-``decimals`` as plain decimal text; ``places`` to show more digits than that."""
    whole = pl.col(name).cast(pl.Decimal(38, 0))
    if decimals <= 0:
        return whole.cast(pl.String)
    tick = pl.lit(f"0.{'0' * (decimals - 1)}1").cast(pl.Decimal(38, decimals))
    return (whole * tick).cast(pl.Decimal(38, places or decimals)).cast(pl.String)


def rows(time: Int, columns: dict[str, NDArray[np.generic]], template: str, texts: list[pl.Expr]) -> Rows:
    """One text per row: ``template`` with each ``{}`` replaced by the next of ``texts`` over ``columns``."""
    line = pl.DataFrame(columns).select(pl.format(template, *texts)).to_series().to_arrow()
    _, offsets, data = line.buffers()
    return Rows(time, memoryview(data), np.frombuffer(offsets, np.int64)[line.offset :])


def listed(text: bytes) -> bytes:
    """A JSON array of rows that each end with a comma."""
    return b"[" + text[:-1] + b"]"
