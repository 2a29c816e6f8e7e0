"""Enrichment, quality and operations routes: fields, counts, jobs, pausing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import psycopg
import pytest


@pytest.fixture
def own(
    database_url: str, clock: Any, opening: Callable[..., AbstractContextManager[Any]]
) -> Iterator[tuple[Any, Any]]:
    """An API over a database of the test's own: its backing, and who asks it."""
    with opening(database_url, clock) as (served, asking):
        yield served, asking


def test_status_tells_where_an_instrument_stands(asking: Any) -> None:
    body = asking.get("/api/v1/enrichment/status/btc").json()
    # The newest hour ended at midnight; it is half past.
    assert (body["status"], body["data_age_seconds"], body["records_available"]) == ("healthy", 1800.0, 240)
    assert (body["timeframes_available"], body["validation_rate"]) == (["1h"], 100.0)
    assert body["timestamp"] == "2026-03-01T00:30:00Z"
    assert 0.9 < body["quality_score"] <= 1


def test_a_tracked_symbol_that_was_never_tried_is_not_an_error(asking: Any) -> None:
    body = asking.get("/api/v1/enrichment/status/MSFT").json()
    assert (body["status"], body["records_available"], body["quality_score"]) == ("not_enriched", 0, None)
    assert asking.get("/api/v1/enrichment/status/NOSUCH").status_code == 404


def test_nested_fields_of_the_metrics(asking: Any, filled: Any) -> None:
    body = asking.get("/api/v1/enrichment/metrics").json()
    assert body["fetch_pipeline"] == {
        "total_fetches": 2, "successful": 2, "success_rate": 100.0, "avg_response_time_ms": 120.0,
        "api_quota_remaining": 900,
    }  # fmt: skip
    compute = body["compute_pipeline"]
    assert (compute["total_computations"], compute["successful"], compute["success_rate"]) == (2, 2, 100.0)
    assert compute["avg_computation_time_ms"] > 0
    assert set(body["data_quality"]) == {"symbols_tracked", "avg_validation_rate", "avg_quality_score"}
    assert body["backfill_progress"] == {"in_progress": 0, "completed": 2, "failed": 0, "pending": 0}


def test_quality_day_by_day(asking: Any) -> None:
    body = asking.get("/api/v1/data/quality/BTC", params={"days": 3}).json()
    assert body["period_days"] == 3
    assert set(body["summary"]) == {
        "avg_validation_rate", "avg_quality_score", "total_gaps_detected", "total_anomalies"
    }  # fmt: skip
    assert [(row["date"], row["total_records"]) for row in body["daily_metrics"]] == [
        ("2026-02-28", 24),
        ("2026-02-27", 24),
        ("2026-02-26", 24),
    ]
    assert set(body["daily_metrics"][0]) == {
        "date", "total_records", "validated_records", "validation_rate", "gaps_detected", "anomalies_detected",
        "avg_quality_score", "data_completeness",
    }  # fmt: skip
    (log,) = body["recent_fetch_logs"]
    assert log == {
        "source": "binance", "timeframe": "1h", "records_fetched": 240, "records_inserted": 240,
        "response_time_ms": 120.0, "success": True, "timestamp": log["timestamp"],
    }  # fmt: skip
    assert asking.get("/api/v1/data/quality/BTC", params={"days": 366}).status_code == 422


def test_a_trigger_is_accepted_and_can_be_followed(own: tuple[Any, Any]) -> None:
    _, asking = own
    answer = asking.post("/api/v1/enrichment/trigger?symbol=aapl&asset_class=stock&timeframes=1d&timeframes=1h")
    assert answer.status_code == 202, answer.text
    receipt = answer.json()
    assert (receipt["symbol"], receipt["symbols"], receipt["asset_class"]) == ("AAPL", ["AAPL"], "stock")
    assert (receipt["timeframes"], receipt["status"]) == (["1d", "1h"], "queued")
    # Five years of days and one of hours, by the exchange's calendar.
    assert 1255 + 1600 < receipt["total_records_to_process"] < 1265 + 1800
    assert set(receipt) == {
        "job_id", "symbol", "symbols", "asset_class", "timeframes", "status", "total_records_to_process",
        "estimated_duration_seconds", "timestamp",
    }  # fmt: skip
    job = asking.get(f"/api/v1/enrichment/jobs/{receipt['job_id']}").json()
    assert (job["status"], job["errors"], job["success"]) == ("queued", [], None)
    assert [part["timeframe"] for part in job["results"]] == ["1d", "1h"]
    counts = {"records_inserted", "records_updated", "records_unchanged", "records_rejected", "source", "quality_score"}
    assert counts <= set(job["results"][0])
    assert asking.get("/api/v1/enrichment/jobs").json()["jobs"] == [job]
    assert asking.get("/api/v1/enrichment/jobs", params={"status": "completed"}).json()["jobs"] == []
    assert asking.get("/api/v1/enrichment/history").json()["jobs"] == []
    cancelled = asking.post(f"/api/v1/enrichment/jobs/{receipt['job_id']}/cancel").json()
    assert cancelled["status"] == "cancelled"
    history = asking.get("/api/v1/enrichment/history", params={"symbol": "AAPL", "success": False}).json()
    assert [job["job_id"] for job in history["jobs"]] == [receipt["job_id"]]


def test_unknown_timeframes_are_named_word_for_word(asking: Any) -> None:
    answer = asking.post("/api/v1/enrichment/trigger?symbol=AAPL&timeframes=1d&timeframes=2h&timeframes=3d")
    assert (answer.status_code, answer.json()["detail"]) == (422, "Invalid timeframes: ['2h', '3d']")
    assert answer.json()["valid"] == ["1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w"]


def test_jobs_come_in_pages(own: tuple[Any, Any]) -> None:
    _, asking = own
    made = [asking.post("/api/v1/enrichment/trigger?symbol=AAPL").json()["job_id"] for _ in range(5)]
    seen: list[str] = []
    cursor = None
    while True:
        body = asking.get(
            "/api/v1/enrichment/jobs", params={"limit": 2, **({"cursor": cursor} if cursor else {})}
        ).json()
        seen += [job["job_id"] for job in body["jobs"]]
        cursor = body["next"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(made)


def test_pausing_keeps_jobs_and_is_seen(own: tuple[Any, Any]) -> None:
    from market_data.storage.work.switches import note_scheduler

    served, asking = own
    asking.post("/api/v1/enrichment/trigger?symbol=AAPL")
    assert asking.post("/api/v1/enrichment/pause").json()["state"] == "stopped"
    note_scheduler(served.app.database, "test", served.now())
    paused = asking.post("/api/v1/enrichment/pause").json()
    assert (paused["state"], paused["jobs_queued"]) == ("paused", 1)
    assert served.app.scheduler().state()["paused"] is True
    assert asking.post("/api/v1/enrichment/resume").json()["state"] == "running"
    assert asking.get("/api/v1/enrichment/pause").status_code == 405


def test_health_tells_the_truth(own: tuple[Any, Any], clock: Any) -> None:
    from market_data.storage.work.switches import note_scheduler
    from market_data.storage.work.workers import ALIVE_LOCK

    served, asking = own
    assert asking.get("/healthz").json() == {"status": "alive"}
    ready = asking.get("/readyz")
    checks = {check["name"]: check["healthy"] for check in ready.json()["checks"]}
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert (checks["database"], checks["scheduler"], checks["workers"]) == (True, False, False)
    note_scheduler(served.app.database, "test", clock())
    insert = "INSERT INTO procrastinate_workers (last_heartbeat) VALUES (%s) RETURNING id"
    (worker,) = served.app.database.rows(insert, [clock()])
    assert asking.get("/readyz").json()["status"] == "degraded"
    # A live worker holds this lock as long as its process stands.
    with served.app.database.transaction() as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", [ALIVE_LOCK, worker["id"]])
        assert asking.get("/readyz").json()["status"] == "healthy"
    clock.now += timedelta(minutes=5)
    assert asking.get("/readyz").json()["status"] == "degraded"


def test_a_database_that_is_gone_is_unready_and_unexposed(
    database_url: str, clock: Any, opening: Callable[..., AbstractContextManager[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from market_data.model.errors import DatabaseUnavailable
    from market_data.storage.server.database import Database

    with opening(database_url, clock) as (_, asking):

        def gone(*_: Any) -> None:
            raise DatabaseUnavailable("postgresql://user:***@secret-host:5432/name cannot be reached")

        assert asking.get("/readyz").status_code == 200
        monkeypatch.setattr(Database, "rows", gone)
        monkeypatch.setattr("market_data.api.security.KEYS_SEEN_SECONDS", 0.0)
        ready, status = asking.get("/readyz"), asking.get("/api/v1/enrichment/status/BTC")
        monkeypatch.undo()
    assert (ready.status_code, ready.json()["status"]) == (503, "unhealthy")
    assert (status.status_code, status.headers["retry-after"]) == (503, "5")
    assert "secret-host" not in status.text + ready.text


def test_listings_and_dashboard(asking: Any) -> None:
    body = asking.get("/api/v1/instruments", params={"limit": 3}).json()
    assert [row["symbol"] for row in body["instruments"]] == ["AAPL", "BTC", "ETH"]
    rest = asking.get("/api/v1/instruments", params={"cursor": body["next"]}).json()
    assert [row["symbol"] for row in rest["instruments"]] == ["IBM", "KO", "MSFT", "QQQ", "SPY"]
    overview = asking.get("/api/v1/enrichment/dashboard/overview").json()
    # 240 hours of BTC, and AAPL's sessions from 31 December to 27 February without New Year, King and Washington.
    assert (overview["symbols_tracked"], overview["records_available"]) == (8, 240 + 40)
    work = asking.get("/api/v1/enrichment/dashboard/job-status/BTC").json()
    assert (work["status"]["records_available"], work["recent_jobs"]) == (240, [])
    sources = asking.get("/api/v1/enrichment/dashboard/metrics").json()["sources"]
    assert [(row["source"], row["total_fetches"]) for row in sources] == [("binance", 1), ("yahoo", 1)]
    assert asking.get("/api/v1/enrichment/dashboard/health").json()["checks"][0]["name"] == "database"
    providers = asking.get("/api/v1/providers").json()
    assert {row["name"] for row in providers["providers"]} >= {"binance", "polygon", "yahoo"}


def test_numbers_agree_after_faults(own: tuple[Any, Any], clock: Any, database_url: str) -> None:
    """The same counts from the document, from Prometheus and from SQL written by hand."""
    _, asking = own
    with psycopg.connect(database_url, autocommit=True) as connection:
        for minutes, success in ((10, True), (20, False), (25 * 60, True), (90, True)):
            connection.execute(
                "INSERT INTO enrichment_fetch_log (symbol, asset_class, source, timeframe, success, created_at, "
                "records_inserted, source_response_time_ms, api_quota_remaining) "
                "VALUES ('BTC', 'crypto', 'binance', '1h', %s, %s, 5, 100, 42)",
                [success, clock() - timedelta(minutes=minutes)],
            )
        by_hand = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE success) FROM enrichment_fetch_log WHERE created_at >= %s",
            [clock() - timedelta(hours=24)],
        ).fetchone()
    fetches = asking.get("/api/v1/enrichment/metrics").json()["fetch_pipeline"]
    assert (fetches["total_fetches"], fetches["successful"]) == by_hand == (3, 2)
    assert fetches["success_rate"] == pytest.approx(66.6667, abs=1e-3)
    for _ in range(2):  # sums that have settled are remembered and must not be counted twice
        text = asking.get("/metrics").text
        assert 'market_data_fetches_total{dataset="candles",outcome="success",source="binance"} 3.0' in text
        assert 'market_data_fetches_total{dataset="candles",outcome="failure",source="binance"} 1.0' in text
        assert 'market_data_rows_total{dataset="candles",outcome="inserted",source="binance"} 20.0' in text
        assert 'market_data_ingestion_errors_total{dataset="candles",source="binance"} 1.0' in text
        assert 'market_data_quota_remaining{source="binance"} 42.0' in text


def test_metrics_of_the_contract_are_there(asking: Any) -> None:
    text = asking.get("/metrics").text
    for name in (
        "market_data_up 1.0",
        "market_data_trades_ingested_total",
        "market_data_ingestion_errors_total",
        "market_data_active_streams 0.0",
        'market_data_breaker_state{source="binance"} 0.0',
        'market_data_data_age_seconds{asset_class="crypto",symbol="BTC"} 1800.0',
        'market_data_data_lag_seconds{asset_class="crypto",symbol="BTC"} 0.0',
        "market_data_compute_seconds_sum",
        "market_data_workers 0.0",
        'market_data_instruments{status="healthy"}',
        "market_data_http_requests_total",
    ):
        assert name in text, name
    assert "process_resident_memory_bytes" in text
