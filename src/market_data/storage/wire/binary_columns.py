"""PostgreSQL's binary values as columns: rows of a binary COPY decoded with NumPy, without an object per row or value.

Formats: the server's send functions (timestamptz_send, array_send …), unchanged since PostgreSQL 8. Rows of a table
look much alike: columns whose lengths are those of a sample row in every row are taken out of all rows in one piece.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from market_data.model.errors import StorageError
from market_data.storage.wire.binary_numeric import NUMERIC, numeric_column

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Integers = NDArray[np.int64]
    Mask = NDArray[np.bool_]

# The most that is taken out of a row in one piece; as much must follow the last row.
PADDING: Final = 1_024
# Microseconds and days from 1970 to 2000, where PostgreSQL's clock begins.
_EPOCH_MICROS: Final = 946_684_800_000_000
_EPOCH_DAYS: Final = 10_957
_INFINITE: Final = (np.iinfo(np.int64).max, np.iinfo(np.int64).min)
_ARRAY_HEADER: Final = struct.Struct(">iiI")
_LENGTH: Final = struct.Struct(">i")


def decode_rows(buffer: Bytes, starts: Integers, types: Sequence[tuple[str, str]]) -> pl.DataFrame:
    """A frame of the rows that begin at `starts` in `buffer`.

    Args:
        buffer: whole rows of a binary COPY, and PADDING bytes after them.
        starts: where each row begins.
        types: name and PostgreSQL type of each column.

    Raises:
        StorageError: when the bytes are not rows of so many columns, or a value does not fit its column exactly.
    """
    if not len(starts):
        return pl.DataFrame(schema={name: _DTYPES[kind] for name, kind in types})
    if (_pieces(buffer, starts, 2).view(">i2") != len(types)).any():
        raise StorageError("The server's COPY does not have the columns it described")
    sample = _lengths_of_row(buffer, int(starts[len(starts) // 2]), len(types))
    position, columns = starts + 2, list[pl.Series]()
    while len(columns) < len(types):
        found, width = _alike(buffer, position, types[len(columns) :], sample[len(columns) :])
        columns += found
        position = position + width
        if len(columns) < len(types):
            column, length = _single(buffer, position, *types[len(columns)])
            columns.append(column)
            position += 4 + np.maximum(length, 0)
    return pl.DataFrame(columns)


def decodable(kind: str) -> bool:
    """Whether values of that type can be decoded."""
    return kind in _DTYPES


def _lengths_of_row(buffer: Bytes, start: int, count: int) -> list[int]:
    lengths, at = [], start + 2
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(buffer.data, at)
        lengths.append(length)
        at += 4 + max(length, 0)
    return lengths


def _alike(
    buffer: Bytes, position: Integers, types: Sequence[tuple[str, str]], sample: Sequence[int]
) -> tuple[list[pl.Series], int]:
    """The leading columns whose lengths are those of the sample in all rows, and how many bytes they take."""
    offsets, width = [], 0
    for (_, kind), length in zip(types, sample, strict=True):
        if (kind in _VARIABLE and length >= 0) or width + 4 + max(length, 0) > PADDING:
            break
        offsets.append(width)
        width += 4 + max(length, 0)
    if not offsets:
        return [], 0
    block = _pieces(buffer, position, width)
    columns: list[pl.Series] = []
    for (name, kind), length, offset in zip(types, sample, offsets, strict=False):
        if (_field(block, offset, ">i4") != length).any():
            return columns, offset
        if length < 0:
            columns.append(pl.Series(name, [None], _DTYPES[kind]).new_from_index(0, len(block)))
        else:
            columns.append(_FIXED[kind](block[:, offset + 4 : offset + 4 + length]).alias(name))
    return columns, width


def _single(buffer: Bytes, position: Integers, name: str, kind: str) -> tuple[pl.Series, Integers]:
    """One column with nulls or values of several lengths, and its lengths."""
    length = _pieces(buffer, position, 4).view(">i4").reshape(-1).astype(np.int64)
    null, start = length < 0, position + 4
    if null.all():
        return pl.Series(name, [None], _DTYPES[kind]).new_from_index(0, len(start)), length
    if kind == "numeric":
        column = numeric_column(buffer, start, length)
    elif kind in _TEXTS:
        skipped = 1 if kind == "jsonb" else 0
        column = _texts(buffer, start + skipped, np.maximum(length - skipped, 0), null)
    elif kind == "_text":
        column = _lists(buffer, start, null)
    else:
        values = _pieces(buffer, start, int(length.max()))
        # What was read in a null's place is another column's.
        values[null] = 0
        column = _FIXED[kind](values)
        if null.any():
            column = pl.select(pl.when(pl.Series(~null)).then(column)).to_series()
    return column.alias(name), length


def _pieces(buffer: Bytes, position: Integers, width: int) -> Bytes:
    """The `width` bytes that begin at each position, as rows of a matrix."""
    kind = np.dtype((np.void, width))
    everywhere = np.ndarray((len(buffer) - width + 1,), kind, buffer, strides=(1,))
    return everywhere[position].view(np.uint8).reshape(len(position), width)


def _field(block: Bytes, offset: int, dtype: str) -> NDArray[Any]:
    """The values at one offset of every row of a matrix of bytes."""
    return np.ndarray((len(block),), dtype, block, offset, (block.strides[0],))


def _number(dtype: str, native: type) -> Callable[[Bytes], pl.Series]:
    return lambda values: pl.Series(values.view(dtype).reshape(-1).astype(native))


def _boolean(values: Bytes) -> pl.Series:
    return pl.Series(values.reshape(-1) != 0)


def _moment(values: Bytes) -> pl.Series:
    micros = values.view(">i8").reshape(-1).astype(np.int64)
    if np.isin(micros[[micros.argmin(), micros.argmax()]], _INFINITE).any():
        raise StorageError("A timestamp in the database is infinite")
    return pl.Series(micros + _EPOCH_MICROS).cast(pl.Datetime("us", "UTC"))


def _date(values: Bytes) -> pl.Series:
    days = values.view(">i4").reshape(-1).astype(np.int32)
    return pl.Series(days + np.int32(_EPOCH_DAYS)).cast(pl.Date)


def _text(values: Bytes) -> pl.Series:
    """Texts of the same length; often, as symbol and source, all the same."""
    if not values.shape[1] or (values == values[0]).all():
        return pl.Series([values[0].tobytes().decode()]).new_from_index(0, len(values))
    offsets = np.arange(len(values) + 1) * values.shape[1]
    return _strings(np.ascontiguousarray(values).reshape(-1), offsets, None)


def _jsonb(values: Bytes) -> pl.Series:
    # A version number goes before the text.
    return _text(values[:, 1:])


def _uuid(values: Bytes) -> pl.Series:
    text = np.full((len(values), 36), ord("-"), np.uint8)
    text[:, _UUID_DIGITS] = _HEX[values].reshape(len(values), 32)
    return _text(text)


def _texts(buffer: Bytes, start: Integers, length: Integers, null: Mask) -> pl.Series:
    """Texts of several lengths."""
    if int(length.max()) <= 8:
        # Few different short words, as trend_direction has: told apart as numbers. No text holds a zero byte.
        words = _pieces(buffer, start, 8).view(">u8").reshape(-1) >> (8 * (8 - np.maximum(length, 1))).astype(np.uint64)
        words[null | (length == 0)] = 0
        different, which = np.unique(words.astype(np.uint64), return_inverse=True)
        texts = [int(word).to_bytes(8, "big").lstrip(b"\0").decode() for word in different]
        column = pl.Series(texts, dtype=pl.String).gather(which)
        return pl.select(pl.when(pl.Series(~null)).then(column)).to_series() if null.any() else column
    offsets = np.concatenate(([0], np.cumsum(length)))
    flat = np.repeat(start - offsets[:-1], length) + np.arange(offsets[-1])
    return _strings(buffer[flat], offsets, null)


def _strings(values: Bytes, offsets: Integers, null: Mask | None) -> pl.Series:
    try:
        values.tobytes().decode()
    except UnicodeDecodeError as error:
        raise StorageError(f"A text in the database is not UTF-8: {error}") from error
    valid = None if null is None or not null.any() else pa.py_buffer(np.packbits(~null, bitorder="little"))
    array = pa.Array.from_buffers(
        pa.large_utf8(), len(offsets) - 1, [valid, pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(values)]
    )
    series = pl.from_arrow(array)
    assert isinstance(series, pl.Series)
    return series


def _lists(buffer: Bytes, start: Integers, null: Mask) -> pl.Series:
    """Arrays of text; our tables have few, so one after another."""
    lists = [None if absent else _list(buffer, at) for at, absent in zip(start.tolist(), null.tolist(), strict=True)]
    return pl.Series(lists, dtype=pl.List(pl.String))


def _list(buffer: Bytes, at: int) -> list[str | None]:
    dimensions, _, _ = _ARRAY_HEADER.unpack_from(buffer.data, at)
    if dimensions == 0:
        return []
    if dimensions > 1:
        raise StorageError("An array in the database has more than one dimension")
    (count,) = _LENGTH.unpack_from(buffer.data, at + 12)
    at += 20
    found: list[str | None] = []
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(buffer.data, at)
        at += 4
        found.append(None if length < 0 else buffer[at : at + length].tobytes().decode())
        at += max(length, 0)
    return found


_HEX: Final = np.array([list(f"{byte:02x}".encode()) for byte in range(256)], np.uint8)
_UUID_DIGITS: Final = np.array([i for i in range(36) if i not in (8, 13, 18, 23)])
_TEXTS: Final = frozenset({"text", "varchar", "bpchar", "name", "json", "unknown", "jsonb"})
# Columns of these are never taken out in one piece with others.
_VARIABLE: Final = frozenset({"numeric", "_text"})
_DTYPES: Final[dict[str, pl.DataType]] = {
    "numeric": NUMERIC,
    "float8": pl.Float64(),
    "float4": pl.Float32(),
    "int2": pl.Int16(),
    "int4": pl.Int32(),
    "int8": pl.Int64(),
    "bool": pl.Boolean(),
    "timestamptz": pl.Datetime("us", "UTC"),
    "date": pl.Date(),
    "uuid": pl.String(),
    "_text": pl.List(pl.String),
    **dict.fromkeys(_TEXTS, pl.String()),
}
_FIXED: Final[dict[str, Callable[[Bytes], pl.Series]]] = {
    "float8": _number(">f8", np.float64),
    "float4": _number(">f4", np.float32),
    "int2": _number(">i2", np.int16),
    "int4": _number(">i4", np.int32),
    "int8": _number(">i8", np.int64),
    "bool": _boolean,
    "timestamptz": _moment,
    "date": _date,
    "uuid": _uuid,
    **dict.fromkeys(_TEXTS, _text),
    "jsonb": _jsonb,
}
