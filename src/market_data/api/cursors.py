"""Cursors: where a page ended, as text that is handed back to get the next one."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import polars as pl

from market_data.api.problems import Problem


def encoded(values: Sequence[Any]) -> str:
    """Values of a row's order columns as URL-safe text."""
    plain = [value.isoformat() if isinstance(value, date | datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps(plain).encode()).decode().rstrip("=")


def decoded(cursor: str, types: Sequence[pl.DataType]) -> tuple[Any, ...]:
    """The values again, by the types of their columns.

    Raises:
        Problem: 422, when it is not one of ours.
    """
    try:
        plain = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if not isinstance(plain, list) or len(plain) != len(types):
            raise ValueError("another number of values")  # noqa: TRY301  # told like all the others
        return tuple(_value(value, dtype) for value, dtype in zip(plain, types, strict=True))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise Problem(
            422,
            "wrong-cursor",
            "The cursor is none of this listing.",
            action="Use `next` of the page before, unchanged.",
        ) from None


def _value(value: Any, dtype: pl.DataType) -> Any:
    if isinstance(dtype, pl.Datetime):
        moment = datetime.fromisoformat(value)
        if moment.utcoffset() is None:
            raise ValueError("no time zone")
        return moment
    if dtype == pl.Date:
        return date.fromisoformat(value)
    if dtype.is_integer():
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
            raise ValueError("not a number")
        return value
    if not isinstance(value, str) or "\0" in value or len(value) > 256:
        raise ValueError("not a text")
    value.encode()  # half a character is no text either
    return value
