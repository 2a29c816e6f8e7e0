"""Owners: who works on what is under way, provably alive; what the dead and the hung left is closed.

A process that begins a run holds a row in `owners` and an advisory lock of its number, which PostgreSQL frees when the
process dies; it is heard of again and again. Whoever holds no lock is dead, whoever was silent for long is hung: its
connections are ended, so that its locks are free, and its number is gone, so that nothing it had under way can still
be committed (`runs.hold_run`).
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from socket import gethostname
from typing import Any, Final
from uuid import UUID

import structlog
from psycopg.rows import dict_row

from market_data.model.errors import MarketDataError
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection

log = structlog.get_logger()

# First numbers of the advisory locks; the second is the owner's: held while it lives, and by each of its commits.
LIFE_LOCK: Final = 731_046
COMMIT_LOCK: Final = 731_047
# After the server was restarted everybody needs a moment to take their locks again.
GRACE_SECONDS: Final = 15.0
ENDED: Final = "its process ended before it did"
TERMINATED_WITHIN_MS: Final = 5000


@dataclass(frozen=True, slots=True)
class Closed:
    """What had no living owner any more."""

    owners: int = 0
    runs: int = 0
    parts: int = 0
    backfills: int = 0

    def __bool__(self) -> bool:
        return bool(self.owners or self.runs or self.parts or self.backfills)


def register(connection: Connection) -> int:
    """A number of one's own, its lock held by the session of this connection from before anybody sees it."""
    with connection.transaction():
        row = connection.execute(
            "INSERT INTO owners (host, pid) VALUES (%s, %s) RETURNING id", [gethostname(), os.getpid()]
        ).fetchone()
        assert row is not None
        number = int(row[0])
        connection.execute("SELECT pg_advisory_lock(%s, %s)", [LIFE_LOCK, number])
    return number


def take_again(connection: Connection, number: int) -> bool:
    """Hold a number in another session; False when others have closed what it owned, and it is gone."""
    with connection.transaction():
        if not beat(connection, number):
            return False
        connection.execute("SELECT pg_advisory_lock(%s, %s)", [LIFE_LOCK, number])
    return True


def beat(connection: Connection, number: int) -> bool:
    """Say that an owner lives; False when its number is gone."""
    return bool(connection.execute("UPDATE owners SET heard_at = now() WHERE id = %s", [number]).rowcount)


def close_forgotten(connection: Connection, number: int, runs: Collection[UUID], now: datetime) -> None:
    """Close those of an owner's runs whose end could not be noted when it came: on a full disk, while it was away."""
    connection.execute(
        "UPDATE runs SET status = 'failed', finished_at = %s, error = coalesce(error, %s) "
        "WHERE owner = %s AND status = 'in_progress' AND id = ANY(%s)",
        [now, "its end could not be noted", number, list(runs)],
    )


def resign(connection: Connection, number: int, now: datetime) -> None:
    """Give a number back; what it still owns is closed."""
    with connection.transaction():
        connection.execute("DELETE FROM owners WHERE id = %s", [number])
        _close(connection, now)


def close_orphans(database: Database, stalled_seconds: float, now: datetime) -> Closed:
    """Close everything under way whose owner is dead or was silent for longer than that."""
    parameters = {"stalled": stalled_seconds, "grace": GRACE_SECONDS, "life": LIFE_LOCK, "commit": COMMIT_LOCK}
    dead = [row["id"] for row in database.rows(_OWNERS, parameters) if _is_dead(row)]
    if not dead and not database.rows(_ORPHANS):
        return Closed()
    for row in database.rows(_SESSIONS, {**parameters, "dead": dead}) if dead else ():
        _terminate(database, row["pid"])
    with database.transaction() as connection, connection.cursor(row_factory=dict_row) as cursor:
        # Looked for again: whoever was silent a moment ago may have spoken.
        rows = cursor.execute(f"{_OWNERS} FOR UPDATE OF o SKIP LOCKED", parameters).fetchall()
        still = [row["id"] for row in rows if row["id"] in dead and _is_dead(row)]
        buried = connection.execute("DELETE FROM owners WHERE id = ANY(%s)", [still]).rowcount
        closed = _close(connection, now)
    found = Closed(buried, *closed)
    if found:
        log.warning("orphans_closed", owners=buried, runs=found.runs, parts=found.parts, backfills=found.backfills)
    return found


def _is_dead(owner: Mapping[str, Any]) -> bool:
    """Silent for too long; or without its lock, unless it may only not have had the time to take it again."""
    ours = owner["host"] == gethostname()
    return owner["silent"] or (owner["gone"] and (not owner["unsure"] or (ours and not _runs(owner["pid"]))))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _terminate(database: Database, pid: int) -> None:
    try:
        database.rows("SELECT pg_terminate_backend(%s, %s)", [pid, TERMINATED_WITHIN_MS])
    except MarketDataError as error:  # of another user: its own limits of time must end it
        log.warning("session_not_ended", pid=pid, error=str(error))


def _close(connection: Connection, now: datetime) -> tuple[int, int, int]:
    parameters = {"now": now, "why": ENDED}
    return (
        connection.execute(_CLOSE_RUNS, parameters).rowcount,
        connection.execute(_REOPEN_PARTS).rowcount,
        connection.execute(_CLOSE_BACKFILLS, parameters).rowcount,
    )


_HERE: Final = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
_OWNERS: Final = f"""
SELECT o.id, o.host, o.pid, o.heard_at < now() - make_interval(secs => %(stalled)s) AS silent,
    NOT EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = %(life)s AND l.objid = o.id
        AND l.granted AND l.{_HERE}) AS gone,
    least(now() - pg_postmaster_start_time(), now() - o.heard_at) < make_interval(secs => %(grace)s) AS unsure
FROM owners o
"""
_SESSIONS: Final = (
    "SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' AND classid IN (%(life)s, %(commit)s) "
    f"AND objid = ANY(%(dead)s) AND granted AND pid <> pg_backend_pid() AND {_HERE}"
)
_OWNERLESS: Final = "status = 'in_progress' AND NOT EXISTS (SELECT FROM owners WHERE owners.id = owner)"
_ORPHANS: Final = " UNION ALL ".join(
    f"(SELECT 1 FROM {table} WHERE {_OWNERLESS} LIMIT 1)" for table in ("runs", "job_parts", "backfill_state")
)
_CLOSE_RUNS: Final = f"UPDATE runs SET status = 'failed', finished_at = %(now)s, error = %(why)s WHERE {_OWNERLESS}"
# The queue brings it back.
_REOPEN_PARTS: Final = f"UPDATE job_parts SET status = 'queued' WHERE {_OWNERLESS}"
# What belongs to a part that waits goes on with it.
_CLOSE_BACKFILLS: Final = f"""
UPDATE backfill_state b SET updated_at = %(now)s, (status, error_message) = (
    SELECT CASE WHEN waits THEN 'pending' ELSE 'failed' END, CASE WHEN NOT waits THEN %(why)s END
    FROM (SELECT EXISTS (
        SELECT FROM job_parts p WHERE p.run_id = b.backfill_job_id AND p.status = 'queued') AS waits) part)
WHERE {_OWNERLESS}
"""
