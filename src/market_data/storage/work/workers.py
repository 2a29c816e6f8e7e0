"""Workers as others see them: who lives, and what each tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection

# First of the two numbers of the advisory lock that a live worker holds; the second is its own number.
ALIVE_LOCK: Final = 731_045

# Of the queue: a worker that was taken for dead and woke up moves nothing that is another's by now.
FINISH_OWN: Final = (
    "SELECT procrastinate_finish_job_v1(id, %(status)s::procrastinate_job_status, %(delete_job)s) FROM ("
    "SELECT id FROM procrastinate_jobs WHERE id = %(job_id)s AND worker_id = %(worker_id)s FOR UPDATE) own"
)
RETRY_OWN: Final = (
    "SELECT procrastinate_retry_job_v2(id, %(retry_at)s, %(new_priority)s, %(new_queue_name)s, %(new_lock)s) FROM ("
    "SELECT id FROM procrastinate_jobs WHERE id = %(job_id)s AND worker_id = %(worker_id)s FOR UPDATE) own"
)


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A worker that is alive."""

    number: int
    heartbeat: datetime


def report_worker(database: Database, number: int, host: str, pid: int, now: datetime) -> None:
    """Note what a worker tells of itself; nothing when it was buried meanwhile."""
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO worker_reports (worker_id, host, pid, started_at, reported_at) "
            "SELECT id, %(host)s, %(pid)s, %(now)s, %(now)s FROM procrastinate_workers "
            "WHERE id = %(number)s FOR KEY SHARE "
            "ON CONFLICT (worker_id) DO UPDATE SET reported_at = excluded.reported_at",
            {"number": number, "host": host, "pid": pid, "now": now},
        )


def live_workers(database: Database, since: datetime) -> list[LiveWorker]:
    """Workers whose process stands, as the lock it holds shows at once, and that were heard of from `since` on."""
    rows = database.rows(
        "SELECT w.id, w.last_heartbeat FROM procrastinate_workers w WHERE w.last_heartbeat >= %s AND EXISTS ("
        "SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objid = w.id AND l.granted "
        "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())) ORDER BY w.id",
        (since, ALIVE_LOCK),
    )
    return [LiveWorker(row["id"], row["last_heartbeat"]) for row in rows]


def bury_workers(connection: Connection, own: int, stalled_seconds: float, grace_seconds: float) -> int:
    """Put back what dead workers left in the queue; returns how many parts that were.

    Dead is who was silent for long, or holds no lock; one that only just registered may not hold it yet.
    """
    parameters = {"own": own, "alive": ALIVE_LOCK, "stalled": stalled_seconds, "grace": grace_seconds}
    connection.execute(_BURY, parameters)
    return connection.execute(_REQUEUE).rowcount


_BURY: Final = """
DELETE FROM procrastinate_workers w WHERE w.id <> %(own)s AND (
    w.last_heartbeat < now() - make_interval(secs => %(stalled)s)
    OR w.last_heartbeat < now() - make_interval(secs => %(grace)s) AND NOT EXISTS (
        SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = %(alive)s AND l.objid = w.id AND l.granted
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())))
"""
_REQUEUE: Final = """
SELECT procrastinate_retry_job_v2(id, now(), NULL, NULL, NULL) FROM (
    SELECT id FROM procrastinate_jobs WHERE status = 'doing' AND worker_id IS NULL FOR UPDATE SKIP LOCKED
) abandoned
"""
