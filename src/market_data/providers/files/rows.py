"""Rows of a file as candles: texts keep their digits, and every row is read or rejected with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import polars as pl

from market_data.model.dataset import CANDLES
from market_data.model.errors import MalformedPayload
from market_data.model.rows import TIME_UNIT_UNCLEAR, Rows
from market_data.providers.files.described import Described
from market_data.providers.files.moments import moments
from market_data.transport.columns import Field, Rounded, typed
from market_data.transport.rows import read_values

NEEDED: Final = ("timestamp", "open", "high", "low", "close", "volume")


def read_file(path: Path, entry: Described) -> Rows:
    """A file's rows in the CANDLES schema.

    Raises:
        MalformedPayload: naming the file, when it is none or not one of its rows is a candle.
    """
    names = {name: entry.columns.get(name, name) for name in CANDLES.schema}
    try:
        frame = _frame(path)
        _require_names(frame, [names[name] for name in NEEDED])
        there = {name: theirs for name, theirs in names.items() if theirs in frame.columns}
        told, unclear = moments(frame[names["timestamp"]], entry)
        texts = [frame[theirs].cast(pl.String).alias(name) for name, theirs in there.items() if name != "timestamp"]
        # A binary float has digits of its own; those of a text are the user's.
        floats = [name for name, theirs in there.items() if frame[theirs].dtype.is_float()]
        kinds: dict[str, Field] = {**CANDLES.schema, **dict.fromkeys(floats, Rounded())}
        at_once = _read_at_once(told, unclear, texts, kinds)
        return (
            Rows(at_once)
            if at_once is not None
            else _one_by_one(frame, told, unclear, texts, kinds, names["timestamp"])
        )
    except (OSError, MalformedPayload, pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise MalformedPayload(f"{path.name}: {error}") from None


def _frame(path: Path) -> pl.DataFrame:
    if path.suffix == ".csv":
        # All texts: a number must not pass through a float. What a line has too much is ignored, what it lacks absent.
        return pl.read_csv(path, infer_schema=False, truncate_ragged_lines=True)
    return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ipc(path)


def _require_names(frame: pl.DataFrame, names: list[str]) -> None:
    if missing := [name for name in names if name not in frame.columns]:
        raise MalformedPayload(f"it has no column {', '.join(missing)}, but {', '.join(frame.columns)}")


def _read_at_once(
    told: pl.Series, unclear: pl.Series, texts: list[pl.Series], kinds: dict[str, Field]
) -> pl.DataFrame | None:
    """The candles when every value is as it should be; None for any deviation."""
    columns = [told]
    for column in texts:
        values, right = typed(column, kinds[column.name])
        if right is not None and not right.all():
            return None
        columns.append(values)
    frame = CANDLES.conform(pl.DataFrame(columns))
    return None if unclear.any() or any(frame.select(NEEDED).null_count().row(0)) else frame


def _one_by_one(
    frame: pl.DataFrame,
    told: pl.Series,
    unclear: pl.Series,
    texts: list[pl.Series],
    kinds: dict[str, Field],
    name_of_time: str,
) -> Rows:
    columns = {column.name: column.to_list() for column in texts}
    sent = frame.select(pl.all().cast(pl.String)).to_dicts()
    values: list[dict[str, Any] | str] = [
        # What is no moment goes on as it was written, and is told as that.
        {"timestamp": moment or sent[place][name_of_time]} | {name: held[place] for name, held in columns.items()}
        if not doubt
        else TIME_UNIT_UNCLEAR
        for place, (moment, doubt) in enumerate(zip(told, unclear, strict=True))
    ]
    return read_values(values, sent, kinds, NEEDED, "timestamp")
