"""The clock of this machine, held against the database's: moments are written with rows, and their order counts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from market_data.model.errors import ConfigError
from market_data.storage.server.database import Database

# Machines whose clocks are kept differ by less than a second; one that is further off would date what it writes
# before answers that were given already, or after what others write later.
BOUND: Final = timedelta(seconds=60)
# A clock that went so much more, or less, than the time that passed was set: it is held against the database's again.
STEP: Final = timedelta(seconds=5)


def wall() -> datetime:
    """The clock of this machine, UTC."""
    return datetime.now(UTC)


class SystemClock:
    """This machine's clock; called, it gives the present moment, UTC.

    `beside` gives the same clock, which refuses to go on while it differs from that database's by more than BOUND.
    """

    def __init__(
        self,
        wall: Callable[[], datetime] = wall,
        steady: Callable[[], float] = time.monotonic,
        database: Database | None = None,
    ) -> None:
        self._wall, self._steady, self._database = wall, steady, database
        self._lock = threading.Lock()
        self._began: tuple[datetime, float] | None = None

    def beside(self, database: Database) -> SystemClock:
        """The same clock, held against that database's: now, and whenever it was set.

        Raises:
            ConfigError: when they differ by more than BOUND.
        """
        found = SystemClock(self._wall, self._steady, database)
        found()
        return found

    def __call__(self) -> datetime:
        """The present moment.

        Raises:
            ConfigError: when it differs from the database's by more than BOUND.
        """
        now, steady = self._wall(), self._steady()
        if self._database is None:
            return now
        with self._lock:
            began = self._began
        if began is not None and abs(now - began[0] - timedelta(seconds=steady - began[1])) < STEP:
            return now
        self._compare(self._database)
        with self._lock:
            self._began = now, steady
        return now

    def _compare(self, database: Database) -> None:
        theirs, ours = database.now(), self._wall()
        if abs(ours - theirs) > BOUND:
            way = "ahead of" if ours > theirs else "behind"
            raise ConfigError(
                f"This machine's clock ({ours:%Y-%m-%dT%H:%M:%SZ}) is {_told(abs(ours - theirs))} {way} the "
                f"database's ({theirs:%Y-%m-%dT%H:%M:%SZ}); {BOUND.seconds} seconds are the most: set it right"
            )


def _told(difference: timedelta) -> str:
    if difference >= timedelta(days=2):
        return f"{difference.days} days"
    return f"{difference.total_seconds():,.0f} seconds"
