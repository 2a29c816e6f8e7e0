"""Prometheus metrics: read from the database when asked, so every process tells the same and restarts lose nothing.

Only the requests of this process and its breakers are counted in memory. Label sets are bounded: sources, datasets and
routes are what the program declares, symbols at most `MOST_SYMBOLS`.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final

from fastapi import APIRouter, Request
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from market_data.api.operations import WORKER_SILENT, instruments_known
from market_data.api.problems import described
from market_data.api.served import Served
from market_data.model.errors import MarketDataError
from market_data.storage import switches
from market_data.transport.breaker import BreakerState

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MOST_SYMBOLS: Final = 1_000
# Rows of a log older than this never come any more, so their sums are kept.
SETTLED_AFTER: Final = timedelta(hours=1)
OUTCOMES: Final = ("inserted", "updated", "unchanged", "kept", "rejected")
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BREAKER: Final = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}

router = APIRouter(tags=["operations"])


@router.get("/metrics", response_class=Response, responses={
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format"},
    **described(),
})  # fmt: skip
def metrics(request: Request) -> Response:
    """Metrics for Prometheus."""
    counted: Metrics = request.app.state.metrics
    return Response(generate_latest(counted.registry), media_type=CONTENT_TYPE)


class Totals:
    """Sums over a log that only grows: what has settled is added up once, the newest rows each time."""

    def __init__(self, read: Callable[[int, int], list[dict[str, Any]]], keys: tuple[str, ...]) -> None:
        self._read = read
        self._keys = keys
        self._until = 0
        self._settled: dict[tuple[Any, ...], dict[str, float]] = {}

    def sums(self, settled: int, newest: int) -> dict[tuple[Any, ...], dict[str, float]]:
        """Sums by key up to row `newest`; up to row `settled` they are remembered."""
        if settled > self._until:
            self._settled = _added(self._settled, self._read(self._until, settled), self._keys)
            self._until = settled
        return _added(self._settled, self._read(self._until, newest), self._keys)


def _added(
    sums: dict[tuple[Any, ...], dict[str, float]], rows: list[dict[str, Any]], keys: tuple[str, ...]
) -> dict[tuple[Any, ...], dict[str, float]]:
    found = {key: dict(values) for key, values in sums.items()}
    for row in rows:
        values = found.setdefault(tuple(row[key] for key in keys), defaultdict(float))
        for name, value in row.items():
            if name not in keys:
                values[name] = values.get(name, 0) + value
    return found


class PlatformMetrics(Collector):
    """What the database tells, as metric families."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._lock = threading.Lock()
        self._fetches = Totals(served.tallies.fetch_totals, ("source", "dataset", "success"))
        self._computations = Totals(served.tallies.compute_totals, ("success",))

    def describe(self) -> list[Metric]:
        """Nothing: the database is not asked when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every family; only `market_data_up` 0 and what memory knows when the database cannot be asked."""
        up = GaugeMetricFamily("market_data_up", "Whether the database answered.")
        families: list[Metric] = [self._breakers()]
        try:
            with self._lock:
                families += [*self._fetched(), *self._computed(), *self._data(), *self._work()]
            up.add_metric([], 1)
        except MarketDataError:
            up.add_metric([], 0)
        yield up
        yield from families

    def _breakers(self) -> Metric:
        family = GaugeMetricFamily(
            "market_data_breaker_state", "Of a source's breaker in this process: 0 closed, 1 half open, 2 open.",
            labels=["source"],
        )  # fmt: skip
        for http in self._served.app.connections:
            family.add_metric([http.name], _BREAKER[http.breaker.state])
        return family

    def _bounds(self, table: str) -> tuple[int, int]:
        tallies = self._served.tallies
        settled = tallies.last_id(table, self._served.now() - SETTLED_AFTER)
        return settled, max(settled, tallies.last_id(table))

    def _fetched(self) -> Iterator[Metric]:
        sums = self._fetches.sums(*self._bounds("enrichment_fetch_log"))
        labels = ["source", "dataset"]
        fetches = CounterMetricFamily("market_data_fetches", "Fetches.", labels=[*labels, "outcome"])
        seconds = CounterMetricFamily("market_data_fetch_seconds", "Time sources took to answer.", labels=labels)
        timed = CounterMetricFamily("market_data_fetches_timed", "Fetches with a response time.", labels=labels)
        rows = CounterMetricFamily("market_data_rows", "What became of fetched rows.", labels=[*labels, "outcome"])
        trades = CounterMetricFamily("market_data_trades_ingested", "Trades stored.", labels=["source"])
        errors = CounterMetricFamily("market_data_ingestion_errors", "Fetches that failed.", labels=labels)
        by_pair: dict[tuple[str, str], dict[str, float]] = {}
        for (source, dataset, success), values in sorted(sums.items()):
            fetches.add_metric([source, dataset, "success" if success else "failure"], values["fetches"])
            pair = by_pair.setdefault((source, dataset), defaultdict(float))
            for name, value in values.items():
                pair[name] += value
            pair["failures"] += 0 if success else values["fetches"]
        for (source, dataset), values in by_pair.items():
            seconds.add_metric([source, dataset], values["milliseconds"] / 1000)
            timed.add_metric([source, dataset], values["timed"])
            errors.add_metric([source, dataset], values["failures"])
            for outcome in OUTCOMES:
                rows.add_metric([source, dataset, outcome], values[outcome])
            if dataset == "trades":
                trades.add_metric([source], values["inserted"])
        yield from (fetches, seconds, timed, rows, trades, errors)
        quota = GaugeMetricFamily("market_data_quota_remaining", "What a source said last is left.", labels=["source"])
        for row in self._served.tallies.quotas():
            quota.add_metric([row["source"]], row["remaining"])
        yield quota

    def _computed(self) -> Iterator[Metric]:
        runs = CounterMetricFamily("market_data_computations", "Feature computations.", labels=["outcome"])
        seconds = CounterMetricFamily("market_data_compute_seconds", "Time spent computing features.")
        candles = CounterMetricFamily("market_data_candles_computed", "Candles whose features were computed.")
        sums = self._computations.sums(*self._bounds("enrichment_compute_log"))
        for (success,), values in sorted(sums.items()):
            runs.add_metric(["success" if success else "failure"], values["computations"])
        seconds.add_metric([], sum(values["milliseconds"] for values in sums.values()) / 1000)
        candles.add_metric([], sum(values["candles"] for values in sums.values()))
        yield from (runs, seconds, candles)

    def _data(self) -> Iterator[Metric]:
        now, labels = self._served.now(), ["symbol", "asset_class"]
        age = GaugeMetricFamily("market_data_data_age_seconds", "Since the newest candle ended.", labels=labels)
        lag = GaugeMetricFamily(
            "market_data_data_lag_seconds", "How long the first expected candle has been missing.", labels=labels
        )
        score = GaugeMetricFamily("market_data_quality_score", "Mean quality of all candles, 0 to 1.", labels=labels)
        states = defaultdict[str, int](int)
        for instrument in instruments_known(self._served)[:MOST_SYMBOLS]:
            standing = self._served.standings.of(instrument)
            states[standing.status(now)] += 1
            for family, value in ((age, standing.age(now)), (lag, standing.lag(now))):
                if value is not None:
                    family.add_metric([instrument.symbol, instrument.asset_class.value], value.total_seconds())
            if standing.quality_score is not None:
                score.add_metric([instrument.symbol, instrument.asset_class.value], standing.quality_score)
        status = GaugeMetricFamily("market_data_instruments", "Instruments by status.", labels=["status"])
        for name in ("healthy", "warning", "stale", "error", "not_enriched"):
            status.add_metric([name], states[name])
        gaps = GaugeMetricFamily("market_data_open_gaps", "Stretches known to be missing.", labels=["asset_class"])
        oldest = GaugeMetricFamily(
            "market_data_oldest_gap_seconds", "Since the oldest of them was found.", labels=["asset_class"]
        )
        for row in self._served.tallies.gaps(now):
            gaps.add_metric([row["asset_class"]], row["open_gaps"])
            oldest.add_metric([row["asset_class"]], row["oldest_seconds"])
        yield from (age, lag, score, status, gaps, oldest)

    def _work(self) -> Iterator[Metric]:
        served, now = self._served, self._served.now()
        depth = GaugeMetricFamily("market_data_queue_depth", "Parts of jobs that are not over.", labels=["kind"])
        for kind, parts in served.jobs.depth().items():
            depth.add_metric([kind], parts)
        yield depth
        backfills = GaugeMetricFamily("market_data_backfills", "Backfills by state.", labels=["state"])
        for state, count in served.tallies.backfills().items():
            backfills.add_metric([state], count)
        yield backfills
        workers = served.tallies.workers(now - WORKER_SILENT)
        yield GaugeMetricFamily("market_data_workers", "Workers that reported within a minute.", value=workers)
        running = switches.scheduler_state(served.database, now)
        yield GaugeMetricFamily(
            "market_data_scheduler_running", "Whether a scheduler runs and is not paused.", value=running == "running"
        )
        streams = served.active_streams()
        yield GaugeMetricFamily("market_data_active_streams", "Live streams of this process.", value=streams)


class Metrics:
    """The registry of one server, and what is counted of its requests."""

    def __init__(self, served: Served) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "market_data_http_requests", "Requests.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "market_data_http_request_seconds", "Until the last byte was sent.", ["method", "route"],
            buckets=BUCKETS, registry=self.registry,
        )  # fmt: skip
        self.registry.register(PlatformMetrics(served))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)


class Counted:
    """Counts and times requests by route; what leads nowhere counts as one route."""

    METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS"})

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  # ASGI
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), "500"

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            method = scope["method"] if scope["method"] in self.METHODS else "other"
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(method, route, status).inc()
            self._metrics.seconds.labels(method, route).observe(time.perf_counter() - begun)
