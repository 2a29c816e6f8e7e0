"""Every metric is declared, explained and bounded; every process tells the same; ports do what the setting says."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from market_data.bootstrap import App, open_app, open_providers
from market_data.config import load_settings
from market_data.model.dataset import DATASETS
from market_data.model.errors import ConfigError, DatabaseUnavailable
from market_data.model.instrument import AssetClass
from market_data.model.job import Kind as JobKind
from market_data.monitoring import collector
from market_data.monitoring.collector import process_registry
from market_data.monitoring.declared import LABELS, METRICS, Kind
from market_data.monitoring.exposition import exposed
from market_data.monitoring.readings import Observer, Readings
from market_data.storage.server.database import Database

NOW = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
# What the values of each label may be.
BOUNDS: dict[str, set[str]] = {
    "source": {channel for http in open_providers(load_settings())[1] for channel in (http.name, *http.channels)},
    "dataset": set(DATASETS),
    "outcome": {"success", "failure", "inserted", "updated", "unchanged", "kept", "rejected"},
    "asset_class": set(AssetClass),
    "status": {"healthy", "warning", "stale", "error", "not_enriched", "200"},
    "kind": set(JobKind),
    "state": {"pending", "in_progress", "completed", "failed", "running", "paused", "stopped"},
    "severity": {"warning", "critical"},
    "method": {"GET"},
    "route": {"/healthz", "/metrics"},
}


@contextmanager
def opened(url: str) -> Iterator[App]:
    with open_app(load_settings(environ={}, overrides={"database.url": (url, "t")}), clock=lambda: NOW) as app:
        yield app


@pytest.fixture
def logged(database: Database, database_url: str) -> Iterator[App]:
    """The program over a database with logs of every kind."""
    with database.transaction() as connection:
        for number, (source, dataset, success) in enumerate(
            [("binance", "candles", True), ("binance", "trades", True), ("yahoo", "candles", False)], 1
        ):
            connection.execute(
                "INSERT INTO enrichment_fetch_log (symbol, asset_class, source, dataset, success, records_inserted, "
                "source_response_time_ms, api_quota_remaining, created_at) VALUES ('BTC', 'crypto', %s, %s, %s, %s, "
                "%s, 42, %s)",
                [source, dataset, success, 10 * number if success else 0, 500 if success else None,
                 NOW - timedelta(minutes=number)],
            )  # fmt: skip
        for success in (True, True, False):
            connection.execute(
                "INSERT INTO enrichment_compute_log (symbol, asset_class, timeframe, success, computation_time_ms, "
                "candles_processed, created_at) VALUES ('BTC', 'crypto', '1h', %s, %s, %s, %s)",
                [success, 250 if success else None, 7 if success else 0, NOW],
            )
        connection.execute(
            "INSERT INTO coverage (symbol, asset_class, timeframe, start_time, end_time, state, detected_at) "
            "VALUES ('BTC', 'crypto', '1h', %s, %s, 'missing', %s)",
            [NOW - timedelta(days=3), NOW - timedelta(days=2), NOW - timedelta(hours=5)],
        )
        connection.execute(
            "INSERT INTO alerts (rule, subject, severity, state, detail, since, changed_at) "
            "VALUES ('MarketDataNoWorker', '', 'critical', 'firing', '', %s, %s)", [NOW, NOW],
        )  # fmt: skip
    with opened(database_url) as app:
        app.jobs.trigger([one.instrument for one in app.tracked()][:1], app.tracked()[0].timeframes)
        yield app


def text_of(app: App) -> str:
    return generate_latest(process_registry(app.observer)).decode()


def value(text: str, name: str, **labels: str) -> float:
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"market_data_{name}" and labels.items() <= sample.labels.items()
    ]
    assert found, name
    return sum(found)


def test_every_metric_is_declared_explained_and_bounded(logged: App) -> None:
    families = {f.name: f for f in text_string_to_metric_families(text_of(logged)) if f.name.startswith("market_data_")}
    declared = {metric.name: metric for metric in METRICS.values()}
    of_requests = {"market_data_http_requests", "market_data_http_request_seconds"}
    assert families.keys() == declared.keys() - of_requests
    for name, family in families.items():
        metric = declared[name]
        assert (family.type, family.documentation) == (metric.kind.value, metric.help)
        for sample in family.samples:
            assert sample.labels.keys() == set(metric.labels), name
            for label, found in sample.labels.items():
                assert label == "symbol" or found in BOUNDS[label], (name, label, found)
    assert {label for metric in METRICS.values() for label in metric.labels} == LABELS.keys()
    assert BOUNDS.keys() | {"symbol"} == LABELS.keys()
    assert all(metric.help.endswith(".") and len(metric.help) > 10 for metric in METRICS.values())
    assert [metric.name for metric in METRICS.values() if metric.kind is Kind.COUNTER and "total" in metric.name] == []


def test_the_names_of_the_contract_are_exported(logged: App) -> None:
    text = text_of(logged)
    assert value(text, "trades_ingested_total", source="binance") == 20
    assert value(text, "ingestion_errors_total", source="yahoo") == 1
    assert value(text, "active_streams") == 0
    assert value(text, "fetches_total") == 3
    assert value(text, "fetch_seconds_sum", source="binance") == 1.0
    assert value(text, "fetch_seconds_count", source="binance") == 2
    assert value(text, "quota_remaining", source="binance") == 42
    assert value(text, "breaker_state", source="binance") == 0
    assert value(text, "rows_total", outcome="inserted") == 30
    assert value(text, "open_gaps", asset_class="crypto") == 1
    assert value(text, "oldest_gap_seconds", asset_class="crypto") == 5 * 3600
    assert value(text, "compute_seconds_sum") == 0.5
    assert value(text, "compute_success_ratio") == pytest.approx(2 / 3)
    assert value(text, "fetch_success_ratio") == pytest.approx(2 / 3)
    assert value(text, "queue_depth", kind="enrich") > 0
    assert value(text, "alerts", severity="critical") == 1


def test_every_process_tells_the_same(logged: App, database_url: str) -> None:
    """An API beside workers: what comes from the database is no process's own."""
    with opened(database_url) as worker, exposed(worker.observer, "127.0.0.1", 0) as port:
        there = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    here = text_of(logged)
    assert ours(here) == ours(there)
    assert "process_resident_memory_bytes" in there


def ours(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("market_data_")]


def test_symbols_are_bounded_tracked_and_late_ones_first(
    logged: App, well: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "MOST_SYMBOLS", 2)
    names = [f"S{number}" for number in range(4)]
    template = well.instruments[0]
    many = [
        replace(template, instrument=replace(template.instrument, symbol=name), overdue=late)
        for name, late in zip(names, (None, 5.0, 0.0, 9.0), strict=True)
    ]
    monkeypatch.setattr(Observer, "read", lambda _: replace(well, instruments=many))
    text = text_of(logged)
    assert re.findall(r'market_data_data_age_seconds\{[^}]*symbol="(\w+)"', text) == ["S3", "S1"]
    assert value(text, "instruments", status="healthy") == 4


def test_without_a_database_only_that_is_told(logged: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> None:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(Database, "rows", gone)
    assert ours(text_of(logged)) == ["market_data_up 0.0", "market_data_active_streams 0.0"]


def test_a_port_that_is_taken_is_said(logged: App) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigError, match=rf"port {port}: .*PROMETHEUS_PORT"),
            exposed(logged.observer, "127.0.0.1", port),
        ):
            pass


def test_without_a_port_nothing_listens(logged: App) -> None:
    with exposed(logged.observer, "127.0.0.1", None) as port:
        assert port is None
