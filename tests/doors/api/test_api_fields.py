"""Every path of the promised interface, every field with its type, as written down by hand from the promise."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe
from market_data.sandbox import Sandbox

NOW = datetime(2026, 11, 20, 18, 30, 15, tzinfo=UTC)
HOURS = Series(Instrument("BTC", AssetClass.CRYPTO), Timeframe.H1)
TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z")
KINDS: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str) and value != "",
    "time": lambda value: isinstance(value, str) and TIME.fullmatch(value) is not None,
    "day": lambda value: isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value) is not None,
    "count": lambda value: type(value) is int and value >= 0,
    "number": lambda value: type(value) in (int, float),
    "positive": lambda value: type(value) in (int, float) and value >= 0,
    "percent": lambda value: type(value) in (int, float) and 0 <= value <= 100,
    "score": lambda value: type(value) in (int, float) and 0 <= value <= 1,
    "flag": lambda value: type(value) is bool,
    "null": lambda value: value is None,
    "texts": lambda value: isinstance(value, list) and all(isinstance(text, str) for text in value),
    "object": lambda value: isinstance(value, dict),
}
CANDLE = {
    "timestamp": "time", "open": "number", "high": "number", "low": "number", "close": "number", "volume": "positive",
    "source": "text", "revision": "count", "amended_from": "count?", "is_validated": "flag", "quality_score": "score",
    "data_completeness": "score", "data_age_seconds": "number", "validation_notes": "text?", "gap_detected": "flag",
    "volume_anomaly": "flag", "fetched_at": "time", "computed_at": "time", "updated_at": "time", "created_at": "time",
    "vwap": "number?", "trade_count": "count?", "quote_volume": "number?", "taker_buy_volume": "number?",
}  # fmt: skip
FEATURES = {
    "return_1h": "number?", "return_1d": "number?", "volatility_20": "number?", "volatility_50": "number?",
    "atr": "number?", "trend_direction": "text?", "market_structure": "text?", "rolling_volume_20": "number?",
    "delta": "number?", "buy_sell_ratio": "score?", "liquidation_intensity": "number?", "volume_spike_score": "number?",
    "long_short_ratio": "number?", "funding_rate_percentile": "percent?", "exchange_inflow": "number?",
    "open_interest_change": "number?", "sma_20": "number?", "sma_50": "number?", "open_interest": "number?",
    "funding_rate": "number?", "liquidations_long": "number?", "liquidations_short": "number?",
    "taker_sell_volume": "number?",
}  # fmt: skip
SERIES = {"symbol": "text", "asset_class": "text", "timeframe": "text", "as_of": "time?", "adjusted": "text",
          "count": "count", "next": "time?"}  # fmt: skip
FACTS = {"symbol": "text", "asset_class": "text", "as_of": "time?", "count": "count", "next": "text?"}
STATUS = {
    "symbol": "text", "asset_class": "text", "status": "text", "last_enrichment_time": "time?",
    "data_age_seconds": "positive?", "records_available": "count", "quality_score": "score?",
    "validation_rate": "percent?", "timeframes_available": "texts", "history": "texts", "next_enrichment": "time?",
    "error_message": "text?", "timestamp": "time",
}  # fmt: skip
COMPUTE = {"total_computations": "count", "successful": "count", "success_rate": "percent",
           "avg_computation_time_ms": "positive"}  # fmt: skip
SCHEDULER = {"state": "text", "jobs_queued": "count", "timestamp": "time"}
HEALTH = {"status": "text", "checks": [{"name": "text", "healthy": "flag", "detail": "text?"}], "timestamp": "time"}
JOB = {
    "job_id": "text", "symbol": "text?", "symbols": "texts", "asset_class": "text?", "timeframes": "texts",
    "status": "text", "created_at": "time", "started_at": "time?", "finished_at": "time?", "success": "flag?",
    "results": [{
        "timeframe": "text?", "status": "text", "records_inserted": "count", "records_updated": "count",
        "records_unchanged": "count", "records_rejected": "count", "source": "text?", "quality_score": "score?",
        "error": "text?",
    }],
    "errors": "texts",
}  # fmt: skip
PROMISED: dict[str, dict[str, Any]] = {
    "GET /api/v1/enrichment/status/BTC": STATUS,
    "GET /api/v1/enrichment/metrics": {
        "fetch_pipeline": {
            "total_fetches": "count", "successful": "count", "success_rate": "percent",
            "avg_response_time_ms": "positive", "api_quota_remaining": "count",
        },
        "compute_pipeline": COMPUTE,
        "data_quality": {"symbols_tracked": "count", "avg_validation_rate": "percent", "avg_quality_score": "score"},
        "backfill_progress": {"in_progress": "count", "completed": "count", "failed": "count", "pending": "count"},
        "timestamp": "time",
    },
    "GET /api/v1/data/quality/BTC?days=7": {
        "symbol": "text", "period_days": "count",
        "summary": {
            "avg_validation_rate": "percent", "avg_quality_score": "score", "total_gaps_detected": "count",
            "total_anomalies": "count",
        },
        "daily_metrics": [{
            "date": "day", "total_records": "count", "validated_records": "count", "validation_rate": "percent",
            "gaps_detected": "count", "anomalies_detected": "count", "avg_quality_score": "score",
            "data_completeness": "score",
        }],
        "recent_fetch_logs": [{
            "source": "text", "timeframe": "text", "records_fetched": "count", "records_inserted": "count",
            "response_time_ms": "positive", "success": "flag", "timestamp": "time",
        }],
        "timestamp": "time",
    },
    "GET /api/v1/market/features/BTC/1h": {**SERIES, "candles": [{**CANDLE, **FEATURES}]},
    "GET /api/v1/market/candles/BTC/1h": {**SERIES, "candles": [CANDLE]},
    "GET /api/v1/market/trades/BTC": {
        **FACTS, "trades": [{"timestamp": "time", "price": "number", "size": "number", "source": "text"}],
    },
    "GET /api/v1/market/quotes/BTC": {
        **FACTS,
        "quotes": [{"timestamp": "time", "bid_price": "number", "bid_size": "number", "ask_price": "number",
                    "ask_size": "number", "source": "text"}],
    },
    "GET /api/v1/market/dividends/AAPL": {**FACTS, "dividends": [{"ex_date": "day", "amount": "number"}]},
    "GET /api/v1/market/splits/AAPL": {
        **FACTS, "splits": [{"execution_date": "day", "split_from": "number", "split_to": "number"}],
    },
    "GET /api/v1/market/earnings/AAPL": {
        **FACTS, "earnings": [{"fiscal_year": "count", "fiscal_quarter": "count", "eps_actual": "number?"}],
    },
    "GET /api/v1/market/options/AAPL": {
        **FACTS,
        "options": [{"contract": "text", "option_type": "text", "expiration": "day", "strike": "number", "iv": "score?",
                     "delta": "number?", "gamma": "number?", "theta": "number?", "vega": "number?"}],
    },
    "GET /api/v1/market/news/AAPL": {
        **FACTS, "news": [{"news_id": "text", "published_at": "time", "title": "text", "symbols": "texts"}],
    },
    "GET /api/v1/instruments": {
        "count": "count", "next": "text?",
        "instruments": [{"symbol": "text", "asset_class": "text", "tracked": "flag", "status": "text"}],
    },
    "GET /api/v1/providers": {
        "count": "count",
        "providers": [{"name": "text", "ready": "flag", "breaker": "text", "priority": "object"}],
    },
    "GET /api/v1/enrichment/dashboard/overview": {
        "symbols_tracked": "count", "symbols_by_status": "object", "records_available": "count",
        "jobs_by_status": "object", "scheduler": SCHEDULER, "timestamp": "time",
    },
    "GET /api/v1/enrichment/dashboard/job-status/BTC": {
        "symbol": "text", "asset_class": "text", "status": STATUS, "recent_jobs": [JOB], "timestamp": "time",
    },
    "GET /api/v1/enrichment/dashboard/metrics": {
        "sources": [{"source": "text", "total_fetches": "count", "success_rate": "percent",
                     "avg_response_time_ms": "positive", "records_fetched": "count"}],
        "compute_pipeline": COMPUTE, "timestamp": "time",
    },
    "GET /api/v1/enrichment/dashboard/health": HEALTH,
    "GET /api/v1/enrichment/jobs": {"count": "count", "next": "text?", "jobs": [JOB]},
    "GET /api/v1/enrichment/history?symbol=BTC&success=true&limit=5": {"count": "count", "jobs": [JOB]},
    "POST /api/v1/enrichment/pause": SCHEDULER,
    "POST /api/v1/enrichment/resume": SCHEDULER,
    "GET /healthz": {"status": "text"},
    "GET /readyz": HEALTH,
}  # fmt: skip
TELLING_OF_JOBS = (
    "GET /api/v1/enrichment/jobs",
    "GET /api/v1/enrichment/history?symbol=BTC&success=true&limit=5",
    "GET /api/v1/enrichment/dashboard/job-status/BTC",
)
RECEIPT = {
    "job_id": "text", "symbol": "text", "symbols": "texts", "asset_class": "text", "timeframes": "texts",
    "status": "text", "total_records_to_process": "count?", "estimated_duration_seconds": "positive?",
    "timestamp": "time",
}  # fmt: skip


def faults(value: Any, promised: Any, where: str = "") -> Iterator[str]:
    """What of a value is not as promised."""
    if isinstance(promised, dict):
        if not isinstance(value, dict):
            yield f"{where} is no object: {value!r}"
            return
        for name, kind in promised.items():
            if name not in value:
                yield f"{where}.{name} is missing"
            else:
                yield from faults(value[name], kind, f"{where}.{name}")
    elif isinstance(promised, list):
        if not isinstance(value, list) or not value:
            yield f"{where} is no list with something in it: {value!r}"
            return
        for number, row in enumerate(value):
            yield from faults(row, promised[0], f"{where}[{number}]")
    elif not (KINDS[promised.removesuffix("?")](value) or (promised.endswith("?") and value is None)):
        yield f"{where} is no {promised}: {value!r}"


def test_what_is_not_as_promised_is_found() -> None:
    promised = {"a": "text", "b": [{"c": "percent", "d": "flag"}], "e": "day"}
    assert list(faults({"a": 1, "b": [{"c": 101}]}, promised)) == [
        ".a is no text: 1", ".b[0].c is no percent: 101", ".b[0].d is missing", ".e is missing",
    ]  # fmt: skip


@pytest.fixture
async def worked(database_url: str, opening: Callable[..., AbstractContextManager[Any]]) -> Any:
    """Who asks an API behind which a job was triggered by it and done."""
    with Sandbox(now=NOW, limits=False) as sandbox:
        urls = {key.replace(".", "__"): value for key, value in sandbox.urls.items()}
        with opening(database_url, lambda: NOW, **urls) as (served, asking):
            receipt = asking.post("/api/v1/enrichment/trigger?symbol=BTC&asset_class=crypto&timeframes=1d")
            assert receipt.status_code == 202, receipt.text
            await asyncio.wait_for(served.app.worker().run(wait=False), 60)
            await served.app.disconnect()
            yield asking, receipt.json()


async def test_a_job_and_all_that_tells_of_it_are_as_promised(worked: Any) -> None:
    asking, receipt = worked
    assert list(faults(receipt, RECEIPT)) == []
    assert receipt["status"] == "queued"
    job = asking.get(f"/api/v1/enrichment/jobs/{receipt['job_id']}").json()
    assert list(faults(job, JOB)) == []
    assert (job["status"], job["results"][0]["source"]) == ("completed", "binance")
    assert job["results"][0]["records_inserted"] > 1000
    for name in TELLING_OF_JOBS:
        assert list(faults(asking.get(name.removeprefix("GET ")).json(), PROMISED[name])) == [], name


@pytest.mark.parametrize("request_line", [name for name in PROMISED if name not in TELLING_OF_JOBS])
def test_every_field_is_there_with_its_type(asking: Any, request_line: str) -> None:
    method, path = request_line.split(" ")
    answer = asking.request(method, path)
    assert answer.status_code == 200, answer.text
    assert list(faults(answer.json(), PROMISED[request_line])) == []


def test_the_document_has_every_promised_path_and_field(asking: Any) -> None:
    document = asking.get("/api/v1/openapi.json").json()
    for request_line, promised in PROMISED.items():
        method, path = request_line.partition("?")[0].split(" ")
        path = re.sub(r"/(BTC|AAPL)/1h$", "/{symbol}/{timeframe}", path)
        path = re.sub(r"/(BTC|AAPL)$", "/{symbol}", path)
        content = document["paths"][path][method.lower()]["responses"]["200"]["content"]["application/json"]
        schema = document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
        assert set(promised) <= set(schema["properties"]), request_line
        assert set(promised) <= set(schema["required"]), request_line


def test_windows_are_a_day_of_logs_and_a_week_of_quality(
    database_url: str, clock: Any, opening: Callable[..., AbstractContextManager[Any]]
) -> None:
    with opening(database_url, clock) as (served, asking):
        for hours in (1, 23, 25):
            at = clock() - timedelta(hours=hours)
            served.app.database.rows(
                "INSERT INTO enrichment_fetch_log (symbol, asset_class, source, success, created_at) "
                "VALUES ('BTC', 'crypto', 'binance', true, %s)", [at],
            )  # fmt: skip
            served.app.database.rows(
                "INSERT INTO enrichment_compute_log (symbol, asset_class, timeframe, success, created_at) "
                "VALUES ('BTC', 'crypto', '1h', true, %s)", [at],
            )  # fmt: skip
        for days, valid in ((0, 10), (6, 5), (9, 0)):
            served.app.database.rows(
                "INSERT INTO data_quality_metrics (symbol, asset_class, date, total_records, validated_records) "
                "VALUES ('BTC', 'crypto', %s, 10, %s)", [(clock() - timedelta(days=days)).date(), valid],
            )  # fmt: skip
        body = asking.get("/api/v1/enrichment/metrics").json()
    assert body["fetch_pipeline"]["total_fetches"] == body["compute_pipeline"]["total_computations"] == 2
    # Of the 20 candles of the last week 15 are valid; those of nine days ago do not count.
    assert body["data_quality"]["avg_validation_rate"] == 75.0


def test_the_five_values_of_status(
    database_url: str, clock: Any, opening: Callable[..., AbstractContextManager[Any]], filling: Callable[[Any], None]
) -> None:
    from market_data.storage.work import audit

    with opening(database_url, clock) as (served, asking):

        def status(symbol: str = "BTC") -> str:
            return asking.get(f"/api/v1/enrichment/status/{symbol}").json()["status"]

        assert status("MSFT") == "not_enriched"
        filling(served.app)
        found = [status()]
        for days in (2, 3):
            clock.now += timedelta(days=days)
            found.append(status())
        with served.app.database.transaction() as connection:
            audit.record_status(connection, HOURS, "binance", "gone", None, clock())
        assert [*found, status()] == ["healthy", "warning", "stale", "error"]
