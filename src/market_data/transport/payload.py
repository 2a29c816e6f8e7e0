"""JSON bodies to exact columns: numbers stay the text that was sent until they are decimals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from market_data.model.dataset import Dataset
from market_data.model.errors import MalformedPayload


def load_json(body: bytes) -> Any:
    """The decoded body; numbers as the text that was sent.

    Raises:
        MalformedPayload: when it is not JSON.
    """
    try:
        return json.loads(body, parse_float=str, parse_int=str, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        start = body[:100].decode("utf-8", "replace")
        raise MalformedPayload(f"not JSON ({error}): {start!r}") from None


def exact_column(name: str, values: Sequence[Any], dtype: pl.DataType) -> pl.Series:
    """Texts of numbers, null where None, as a column of an exact type.

    Digits beyond the 18th after the point are rounded.

    Raises:
        MalformedPayload: naming the first value that is not a number of that type.
    """
    try:
        texts = pl.Series(name, values, dtype=pl.String, strict=True)
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise MalformedPayload(f"{name} holds something that is not a number: {error}") from None
    return cast_exactly(texts, dtype)


def exact_frame(rows: Any, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """A list of JSON objects as a frame of the named fields; a field that is absent is null.

    Raises:
        MalformedPayload: when it is no list of objects or a value is not of its column's type.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise MalformedPayload(f"not a list of objects: {str(rows)[:200]}")
    try:
        schema = {name: dtype if dtype == pl.List else pl.String() for name, dtype in columns.items()}
        texts = pl.from_dicts(rows, schema=schema) if rows else None
    except (TypeError, pl.exceptions.PolarsError) as error:
        raise MalformedPayload(f"a field is neither a number nor a text: {error}") from None
    if texts is None:
        return pl.DataFrame(schema=dict(columns))
    return pl.DataFrame([cast_exactly(texts[name], dtype) for name, dtype in columns.items()])


def cast_exactly(texts: pl.Series, dtype: pl.DataType) -> pl.Series:
    """A column of texts as numbers, null where null.

    Raises:
        MalformedPayload: naming the first text that is none.
    """
    if texts.dtype == dtype:
        return texts
    numbers = texts.cast(dtype, strict=False)
    if numbers.null_count() > texts.null_count():
        wrong = texts.filter(numbers.is_null() & texts.is_not_null())[0]
        raise MalformedPayload(f"{texts.name} is not a number: {wrong!r}")
    return numbers


def require_columns(frame: pl.DataFrame, names: Sequence[str]) -> None:
    """Checks that none of the columns holds a null.

    Raises:
        MalformedPayload: naming the first that does, and the row.
    """
    for name in names:
        if frame[name].null_count():
            raise MalformedPayload(f"row {frame[name].is_null().arg_max()} has no {name!r}")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def rows_frame(dataset: Dataset, rows: Sequence[Mapping[str, Any]], *, required: Sequence[str] = ()) -> pl.DataFrame:
    """Rows gathered field by field as a frame of `dataset`; numbers, dates and moments may be the texts that were sent.

    For answers of some hundreds of rows whose fields lie deep; candles and trades go faster ways.

    Raises:
        MalformedPayload: when a value is not of its column's type, or a required one is absent.
    """
    columns = [_typed(name, [row.get(name) for row in rows], dtype) for name, dtype in dataset.schema.items()]
    frame = pl.DataFrame(columns)
    require_columns(frame, required)
    return frame


def _typed(name: str, values: list[Any], dtype: pl.DataType) -> pl.Series:
    text = isinstance(next((value for value in values if value is not None), None), str)
    try:
        if text and dtype.is_temporal():
            texts = pl.Series(name, values, dtype=pl.String)
            return texts.str.to_date("%Y-%m-%d") if dtype == pl.Date else _moments(texts).cast(dtype)
        if text and dtype.is_numeric():
            return cast_exactly(pl.Series(name, values, dtype=pl.String), dtype)
        return pl.Series(name, values, dtype=dtype)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise MalformedPayload(f"{name} is not as promised: {error}") from None


def _moments(texts: pl.Series) -> pl.Series:
    # RFC 3339 with Z or an offset, with or without fractions of a second.
    return texts.str.replace("Z$", "+00:00").str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us")


def read_compact_objects(body: bytes, columns: Mapping[str, pl.DataType]) -> pl.DataFrame | None:
    """A JSON list of small flat objects that are all laid out as the first, fast; None for any deviation.

    Meant for lists of many rows whose texts are all numbers. Booleans become 1 and 0.

    Args:
        body: the JSON, without white space.
        columns: the fields wanted, in the order they are sent; others may lie between them.
    """
    if body == b"[]":
        return pl.DataFrame(schema=dict(columns))
    shape = _first_object(body)
    if shape is None:
        return None
    for flag, number in ((b"true", b"1"), (b"false", b"0")):
        body = body.replace(flag, number)
    # All that is left without the numbers is the first object's marks and keys, over and over.
    skeleton = body.translate(None, NUMBERS)
    count = (len(skeleton) - 1) // (len(shape.skeleton) + 1)
    if skeleton != b"[" + b",".join([shape.skeleton] * count) + b"]" or not set(columns) <= set(shape.names):
        return None
    lines = body[2:-2].translate(_LINE_PER_OBJECT, _KEYS_AND_MARKS)
    schema = {name: columns.get(name, pl.String()) for name in shape.names} | {"rest of the line": pl.String()}
    try:
        rows = pl.read_csv(lines, has_header=False, schema=schema, quote_char=None).select(list(columns))
    except pl.exceptions.PolarsError:
        return None
    return rows if rows.height == count and not any(rows.null_count().row(0)) else None


@dataclass(frozen=True, slots=True)
class _Shape:
    names: tuple[str, ...]
    skeleton: bytes


def _first_object(body: bytes) -> _Shape | None:
    """The names of the first object's fields, and the object without its values' digits."""
    end = body.find(b"}") + 1
    try:
        first = json.loads(body[1:end])
    except ValueError:
        return None
    if not isinstance(first, dict) or not all(name.isalpha() and name.isascii() for name in first):
        return None
    written = body[1:end].replace(b"true", b"1").replace(b"false", b"0")
    return _Shape(tuple(first), written.translate(None, NUMBERS))


NUMBERS = b"0123456789.-"
_KEYS_AND_MARKS = bytes(range(65, 91)) + bytes(range(97, 123)) + b'"}[]:'
_LINE_PER_OBJECT = bytes.maketrans(b"{", b"\n")
