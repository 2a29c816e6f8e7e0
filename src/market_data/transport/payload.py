"""JSON bodies: decoded within bounds, numbers as the text that was sent; lists of many rows in one pass."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from market_data.model.errors import MalformedPayload
from market_data.model.text import kept_within

# The longest honest answers (fifty thousand quotes, a whole market's list) are a third of this.
MOST_JSON_BYTES: Final = 64 * 2**20
# A value decoded takes about 64 bytes, however few it was sent in.
MOST_VALUES: Final = 4_000_000
# What stands for, or may decode to, something that steers a terminal or that no database takes.
_SUSPECT: Final = re.compile(
    r"\\[bfr]|\\u(?:00[01]|007[fF]|00[89]|061[cC]|20[026]|[dD][89a-fA-F]|[fF][eE][fF][fF]|[fF]{3})"
    "|[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb]"
)


def load_json(body: bytes, *, constant: Callable[[str], Any] | None = None) -> Any:
    """The decoded body; numbers as the text that was sent, texts kept.

    Decoded it takes at most 6 times its length and 256 MB.

    Args:
        body: UTF-8.
        constant: what NaN and Infinity become; refused where nothing is given.

    Raises:
        MalformedPayload: when it is not JSON, or holds more than anybody was asked for.
    """
    if len(body) > MOST_JSON_BYTES:
        raise MalformedPayload(f"{len(body)} bytes of JSON where at most {MOST_JSON_BYTES} are read")
    if sum(body.count(mark) for mark in b",:[{") > MOST_VALUES:
        raise MalformedPayload(f"JSON of more than {MOST_VALUES} values")
    try:
        text = body.decode("utf-8-sig")
        answer = json.loads(text, parse_float=str, parse_int=str, parse_constant=constant or _refuse_constant)
        return kept_within(answer) if _SUSPECT.search(text) else answer
    except (ValueError, RecursionError) as error:
        start = body[:100].decode("utf-8", "replace")
        raise MalformedPayload(f"not JSON ({error}): {start!r}") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


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
    if has_fine_numbers(body):
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


def has_fine_numbers(body: bytes) -> bool:
    """Whether a number may have more decimals than are kept."""
    return _NINETEEN_DECIMALS in body.translate(_DIGITS_AS_ZEROS)


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
_DIGITS_AS_ZEROS = bytes.maketrans(b"0123456789", b"0000000000")
_NINETEEN_DECIMALS = b"." + b"0" * 19
