"""After a run with faults: the document, Prometheus, the command line and hand-written SQL tell the same counts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import Timeframe
from market_data.sandbox import Sandbox

NOW = datetime(2026, 11, 20, 18, 30, 15, tzinfo=UTC)
BTC = Instrument("BTC", AssetClass.CRYPTO)


async def test_all_tell_the_same(database_url: str, opening: Callable[..., AbstractContextManager[Any]]) -> None:
    span = (datetime(2019, 9, 1, tzinfo=UTC), datetime(2019, 9, 11, tzinfo=UTC))
    for faults in ("", "garbage:1"):
        with Sandbox(now=NOW, limits=False, faults=faults) as sandbox:
            urls = {key.replace(".", "__"): value for key, value in sandbox.urls.items()}
            quick = {f"providers__{name}__max_retries": 0 for name in ("binance", "polygon", "yahoo")}
            key = {"providers__polygon__api_key": "planted-polygon-secret"}
            with opening(database_url, lambda: NOW, **urls, **quick, **key) as (served, asking):
                await served.app.enricher.enrich([BTC], [Timeframe.H1, Timeframe.D1], *span)
                await served.app.disconnect()
                metrics = asking.get("/api/v1/enrichment/metrics").json()
                text = asking.get("/metrics").text
                status = asking.get("/api/v1/enrichment/status/BTC").json()
    shown = told_by_the_command_line("status", "BTC", "--database-url", database_url)
    with psycopg.connect(database_url) as connection:
        fetches = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE success), sum(records_inserted) FROM enrichment_fetch_log"
        ).fetchone()
        computed = "SELECT count(*), count(*) FILTER (WHERE success) FROM enrichment_compute_log"
        computations = connection.execute(computed).fetchone()
        stored = connection.execute("SELECT count(*), avg(quality_score) FROM market_data_v2").fetchone()
    assert fetches is not None
    assert stored is not None
    # Two series were fetched well; then all sources failed, but one that answered that it reaches no hours so old.
    assert fetches == (8, 2, 250)
    assert (metrics["fetch_pipeline"]["total_fetches"], metrics["fetch_pipeline"]["successful"]) == fetches[:2]
    assert metrics["fetch_pipeline"]["success_rate"] == pytest.approx(25.0, abs=1e-3)
    compute = metrics["compute_pipeline"]
    assert (compute["total_computations"], compute["successful"]) == computations == (2, 2)
    assert added(text, "market_data_fetches_total") == 8
    assert added(text, "market_data_fetches_total", 'outcome="failure"') == 6
    assert added(text, "market_data_ingestion_errors_total") == 6
    assert added(text, "market_data_rows_total", 'outcome="inserted"') == 250
    assert added(text, "market_data_computations_total") == 2
    assert status["records_available"] == shown["records_available"] == stored[0] == 250
    assert status["quality_score"] == pytest.approx(stored[1], abs=1e-9)
    assert (shown["quality_score"], shown["validation_rate"]) == (status["quality_score"], status["validation_rate"])
    assert (status["status"], shown["status"]) == ("error", "error")


def told_by_the_command_line(*arguments: str) -> Any:
    """What a command prints with --json."""
    command = [sys.executable, "-m", "market_data", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def added(text: str, name: str, label: str = "") -> float:
    """The sum of a metric's samples, of those with a label when given."""
    lines = re.findall(rf"^{name}\{{([^}}]*)\}} (\S+)$", text, flags=re.MULTILINE)
    return sum(float(value) for labels, value in lines if label in labels)
