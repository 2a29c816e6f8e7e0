"""Counts over the logs for monitoring: how fetches, computations and backfills went, what waits, how old data is."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from market_data.storage.server.database import Database


class Counted:
    """How many rows of backfill_state are settled, remembered: they are never deleted, so each is counted once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0
        self._rows = 0

    def backfills(self, database: Database) -> dict[str, int]:
        """Rows by status; those that are not completed have an index of their own, the rest is the difference."""
        with self._lock:
            (found,) = database.rows(_BACKFILLS, {"until": self._until})
            self._until = max(self._until, found["settled"])
            self._rows += found["older"]
            unfinished = {name: found[name] for name in ("in_progress", "failed", "pending")}
            completed = self._rows + found["newer"] - sum(unfinished.values())
        return {**unfinished, "completed": completed}


# What an hour of younger rows came after has settled: no transaction that wrote before it is still under way.
_BACKFILLS = """
WITH settled AS (
    SELECT coalesce((
        SELECT id FROM backfill_state
        WHERE created_at < (SELECT created_at FROM backfill_state ORDER BY id DESC LIMIT 1) - interval '1 hour'
        ORDER BY id DESC LIMIT 1
    ), 0) AS id
), unfinished AS (
    SELECT count(*) FILTER (WHERE status = 'in_progress') AS in_progress,
        count(*) FILTER (WHERE status = 'failed') AS failed,
        count(*) FILTER (WHERE status = 'pending') AS pending
    FROM backfill_state WHERE status <> 'completed'
)
SELECT settled.id AS settled, unfinished.*,
    (SELECT count(*) FROM backfill_state b WHERE b.id > %(until)s AND b.id <= settled.id) AS older,
    (SELECT count(*) FROM backfill_state b WHERE b.id > greatest(%(until)s, settled.id)) AS newer
FROM settled, unfinished
"""


@dataclass(frozen=True, slots=True)
class Tallies:
    """Aggregates over what is committed; every method returns plain values. Rates in percent, times in ms."""

    database: Database
    _counted: Counted = field(default_factory=Counted, compare=False, repr=False)

    def fetches(self, since: datetime) -> dict[str, Any]:
        """Of enrichment_fetch_log from `since` on.

        Returns:
            total_fetches, successful, success_rate, avg_response_time_ms, and api_quota_remaining, the least of what
            each source said last.
        """
        return self.database.rows(
            "SELECT count(*) AS total_fetches, count(*) FILTER (WHERE success) AS successful, "
            "(100.0 * count(*) FILTER (WHERE success) / nullif(count(*), 0))::float8 AS success_rate, "
            "avg(source_response_time_ms) AS avg_response_time_ms, "
            "(SELECT min(api_quota_remaining) FROM (SELECT DISTINCT ON (source) api_quota_remaining "
            "FROM enrichment_fetch_log WHERE created_at >= %(since)s AND api_quota_remaining IS NOT NULL "
            "ORDER BY source, created_at DESC, id DESC) newest) AS api_quota_remaining "
            "FROM enrichment_fetch_log WHERE created_at >= %(since)s",
            {"since": since},
        )[0]

    def computations(self, since: datetime) -> dict[str, Any]:
        """Of enrichment_compute_log from `since` on.

        Returns:
            total_computations, successful, success_rate, avg_computation_time_ms.
        """
        return self.database.rows(
            "SELECT count(*) AS total_computations, count(*) FILTER (WHERE success) AS successful, "
            "(100.0 * count(*) FILTER (WHERE success) / nullif(count(*), 0))::float8 AS success_rate, "
            "avg(computation_time_ms) AS avg_computation_time_ms FROM enrichment_compute_log WHERE created_at >= %s",
            (since,),
        )[0]

    def quality(self, since: date) -> dict[str, Any]:
        """Of data_quality_metrics from `since` on, each candle counting once.

        Returns:
            symbols_tracked (with any such day), avg_validation_rate, avg_quality_score.
        """
        return self.database.rows(
            "SELECT count(DISTINCT (symbol, asset_class)) AS symbols_tracked, "
            "(100.0 * sum(validated_records) / nullif(sum(total_records), 0))::float8 AS avg_validation_rate, "
            "(sum(avg_quality_score * total_records) / nullif(sum(total_records), 0))::float8 AS avg_quality_score "
            "FROM data_quality_metrics WHERE date >= %s",
            (since,),
        )[0]

    def backfills(self) -> dict[str, int]:
        """Rows of backfill_state by status: in_progress, completed, failed, pending."""
        return self._counted.backfills(self.database)

    def fetch_totals(self, after: int, until: int) -> list[dict[str, Any]]:
        """Per source, dataset and success the fetches with `after` < id <= `until`.

        Returns:
            fetches, timed (those with a response time), milliseconds, and rows inserted, updated, unchanged, kept,
            rejected.
        """
        return self.database.rows(
            "SELECT source, dataset, success, count(*) AS fetches, count(source_response_time_ms) AS timed, "
            "coalesce(sum(source_response_time_ms), 0)::float8 AS milliseconds, "
            "sum(records_inserted)::bigint AS inserted, sum(records_updated)::bigint AS updated, "
            "sum(records_unchanged)::bigint AS unchanged, sum(records_kept)::bigint AS kept, "
            "sum(records_rejected)::bigint AS rejected FROM enrichment_fetch_log "
            "WHERE id > %s AND id <= %s GROUP BY 1, 2, 3",
            (after, until),
        )

    def compute_totals(self, after: int, until: int) -> list[dict[str, Any]]:
        """Per success the computations with `after` < id <= `until`: computations, timed, milliseconds, candles."""
        return self.database.rows(
            "SELECT success, count(*) AS computations, count(computation_time_ms) AS timed, "
            "coalesce(sum(computation_time_ms), 0)::float8 AS milliseconds, "
            "sum(candles_processed)::bigint AS candles FROM enrichment_compute_log "
            "WHERE id > %s AND id <= %s GROUP BY 1",
            (after, until),
        )

    def last_id(self, table: str, before: datetime | None = None) -> int:
        """The highest id of a log; of the rows written before a moment when one is given. 0 without rows."""
        where = "" if before is None else "WHERE created_at < %s"
        order = "id" if before is None else "created_at DESC, id"
        rows = self.database.rows(
            f"SELECT id FROM {table} {where} ORDER BY {order} DESC LIMIT 1", () if before is None else (before,)
        )
        return rows[0]["id"] if rows else 0

    def quotas(self) -> list[dict[str, Any]]:
        """What each source said last of its quota in the last day of the log: source, remaining."""
        return self.database.rows(
            "SELECT DISTINCT ON (source) source, api_quota_remaining AS remaining FROM enrichment_fetch_log "
            "WHERE api_quota_remaining IS NOT NULL "
            "AND created_at >= (SELECT max(created_at) FROM enrichment_fetch_log) - interval '1 day' "
            "ORDER BY source, created_at DESC, id DESC"
        )

    def gaps(self, now: datetime) -> list[dict[str, Any]]:
        """Per asset class the stretches known to be missing: open_gaps and the age of the oldest in seconds."""
        return self.database.rows(
            "SELECT asset_class, count(*) AS open_gaps, "
            "extract(epoch FROM %s - min(detected_at))::float8 AS oldest_seconds "
            "FROM coverage WHERE state = 'missing' GROUP BY 1",
            (now,),
        )

    def by_source(self, since: datetime) -> list[dict[str, Any]]:
        """Per source of enrichment_fetch_log from `since` on.

        Returns:
            total_fetches, success_rate, avg_response_time_ms, records_fetched, api_quota_remaining (said last).
        """
        return self.database.rows(
            "SELECT source, count(*) AS total_fetches, (100.0 * count(*) FILTER (WHERE success) / count(*))::float8 "
            "AS success_rate, avg(source_response_time_ms) AS avg_response_time_ms, "
            "sum(records_fetched)::bigint AS records_fetched, (array_agg(api_quota_remaining ORDER BY created_at DESC, "
            "id DESC) FILTER (WHERE api_quota_remaining IS NOT NULL))[1] AS api_quota_remaining "
            "FROM enrichment_fetch_log WHERE created_at >= %s GROUP BY source ORDER BY source",
            (since,),
        )

    def jobs_by_status(self, since: datetime) -> dict[str, int]:
        """Parts of jobs by status: those that are not over, and those that ended from `since` on."""
        rows = self.database.rows(
            "SELECT status, count(*) AS parts FROM job_parts WHERE status IN ('queued', 'in_progress') "
            "OR finished_at >= %s GROUP BY status ORDER BY status",
            (since,),
        )
        return {row["status"]: row["parts"] for row in rows}

    def queue_idle(self, now: datetime) -> float:
        """For how many seconds no part was begun or ended although one is due or under way; 0 when none is."""
        (row,) = self.database.rows(
            "SELECT extract(epoch FROM %s - greatest(min(coalesce(p.started_at, q.scheduled_at, j.created_at)), "
            "(SELECT max(finished_at) FROM job_parts), (SELECT max(started_at) FROM job_parts "
            "WHERE status = 'in_progress')))::float8 AS idle FROM job_parts p JOIN jobs j ON j.id = p.job_id "
            "LEFT JOIN procrastinate_jobs q ON q.id = p.queue_id WHERE p.status IN ('queued', 'in_progress') "
            "AND coalesce(q.scheduled_at, j.created_at) <= %s",
            (now, now),
        )
        return max(0.0, row["idle"] or 0.0)

    def known(self) -> list[dict[str, Any]]:
        """Symbol and asset_class of every instrument that was enriched or is in tracked_symbols."""
        return self.database.rows(
            "SELECT symbol, asset_class FROM enrichment_status "
            "UNION SELECT symbol, asset_class FROM tracked_symbols WHERE active"
        )
