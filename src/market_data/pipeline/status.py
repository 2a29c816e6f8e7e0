"""Where an instrument stands: its status against the calendar, and its quality day by day."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

from market_data.model.errors import UnknownInstrument
from market_data.model.instrument import Instrument, Series
from market_data.model.quality import status_name
from market_data.model.session import grid, lookback_start
from market_data.model.timeframe import Timeframe, TimeRange, from_micros
from market_data.storage.summaries import Summaries

RECENT_FETCHES: Final = 20


def status_of(summaries: Summaries, instrument: Instrument, now: datetime, *, tracked: bool) -> dict[str, Any]:
    """CONTRACT's `/enrichment/status/{symbol}`.

    The status is judged by how long the first expected candle is missing that is not stored, the worst of all stored
    timeframes: a stock is not stale on Sunday.

    Raises:
        UnknownInstrument: when it was never enriched and is not tracked.
    """
    stored = summaries.stored_status(instrument)
    if stored is None and not tracked:
        raise UnknownInstrument(f"{instrument} is not tracked and was never enriched")
    series = summaries.series(instrument)
    count = sum(row["candles"] for row in series)
    score = sum(row["quality_score"] * row["candles"] for row in series) / count if count else None
    rate = sum(float(row["validation_rate"]) * row["candles"] for row in series) / count if count else None
    ends = [_last_end(instrument, row, now) for row in series]
    stored = stored or {}
    return {
        "symbol": instrument.symbol,
        "asset_class": instrument.asset_class.value,
        "status": status_name(
            lag=max(
                (lag(Series(instrument, Timeframe(row["timeframe"])), row["last"], now) for row in series), default=None
            ),
            quality_score=score,
            failed=stored.get("status") == "error",
        ),
        "last_enrichment_time": stored.get("last_enrichment_time"),
        "last_fetch_source": stored.get("last_fetch_source"),
        "data_age_seconds": (now - max(ends)).total_seconds() if ends else None,
        "records_available": count,
        "quality_score": score,
        "validation_rate": rate,
        "timeframes_available": [t.value for t in Timeframe if t in {row["timeframe"] for row in series}],
        "next_enrichment": stored.get("next_enrichment"),
        "error_message": stored.get("error_message"),
        "timestamp": now,
    }


def quality_of(summaries: Summaries, instrument: Instrument, days: int, now: datetime) -> dict[str, Any]:
    """CONTRACT's `/data/quality/{symbol}`: a summary and daily rows of the last `days` days of candles."""
    since = (now - timedelta(days=days)).date()
    daily = summaries.daily_quality(instrument, since)
    total = sum(row["total_records"] for row in daily)
    return {
        "symbol": instrument.symbol,
        "asset_class": instrument.asset_class.value,
        "period_days": days,
        "summary": {
            "avg_validation_rate": 100.0 * sum(row["validated_records"] for row in daily) / total if total else None,
            "avg_quality_score": _weighted(daily, "avg_quality_score", total),
            "total_gaps_detected": sum(row["gaps_detected"] for row in daily),
            "total_anomalies": sum(row["anomalies_detected"] for row in daily),
        },
        "daily_metrics": daily,
        "recent_fetch_logs": summaries.recent_fetches(instrument, now - timedelta(days=days), RECENT_FETCHES),
        "timestamp": now,
    }


def lag(series: Series, last: datetime, now: datetime) -> timedelta:
    """How long the first expected candle after `last` has been due; zero when none is."""
    after = TimeRange(last + timedelta(microseconds=1), max(now, last) + series.timeframe.duration)
    due = grid(series.asset_class, series.timeframe, after).closed_by(now)
    return now - from_micros(due.ends[0]) if len(due) else timedelta(0)


def _last_end(instrument: Instrument, row: dict[str, Any], now: datetime) -> datetime:
    timeframe = Timeframe(row["timeframe"])
    start = lookback_start(instrument.asset_class, timeframe, row["last"], 0)
    ends = grid(instrument.asset_class, timeframe, TimeRange(start, row["last"] + timedelta(microseconds=1))).ends
    return min(from_micros(ends[-1]), now) if len(ends) else row["last"]


def _weighted(rows: Iterable[dict[str, Any]], name: str, total: int) -> float | None:
    return sum(row[name] * row["total_records"] for row in rows) / total if total else None
