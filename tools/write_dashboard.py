"""Writes the Grafana dashboard, monitoring/grafana/dashboard.json, from the panels declared here; a test compares."""

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "monitoring" / "grafana" / "dashboard.json"
SOURCE = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
RATE = "[$__rate_interval]"

# Title, unit, width of 24, kind, and queries as (legend, expression). What comes from the database is the same from
# every process that is scraped, hence the `max` over them.
PANELS: list[tuple[str, str, int, str, list[tuple[str, str]]]] = [
    ("Database", "bool_on_off", 4, "stat", [("", "min(market_data_up)")]),
    ("Scheduler", "bool_on_off", 4, "stat", [("", 'max(market_data_scheduler_state{state="running"})')]),
    ("Workers", "short", 4, "stat", [("", "max(market_data_workers)")]),
    ("Alerts firing", "short", 4, "stat", [("{{severity}}", "max by (severity) (market_data_alerts)")]),
    ("Fetches that went well, 24 h", "percentunit", 4, "stat", [("", "min(market_data_fetch_success_ratio)")]),
    ("Mean quality, 7 days", "percentunit", 4, "stat", [("", "min(market_data_average_quality_score)")]),
    ("Overdue, by symbol", "s", 12, "timeseries",
     [("{{symbol}}", "topk(10, max by (symbol, asset_class) (market_data_data_overdue_seconds))"),
      ("warning: {{asset_class}}", "max by (asset_class) (market_data_alert_age_seconds)"),
      ("critical: {{asset_class}}", "max by (asset_class) (market_data_critical_age_seconds)")]),
    ("Lag and age, the worst", "s", 12, "timeseries",
     [("lag of {{symbol}}", "topk(5, max by (symbol, asset_class) (market_data_data_lag_seconds))"),
      ("age of {{symbol}}", "topk(5, max by (symbol, asset_class) (market_data_data_age_seconds))")]),
    ("Fetches per second", "reqps", 8, "timeseries",
     [("{{source}} {{outcome}}",
       f"sum by (source, outcome) (max without (instance, job) (rate(market_data_fetches_total{RATE})))")]),
    ("Time a fetch takes", "s", 8, "timeseries",
     [("{{source}} {{dataset}}",
       (f"max by (source, dataset) (rate(market_data_fetch_seconds_sum{RATE})) "
       f"/ max by (source, dataset) (rate(market_data_fetch_seconds_count{RATE}))"))]),
    ("Fetches that failed per second", "reqps", 8, "timeseries",
     [("{{source}} {{dataset}}", f"max by (source, dataset) (rate(market_data_ingestion_errors_total{RATE}))")]),
    ("Rows per second", "rowsps", 8, "timeseries",
     [("{{outcome}}", f"sum by (outcome) (max without (instance, job) (rate(market_data_rows_total{RATE})))"),
      ("trades", f"sum(max without (instance, job) (rate(market_data_trades_ingested_total{RATE})))")]),
    ("Quota left", "short", 8, "timeseries", [("{{source}}", "max by (source) (market_data_quota_remaining)")]),
    ("Breakers: 0 closed, 1 half open, 2 open", "short", 8, "timeseries",
     [("{{source}}", "max by (source) (market_data_breaker_state)")]),
    ("Open gaps", "short", 8, "timeseries",
     [("{{asset_class}}", "max by (asset_class) (market_data_open_gaps)")]),
    ("Age of the oldest gap", "s", 8, "timeseries",
     [("{{asset_class}}", "max by (asset_class) (market_data_oldest_gap_seconds)")]),
    ("Instruments", "short", 8, "timeseries", [("{{status}}", "max by (status) (market_data_instruments)")]),
    ("Quality, the poorest", "percentunit", 8, "timeseries",
     [("{{symbol}}", "bottomk(10, max by (symbol, asset_class) (market_data_quality_score))"),
      ("least wanted", "max(market_data_min_quality_score)")]),
    ("Queue", "short", 8, "timeseries",
     [("{{kind}}", "max by (kind) (market_data_queue_depth)"),
      ("backfills {{state}}", 'max by (state) (market_data_backfills{state!="completed"})')]),
    ("Nothing moved in the queue for", "s", 8, "timeseries", [("", "max(market_data_queue_idle_seconds)")]),
    ("Computations per second", "ops", 8, "timeseries",
     [("{{outcome}}", f"max by (outcome) (rate(market_data_computations_total{RATE}))"),
      ("candles", f"max(rate(market_data_candles_computed_total{RATE}))")]),
    ("Time a computation takes", "s", 8, "timeseries",
     [("mean",
       f"max(rate(market_data_compute_seconds_sum{RATE})) / max(rate(market_data_compute_seconds_count{RATE}))")]),
    ("Computations that went well, 24 h", "percentunit", 8, "timeseries",
     [("", "min(market_data_compute_success_ratio)")]),
    ("Requests per second", "reqps", 8, "timeseries",
     [("{{status}}", f"sum by (status) (rate(market_data_http_requests_total{RATE}))")]),
    ("Slowest twentieth of requests", "s", 8, "timeseries",
     [("{{route}}", ("topk(10, histogram_quantile(0.95, sum by (le, route) "
       f"(rate(market_data_http_request_seconds_bucket{RATE}))))"))]),
    ("Live streams", "short", 8, "timeseries", [("{{instance}}", "market_data_active_streams")]),
]  # fmt: skip


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it; it asks which Prometheus to use."""
    panels, x, y, height = [], 0, 0, 0
    for number, (title, unit, width, kind, queries) in enumerate(PANELS, 1):
        if x + width > 24:
            x, y, height = 0, y + height, 0
        tall = 4 if kind == "stat" else 8
        panels.append(panel(number, title, unit, kind, queries, {"x": x, "y": y, "w": width, "h": tall}))
        x, height = x + width, max(height, tall)
    return {
        "__inputs": [{"name": "DS_PROMETHEUS", "label": "Prometheus", "description": "", "type": "datasource",
                      "pluginId": "prometheus", "pluginName": "Prometheus"}],
        "__requires": [{"type": "grafana", "id": "grafana", "name": "Grafana", "version": "10.0.0"},
                       {"type": "datasource", "id": "prometheus", "name": "Prometheus", "version": "1.0.0"}],
        "uid": "market-data",
        "title": "Market data platform",
        "tags": ["market-data"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": []},
        "annotations": {"list": []},
        "panels": panels,
    }  # fmt: skip


def panel(
    number: int, title: str, unit: str, kind: str, queries: list[tuple[str, str]], place: dict[str, int]
) -> dict[str, Any]:
    """One panel with its queries."""
    return {
        "id": number,
        "title": title,
        "type": kind,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for index, (legend, expression) in enumerate(queries)
        ],
    }


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(FILE.name)
