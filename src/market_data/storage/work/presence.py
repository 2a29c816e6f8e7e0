"""Who runs the platform on a database: told to whoever would start it a second time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from socket import gethostname
from typing import Any, Final

import psycopg
import structlog

from market_data.model.errors import MarketDataError
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection, dial
from market_data.storage.wire.errors import translated
from market_data.storage.work.state import read_state, write_state

log = structlog.get_logger()

# Held by whoever runs it for as long as the process lives.
LOCK_KEY: Final = 7_310_455_214_066_118_433
STATE: Final = "up"
LOOK_SECONDS: Final = 5.0


class Presence:
    """Runs the platform; `present` is False where somebody else does, who `other` tells."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None

    @property
    def present(self) -> bool:
        """Whether it is we who run it."""
        return self._connection is not None

    def other(self) -> dict[str, Any]:
        """What the one who runs it told of itself: host, pid, address."""
        with self._database.transaction() as connection:
            return read_state(connection, STATE)

    def tell(self, address: str, now: datetime) -> None:
        """Tell others where it is."""
        with self._database.transaction() as connection:
            write_state(connection, STATE, {"host": gethostname(), "pid": os.getpid(), "address": address}, now)

    def take(self) -> bool:
        """Become the one who runs it, unless somebody is."""
        conninfo = self._database.conninfo()
        with translated(conninfo):
            connection = dial(conninfo, autocommit=True)
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK_KEY]).fetchone()
        if row and row[0]:
            self._connection = connection
            return True
        connection.close()
        return False

    def keep(self, ended: threading.Event) -> None:
        """Take it again when the database was restarted, until the event."""
        while not ended.wait(LOOK_SECONDS):
            try:
                if self._connection is None or self._connection.closed:
                    self.take()
                else:
                    self._connection.execute("SELECT 1")
            except (psycopg.Error, MarketDataError) as error:
                log.info("presence_lost", error=str(error))
                self.leave()

    def leave(self) -> None:
        """Be it no more."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


@contextmanager
def running(database: Database) -> Iterator[Presence]:
    """Run the platform while the block does, if nobody else does: see `present`."""
    presence, ended = Presence(database), threading.Event()
    presence.take()
    keeping = threading.Thread(target=presence.keep, args=[ended], name="market-data-presence", daemon=True)
    if presence.present:
        keeping.start()
    try:
        yield presence
    finally:
        ended.set()
        if keeping.is_alive():
            keeping.join()
        presence.leave()
