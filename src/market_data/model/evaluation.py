"""Evaluates features over a window, over many windows at once, and for one new candle: same code, same bits.

A long window is cut into blocks that fit the processor's cache, each with the lookback before it, and the blocks are
shared out to threads; the laws of features make the pieces equal to the whole.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from market_data.model.allocation import keep_freed_memory
from market_data.model.feature import Feature
from market_data.model.instrument import Series
from market_data.model.window import Window

Item = TypeVar("Item")
Result = TypeVar("Result")
# Features that are evaluated together, with the largest of their lookbacks.
Groups: TypeAlias = list[tuple[int, list[Feature]]]


@dataclass(frozen=True, slots=True)
class Patch:
    """The rows [start, stop) of a window as they are seen through another one, which begins at `first`."""

    first: int
    start: int
    stop: int
    window: Window


# By features that look back and the largest of their lookbacks: where they see rows otherwise.
Patches: TypeAlias = Callable[[int, Sequence[Feature]], Sequence[Patch]]
# Small enough that memory stays bounded, large enough for threads: below about 100,000 rows a step of NumPy is over
# before the other thread has woken up to use the interpreter, and two threads take longer than one.
BLOCK_ROWS: Final = 250_000
SMALLEST_BLOCK_ROWS: Final = 125_000
# Features that look back further are evaluated apart, so that they do not lengthen every other's block.
NEAR_ROWS: Final = 64


def evaluate(features: Sequence[Feature], window: Window, patches: Patches = lambda *_: ()) -> pl.DataFrame:
    """One column per feature, as high as the window; null where a value is not known or not finite."""
    grouped = _groups(features, window.series)
    patched = [patches(lookback, group) if lookback else () for lookback, group in grouped]
    return pl.concat(in_threads(lambda part: _block(features, grouped, window, part, patched), _parts(len(window))))


def evaluate_alone(features: Sequence[Feature], window: Window) -> pl.DataFrame:
    """`evaluate` in the calling thread only: for use by threads that share out windows."""
    grouped = _groups(features, window.series)
    return pl.concat(_block(features, grouped, window, part) for part in _parts(len(window)))


def evaluate_many(features: Sequence[Feature], windows: Iterable[Window]) -> Iterator[pl.DataFrame]:
    """`evaluate` of each window, in order, on all processors.

    Windows are taken as they are needed, so that an iterator over thousands of series is never held as a whole.
    """
    return in_threads(lambda window: evaluate_alone(features, window), windows)


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The function's results in order, computed by as many threads as there are processors, a few items ahead."""
    items = iter(items)
    first, second = next(items, None), next(items, None)
    if second is None or _processors() == 1:
        yield from (function(item) for item in chain([one for one in (first, second) if one is not None], items))
        return
    waiting: deque[Future[Result]] = deque()
    try:
        for item in chain([first, second], items):
            waiting.append(_threads().submit(function, item))  # type: ignore[arg-type]  # neither of the two is None
            if len(waiting) > 2 * _processors():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _parts(rows: int) -> list[tuple[int, int]]:
    """Cut a window into blocks [start, stop): one, or at least one for each processor."""
    size = min(BLOCK_ROWS, max(SMALLEST_BLOCK_ROWS, -(-rows // _processors())))
    return [(start, min(start + size, rows)) for start in range(0, rows, size)] or [(0, 0)]


def _block(
    features: Sequence[Feature],
    groups: Groups,
    window: Window,
    part: tuple[int, int],
    patched: Sequence[Sequence[Patch]] = ((), ()),
) -> pl.DataFrame:
    """The rows [start, stop) of the window, computed with the lookback before them."""
    start, stop = part
    out: dict[str, pa.Array] = {}
    # Set in every thread: NumPy keeps it per thread.
    with np.errstate(all="ignore"):
        for (lookback, group), patches in zip(groups, patched, strict=False):
            first = max(0, start - lookback)
            block = window.rows(first, stop)
            for each in group:
                values = _values(each, block)
                if values.shape != (stop - first,):
                    raise TypeError(f"feature {each.name} gave shape {values.shape} for {stop - first} rows")
                if patches and each.lookback_for(window.series):
                    values = _patched(each, values, patches, first, stop)
                out[each.name] = _column(each, values[start - first :])
    for each in features:
        if each.name not in out:
            out[each.name] = pa.nulls(stop - start, pa.string_view() if each.labels else pa.float64())
    batch = pa.RecordBatch.from_arrays([out[each.name] for each in features], names=[each.name for each in features])
    frame = pl.from_arrow(batch)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _values(each: Feature, block: Window) -> NDArray[Any]:
    try:
        return each.function(block)
    except Exception as error:
        error.add_note(f"in feature {each.name}")
        raise


def _patched(each: Feature, values: NDArray[Any], patches: Sequence[Patch], first: int, stop: int) -> NDArray[Any]:
    """The values of rows [first, stop) with those of the patches in their places."""
    # What a window keeps for other features is read-only; what is the feature's own may be written over.
    held = values if values.flags.writeable and values.flags.owndata else values.copy()
    for patch in patches:
        begin, end = max(patch.start, first), min(patch.stop, stop)
        if begin < end:
            held[begin - first : end - first] = _values(each, patch.window)[begin - patch.first : end - patch.first]
    return held


def _column(each: Feature, values: NDArray[Any]) -> pa.Array:
    """An array as an Arrow column, without a copy: what is not finite, or no label, is null."""
    known = values >= 0 if each.labels else np.isfinite(values)
    mask = None if known.all() else pa.py_buffer(np.packbits(known, bitorder="little"))
    if not each.labels:
        return pa.Array.from_buffers(
            pa.float64(), len(values), [mask, pa.py_buffer(np.ascontiguousarray(values, np.float64))]
        )
    # A text column is a column of views of 16 bytes: those of the labels, picked by code.
    _, views, *texts = pa.array(each.labels, pa.string_view()).buffers()
    picked = np.frombuffer(views, "V16").take(values, mode="clip")
    return pa.Array.from_buffers(pa.string_view(), len(values), [mask, pa.py_buffer(picked), *texts])


def _groups(features: Sequence[Feature], series: Series) -> Groups:
    """The features that apply, in groups that are evaluated together, each with its largest lookback."""
    near: list[Feature] = []
    far: list[Feature] = []
    reach = {}
    for each in features:
        if each.applies(series):
            reach[each.name] = each.lookback_for(series)
            (near if reach[each.name] <= NEAR_ROWS else far).append(each)
    return [(max(reach[each.name] for each in group), group) for group in (near, far) if group]


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


keep_freed_memory()


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_processors(), thread_name_prefix="features")


if hasattr(os, "register_at_fork"):
    # A forked child has none of its parent's threads: it makes its own.
    os.register_at_fork(after_in_child=_threads.cache_clear)
