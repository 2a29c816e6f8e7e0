"""Every connection to PostgreSQL is dialled here, on purpose: what is relied on is set, nothing else reaches it.

libpq fills whatever a connection string leaves out from variables (PGHOSTADDR, PGOPTIONS, ...), service files and
password files of the surroundings. For a server that somebody names, that is the custom and stays. The private server
is dialled by a string that states every parameter (`stated`). On both, what rows are read by is set by ourselves.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

Connection = psycopg.Connection[tuple[Any, ...]]

LOCK_SECONDS: Final = 30.0
STATEMENT_SECONDS: Final = 600.0
# The text and the values of every answer are read by these; a server, a database or a role may have others.
RELIED_ON: Final[Mapping[str, str]] = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "client_min_messages": "warning",
    "default_transaction_isolation": "read committed",
    "extra_float_digits": "1",
    "idle_session_timeout": "0",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
}
# What libpq assumes without saying so, and refuses when it is empty.
_NEVER_EMPTY: Final = {"min_protocol_version": "3.0", "max_protocol_version": "3.0", "sslcertmode": "allow"}
# libpq sends these, or looks them up, whatever the connection string says.
_SENT_BY_LIBPQ: Final = ("PGDATESTYLE", "PGTZ", "PGGEQO")
_SERVICE: Final = "PGSERVICE"
# Stated by `stated`, and by nobody else.
_MARK: Final = "requirepeer"


@dataclass(frozen=True, slots=True)
class Session:
    """What holds on one connection besides what is relied on everywhere."""

    lock_seconds: float = LOCK_SECONDS
    """A statement gives up waiting for a lock after this long; 0: never."""
    statement_seconds: float = STATEMENT_SECONDS
    """A statement is cancelled after this long; 0: never."""
    idle_seconds: float = 0.0
    """A transaction that does nothing for so long is ended, with its connection; 0: never."""

    @property
    def settings(self) -> str:
        """The statements that make a new connection so, for one round trip."""
        limits = {
            "lock_timeout": self.lock_seconds,
            "statement_timeout": self.statement_seconds,
            "idle_in_transaction_session_timeout": self.idle_seconds,
        }
        values = {**RELIED_ON, **{name: str(round(seconds * 1000)) for name, seconds in limits.items()}}
        return "; ".join(f"SET {name} = '{value}'" for name, value in values.items())


UNLIMITED: Final = Session(lock_seconds=0, statement_seconds=0)


def stated(**known: object) -> str:
    """A connection string that states every parameter libpq would look for elsewhere, most of them as its defaults."""
    defaults = {
        option.keyword.decode(): (option.compiled or b"").decode()
        for option in pq.Conninfo.get_defaults()
        if option.envvar and option.keyword != b"service"
    }
    spoken = {name: value for name, value in _NEVER_EMPTY.items() if name in defaults}
    return make_conninfo("", **{**defaults, **spoken, **{name: str(value) for name, value in known.items()}})


def utf8(conninfo: str) -> str:
    """The same connection, its texts in UTF-8 whatever server, role and surroundings prefer."""
    return make_conninfo(conninfo, client_encoding="UTF8")


class Dialled(psycopg.Connection[tuple[Any, ...]]):
    """A connection that no variable reaches which its connection string cannot answer for."""

    @classmethod
    def connect(cls, conninfo: str = "", **more: Any) -> Self:
        """As psycopg's."""
        with _unreached(conninfo):
            return super().connect(conninfo, **more)


class DialledAsync(psycopg.AsyncConnection[tuple[Any, ...]]):
    """The same for an event loop."""

    @classmethod
    async def connect(cls, conninfo: str = "", **more: Any) -> Self:
        """As psycopg's."""
        with _unreached(conninfo):
            return await super().connect(conninfo, **more)


def dial(conninfo: str, session: Session = UNLIMITED, **more: Any) -> Connection:
    """One connection apart from every pool, set up."""
    connection = Dialled.connect(utf8(conninfo), **more)
    try:
        connection.execute(session.settings)
        if not connection.autocommit:
            connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection


async def dial_async(conninfo: str, session: Session = UNLIMITED) -> DialledAsync:
    """One connection for an event loop, committing each statement, set up."""
    connection = await DialledAsync.connect(utf8(conninfo), autocommit=True)
    try:
        await connection.execute(session.settings)
    except BaseException:
        await connection.close()
        raise
    return connection


def surroundings(conninfo: str) -> dict[str, str]:
    """The variables of this process for a program that dials: none of libpq's where the string states everything."""
    private = not conninfo or states_everything(conninfo)
    return {
        name: value
        for name, value in os.environ.items()
        if name not in _SENT_BY_LIBPQ and not (private and name.startswith("PG"))
    }


def states_everything(conninfo: str) -> bool:
    """Whether that connection string was made by `stated`."""
    return _MARK in conninfo_to_dict(conninfo)


_lock = threading.Lock()
_taken: dict[str, str] = {}
_users = 0


@contextmanager
def _unreached(conninfo: str) -> Iterator[None]:
    """While the block dials, take away the variables that no connection string can answer for.

    Several threads and tasks may dial at once: the first takes them away, the last one puts them back.
    """
    global _users  # noqa: PLW0603  # the environment is the process's, and so is the count of who does without
    names = (*_SENT_BY_LIBPQ, _SERVICE) if states_everything(conninfo) else _SENT_BY_LIBPQ
    with _lock:
        _users += 1
        _taken.update({name: os.environ.pop(name) for name in names if name in os.environ})
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                os.environ.update(_taken)
                _taken.clear()
