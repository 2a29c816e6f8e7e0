"""The database: connections, transactions, frames out, and errors in our words."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import polars as pl
import psycopg
import psycopg_pool
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from market_data.model.errors import ConfigError, DatabaseUnavailable, TransientError, UsageError
from market_data.storage.server.door import check_server
from market_data.storage.server.embedded import EmbeddedServer
from market_data.storage.wire.connection import (
    LOCK_SECONDS,
    STATEMENT_SECONDS,
    Connection,
    Dialled,
    Session,
    dial,
    utf8,
)
from market_data.storage.wire.copy_out import copy_out
from market_data.storage.wire.errors import masked_url, retryable, translated

Parameters = Sequence[Any] | Mapping[str, Any]
T = TypeVar("T")

POOL_SIZE: Final = 8
READERS: Final = 4
CONNECT_SECONDS: Final = 10
# How long one attempt to connect is followed up.
TRY_SECONDS: Final = 1.0
# Whoever gets no connection for so long is told that the database is away.
WAIT_SECONDS: Final = 30.0
ATTEMPTS: Final = 8
_PLACE: Final = re.compile(r"%(?:\((?P<name>\w+)\))?s|%%")


class Database:
    """An open database; a context manager. Safe to use from several threads.

    Attributes:
        name: The connection as a URL without its password, for messages and logs.
        server: The embedded server, None when a DATABASE_URL was given.
    """

    def __init__(
        self,
        conninfo: Callable[[], str],
        *,
        server: EmbeddedServer | None = None,
        pool_size: int = POOL_SIZE,
        lock_seconds: float = LOCK_SECONDS,
        statement_seconds: float = STATEMENT_SECONDS,
        idle_seconds: float = 0.0,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self.server = server
        self._conninfo = conninfo
        self.name = masked_url(conninfo())
        self.partitions: set[str] = set()  # seen to be there; whoever's write fails clears it
        self._session = Session(lock_seconds, statement_seconds, idle_seconds).settings
        self._away = False
        self._probe_until_alive()
        self._pool = self._open_pool(1, pool_size, wait_seconds)
        # Apart, so that writers who read inside their transaction never wait for one another's connection.
        self._readers = self._open_pool(0, max(READERS, pool_size), wait_seconds)

    @classmethod
    def open(
        cls,
        url: str | None,
        data_dir: Path | None,
        *,
        pool_size: int = POOL_SIZE,
        lock_seconds: float = LOCK_SECONDS,
        statement_seconds: float = STATEMENT_SECONDS,
        idle_seconds: float = 0.0,
        server_settings: Mapping[str, str] | None = None,
    ) -> Database:
        """Connect to `url`, or to the embedded server in `data_dir` when there is no url.

        Args:
            url: `postgresql://user:password@host/name` or libpq's `key=value` form; None for the embedded server.
            data_dir: Folder of the embedded server's data; ignored when a url is given.
            pool_size: Most connections for writing at once; reading has as many of its own.
            lock_seconds: A statement gives up waiting for a lock after this long.
            statement_seconds: A statement is cancelled after this long.
            idle_seconds: A transaction that does nothing for so long is ended; 0: never.
            server_settings: PostgreSQL settings of the embedded server that replace the defaults.

        Raises:
            ConfigError: when the url cannot be read or names a database that does not exist.
            BadCredentials, DatabaseUnavailable, DiskFull, MissingPrivilege, SchemaMismatch: saying what to do.
        """
        connect = partial(
            cls,
            pool_size=pool_size,
            lock_seconds=lock_seconds,
            statement_seconds=statement_seconds,
            idle_seconds=idle_seconds,
        )
        if url:
            conninfo = _checked_conninfo(url)
            return connect(lambda: conninfo)
        if data_dir is None:
            raise UsageError("Neither a database URL nor a data directory was given.")
        server = EmbeddedServer(data_dir, settings=server_settings)
        server.acquire()
        try:
            return connect(server.conninfo, server=server)
        except BaseException:
            server.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and leave the embedded server; the last to leave stops it."""
        self._readers.close()
        self._pool.close()
        if self.server is not None:
            self.server.release()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection inside a transaction: committed when the block ends, rolled back when it raises.

        The lock and statement limits of `open` hold; `SET LOCAL` changes them for one transaction.

        Raises:
            MarketDataError: ours for whatever PostgreSQL raises in the block, the original as its cause.
        """
        with self._connection() as connection, connection.transaction():
            yield connection

    def retrying_transaction(self, fn: Callable[[Connection], T], *, attempts: int = ATTEMPTS) -> T:
        """Run `fn` in a transaction, again when it met a deadlock or a serialization failure.

        `fn` must have no effect outside the database, since it may run several times.

        Raises:
            TransientError: when the last attempt fails that way too; any other error at once.
        """
        for attempt in range(1, attempts + 1):
            try:
                with self.transaction() as connection:
                    return fn(connection)
            except TransientError as error:
                if not retryable(error) or attempt == attempts:
                    raise
            # Jitter only has to differ between the rivals, so an ordinary random number is enough.
            time.sleep(random.uniform(0.0, 0.01 * 2**attempt))
        raise UsageError(f"attempts must be at least 1, not {attempts}")

    def frame(self, query: str, params: Parameters = ()) -> pl.DataFrame:
        """The rows of a query as a frame; sees what is committed.

        Placeholders are psycopg's (`%s`, `%(name)s`; a literal percent sign is `%%` when there are parameters). The
        values are quoted by psycopg's adapters into the statement, because PostgreSQL takes no bound parameters in
        COPY, by which the rows travel.

        Returns:
            timestamptz as Datetime('us', 'UTC'), numeric as Decimal(38, 18), uuid and json as text.

        Raises:
            MarketDataError: ours for what PostgreSQL says.
        """
        statement = _with_values(query, params) if params else query
        for attempt in range(1, ATTEMPTS):
            try:
                with self._connection(self._readers) as connection:
                    return copy_out(connection, statement)
            except DatabaseUnavailable as error:
                if isinstance(error.__cause__, psycopg_pool.PoolTimeout):
                    raise
            # The server was restarted or is being revived, and a read may be repeated safely.
            time.sleep(0.05 * attempt)
        with self._connection(self._readers) as connection:
            return copy_out(connection, statement)

    def rows(self, query: str, params: Parameters = ()) -> list[dict[str, Any]]:
        """The rows of a query as dictionaries, for small results; sees what is committed.

        Raises:
            MarketDataError: ours for what PostgreSQL says.
        """
        with self._connection(self._readers) as connection, connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(query, params or None)
            return cursor.fetchall() if cursor.description else []

    def probe(self, seconds: int = CONNECT_SECONDS) -> None:
        """Connect once, apart from the pool, which would try for longer.

        Raises:
            MarketDataError: when the server does not answer within so many seconds (2 at least, by libpq).
        """
        conninfo = self._conninfo()
        with (
            translated(conninfo),
            dial(conninfo, connect_timeout=seconds, autocommit=True) as connection,
        ):
            check_server(connection, self.name, conninfo)

    def now(self) -> datetime:
        """The present moment by the server's clock."""
        found: datetime = self.rows("SELECT clock_timestamp() AS moment")[0]["moment"]
        return found

    def conninfo(self) -> str:
        """The connection string for another driver; holds the password, so never print it."""
        return self._conninfo()

    def _open_pool(self, least: int, most: int, wait_seconds: float) -> psycopg_pool.ConnectionPool[Connection]:
        return psycopg_pool.ConnectionPool(
            lambda: utf8(self._conninfo()),
            connection_class=Dialled,
            kwargs={"autocommit": True, "connect_timeout": CONNECT_SECONDS},
            min_size=least,
            max_size=most,
            timeout=wait_seconds,
            reconnect_timeout=TRY_SECONDS,
            reconnect_failed=self._gave_up,
            configure=self._configure,
            check=psycopg_pool.ConnectionPool.check_connection,
            open=True,
        )

    @contextmanager
    def _connection(self, pool: psycopg_pool.ConnectionPool[Connection] | None = None) -> Iterator[Connection]:
        conninfo = self._conninfo()
        try:
            with translated(conninfo), ExitStack() as stack:
                yield self._lent(stack, pool or self._pool)
        except psycopg_pool.PoolTimeout as error:
            raise DatabaseUnavailable(f"{self.name} gave no connection in time: {error}") from error
        except DatabaseUnavailable as error:
            # Without room for its log of changes PostgreSQL ends at once, and cannot say why.
            if self.server is not None and (full := self.server.disk_full()):
                raise full from error
            raise

    def _lent(self, stack: ExitStack, pool: psycopg_pool.ConnectionPool[Connection]) -> Connection:
        """A connection of the pool until the stack is left.

        A pool that could not connect tries seldom, and more seldom with each time: whoever asks anew lets it try at
        once. While the server is away one waits as long as the pool says; while others are served, longer.
        """
        began = time.monotonic()
        while True:
            try:
                return stack.enter_context(pool.connection(timeout=min(TRY_SECONDS, pool.timeout)))
            except psycopg_pool.PoolTimeout:
                patience = pool.timeout if self._away else max(pool.timeout, WAIT_SECONDS)
                if time.monotonic() - began >= patience:
                    raise

    def _configure(self, connection: Connection) -> None:
        connection.execute(self._session)
        self._away = False

    def _gave_up(self, _: psycopg_pool.ConnectionPool[Connection]) -> None:
        self._away = True

    def _probe_until_alive(self) -> None:
        """A server that was killed a moment ago may still look alive; the embedded one is revived on asking again."""
        for pause in (0.05, 0.1, 0.2):
            try:
                return self.probe()
            except DatabaseUnavailable:
                if self.server is None:
                    raise
            time.sleep(pause)
        return self.probe()


def _with_values(query: str, params: Parameters) -> str:
    """The query with its values quoted by psycopg's adapters.

    Not by way of a pooled connection: whoever reads while holding one would wait for others who do the same.
    """
    places = sum(place[0] != "%%" for place in _PLACE.finditer(query))
    if not isinstance(params, Mapping) and places != len(params):
        raise UsageError(f"The query has {places} places for values, but {len(params)} were given.")
    values = iter(() if isinstance(params, Mapping) else params)

    def quoted(place: re.Match[str]) -> str:
        if place[0] == "%%":
            return "%"
        value = params[place["name"]] if isinstance(params, Mapping) else next(values)
        return sql.Literal(value).as_string()

    return _PLACE.sub(quoted, query)


def _checked_conninfo(url: str) -> str:
    """Libpq's connection string for a URL, SQLAlchemy's `postgresql+driver://` included."""
    plain = re.sub(r"^postgres(ql)?\+\w+://", "postgresql://", url.strip())
    try:
        parts = conninfo_to_dict(plain)
    except psycopg.ProgrammingError:
        # libpq's message would quote the text, password included.
        raise ConfigError(
            "DATABASE_URL cannot be read: give postgresql://user:password@host:5432/name, with special characters "
            "of the password percent-encoded."
        ) from None
    parts.setdefault("application_name", "market-data")
    parts.setdefault("connect_timeout", str(CONNECT_SECONDS))
    return make_conninfo("", **parts)
