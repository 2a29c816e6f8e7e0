"""Counts the steps of a write, and stops it at one: a statement, a chunk of COPY, a read, a begin, a commit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest.mock import patch

import psycopg

from market_data.storage.server.database import Database

OnStep = Callable[[str], None]


def raising_at(number: int, error: type[Exception]) -> OnStep:
    """Raises at the step of that number, counted from 1; not just after a commit, when all is done."""
    count = 0

    def on_step(name: str) -> None:
        nonlocal count
        count += name != "committed"
        if count == number:
            raise error(name)

    return on_step


def killing_at(number: int, victims: Callable[[], list[int]] = lambda: [os.getpid()]) -> OnStep:
    """Kills processes, by default this one, at the step of that number, counted from 1."""
    count = 0

    def on_step(name: str) -> None:
        nonlocal count
        count += 1
        if count == number:
            for victim in victims():
                with suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)

    return on_step


@contextmanager
def stepping(database: Database, on_step: OnStep) -> Iterator[None]:
    """Calls `on_step` before every step that the database is asked to take, and after every commit."""
    transaction, frame = database.transaction, database.frame

    class StepCursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
            on_step(str(query)[:60])
            return super().execute(query, *arguments, **options)

        def executemany(self, query: Any, *arguments: Any, **options: Any) -> Any:
            on_step(str(query)[:60])
            return super().executemany(query, *arguments, **options)

        @contextmanager
        def copy(self, statement: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
            on_step(f"begin {statement!s:.60}")
            with super().copy(statement, *arguments, **options) as copy:
                write = copy.write

                def stepped(data: Any) -> None:
                    on_step("copy chunk")
                    write(data)

                copy.write = stepped  # type: ignore[method-assign]
                yield copy
                on_step("end of copy")

    @contextmanager
    def stepped_transaction() -> Iterator[Any]:
        on_step("begin")
        with transaction() as connection:
            usual = connection.cursor_factory
            connection.cursor_factory = StepCursor
            try:
                yield connection
                on_step("commit")
            finally:
                connection.cursor_factory = usual
        on_step("committed")

    def stepped_frame(query: str, params: Any = ()) -> Any:
        on_step(f"read {query[:50]}")
        return frame(query, params)

    with patch.object(database, "transaction", stepped_transaction), patch.object(database, "frame", stepped_frame):
        yield
