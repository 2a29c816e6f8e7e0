"""What `bench.api` measures: a filled database, the API over it with and without keys, and a bare route beside it."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from market_data.bootstrap import App

NOW = datetime(2026, 11, 20, tzinfo=UTC)
ROWS = 100_000
"""Minutes of BTC, by the program's own way."""
LONG_ROWS = 5_000_000
"""Minutes of ETH, by SQL: nine and a half years."""
FETCHES, COMPUTATIONS, BACKFILLS = 3_000_000, 1_000_000, 1_000_000
"""Rows of the logs: with the minutes ten million."""
SYMBOLS = 500


def fill(app: App) -> None:
    """Both series, and logs of years."""
    _fill_by_the_program(app)
    _fill_by_sql(app)


def _fill_by_the_program(app: App) -> None:
    import numpy as np
    import polars as pl

    from market_data.model.dataset import CANDLES
    from market_data.model.instrument import AssetClass, Instrument, Series
    from market_data.model.timeframe import Timeframe, TimeRange
    from market_data.pipeline.write.ingest import Batch, Purpose, ingest
    from market_data.storage.work import audit
    from market_data.storage.work.runs import start_run

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
        start_run(connection, run, "enrich", series.instrument, NOW, timeframe=series.timeframe)
    for number in range(0, ROWS, 20_000):
        part = frame[number : number + 20_000]
        span = TimeRange(start + timedelta(minutes=number), start + timedelta(minutes=number + part.height))
        batch = Batch(
            series=series, frame=CANDLES.conform(part), source="binance", fetched_at=NOW, requested_at=NOW, span=span,
            response_ms=100.0, quota_remaining=900,
        )  # fmt: skip
        ingest(app.database, app.shelves, batch, Purpose(run_id=run, span=TimeRange(start, NOW)), lambda: NOW)
    with app.database.transaction() as connection:
        audit.record_status(connection, series, "binance", None, None, NOW)


_LONG_SERIES = """
INSERT INTO market_data_v2 (symbol, asset_class, timeframe, timestamp, open, high, low, close, volume, quote_volume,
    vwap, trade_count, taker_buy_volume, taker_sell_volume, return_1h, return_1d, volatility_20, volatility_50, atr,
    trend_direction, market_structure, rolling_volume_20, delta, buy_sell_ratio, volume_spike_score, sma_20, sma_50,
    feature_version, source, is_validated, quality_score, data_completeness, data_age_seconds, fetched_at, computed_at,
    updated_at, created_at)
SELECT 'ETH', 'crypto', '1m', t, p, p + 1.25, p - 1.25, p + 0.5, v, v * p, p, 100 + n %% 50, v / 2, v / 2, r, r, r, r,
    r, 'up', 'range', v, r, 0.5, r, p, p, 'a1b2c3d4', 'binance', true, 0.97, 1, 60, t, t, t, t
FROM (
    SELECT n, %(now)s::timestamptz - interval '1 minute' * (%(rows)s - n) AS t,
        round((2000 + 500 * sin(n / 5000.0))::numeric, 2) AS p, round((10 + 5 * sin(n / 77.0))::numeric, 3) AS v,
        sin(n / 9.0) AS r
    FROM generate_series(0, %(rows)s - 1) n
) minutes
"""

_OTHERS = """
INSERT INTO series_moments VALUES ('ETH', 'crypto', '1m', %(now)s);
INSERT INTO enrichment_status (symbol, asset_class, status, last_enrichment_time, last_fetch_source, records_available,
    quality_score, validation_rate) VALUES ('ETH', 'crypto', 'healthy', %(now)s, 'binance', %(rows)s, 0.97, 100);
INSERT INTO data_quality_metrics (symbol, asset_class, date, total_records, validated_records, validation_rate,
    avg_quality_score, data_completeness)
SELECT CASE n WHEN 0 THEN 'ETH' ELSE 'S' || n END, 'crypto', %(now)s::date - d, 1440, 1440, 100, 0.97, 1
FROM generate_series(0, 50) n, generate_series(0, 3650) d;
INSERT INTO enrichment_fetch_log (symbol, asset_class, source, timeframe, records_fetched, records_inserted,
    source_response_time_ms, success, api_quota_remaining, run_id, created_at)
SELECT CASE n %% %(symbols)s WHEN 0 THEN 'ETH' ELSE 'S' || n %% %(symbols)s END, 'crypto', 'binance', '1h', 100, 5,
    100 + n %% 100, n %% 50 <> 0, 900, gen_random_uuid(), %(now)s::timestamptz - interval '5 seconds' * n
FROM generate_series(0, %(fetches)s - 1) n;
INSERT INTO enrichment_compute_log (symbol, asset_class, timeframe, computation_time_ms, candles_processed, success,
    created_at)
SELECT 'S' || n %% %(symbols)s, 'crypto', '1h', 5, 100, true, %(now)s::timestamptz - interval '15 seconds' * n
FROM generate_series(0, %(computations)s - 1) n;
INSERT INTO backfill_state (symbol, asset_class, timeframe, backfill_job_id, start_date, end_date, status, created_at)
SELECT 'S' || n %% %(symbols)s, 'crypto', '1h', gen_random_uuid(), %(now)s, %(now)s,
    CASE WHEN n %% 50 = 0 THEN 'failed' ELSE 'completed' END,
    %(now)s::timestamptz - interval '15 seconds' * (%(backfills)s - n)
FROM generate_series(0, %(backfills)s - 1) n
"""


def _fill_by_sql(app: App) -> None:
    import psycopg

    values = {
        "now": NOW, "rows": LONG_ROWS, "fetches": FETCHES, "computations": COMPUTATIONS, "backfills": BACKFILLS,
        "symbols": SYMBOLS,
    }  # fmt: skip
    with psycopg.connect(app.database.conninfo(), autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
        # Nothing of this has to outlive a crash.
        connection.execute("SET timezone = 'UTC'; SET synchronous_commit = off")
        connection.execute(_LONG_SERIES, values)
        connection.execute(_OTHERS, values)
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


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


def _serve(conninfo: str) -> None:
    """The three on loopback, until the process is ended; prints where, and a key."""
    from dataclasses import replace

    from market_data.cli.logs import configure_logs
    from market_data.cli.memory import share_heaps

    share_heaps()
    # As `serve` has it; nothing but the addresses goes to standard output, of which one line is read.
    configure_logs("WARNING", "console")
    from market_data.api.app import create_api
    from market_data.api.listening import bound, serve_from, server_of
    from market_data.api.served import serving

    with ExitStack() as stack:
        app = stack.enter_context(_opened(conninfo))
        settings = app.settings
        limits = {"keys": "required", "requests_per_minute": 1_000_000}
        strict = settings.model_copy(update={"api": settings.api.model_copy(update=limits)})
        applications = {
            "api": create_api(stack.enter_context(serving(app))),
            "locked": create_api(stack.enter_context(serving(replace(app, settings=strict)))),
            "bare": _bare(app),
        }
        sockets = {name: stack.enter_context(bound("127.0.0.1", 0)) for name in applications}
        said = {name: f"http://127.0.0.1:{each.getsockname()[1]}" for name, each in sockets.items()}

        async def all_three() -> None:
            ready = asyncio.Semaphore(0)
            serving = [
                asyncio.create_task(serve_from(server_of(api), sockets[name], ready.release))
                for name, api in applications.items()
            ]
            for _ in serving:
                await ready.acquire()
            print(json.dumps(said), flush=True)
            await asyncio.gather(*serving)

        asyncio.run(all_three())


def _opened(conninfo: str) -> Any:
    from market_data.bootstrap import open_app
    from market_data.config import load_settings

    overrides = {"database.url": (conninfo, "the benchmark"), "api.keys": ("off", "the benchmark")}
    return open_app(load_settings(environ={}, overrides=overrides), clock=lambda: NOW)


def _fill(conninfo: str) -> None:
    """Fill the database and print a key for the locked API."""
    from market_data.storage.work.keys import Scope, create_key

    with _opened(conninfo) as app:
        fill(app)
        print(create_key(app.database, "the benchmark", [Scope.READ], NOW), flush=True)


if __name__ == "__main__":
    {"fill": _fill, "serve": _serve}[sys.argv[1]](sys.argv[2])
