"""Workers as others see them: who lives, and what each tells of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg.types.json import Jsonb

from market_data.storage.server.database import Database

# First of the two numbers of the advisory lock that a live worker holds; the second is its own number.
ALIVE_LOCK: Final = 731_045


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A worker that is alive.

    Attributes:
        breakers: per source the state of its breaker: closed, half_open or open; empty before its first report.
    """

    number: int
    heartbeat: datetime
    breakers: Mapping[str, str]


def report_worker(
    database: Database, number: int, host: str, pid: int, breakers: Mapping[str, str], now: datetime
) -> None:
    """Note what a worker tells of itself; nothing when it was buried meanwhile."""
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO worker_reports (worker_id, host, pid, breakers, started_at, reported_at) "
            "SELECT id, %(host)s, %(pid)s, %(breakers)s, %(now)s, %(now)s FROM procrastinate_workers "
            "WHERE id = %(number)s FOR KEY SHARE "
            "ON CONFLICT (worker_id) DO UPDATE SET (breakers, reported_at) = (excluded.breakers, excluded.reported_at)",
            {"number": number, "host": host, "pid": pid, "breakers": Jsonb(dict(breakers)), "now": now},
        )


def live_workers(database: Database, since: datetime) -> list[LiveWorker]:
    """Workers whose process stands, as the lock it holds shows at once, and that were heard of from `since` on."""
    rows = database.rows(
        "SELECT w.id, w.last_heartbeat, coalesce(r.breakers, '{}') AS breakers FROM procrastinate_workers w "
        "LEFT JOIN worker_reports r ON r.worker_id = w.id WHERE w.last_heartbeat >= %s AND EXISTS ("
        "SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objid = w.id AND l.granted "
        "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())) ORDER BY w.id",
        (since, ALIVE_LOCK),
    )
    return [LiveWorker(row["id"], row["last_heartbeat"], row["breakers"]) for row in rows]


def worst_breakers(reports: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Per source the state of the breaker that is furthest from closed."""
    order = ("closed", "half_open", "open")
    found: dict[str, str] = {}
    for report in reports:
        for source, state in report.items():
            found[source] = max(found.get(source, "closed"), state, key=order.index)
    return dict(sorted(found.items()))
