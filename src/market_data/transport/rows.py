"""Rows of a source, each read on its own: of the shape of its dataset, or rejected with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import polars as pl

from market_data.model.dataset import UTC_MICROS, Dataset
from market_data.model.errors import MalformedPayload
from market_data.model.rows import (
    NOT_A_ROW,
    REJECTED,
    TEXT_TOO_LONG,
    VALUE_MISSING,
    VALUE_UNREADABLE,
    Rows,
)
from market_data.model.text import kept, kept_within, shown
from market_data.transport.columns import Field, Rounded, column, places, type_of, typed

# Neither texts nor numbers.
AS_THEY_ARE: Final = (pl.List, pl.Boolean)
LONGEST_KEY: Final = 200
LONGEST_PAYLOAD: Final = 4_000
# So many rows that are all wrong in the same way are no bad rows: it is the answer that is not as promised.
MANY: Final = 10
# What reading a value of the wrong kind raises.
NOT_AS_PROMISED: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def read_rows(
    sent: Any,
    dataset: Dataset,
    shape: Callable[[dict[str, Any]], Mapping[str, Any] | None],
    *,
    rounded: Sequence[str] = (),
) -> Rows:
    """A list of JSON objects as rows of a dataset, each on its own.

    Args:
        sent: the list.
        dataset: whose rows they are.
        shape: an object's values by the dataset's names; None leaves out what is not of the dataset.
        rounded: numbers that the source worked out: see `Rounded`.

    Raises:
        MalformedPayload: when it is no list, or not one of its rows is a row at all.
    """
    _require_list(sent)
    kept: list[Any] = []
    values: list[Mapping[str, Any] | str] = []
    for row in sent:
        read = _shaped(row, shape)
        if read is not None:
            kept.append(row)
            values.append(read)
    fields: dict[str, Field] = {**dataset.schema, **dict.fromkeys(rounded, Rounded())}
    # What has a default is for the reader or the writer to fill in.
    needed = [name for name, field in dataset.record.model_fields.items() if field.is_required()]
    return read_values(values, kept, fields, needed, dataset.time, dataset.key)


def read_objects(sent: Any, fields: Mapping[str, Field], required: Sequence[str], *, time: str | None = None) -> Rows:
    """A list of JSON objects as a frame of the fields named, each object on its own; a field that is absent is null.

    Raises:
        MalformedPayload: as `read_rows`.
    """
    _require_list(sent)
    frame = _read_at_once(sent, fields)
    if frame is not None and not any(frame.select(required).null_count().row(0)):
        return Rows(frame)
    values = [row if isinstance(row, dict) else NOT_A_ROW for row in sent]
    return read_values(values, sent, fields, required, time)


def read_values(
    values: Sequence[Mapping[str, Any] | str],
    sent: Sequence[Any],
    fields: Mapping[str, Field],
    required: Sequence[str],
    time: str | None = None,
    key: Sequence[str] = (),
) -> Rows:
    """Rows of values by name, typed field by field.

    Args:
        values: a row's values, or the reason why it is none.
        sent: the same rows as they were sent, for the payload of those that are rejected.
        fields: the types wanted.
        required: fields that no row is without.
        time: the field that dates a rejected row.
        key: fields that tell rows apart: their texts are short.

    Raises:
        MalformedPayload: when there are rows, and not one of them is one.
    """
    reasons: list[str | None] = [_refused(row, required) for row in values]
    _require_one(reasons, sent, 1)
    columns = []
    for name, kind in fields.items():
        given = [None if isinstance(row, str) else row.get(name) for row in values]
        values_read, wrong = column(name, given, kind)
        if name in key and values_read.dtype == pl.String:
            wrong |= dict.fromkeys(places(values_read.str.len_chars() > LONGEST_KEY), TEXT_TOO_LONG)
        if name in required:
            wrong |= dict.fromkeys(places(values_read.is_null()), VALUE_MISSING) | wrong
        for place, reason in wrong.items():
            reasons[place] = reasons[place] or f"{reason}: {name}"
        columns.append(values_read)
    _require_one(reasons, sent, MANY)
    frame = pl.DataFrame(columns)
    bad = [place for place, reason in enumerate(reasons) if reason is not None]
    if not bad:
        return Rows(frame)
    times = frame[time].cast(UTC_MICROS) if time in frame.columns else pl.Series([None] * len(sent), dtype=UTC_MICROS)
    rejected = {
        "timestamp": times.gather(bad),
        "rule": [reasons[place] for place in bad],
        "payload": [payload(sent[place]) for place in bad],
    }
    good = pl.Series([reason is None for reason in reasons], dtype=pl.Boolean)
    return Rows(frame.filter(good), pl.DataFrame(rejected, schema=dict(REJECTED)))


def rejected_row(rule: str, sent: Any, moment: datetime | None = None) -> pl.DataFrame:
    """One rejected row."""
    row = {"timestamp": [moment], "rule": [rule], "payload": [payload(sent)]}
    return pl.DataFrame(row, schema=dict(REJECTED))


def payload(sent: Any) -> str:
    """A row as it was sent, as JSON that a database takes; where it is long, its beginning as a text."""
    text = json.dumps(kept_within(sent), ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST_PAYLOAD else json.dumps(kept(text, LONGEST_PAYLOAD), ensure_ascii=False)


def _require_list(sent: Any) -> None:
    if not isinstance(sent, list):
        raise MalformedPayload(f"not a list of rows: {shown(sent)}")


def _require_one(reasons: Sequence[str | None], sent: Sequence[Any], least: int) -> None:
    """Refuses an answer that is wrong as a whole: none of its rows is one, all for one reason."""
    if len(reasons) >= least and len(set(reasons)) == 1 and (reasons[0] == NOT_A_ROW or (least > 1 and reasons[0])):
        raise MalformedPayload(f"not one of {len(sent)} rows is as promised ({reasons[0]}): {shown(sent[0])}")


def _shaped(row: Any, shape: Callable[[dict[str, Any]], Mapping[str, Any] | None]) -> Mapping[str, Any] | str | None:
    if not isinstance(row, dict):
        return NOT_A_ROW
    try:
        return shape(row)
    except KeyError as error:
        return f"{VALUE_MISSING}: {kept(str(error.args[0]), 40)}"
    except NOT_AS_PROMISED as error:
        return f"{VALUE_UNREADABLE}: {kept(str(error), 100)}"


def _refused(row: Mapping[str, Any] | str, required: Sequence[str]) -> str | None:
    if isinstance(row, str):
        return row
    return NOT_A_ROW if required and all(row.get(name) is None for name in required) else None


def _read_at_once(sent: list[Any], fields: Mapping[str, Field]) -> pl.DataFrame | None:
    """The rows when all values are as they should be; None for any deviation."""
    if not all(isinstance(row, dict) for row in sent):
        return None
    if not sent:
        return pl.DataFrame(schema={name: type_of(kind) for name, kind in fields.items()})
    schema = {name: kind if kind in AS_THEY_ARE else pl.String() for name, kind in fields.items()}
    try:
        texts = pl.from_dicts(sent, schema=schema)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        return None
    columns = []
    for name, kind in fields.items():
        read, right = (texts[name], None) if kind in AS_THEY_ARE else typed(texts[name], kind)
        if right is not None and not right.all():
            return None
        columns.append(read)
    return pl.DataFrame(columns)
