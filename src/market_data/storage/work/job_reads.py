"""Jobs and their parts as they stand: what is queued, done and over, and how fast it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.job import JobState, Kind, PartState, Status, Task
from market_data.model.timeframe import Timeframe
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection


def some(*statuses: str) -> str:
    """The condition that a job has parts of these statuses."""
    listed = ", ".join(f"'{status}'" for status in statuses)
    return f"EXISTS (SELECT FROM job_parts p WHERE p.job_id = j.id AND p.status IN ({listed}))"


OVER: Final = f"NOT {some('queued', 'in_progress')}"
WENT_WELL: Final = f"(NOT {some('failed', 'cancelled')})"
# As `JobState.status` says it, for the database.
WITH_STATUS: Final = {
    Status.QUEUED: f"{some('queued')} AND NOT {some('in_progress', 'completed', 'failed', 'cancelled')}",
    Status.IN_PROGRESS: f"NOT ({OVER}) AND {some('in_progress', 'completed', 'failed', 'cancelled')}",
    Status.FAILED: f"{OVER} AND {some('failed')} AND NOT {some('completed')}",
    Status.CANCELLED: f"{OVER} AND {some('cancelled')} AND ({some('completed')} OR NOT {some('failed')})",
    Status.COMPLETED: f"{OVER} AND NOT {some('cancelled')} AND ({some('completed')} OR NOT {some('failed')})",
}


def mean_quality(database: Database, series: Series, start: datetime | None, end: datetime | None) -> float | None:
    """Average quality score of the stored candles of a range, None when there are none."""
    rows = database.rows(
        "SELECT avg(quality_score) AS score FROM market_data_v2 WHERE symbol = %s AND asset_class = %s "
        "AND timeframe = %s AND timestamp >= coalesce(%s::timestamptz, '-infinity') "
        "AND timestamp < coalesce(%s::timestamptz, 'infinity')",
        [*series.key, start, end],
    )
    score: float | None = rows[0]["score"]
    return score


def reached(database: Database, run_id: UUID) -> datetime | None:
    """Up to where the rows of a run are committed; None when none are."""
    rows = database.rows("SELECT last_successful_date AS at FROM backfill_state WHERE backfill_job_id = %s", [run_id])
    moment: datetime | None = rows[0]["at"] if rows else None
    return moment


def read_jobs(
    database: Database, where: str = "true", parameters: Sequence[Any] = (), *, limit: int = 50
) -> list[JobState]:
    """Jobs with their parts, newest first; `where` may name columns of `jobs` as j."""
    with database.transaction() as connection:
        rows = connection.execute(
            f"SELECT id, kind, origin, occasion, created_at FROM jobs j WHERE {where} "
            "ORDER BY created_at DESC, id LIMIT %s",
            [*parameters, limit],
        ).fetchall()
        parts = _parts_by_job(connection, [row[0] for row in rows])
    return [
        JobState(
            job_id=job_id, kind=Kind(kind), origin=origin, occasion=occasion, created_at=created_at,
            parts=parts.get(job_id, []),
        )
        for job_id, kind, origin, occasion, created_at in rows
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the parts went that ended last: rows per second, and the seconds of the quickest of them."""

    rows_per_second: float
    quickest_seconds: float

    def seconds(self, rows: int) -> float:
        """How long so many rows take, at least as long as the quickest part."""
        return max(rows / self.rows_per_second, self.quickest_seconds)


def pace(database: Database) -> Pace | None:
    """None when there is nothing to go by."""
    rows = database.rows(
        "SELECT sum(rows) / nullif(extract(epoch FROM sum(spent)), 0) AS pace, "
        "extract(epoch FROM min(spent)) AS quickest FROM ("
        "SELECT finished_at - started_at AS spent, (SELECT sum(value::bigint) FROM jsonb_each_text(counts)) AS rows "
        "FROM job_parts WHERE finished_at IS NOT NULL AND status = 'completed' AND kind IN ('enrich', 'backfill') "
        "ORDER BY finished_at DESC LIMIT 50) recent"
    )
    found = rows[0]
    return Pace(float(found["pace"]), float(found["quickest"])) if found["pace"] else None


def queue_depth(database: Database) -> dict[str, int]:
    """Parts that wait or are worked on, by kind."""
    rows = database.rows(
        "SELECT kind, count(*) AS parts FROM job_parts WHERE status IN ('queued', 'in_progress') "
        "GROUP BY kind ORDER BY kind"
    )
    return {row["kind"]: row["parts"] for row in rows}


def read_part(connection: Connection, job_id: UUID, number: int) -> PartState:
    """One part, as the transaction sees it."""
    (row,) = connection.execute(
        f"SELECT {_COLUMNS} FROM job_parts WHERE job_id = %s AND number = %s", [job_id, number]
    ).fetchall()
    return _part(row)


def ended_since(database: Database, moment: datetime) -> list[PartState]:
    """Parts that were over after a moment, in order."""
    with database.transaction() as connection:
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM job_parts WHERE finished_at > %s ORDER BY finished_at, number", [moment]
        )
        return [_part(row) for row in rows]


def unfinished_jobs(database: Database, kind: Kind, dataset_names: Sequence[str]) -> list[JobState]:
    """Jobs of a kind about one of the datasets that are not over or did not go well, newest first."""
    return read_jobs(
        database,
        "j.kind = %s AND EXISTS (SELECT FROM job_parts p WHERE p.job_id = j.id AND p.status <> 'completed' "
        "AND p.dataset = ANY(%s))",
        [kind.value, list(dataset_names)],
    )


def _parts_by_job(connection: Connection, job_ids: Sequence[UUID]) -> dict[UUID, list[PartState]]:
    found: dict[UUID, list[PartState]] = {}
    rows = connection.execute(
        f"SELECT job_id, {_COLUMNS} FROM job_parts WHERE job_id = ANY(%s) ORDER BY job_id, number", [list(job_ids)]
    )
    for job_id, *columns in rows:
        found.setdefault(job_id, []).append(_part(columns))
    return found


_COLUMNS: Final = (
    "number, run_id, kind, symbol, asset_class, timeframe, dataset, start_time, end_time, status, attempts, done, "
    "expected, counts, sources, quality_score, gaps, notes, error, started_at, finished_at, again"
)


def _part(row: Sequence[Any]) -> PartState:
    number, run_id, kind, symbol, asset_class, timeframe, dataset, start, end, status, attempts, done, *rest = row
    expected, counts, sources, quality_score, gaps, notes, error, started_at, finished_at, again = rest
    task = Task(
        kind=Kind(kind),
        instrument=None if symbol is None else Instrument(symbol, AssetClass(asset_class)),
        timeframe=None if timeframe is None else Timeframe(timeframe),
        dataset=dataset,
        start=start,
        end=end,
        again=again,
    )
    return PartState(
        number=number, run_id=run_id, task=task, status=Status(status), attempts=attempts, done=done, expected=expected,
        counts=counts, sources=sources, quality_score=quality_score, gaps=gaps, notes=notes, error=error,
        started_at=started_at, finished_at=finished_at,
    )  # fmt: skip
