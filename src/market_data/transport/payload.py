"""JSON bodies to exact columns: numbers stay the text that was sent until they are decimals."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

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
        texts = pl.from_dicts(rows, schema=dict.fromkeys(columns, pl.String())) if rows else None
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
