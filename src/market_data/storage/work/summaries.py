"""Counts and averages for people: what is stored of an instrument, how good it is, how its fetches went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final

from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe
from market_data.storage.server.database import Database
from market_data.storage.work.switches import ALIVE, SCHEDULE

# Of all candles, from the days' counts in data_quality_metrics: counting the candles would take longer with each.
TOTALS: Final = (
    "coalesce(sum(total_records), 0)::bigint AS records, "
    "(sum(avg_quality_score * total_records) / nullif(sum(total_records), 0))::float8 AS quality_score, "
    "(100.0 * sum(validated_records) / nullif(sum(total_records), 0))::float8 AS validation_rate"
)
_COMPLETENESS: Final = (
    "(sum(data_completeness * total_records) / nullif(sum(total_records), 0))::float8 AS data_completeness"
)


@dataclass(frozen=True, slots=True)
class Changes:
    """What tells whether anything of an instrument changed."""

    enrichment: dict[str, Any] | None
    """Its row of enrichment_status, None when it was never enriched."""
    moments: tuple[datetime, ...]
    """When each of its series last changed."""
    tracked: tuple[Timeframe, ...] | None
    """The timeframes that tracked_symbols names, none when it is left alone; None when it says nothing."""
    scheduler_seen: datetime | None = None
    """When a scheduler last said that it lives."""
    paused: bool = False
    """Whether scheduled work is paused."""


@dataclass(frozen=True, slots=True)
class Summaries:
    """Small reads over what is committed; every method returns plain values."""

    database: Database

    def asset_classes(self, symbol: str) -> list[str]:
        """Asset classes under which anything is known of a symbol."""
        rows = self.database.rows(
            "SELECT asset_class FROM enrichment_status WHERE symbol = %(symbol)s "
            "UNION SELECT asset_class FROM tracked_symbols WHERE symbol = %(symbol)s ORDER BY 1",
            {"symbol": symbol},
        )
        return [row["asset_class"] for row in rows]

    def changes(self, instrument: Instrument) -> Changes:
        """What tells whether anything of an instrument changed; one read of three indexes."""
        return self.changes_of(instrument.symbol, [instrument.asset_class])[instrument]

    def changes_of(self, symbol: str, asset_classes: Sequence[AssetClass]) -> dict[Instrument, Changes]:
        """The same for the instruments of one symbol in several asset classes, in one read."""
        return self.changes_of_all([Instrument(symbol, asset_class) for asset_class in asset_classes])

    def changes_of_all(self, instruments: Sequence[Instrument]) -> dict[Instrument, Changes]:
        """The same for any instruments, in one read."""
        rows = self.database.rows(
            "SELECT i.symbol AS named, i.asset_class AS found, s.*, "
            "(SELECT coalesce(array_agg(moment ORDER BY timeframe), '{}') FROM series_moments m "
            "WHERE m.symbol = i.symbol AND m.asset_class = i.asset_class) AS moments, "
            "(SELECT CASE WHEN active THEN timeframes ELSE '{}' END FROM tracked_symbols t "
            "WHERE t.symbol = i.symbol AND t.asset_class = i.asset_class) AS tracked, "
            "(SELECT updated_at FROM system_state WHERE key = %s) AS scheduler_seen, "
            "coalesce((SELECT (value ->> 'paused')::boolean FROM system_state WHERE key = %s), false) AS paused "
            "FROM unnest(%s::text[], %s::text[]) AS i (symbol, asset_class) "
            "LEFT JOIN enrichment_status s ON s.symbol = i.symbol AND s.asset_class = i.asset_class",
            (ALIVE, SCHEDULE, [one.symbol for one in instruments], [one.asset_class.value for one in instruments]),
        )
        return {
            Instrument(row.pop("named"), AssetClass(row.pop("found"))): Changes(
                moments=tuple(row.pop("moments")),
                tracked=_timeframes(row.pop("tracked")),
                scheduler_seen=row.pop("scheduler_seen"),
                paused=row.pop("paused"),
                enrichment=row if row["status"] is not None else None,
            )
            for row in rows
        }

    def totals(self, instrument: Instrument) -> dict[str, Any]:
        """Of all stored candles, from the days' counts, which are committed with the candles.

        Returns:
            records, quality_score (mean), validation_rate (%), data_completeness (mean).
        """
        return self.database.rows(
            f"SELECT {TOTALS}, {_COMPLETENESS} FROM data_quality_metrics WHERE symbol = %s AND asset_class = %s",
            (instrument.symbol, instrument.asset_class.value),
        )[0]

    def lasts(self, instrument: Instrument) -> dict[Timeframe, datetime]:
        """Open time of the last stored candle of each timeframe."""
        rows = self.database.rows(
            "SELECT timeframe, (SELECT timestamp FROM market_data_v2 d WHERE d.symbol = m.symbol "
            "AND d.asset_class = m.asset_class AND d.timeframe = m.timeframe ORDER BY timestamp DESC LIMIT 1) AS last "
            "FROM series_moments m WHERE symbol = %s AND asset_class = %s",
            (instrument.symbol, instrument.asset_class.value),
        )
        return {Timeframe(row["timeframe"]): row["last"] for row in rows if row["last"] is not None}

    def series(self, instrument: Instrument) -> list[dict[str, Any]]:
        """Per stored timeframe: candles, first and last open time, quality_score, validation_rate (%), gaps."""
        return self.database.rows(
            "SELECT timeframe, count(*) AS candles, min(timestamp) AS first, max(timestamp) AS last, "
            "avg(quality_score) AS quality_score, 100.0 * avg(is_validated::int) AS validation_rate, "
            "count(*) FILTER (WHERE gap_detected) AS gaps, max(updated_at) AS updated_at, "
            "array_agg(DISTINCT source) AS sources FROM market_data_v2 WHERE symbol = %s AND asset_class = %s "
            "GROUP BY timeframe",
            (instrument.symbol, instrument.asset_class.value),
        )

    def of_series(self, series: Series) -> dict[str, Any] | None:
        """The row of `series` for one timeframe, None when nothing is stored."""
        return next((row for row in self.series(series.instrument) if row["timeframe"] == series.timeframe), None)

    def daily_quality(self, instrument: Instrument, since: date) -> list[dict[str, Any]]:
        """Rows of data_quality_metrics from `since` on, newest first."""
        return self.database.rows(
            "SELECT date, total_records, validated_records, validation_rate, gaps_detected, anomalies_detected, "
            "avg_quality_score, data_completeness FROM data_quality_metrics "
            "WHERE symbol = %s AND asset_class = %s AND date >= %s ORDER BY date DESC",
            (instrument.symbol, instrument.asset_class.value, since),
        )

    def recent_fetches(self, instrument: Instrument, since: datetime, limit: int) -> list[dict[str, Any]]:
        """The newest `limit` rows of enrichment_fetch_log from `since` on, newest first."""
        return self.database.rows(
            "SELECT source, timeframe, records_fetched, records_inserted, source_response_time_ms AS response_time_ms, "
            "success, created_at AS timestamp FROM enrichment_fetch_log "
            "WHERE symbol = %s AND asset_class = %s AND created_at >= %s ORDER BY created_at DESC, id DESC LIMIT %s",
            (instrument.symbol, instrument.asset_class.value, since, limit),
        )


def _timeframes(names: Sequence[str] | None) -> tuple[Timeframe, ...] | None:
    return None if names is None else tuple(map(Timeframe, names))
