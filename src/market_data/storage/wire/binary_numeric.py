"""PostgreSQL's numeric as Decimal(38, 18), exactly: digits in base 10 000 summed into 128-bit integers by column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
import pyarrow as pa

from market_data.model.errors import StorageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Unsigned = NDArray[np.uint64]

NUMERIC: Final = pl.Decimal(38, 18)
_SCALE: Final = 10**18
_NEGATIVE: Final = 0x4000
_HEADER_BYTES: Final = 8
_LOW: Final = np.uint64(0xFFFF_FFFF)
_HALF: Final = np.uint64(32)
# The exponents (of 10 000) that digits may have: 4 for the 17th to 20th digit before the point, -5 for the 17th and
# 18th after it. One more on either side stands for everything beyond.
_LOWEST: Final = -6
_HIGHEST: Final = 5
_EXPONENTS: Final = range(_LOWEST, _HIGHEST + 1)
_FRACTION: Final = np.array([10 ** (4 * e + 18) if -4 <= e <= -1 else 0 for e in _EXPONENTS], np.uint64)
_WHOLE: Final = np.array([10 ** (4 * e) if 0 <= e <= 3 else 0 for e in _EXPONENTS], np.uint64)


def numeric_column(buffer: NDArray[np.uint8], start: NDArray[np.int64], length: NDArray[np.int64]) -> pl.Series:
    """Values of type numeric that begin at `start` and take `length` bytes; null where that is negative.

    Raises:
        StorageError: for NaN, infinity, or more than 20 digits before or 18 after the point.
    """
    null = length < 0
    # A header of four words (how many digits, exponent of the first, sign, digits shown), then the digits.
    words = _words(buffer, start, max(int(length.max()), _HEADER_BYTES))
    words[null] = 0
    sign = words[:, 2].astype(np.uint16)
    negative = sign == _NEGATIVE
    if (negative != (sign != 0)).any():
        raise _misfit("NaN or infinite")
    whole, fraction, top = _digits(words)
    low, high = _product(whole)
    low_sum = low + fraction
    pairs = np.empty((len(start), 2), np.uint64)
    pairs[:, 0], pairs[:, 1] = low_sum, high + (low_sum < low)
    if top is not None:
        _add_top(pairs, top)
    if negative.any():
        pairs[negative] = _negated(pairs[negative])
    return _series(pairs, null)


def _words(buffer: NDArray[np.uint8], start: NDArray[np.int64], width: int) -> NDArray[np.int16]:
    kind = np.dtype((np.void, width))
    everywhere = np.ndarray((len(buffer) - width + 1,), kind, buffer, strides=(1,))
    return everywhere[start].view(">i2").reshape(len(start), width // 2).astype(np.int16)


def _digits(words: NDArray[np.int16]) -> tuple[Unsigned, Unsigned, Unsigned | None]:
    """The 16 digits before the point, the 18 after it as an integer, and what goes before the 16 if anything may."""
    count, weight = words[:, 0], words[:, 1].astype(np.int64)
    whole, fraction = np.zeros(len(words), np.uint64), np.zeros(len(words), np.uint64)
    top: Unsigned | None = None
    usual = bool(weight.max() <= 3) and bool((weight - count).min() >= -5)
    for place in range(int(count.max(initial=0))):
        # Beyond a value's last digit lies the next field: whatever is read there counts as zero.
        digit = np.where(count > place, words[:, 4 + place], 0).astype(np.uint64)
        at = np.clip(weight - (place + _LOWEST), 0, _HIGHEST - _LOWEST)
        whole += digit * _WHOLE[at]
        fraction += digit * _FRACTION[at]
        if not usual:
            fraction += _smallest(digit, at)
            top = (0 if top is None else top) + np.where(at == _HIGHEST - _LOWEST - 1, digit, np.uint64(0))
    return whole, fraction, top


def _smallest(digit: Unsigned, at: NDArray[np.int64]) -> Unsigned:
    """The 17th and 18th digits after the point; nothing may lie further out on either side."""
    beyond = (at == 0) | (at == _HIGHEST - _LOWEST)
    if digit[beyond].any() or (digit[at == 1] % 100).any():
        raise _misfit("too long")
    return np.where(at == 1, digit // np.uint64(100), np.uint64(0))


def _product(whole: Unsigned) -> tuple[Unsigned, Unsigned]:
    """`whole`, below 10^16, times 10^18: the lower and upper 64 bits, multiplied by halves of 32 bits."""
    scale_high, scale_low = np.uint64(_SCALE >> 32), np.uint64(_SCALE & 0xFFFF_FFFF)
    upper, lower = whole >> _HALF, whole & _LOW
    smallest = lower * scale_low
    middle = lower * scale_high + upper * scale_low + (smallest >> _HALF)
    return (middle << _HALF) | (smallest & _LOW), upper * scale_high + (middle >> _HALF)


def _add_top(pairs: Unsigned, top: Unsigned) -> None:
    """Add `top` times 10^34; so large numbers are rare, and Python's integers take them one by one."""
    for row in np.flatnonzero(top).tolist():
        total = (int(pairs[row, 1]) << 64) + int(pairs[row, 0]) + int(top[row]) * 10**34
        pairs[row] = total & (2**64 - 1), total >> 64


def _negated(pairs: Unsigned) -> Unsigned:
    low, high = ~pairs[:, 0] + np.uint64(1), ~pairs[:, 1]
    return np.stack([low, high + (low == 0)], axis=1)


def _series(pairs: Unsigned, null: NDArray[np.bool_]) -> pl.Series:
    valid = pa.py_buffer(np.packbits(~null, bitorder="little")) if null.any() else None
    array = pa.Array.from_buffers(pa.decimal128(38, 18), len(null), [valid, pa.py_buffer(pairs)])
    series = pl.from_arrow(array)
    assert isinstance(series, pl.Series)
    return series


def _misfit(what: str) -> StorageError:
    return StorageError(f"A number in the database is {what}: it does not fit 20 digits before and 18 after the point")
