"""Counts and averages for people: what is stored of an instrument, how good it is, how its fetches went."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from market_data.model.instrument import Instrument, Series
from market_data.storage.database import Database


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

    def stored_status(self, instrument: Instrument) -> dict[str, Any] | None:
        """The instrument's row of enrichment_status, None when it was never enriched."""
        rows = self.database.rows(
            "SELECT * FROM enrichment_status WHERE symbol = %s AND asset_class = %s",
            (instrument.symbol, instrument.asset_class.value),
        )
        return rows[0] if rows else None

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
