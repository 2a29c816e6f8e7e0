"""Renews derived columns of stored candles: where what they follow from has changed, or how they are defined."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from market_data.model.errors import MarketDataError
from market_data.model.instrument import Series
from market_data.model.timeframe import MICROSECOND, TimeRange
from market_data.pipeline.write.derive import Shelves
from market_data.pipeline.write.ripple import COLUMNS, computed
from market_data.storage.series.due import Due, advance, all_due, note_stale_versions
from market_data.storage.series.present import lock_series, next_moment, note_moment, refresh_derived
from market_data.storage.series.reader import Reader
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.work.audit import log_compute_failure, refresh_quality

# Candles per transaction: enough to make its cost small, few enough to bound memory and what a kill undoes.
CHUNK_CANDLES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Renewed:
    """One committed step: how many candles were looked at and how many of them changed."""

    series: Series
    candles: int
    changed: int
    remaining: int
    """Stretches still due after this step."""


@dataclass(frozen=True)
class Recomputation:
    """Works through what is due; each step commits on its own, so that a killed one goes on where it was."""

    database: Database
    shelves: Shelves
    clock: Callable[[], datetime]

    def note_stale(self) -> int:
        """Note as due what was computed under other feature definitions; returns how many series have some."""
        with self.database.transaction() as connection:
            return note_stale_versions(connection, self.shelves.version, self.clock())

    def remaining(self) -> int:
        """Candles in stretches that are due; one that lies in two counts twice."""
        reader = Reader(self.database)
        return sum(reader.timestamps(due.series, due.span).len() for due in all_due(self.database))

    def run(self) -> Iterator[Renewed]:
        """Renew everything due, a chunk at a time, until nothing is."""
        while waiting := all_due(self.database):
            due = waiting[0]
            try:
                candles, changed = self.database.retrying_transaction(partial(self._chunk, due))
            except MarketDataError:
                raise
            except Exception as error:  # a feature that breaks: its log is kept
                log_compute_failure(self.database, due.series, error, self.clock())
                raise
            yield Renewed(due.series, candles, changed, len(all_due(self.database)))

    def _chunk(self, due: Due, connection: Connection) -> tuple[int, int]:
        reader = Reader(self.database)
        lock_series(connection, due.series)
        chunk = reader.timestamps(due.series, due.span, limit=CHUNK_CANDLES)
        if chunk.is_empty():
            advance(connection, due, due.span.end)
            return 0, 0
        span = TimeRange(chunk[0], chunk[-1] + MICROSECOND)
        rows = reader.candles(due.series, span, before=self.shelves.lookback(due.series)).select(COLUMNS)
        derived = computed(reader, self.shelves, due.series, rows)
        # A change of the series like any other: whoever remembers its last moment sees that there is something new.
        now = next_moment(connection, due.series, self.clock())
        changed = refresh_derived(connection, due.series, derived.tail(chunk.len()), now)
        advance(connection, due, due.span.end if chunk.len() < CHUNK_CANDLES else span.end)
        if changed:
            note_moment(connection, due.series, now)
            refresh_quality(connection, due.series.instrument, span, now)
        return chunk.len(), changed
