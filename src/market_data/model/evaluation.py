"""Evaluates features over a window, over many windows at once, and for one new candle: same code, same bits.

A long window is cut into blocks that fit the processor's cache, each with the lookback before it, and the blocks are
shared out to threads; the laws of features make the pieces equal to the whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from market_data.model.feature import Feature
from market_data.model.instrument import Series
from market_data.model.window import Window

Values: TypeAlias = dict[str, NDArray[Any]]

# Large enough that the cost of a call is spread thin, small enough that memory stays bounded.
BLOCK_ROWS: Final = 50_000
SMALLEST_BLOCK_ROWS: Final = 10_000
# Features that look back further are evaluated apart, so that they do not lengthen every other's block.
NEAR_ROWS: Final = 64


def evaluate(features: Sequence[Feature], window: Window) -> pl.DataFrame:
    """One column per feature, as high as the window; null where a value is not known or not finite."""
    return _frame(features, len(window), _values(features, [window])[0])


def evaluate_many(features: Sequence[Feature], windows: Iterable[Window]) -> Iterator[pl.DataFrame]:
    """`evaluate` of each window, in order, on all processors; a few windows at a time are in memory.

    Windows are taken as they are needed, so that an iterator over thousands of series is never held as a whole.
    """
    batch: list[Window] = []
    for window in windows:
        batch.append(window)
        if sum(map(len, batch)) >= 8 * BLOCK_ROWS:
            yield from _evaluated(features, batch)
            batch = []
    yield from _evaluated(features, batch)


def latest(features: Sequence[Feature], window: Window) -> dict[str, float | str | None]:
    """The features of the window's last row; the window needs no more than the lookback before it."""
    out: dict[str, float | str | None] = {}
    with np.errstate(all="ignore"):
        for part, group in _groups(features, window.series):
            tail = window.rows(max(0, len(window) - part - 1), len(window))
            for each in group:
                out[each.name] = _last(each, tail)
    return {each.name: out.get(each.name) for each in features}


def _last(each: Feature, tail: Window) -> float | str | None:
    value = each.function(tail)[-1]
    if each.labels is not None:
        return each.labels[value] if value >= 0 else None
    return float(value) if np.isfinite(value) else None


def _evaluated(features: Sequence[Feature], windows: Sequence[Window]) -> Iterator[pl.DataFrame]:
    for window, values in zip(windows, _values(features, windows), strict=True):
        yield _frame(features, len(window), values)


def _values(features: Sequence[Feature], windows: Sequence[Window]) -> list[Values]:
    """Per window the arrays of all features that apply, computed block by block."""
    outs: list[Values] = []
    blocks = []
    for window in windows:
        groups = _groups(features, window.series)
        out: Values = {
            each.name: np.empty(len(window), np.int8 if each.labels else np.float64)
            for _, group in groups
            for each in group
        }
        outs.append(out)
        blocks += [(window, part, groups, out) for part in _parts(len(window))]
    if len(blocks) > 1 and _processors() > 1:
        for _ in _threads().map(_fill, *zip(*blocks, strict=True)):
            pass
    else:
        for block in blocks:
            _fill(*block)
    return outs


def _parts(rows: int) -> list[tuple[int, int]]:
    """Cut a window into blocks [start, stop): one, or at least one for each processor."""
    size = min(BLOCK_ROWS, max(SMALLEST_BLOCK_ROWS, -(-rows // _processors())))
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]


def _fill(window: Window, part: tuple[int, int], groups: Sequence[tuple[int, list[Feature]]], out: Values) -> None:
    """Compute the rows of one block and write them to their place."""
    start, stop = part
    # Set in every thread: NumPy keeps it per thread.
    with np.errstate(all="ignore"):
        for lookback, group in groups:
            first = max(0, start - lookback)
            block = window.rows(first, stop)
            for each in group:
                values = each.function(block)
                if values.shape != (stop - first,):
                    raise TypeError(f"feature {each.name} gave shape {values.shape} for {stop - first} rows")
                place = out[each.name][start:stop]
                values = values[start - first :]
                if each.labels is None:
                    # Infinity times zero is NaN; any other value plus its own zero is itself, to the bit.
                    np.multiply(values, 0.0, out=place)
                    np.add(values, place, out=place)
                else:
                    place[:] = values


def _groups(features: Sequence[Feature], series: Series) -> list[tuple[int, list[Feature]]]:
    """The features that apply, in groups that are evaluated together, each with its largest lookback."""
    near: list[Feature] = []
    far: list[Feature] = []
    reach = {}
    for each in features:
        if each.applies(series):
            reach[each.name] = each.lookback_for(series)
            (near if reach[each.name] <= NEAR_ROWS else far).append(each)
    return [(max(reach[each.name] for each in group), group) for group in (near, far) if group]


def _frame(features: Sequence[Feature], rows: int, values: Values) -> pl.DataFrame:
    return pl.DataFrame([_column(each, rows, values.get(each.name)) for each in features])


def _column(each: Feature, rows: int, values: NDArray[Any] | None) -> pl.Series:
    if values is None:
        return pl.repeat(None, rows, dtype=each.dtype, eager=True).alias(each.name)
    if each.labels is None:
        return pl.Series(each.name, values, nan_to_null=True)
    codes = pl.Series(np.maximum(values, 0).astype(np.uint32))
    texts = pl.Series(each.labels, dtype=pl.String).gather(codes)
    return texts.set(pl.Series(values < 0), None).alias(each.name)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_processors(), thread_name_prefix="features")
