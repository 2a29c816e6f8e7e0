"""Frames into tables by binary COPY, encoding the next chunk while the server takes the last one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import polars as pl
import pyarrow as pa
from polars._typing import PolarsDataType
from psycopg import sql

from market_data.model.errors import StorageError
from market_data.storage.wire.connection import Connection
from market_data.storage.wire.errors import translated

CHUNK_ROWS: Final = 4_096
_INTEGERS: Final[dict[str, PolarsDataType]] = {"int2": pl.Int16, "int4": pl.Int32, "int8": pl.Int64}
_NULLS: Final[dict[str, PolarsDataType]] = {
    **_INTEGERS,
    "numeric": pl.Decimal(38, 18),
    "float8": pl.Float64,
    "bool": pl.Boolean,
    "date": pl.Date,
    "timestamptz": pl.Datetime("us", "UTC"),
    "uuid": pl.Binary,
    "_text": pl.List(pl.String),
}
# Where every closed candle goes: their types are asked for once.
_LASTING: Final = frozenset({"candles", "market_data_v2"})
_KNOWN: dict[tuple[str, str], dict[str, str]] = {}
_TEXTS: Final = frozenset({"text", "varchar", "bpchar", "name"})


def copy_in(connection: Connection, table: str, frame: pl.DataFrame) -> int:
    """Append a frame to a table (or temporary table) in the connection's current transaction.

    The frame's columns are matched by name; columns of the table that it lacks get their defaults. Decimals arrive
    exactly. uuid columns are given as text, jsonb columns as JSON text, text[] as lists.

    Returns:
        How many rows were sent.

    Raises:
        SchemaMismatch: when the table does not exist.
        StorageError: when a column does not exist or cannot be stored exactly as the table's type, or the server
            refuses a row.
    """
    if frame.is_empty():
        return 0
    types = _types_of(connection, table, frame.columns)
    encoder = _encoder(frame.slice(0, 0), types)
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(*table.split(".")), sql.SQL(", ").join(map(sql.Identifier, frame.columns))
    )
    chunks = [(start, frame.slice(start, CHUNK_ROWS)) for start in range(0, frame.height, CHUNK_ROWS)]

    def encoded(index: int) -> bytes:
        return encoder(chunks[index][1], index == 0, index == len(chunks) - 1)

    # Encoding and sending both release the interpreter's lock, so that they overlap.
    with (
        translated(connection.info.dsn),
        ThreadPoolExecutor(1) as thread,
        connection.cursor() as cursor,
        cursor.copy(statement) as copy,
    ):
        pending = thread.submit(encoded, 0)
        for index in range(len(chunks)):
            data = pending.result()
            if index + 1 < len(chunks):
                pending = thread.submit(encoded, index + 1)
            copy.write(data)
    return frame.height


def _types_of(connection: Connection, table: str, columns: Sequence[str]) -> dict[str, str]:
    """The types of a table's columns; of lasting tables they are remembered until one is wanted that was not there."""
    place = (connection.info.dsn, table)
    types = _KNOWN.get(place, {})
    if any(name not in types for name in columns):
        with translated(connection.info.dsn):
            types = _column_types(connection, table)
        if unknown := [name for name in columns if name not in types]:
            raise StorageError(f"{table} has no column {', '.join(unknown)}")
        if table in _LASTING:
            _KNOWN[place] = types
    return types


def _column_types(connection: Connection, table: str) -> dict[str, str]:
    """PostgreSQL's type name by column; an element type follows an underscore: _text."""
    found = connection.execute(
        "SELECT attname, typname FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid "
        "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        (table,),
    )
    return dict(found.fetchall())


def _encoder(empty: pl.DataFrame, types: dict[str, str]) -> Callable[[pl.DataFrame, bool, bool], bytes]:
    """A function from a chunk (and whether it is first, last) to COPY's bytes."""
    import pgpq

    casts = [_cast(pl.col(name), dtype, types[name], name) for name, dtype in empty.schema.items()]
    schema = empty.select(casts).to_arrow().schema
    builders = {field.name: _builder(pgpq, field, types[field.name]) for field in schema}
    encoder = pgpq.ArrowToPostgresBinaryEncoder.new_with_encoders(schema, builders)

    def encode(chunk: pl.DataFrame, first: bool, last: bool) -> bytes:
        try:
            cast_chunk = chunk.select(casts)
        except pl.exceptions.PolarsError as error:
            raise StorageError(f"A value does not fit its column: {error}") from error
        parts = [encoder.write_header()] if first else []
        parts += [encoder.write_batch(batch) for batch in cast_chunk.to_arrow().to_batches()]
        if last:
            parts.append(encoder.finish())
        return b"".join(parts)

    return encode


def _builder(pgpq: Any, field: pa.Field[Any], kind: str) -> Any:
    if kind == "jsonb":
        import pgpq.encoders
        import pgpq.schema

        name = {pa.string(): "String", pa.large_string(): "LargeString"}.get(field.type, "StringView")
        return getattr(pgpq.encoders, f"{name}EncoderBuilder").new_with_output(field, pgpq.schema.Jsonb())
    return pgpq.ArrowToPostgresBinaryEncoder.infer_encoder(field)


def _cast(column: pl.Expr, dtype: pl.DataType, kind: str, name: str) -> pl.Expr:
    """The column as the type whose encoding is that of PostgreSQL's `kind`; refused when it would not be exact."""
    if kind == "numeric" and (dtype.is_decimal() or dtype.is_integer()):
        return column if dtype.is_decimal() else column.cast(pl.Decimal(38, 0))
    if kind in _INTEGERS and dtype.is_integer():
        return column.cast(_INTEGERS[kind])
    if kind == "float8" and dtype.is_numeric():
        return column.cast(pl.Float64)
    if kind == "timestamptz" and isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return column.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    if (kind == "bool" and dtype == pl.Boolean) or (kind == "date" and dtype == pl.Date):
        return column
    if kind in _TEXTS | {"jsonb"} and isinstance(dtype, pl.String | pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    if kind == "uuid" and dtype == pl.String:
        return column.str.replace_all("-", "", literal=True).str.decode("hex", strict=True)
    if kind == "_text" and isinstance(dtype, pl.List) and dtype.inner == pl.String:
        return column
    if dtype == pl.Null:
        return column.cast(_NULLS.get(kind, pl.String))
    raise StorageError(f"Column {name}: {dtype} cannot be stored exactly as PostgreSQL's {kind}")
