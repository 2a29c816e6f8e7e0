"""This process as the owner of what it has under way: a number, shown alive from a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import UUID

import psycopg
import structlog

from market_data.model.errors import MarketDataError
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.wire.errors import translated
from market_data.storage.work import owners

log = structlog.get_logger()

# So often within the time after which it counts as hung.
BEATS: Final = 4


class Owner:
    """This process to the others; costs nothing before something is begun. Safe to use from several threads.

    Its thread shows that the process lives even while an event loop is busy, closes what others left, and what of its
    own could not be closed in time.

    Args:
        heartbeat_seconds: how often it is heard of, and looks at the others.
        stalled_seconds: silence after which an owner counts as hung.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        heartbeat_seconds: float = 5.0,
        stalled_seconds: float = 60.0,
    ) -> None:
        self._database, self._clock, self._stalled = database, clock, stalled_seconds
        self._pause = min(heartbeat_seconds, stalled_seconds / BEATS)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self._number: int | None = None
        self._forgotten: set[UUID] = set()

    @property
    def number(self) -> int:
        """The number under which something is begun now; another one after others took this process for dead.

        Raises:
            MarketDataError: when the database cannot be reached.
        """
        with self._lock:
            if self._number is None:
                self._connect()
                if self._thread is None:
                    self._thread = threading.Thread(target=self._live, name="owner", daemon=True)
                    self._thread.start()
            assert self._number is not None
            return self._number

    def forget(self, run_id: UUID) -> None:
        """Have a run closed later whose end cannot be noted now."""
        self._forgotten.add(run_id)

    def remember(self, run_id: UUID) -> None:
        """A run that was to be closed later goes on."""
        self._forgotten.discard(run_id)

    def close(self) -> None:
        """Resign; what was begun and not ended is closed."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            if self._connection is None:
                return
            try:
                if self._number is not None:
                    with translated(self._database.conninfo()):
                        owners.resign(self._connection, self._number, self._clock())
            except MarketDataError as error:  # the next one to look closes it
                log.warning("owner_not_resigned", error=str(error))
            finally:
                self._connection.close()
                self._connection = self._number = None

    def _live(self) -> None:
        while not self._ended.wait(self._pause):
            try:
                self._beat()
                owners.close_orphans(self._database, self._stalled, self._clock())
            except MarketDataError as error:
                log.warning("owner_not_heard", error=str(error))

    def _beat(self) -> None:
        with self._lock, translated(self._database.conninfo()):
            if self._connection is None or self._connection.closed:
                self._connect()
            assert self._connection is not None
            assert self._number is not None
            try:
                if not owners.beat(self._connection, self._number):
                    log.warning("owner_replaced", number=self._number)
                    self._number = owners.register(self._connection)
                if forgotten := list(self._forgotten):
                    owners.close_forgotten(self._connection, self._number, forgotten, self._clock())
                    self._forgotten.difference_update(forgotten)
            except psycopg.OperationalError:
                self._connection.close()
                raise

    def _connect(self) -> None:
        """A session of its own: the lock is as long-lived as it is."""
        conninfo = self._database.conninfo()
        with translated(conninfo):
            connection: Connection = psycopg.connect(conninfo, autocommit=True, application_name="market-data owner")
            if self._number is None or not owners.take_again(connection, self._number):
                self._number = owners.register(connection)
            self._connection = connection


def open_owner(
    database: Database, clock: Callable[[], datetime], heartbeat_seconds: float, stalled_seconds: float
) -> Owner:
    """This process as an owner; what others left under way is closed first."""
    try:
        owners.close_orphans(database, stalled_seconds, clock())
    except MarketDataError as error:  # a database that may only be read: whoever may write closes it
        log.warning("orphans_not_closed", error=str(error))
    return Owner(database, clock, heartbeat_seconds, stalled_seconds)
