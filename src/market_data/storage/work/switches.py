"""The schedule as every process of a database sees it: whether it is paused, alive, and what it covers when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, Literal

from market_data.model.instrument import Instrument
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.work.state import read_state, write_state

# The schedule keeps its state under this name: `paused`, `by`, `at`, and `until` when occasions were dealt with.
SCHEDULE: Final = "scheduler"
ALIVE: Final = "scheduler_alive"
# A scheduler that has not been heard of for so long is not running.
SILENT_AFTER: Final = timedelta(minutes=2)


def set_paused(database: Database, paused: bool, by: str, now: datetime) -> None:
    """Pause or resume scheduled work in every process."""
    with database.transaction() as connection:
        state = {"until": now.isoformat(), **read_state(connection, SCHEDULE, lock=True)}
        write_state(connection, SCHEDULE, {**state, "paused": paused, "by": by, "at": now.isoformat()}, now)


def note_scheduler(database: Database, by: str, now: datetime) -> None:
    """Note that a scheduler is alive; by every scheduler, once a minute or more often."""
    with database.transaction() as connection:
        write_state(connection, ALIVE, {"by": by}, now)


def note_next_enrichments(connection: Connection, moments: Mapping[Instrument, datetime | None]) -> None:
    """Write down when scheduled work covers each enriched instrument next; those not named are not covered."""
    connection.execute(
        "UPDATE enrichment_status s SET next_enrichment = found.at FROM ("
        "SELECT e.symbol, e.asset_class, named.at FROM enrichment_status e LEFT JOIN "
        "unnest(%s::text[], %s::text[], %s::timestamptz[]) AS named (symbol, asset_class, at) "
        "USING (symbol, asset_class)) found "
        "WHERE (s.symbol, s.asset_class) = (found.symbol, found.asset_class) "
        "AND s.next_enrichment IS DISTINCT FROM found.at",
        [
            [one.symbol for one in moments],
            [one.asset_class.value for one in moments],
            list(moments.values()),
        ],
    )


def scheduler_state(database: Database, now: datetime) -> Literal["running", "paused", "stopped"]:
    """Stopped when no scheduler was heard of lately, else whether it is paused."""
    (row,) = database.rows(
        "SELECT (SELECT updated_at FROM system_state WHERE key = %s) AS seen, "
        "(SELECT (value ->> 'paused')::boolean FROM system_state WHERE key = %s) AS paused",
        (ALIVE, SCHEDULE),
    )
    # One heard of in the future had a wrong clock: nothing says that it still runs.
    if row["seen"] is None or abs(now - row["seen"]) > SILENT_AFTER:
        return "stopped"
    return "paused" if row["paused"] else "running"
