"""Query results as frames: rows leave PostgreSQL by binary COPY, decoded while the server sends the next ones."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import polars as pl
import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Wait

from market_data.model.errors import StorageError
from market_data.storage.wire.binary_columns import PADDING, decodable, decode_rows

CHUNK_ROWS: Final = 8_192
# PGCOPY\n\377\r\n\0, flags, and the length of an extension that no server has.
_HEADER_BYTES: Final = 19
Types = list[tuple[str, str]]


def copy_out(connection: psycopg.Connection[Any], statement: str) -> pl.DataFrame:
    """The rows of a statement that needs no parameters any more, as seen by the connection's transaction.

    Raises:
        psycopg.Error: what the server says.
        StorageError: when a column has a type that cannot be decoded, or a value does not fit.
    """
    plain = statement.strip().removesuffix(";")
    with connection.lock, ThreadPoolExecutor(1) as thread:
        types = _described(connection, plain)
        if unknown := [f"{name} ({kind})" for name, kind in types if not decodable(kind)]:
            raise StorageError(f"Columns of these types cannot be read, cast them to text: {', '.join(unknown)}")
        waiting: list[Future[pl.DataFrame]] = []

        def chunk(rows: bytearray, lengths: list[int]) -> None:
            waiting.append(thread.submit(_decode, rows, lengths, types))

        copy = _received(connection.pgconn, f"COPY (\n{plain}\n) TO STDOUT (FORMAT BINARY)", chunk)
        rows, lengths = connection.wait(copy)
    # The server has nothing more to send: what is left needs no thread, and few rows never start one.
    last = [_decode(rows, lengths, types)] if lengths or not waiting else []
    return pl.concat([*(future.result() for future in waiting), *last])


def _described(connection: psycopg.Connection[Any], statement: str) -> Types:
    """Names and types of the statement's columns, without running it."""
    result = connection.wait(_description(connection.pgconn, statement))
    found = []
    for column in range(result.nfields):
        oid = result.ftype(column)
        kind = connection.adapters.types.get(oid)
        name = (result.fname(column) or b"").decode()
        if kind is None:
            found.append((name, f"type {oid}"))
        else:
            found.append((name, f"_{kind.name}" if kind.array_oid == oid else kind.name))
    return found


def _description(protocol: PGconn, statement: str) -> PQGen[PGresult]:
    """Prepare and describe; libpq's own calls for it would stop every thread until the server answers."""
    protocol.send_prepare(b"", statement.encode())
    for result in (yield from generators.execute(protocol)):
        _checked(result)
    protocol.send_describe_prepared(b"")
    (described,) = yield from generators.execute(protocol)
    return _checked(described)


def _received(
    protocol: PGconn, statement: str, chunk: Callable[[bytearray, list[int]], None]
) -> PQGen[tuple[bytearray, list[int]]]:
    """Hand on the rows of a COPY, CHUNK_ROWS at a time, and return the rest; for `Connection.wait`.

    psycopg's own loop makes a generator per row, which takes longer than all of the decoding.
    """
    protocol.send_query(statement.encode())
    yield from generators.send(protocol)
    (started,) = yield from generators.fetch_many(protocol)
    _checked(started)
    rows, lengths, skipped = bytearray(), list[int](), _HEADER_BYTES
    while True:
        size, row = protocol.get_copy_data(1)
        if size > 0:
            # The header comes with the first row; two bytes alone are the end.
            if size - skipped > 2:
                rows += row[skipped:] if skipped else row
                lengths.append(size - skipped)
            skipped = 0
            if len(lengths) == CHUNK_ROWS:
                chunk(rows, lengths)
                rows, lengths = bytearray(), []
        elif size == 0:
            while not (yield Wait.R):
                pass
            protocol.consume_input()
        else:
            break
    (ended,) = yield from generators.fetch_many(protocol)
    _checked(ended)
    return rows, lengths


def _checked(result: PGresult) -> PGresult:
    if result.status == ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result)
    return result


def _decode(rows: bytearray, lengths: list[int], types: Types) -> pl.DataFrame:
    rows += bytes(PADDING)
    sizes = np.array(lengths, np.int64)
    return decode_rows(np.frombuffer(rows, np.uint8), np.cumsum(sizes) - sizes, types)
