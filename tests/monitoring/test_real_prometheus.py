"""A real Prometheus scrapes our real metrics: it sees our figures; rules fire and end there and inside alike."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from market_data.bootstrap import App, open_app
from market_data.config import load_settings
from market_data.monitoring.exposition import exposed
from market_data.monitoring.rules import RULES, findings

RULES_FILE = Path(__file__).parents[2] / "monitoring" / "prometheus" / "rules.yaml"
pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus: apt-get install prometheus"),
]


@contextmanager
def prometheus(target: int, folder: Path) -> Iterator[str]:
    """A Prometheus that scrapes a port of this machine every half second; rules hold at once."""
    rules = yaml.safe_load(RULES_FILE.read_text())
    for rule in rules["groups"][0]["rules"]:
        rule["for"] = "0s"
    rules["groups"][0]["interval"] = "500ms"
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    scrape = {"job_name": "market-data", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [scrape],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    process = subprocess.Popen(
        ["prometheus", f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}/api/v1"
    finally:
        process.terminate()
        process.wait(20)


def eventually(look: Callable[[], Any], expected: Callable[[Any], bool]) -> Any:
    deadline, found = time.monotonic() + 30, None
    while time.monotonic() < deadline:
        try:
            found = look()
        except (httpx.HTTPError, KeyError, IndexError):
            found = None
        if found is not None and expected(found):
            return found
        time.sleep(0.2)  # another program would see no event either
    pytest.fail(f"never as expected: {found}")


def firing(url: str) -> set[str]:
    alerts = httpx.get(f"{url}/alerts", timeout=5).json()["data"]["alerts"]
    return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def inside(app: App) -> set[str]:
    readings = app.observer.read()
    return {rule.name for rule in RULES if findings(rule, readings)}


def test_prometheus_and_the_platform_agree(database_url: str, tmp_path: Path) -> None:
    settings = load_settings(environ={}, overrides={"database.url": (database_url, "the test")})
    with (
        open_app(settings, clock=lambda: datetime.now(UTC)) as app,
        exposed(app.observer, "127.0.0.1", 0) as port,
    ):
        assert port is not None
        with prometheus(port, tmp_path) as url:

            def value(query: str) -> float:
                answer = httpx.get(f"{url}/query", params={"query": query}, timeout=5).json()
                return float(answer["data"]["result"][0]["value"][1])

            # Nobody works, nothing was ever fetched.
            idle = {"MarketDataNoWorker", "MarketDataNeverFetched"}
            assert inside(app) == idle
            eventually(lambda: firing(url), lambda found: found == idle | {"MarketDataSchedulerStopped"})
            with app.database.transaction() as connection:
                connection.execute(FAULTS)
            broken = idle | {"MarketDataFetchesFail", "MarketDataComputationsFail", "MarketDataQualityLow",
                             "MarketDataGapsOld"}  # fmt: skip
            assert inside(app) == broken
            eventually(lambda: firing(url), lambda found: found == broken | {"MarketDataSchedulerStopped"})
            (by_hand,) = app.database.rows("SELECT count(*) AS n FROM enrichment_fetch_log WHERE NOT success")
            query = 'sum(market_data_fetches_total{outcome="failure"})'
            assert eventually(lambda: value(query), bool) == by_hand["n"] == 1
            with app.database.transaction() as connection:
                connection.execute(MENDED)
            app.scheduler()._wake()
            assert inside(app) == idle
            eventually(lambda: firing(url), lambda found: found == idle)


FAULTS = """
INSERT INTO enrichment_fetch_log (symbol, asset_class, source, success) VALUES ('BTC', 'crypto', 'yahoo', false);
INSERT INTO enrichment_compute_log (symbol, asset_class, timeframe, success) VALUES ('BTC', 'crypto', '1h', false);
INSERT INTO data_quality_metrics (symbol, asset_class, date, total_records, validated_records, avg_quality_score)
    VALUES ('BTC', 'crypto', current_date, 10, 10, 0.5);
INSERT INTO coverage (symbol, asset_class, timeframe, start_time, end_time, state, detected_at)
    VALUES ('BTC', 'crypto', '1h', now() - interval '4 days', now() - interval '3 days', 'missing',
    now() - interval '3 days');
"""
MENDED = """
INSERT INTO enrichment_fetch_log (symbol, asset_class, source, success)
    SELECT 'BTC', 'crypto', 'binance', true FROM generate_series(1, 99);
INSERT INTO enrichment_compute_log (symbol, asset_class, timeframe, success)
    SELECT 'BTC', 'crypto', '1h', true FROM generate_series(1, 99);
UPDATE data_quality_metrics SET avg_quality_score = 0.95;
UPDATE coverage SET state = 'present';
"""
