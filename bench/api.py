"""The API over loopback: its small answers beside a bare route, and many rows by Arrow beside JSON."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from bench.figures import Figure

if TYPE_CHECKING:
    from market_data.bootstrap import App

NOW = datetime(2026, 11, 20, tzinfo=UTC)
ROWS = 100_000
REQUESTS = 300
RUNS = 5
JSON_PAGE = 10_000


def measure() -> Iterator[Figure]:
    """Server and asker in processes of their own; the contenders take turns."""
    with tempfile.TemporaryDirectory() as folder:
        # The embedded server runs as another account when this one is root.
        Path(folder).chmod(0o755)
        server = subprocess.Popen([sys.executable, "-m", "bench.api", folder], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())
            yield from _small(url["api"], url["bare"])
            yield from _bulk(url["api"])
        finally:
            server.terminate()
            server.wait(60)


def _small(api: str, bare: str) -> Iterator[Figure]:
    with httpx.Client() as client:
        paths: dict[str, Callable[[], httpx.Response]] = {
            "status": lambda: client.get(f"{api}/api/v1/enrichment/status/BTC"),
            "bare": lambda: client.get(f"{bare}/row/BTC"),
            "metrics": lambda: client.get(f"{api}/api/v1/enrichment/metrics"),
            "quality": lambda: client.get(f"{api}/api/v1/data/quality/BTC"),
            "trigger": lambda: client.post(f"{api}/api/v1/enrichment/trigger?symbol=BTC&asset_class=crypto"),
        }
        taken: dict[str, list[float]] = {name: [] for name in paths}
        for number in range(REQUESTS + 20):
            for name, ask in paths.items():
                began = time.perf_counter()
                ask().raise_for_status()
                if number >= 20:
                    taken[name].append((time.perf_counter() - began) * 1000)
    high = {name: statistics.quantiles(times, n=20)[18] for name, times in taken.items()}
    medians = ", ".join(f"{name} {statistics.median(times):.2f}" for name, times in taken.items())
    p95 = ", ".join(f"{name} {value:.2f}" for name, value in high.items())
    detail = f"{REQUESTS} requests each, taking turns; p95 ms: {p95}; median ms: {medians}"
    yield Figure(
        name="api_status_p95_vs_bare", value=high["status"] / high["bare"], unit="ratio", target="<= 2",
        peer="FastAPI route with one indexed SELECT", detail=detail,
    )  # fmt: skip
    yield Figure(name="api_trigger_p95_ms", value=high["trigger"], unit="ms", target="< 50", detail=detail)


def _bulk(api: str) -> Iterator[Figure]:
    from market_data.client import MarketData

    arrow, by_json = [], []
    with MarketData(api) as data, httpx.Client(base_url=api, timeout=60) as client:
        for _ in range(RUNS):
            began = time.perf_counter()
            rows = data.features("BTC", "1m", start=NOW - timedelta(minutes=ROWS)).height
            arrow.append(time.perf_counter() - began)
            began = time.perf_counter()
            found = _json_rows(client)
            by_json.append(time.perf_counter() - began)
            assert rows == found == ROWS
    taken, slow = statistics.median(arrow), statistics.median(by_json)
    detail = f"{ROWS:,} enriched rows into a Polars frame through the client; median of {RUNS}"
    yield Figure(name="api_features_arrow_100k_s", value=taken, unit="s", target="<= 1", detail=detail)
    yield Figure(
        name="api_arrow_vs_json", value=slow / taken, unit="x", target=">= 4", peer="the same rows by pages of JSON",
        detail=f"Arrow {taken:.2f} s, JSON {slow:.2f} s in {ROWS // JSON_PAGE} pages, parsed and made into a frame",
    )  # fmt: skip


def _json_rows(client: httpx.Client) -> int:
    import polars as pl

    pages, start = [], (NOW - timedelta(minutes=ROWS)).isoformat()
    while start:
        body = client.get("/api/v1/market/features/BTC/1m", params={"start": start, "limit": JSON_PAGE}).json()
        pages.append(pl.DataFrame(body["candles"], infer_schema_length=None))
        start = body["next"]
    return pl.concat(pages, how="vertical_relaxed").height


def fill(app: App) -> None:
    """A hundred thousand minutes of BTC by the program's own way, as one source gives them."""
    import numpy as np
    import polars as pl

    from market_data.model.dataset import CANDLES
    from market_data.model.instrument import AssetClass, Instrument, Series
    from market_data.model.timeframe import Timeframe, TimeRange
    from market_data.pipeline.ingest import Batch, Purpose, ingest
    from market_data.storage import audit

    series = Series(Instrument("BTC", AssetClass.CRYPTO), Timeframe.M1)
    random = np.random.default_rng(7)
    close = np.round(60_000 * np.exp(np.cumsum(random.normal(0, 0.0005, ROWS))), 2)
    opened = np.concatenate([close[:1], close[:-1]])
    start = NOW - timedelta(minutes=ROWS)
    frame = pl.DataFrame(
        {
            "timestamp": pl.datetime_range(start, NOW - timedelta(minutes=1), "1m", time_unit="us", eager=True),
            "open": opened,
            "high": np.round(np.maximum(opened, close) * 1.0004, 2),
            "low": np.round(np.minimum(opened, close) * 0.9996, 2),
            "close": close,
            "volume": np.round(random.lognormal(3, 0.5, ROWS), 3),
            "taker_buy_volume": np.round(random.uniform(0, 1, ROWS), 3),
        }
    ).with_columns(pl.exclude("timestamp").cast(pl.Decimal(38, 18)))
    from uuid import uuid4

    run = uuid4()
    with app.database.transaction() as connection:
        audit.start_run(connection, run, "enrich", series, NOW)
    for number in range(0, ROWS, 20_000):
        part = frame[number : number + 20_000]
        span = TimeRange(start + timedelta(minutes=number), start + timedelta(minutes=number + part.height))
        batch = Batch(
            series=series, frame=CANDLES.conform(part), source="binance", fetched_at=NOW, requested_at=NOW, span=span,
            response_ms=100.0, quota_remaining=900,
        )  # fmt: skip
        ingest(app.database, app.shelves, batch, Purpose(run_id=run, span=TimeRange(start, NOW)), lambda: NOW)
    with app.database.transaction() as connection:
        audit.record_status(connection, series.instrument, "binance", None, NOW)


def _bare(app: App) -> Any:
    """What is as little as an answer from the database can be: one route, one indexed SELECT, the same pool."""
    from fastapi import FastAPI

    bare = FastAPI()

    @bare.get("/row/{symbol}")
    def row(symbol: str) -> dict[str, Any]:
        found = app.database.rows(
            "SELECT * FROM enrichment_status WHERE symbol = %s AND asset_class = %s", (symbol, "crypto")
        )
        return found[0]

    return bare


def _serve(folder: str) -> None:
    from market_data.api.app import create_api
    from market_data.api.listening import bound, serve_from, server_of
    from market_data.api.served import serving
    from market_data.bootstrap import open_app
    from market_data.config import load_settings

    overrides = {"database.data_dir": (folder, "the benchmark")}
    with open_app(load_settings(environ={}, overrides=overrides), clock=lambda: NOW) as app, serving(app) as served:
        fill(app)
        with bound("127.0.0.1", 0) as one, bound("127.0.0.1", 0) as other:
            urls = {name: f"http://127.0.0.1:{s.getsockname()[1]}" for name, s in (("api", one), ("bare", other))}

            async def both() -> None:
                await asyncio.gather(
                    serve_from(server_of(create_api(served)), one, lambda: print(json.dumps(urls), flush=True)),
                    serve_from(server_of(_bare(app)), other, lambda: None),
                )

            asyncio.run(both())


if __name__ == "__main__":
    _serve(sys.argv[1])
