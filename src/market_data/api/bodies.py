"""Frames as response bodies: JSON, Arrow IPC stream, Parquet or CSV by Accept, written piece by piece."""

from __future__ import annotations

import io
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from market_data.api.problems import Problem

if TYPE_CHECKING:
    import pyarrow as pa


class Form(StrEnum):
    """How rows are written, by media type."""

    JSON = "application/json"
    ARROW = "application/vnd.apache.arrow.stream"
    PARQUET = "application/vnd.apache.parquet"
    CSV = "text/csv"

    @property
    def ending(self) -> str:
        """The ending of a file name."""
        return {Form.JSON: "json", Form.ARROW: "arrows", Form.PARQUET: "parquet", Form.CSV: "csv"}[self]


_ALSO: Final = {"application/x-parquet": Form.PARQUET, "application/csv": Form.CSV, "text/json": Form.JSON}
# Rows whose columns are texts in memory at the same time.
JSON_SLICE_ROWS: Final = 1_000
_WILD: Final = ("*/*", "application/*")


def accepted(header: str | None) -> Form:
    """The form an Accept header prefers; JSON where it takes anything.

    Raises:
        Problem: 406, when it takes none of ours.
    """
    wanted = []
    for position, part in enumerate((header or "*/*").split(",")):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        wanted.append((-_quality(parameters), position, name))
    for negative, _, name in sorted(wanted):
        if negative == 0:
            continue
        if name in _WILD:
            return Form.JSON
        if name in set(Form) or name in _ALSO:
            return _ALSO.get(name) or Form(name)
        if name == "text/*":
            return Form.CSV
    raise Problem(
        406, "not-acceptable", "None of the media types in Accept is served here.", action=f"Use {', '.join(Form)}"
    )


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return min(max(float(parameter[2:]), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def json_rows(frame: pl.DataFrame) -> Iterator[bytes]:
    """The rows as a JSON array of objects in pieces, numbers exactly as stored, times in RFC 3339 UTC.

    Put together column by column, which is ten times as fast as through Python objects, and some rows at a time,
    because every column is a text of its own until the rows are joined.
    """
    lead = b"["
    for rows in frame.iter_slices(JSON_SLICE_ROWS):
        if rows.height:
            yield lead + _json_objects(rows)
            lead = b","
    yield b"]" if frame.height else b"[]"


def _json_objects(frame: pl.DataFrame) -> bytes:
    parts: list[pl.Expr] = []
    for name, dtype in frame.schema.items():
        lead = "," if parts else "{"
        parts += [pl.lit(f'{lead}"{name}":'), _json_value(name, dtype).fill_null("null")]
    rows = frame.select(pl.concat_str(*parts, pl.lit("}")).alias("row"))["row"]
    return ",".join(rows).encode()


def _json_value(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if dtype.is_decimal():
        return column.cast(pl.String).str.strip_chars_end("0").str.strip_chars_end(".")
    if dtype.is_float():
        return pl.when(column.is_finite()).then(column.cast(pl.String))
    if isinstance(dtype, pl.Datetime):
        return pl.concat_str(pl.lit('"'), column.dt.to_string("%Y-%m-%dT%H:%M:%S%.fZ"), pl.lit('"'))
    if dtype.is_integer() or dtype == pl.Boolean:
        return column.cast(pl.String)
    if dtype == pl.Date:
        return pl.concat_str(pl.lit('"'), column.dt.to_string("%Y-%m-%d"), pl.lit('"'))
    # Text and lists of text need escaping: {"v":…} of a struct, without its wrapping.
    wrapped = pl.struct(column.alias("v")).struct.json_encode().str.strip_prefix('{"v":')
    return pl.when(column.is_not_null()).then(wrapped.str.head(-1))


def arrow_stream(frames: Iterator[pl.DataFrame]) -> Iterator[bytes]:
    """An Arrow IPC stream, one piece per frame; the first frame comes even when it is empty and tells the schema."""
    import pyarrow as pa

    sink, writer = io.BytesIO(), None
    for frame in frames:
        table = _arrow(frame)
        if writer is None:
            writer = pa.ipc.new_stream(sink, table.schema)
        writer.write_table(table.cast(writer.schema) if hasattr(writer, "schema") else table)
        yield _drained(sink)
    if writer is not None:
        writer.close()
    yield _drained(sink)


def parquet_file(frames: Iterator[pl.DataFrame]) -> Iterator[bytes]:
    """A Parquet file, one row group per frame."""
    import pyarrow.parquet as pq

    sink, writer = _Sink(), None
    for frame in frames:
        table = _arrow(frame)
        if writer is None:
            writer = pq.ParquetWriter(sink, table.schema, compression="zstd")
        if table.num_rows:
            writer.write_table(table)
        yield sink.drained()
    if writer is not None:
        writer.close()
    yield sink.drained()


def csv_text(frames: Iterator[pl.DataFrame]) -> Iterator[bytes]:
    """CSV with a header line; exact numbers, times in RFC 3339 UTC, lists joined by semicolons."""
    for position, frame in enumerate(frames):
        columns = []
        for name, dtype in frame.schema.items():
            column = pl.col(name)
            if dtype.is_decimal():
                columns.append(column.cast(pl.String).str.strip_chars_end("0").str.strip_chars_end("."))
            elif isinstance(dtype, pl.Datetime):
                columns.append(column.dt.to_string("%Y-%m-%dT%H:%M:%S%.fZ"))
            elif isinstance(dtype, pl.List):
                columns.append(column.list.join(";"))
        yield frame.with_columns(columns).write_csv(include_header=position == 0).encode()


WRITERS: Final[dict[Form, Any]] = {Form.ARROW: arrow_stream, Form.PARQUET: parquet_file, Form.CSV: csv_text}


class _Sink(io.RawIOBase):
    """A file that is read while it is written."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._length += len(part)
        return len(part)

    def tell(self) -> int:
        return self._length

    def drained(self) -> bytes:
        """What was written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _drained(sink: io.BytesIO) -> bytes:
    found = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return found


def _arrow(frame: pl.DataFrame) -> pa.Table:
    # Plain strings and lists: every Arrow reader knows them, string views not all.
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())
