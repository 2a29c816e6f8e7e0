"""Metrics for Prometheus: read from the database when asked, so every process tells the same and restarts lose nothing.

A process adds only what it alone knows: its requests, its streams, its memory and time.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from market_data.model.errors import MarketDataError
from market_data.model.instrument import AssetClass
from market_data.monitoring.declared import METRICS, MOST_SYMBOLS
from market_data.monitoring.readings import InstrumentReading, Observer, Readings
from market_data.storage.work.alerts import firing_by_severity

# Rows of a log older than this never come any more, so their sums are kept.
SETTLED_AFTER: Final = timedelta(hours=1)
OUTCOMES: Final = ("inserted", "updated", "unchanged", "kept", "rejected")
STATUSES: Final = ("healthy", "warning", "stale", "error", "not_enriched")
SCHEDULER_STATES: Final = ("running", "paused", "stopped")
SEVERITIES: Final = ("warning", "critical")
_BREAKER: Final = {"closed": 0, "half_open": 1, "open": 2}


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
    """What the database tells, as metric families.

    Args:
        active_streams: how many live streams this process has.
    """

    def __init__(self, observer: Observer, active_streams: Callable[[], int] = lambda: 0) -> None:
        self._observer = observer
        self._active_streams = active_streams
        self._lock = threading.Lock()
        self._tallies = observer.tallies
        self._fetches = Totals(self._tallies.fetch_totals, ("source", "dataset", "success"))
        self._computations = Totals(self._tallies.compute_totals, ("success",))

    def describe(self) -> list[Metric]:
        """Nothing: the database is not asked when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every family; only `market_data_up` 0 and what the process knows when the database cannot be asked."""
        families: list[Metric] = []
        try:
            with self._lock:
                readings = self._observer.read()
                families += [*self._fetched(), *self._computed(), *self._work()]
            families += [*_instruments(readings), *_pipeline(readings)]
            up = 1
        except MarketDataError:
            families, up = [], 0
        yield _gauge("up", up)
        yield from families
        yield _gauge("active_streams", self._active_streams())

    def _bounds(self, table: str) -> tuple[int, int]:
        settled = self._tallies.last_id(table, self._observer.clock() - SETTLED_AFTER)
        return settled, max(settled, self._tallies.last_id(table))

    def _fetched(self) -> Iterator[Metric]:
        sums = self._fetches.sums(*self._bounds("enrichment_fetch_log"))
        fetches, rows = _counter("fetches"), _counter("rows")
        trades, errors, seconds = _counter("trades_ingested"), _counter("ingestion_errors"), _summary("fetch_seconds")
        by_pair: dict[tuple[str, str], dict[str, float]] = {}
        for (source, dataset, success), values in sorted(sums.items()):
            fetches.add_metric([source, dataset, "success" if success else "failure"], values["fetches"])
            pair = by_pair.setdefault((source, dataset), defaultdict(float))
            for name, value in values.items():
                pair[name] += value
            pair["failures"] += 0 if success else values["fetches"]
        for (source, dataset), values in by_pair.items():
            seconds.add_metric([source, dataset], int(values["timed"]), values["milliseconds"] / 1000)
            errors.add_metric([source, dataset], values["failures"])
            for outcome in OUTCOMES:
                rows.add_metric([source, dataset, outcome], values[outcome])
            if dataset == "trades":
                trades.add_metric([source], values["inserted"])
        quota = _gauge("quota_remaining")
        for row in self._tallies.quotas():
            quota.add_metric([row["source"]], row["remaining"])
        yield from (fetches, seconds, rows, trades, errors, quota)

    def _computed(self) -> Iterator[Metric]:
        sums = self._computations.sums(*self._bounds("enrichment_compute_log"))
        runs, candles, seconds = _counter("computations"), _counter("candles_computed"), _summary("compute_seconds")
        for (success,), values in sorted(sums.items()):
            runs.add_metric(["success" if success else "failure"], values["computations"])
        timed = sum(values["timed"] for values in sums.values())
        seconds.add_metric([], int(timed), sum(values["milliseconds"] for values in sums.values()) / 1000)
        candles.add_metric([], sum(values["candles"] for values in sums.values()))
        yield from (runs, seconds, candles)

    def _work(self) -> Iterator[Metric]:
        backfills, alerts = _gauge("backfills"), _gauge("alerts")
        for state, count in self._tallies.backfills().items():
            backfills.add_metric([state], count)
        firing = firing_by_severity(self._observer.database)
        for severity in SEVERITIES:
            alerts.add_metric([severity], firing.get(severity, 0))
        yield from (backfills, alerts)


def _instruments(readings: Readings) -> Iterator[Metric]:
    age, lag, late, score = (_gauge(name) for name in (
        "data_age_seconds", "data_lag_seconds", "data_overdue_seconds", "quality_score"))  # fmt: skip
    for one in sorted(readings.instruments, key=_worst_first)[:MOST_SYMBOLS]:
        labels = [one.instrument.symbol, one.instrument.asset_class.value]
        found = ((age, one.age), (lag, one.lag), (late, one.overdue), (score, one.quality_score))
        for family, value in found:
            if value is not None:
                family.add_metric(labels, value)
    status, critical, alert = _gauge("instruments"), _gauge("critical_age_seconds"), _gauge("alert_age_seconds")
    for name in STATUSES:
        status.add_metric([name], sum(one.status == name for one in readings.instruments))
    for asset_class, seconds in readings.limits.alert_seconds.items():
        alert.add_metric([asset_class.value], seconds)
    for asset_class, seconds in readings.limits.critical_seconds.items():
        critical.add_metric([asset_class.value], seconds)
    yield from (age, lag, late, score, status, critical, alert)


def _worst_first(one: InstrumentReading) -> tuple[bool, float]:
    return one.overdue is None, -(one.overdue or 0)


def _pipeline(readings: Readings) -> Iterator[Metric]:
    breakers = _gauge("breaker_state")
    for source, state in readings.breakers.items():
        breakers.add_metric([source], _BREAKER[state])
    gaps, oldest = _gauge("open_gaps"), _gauge("oldest_gap_seconds")
    for asset_class in AssetClass:
        count, seconds = readings.gaps.get(asset_class.value, (0, 0.0))
        gaps.add_metric([asset_class.value], count)
        oldest.add_metric([asset_class.value], seconds)
    depth, scheduler = _gauge("queue_depth"), _gauge("scheduler_state")
    for kind, parts in readings.queue_depth.items():
        depth.add_metric([kind], parts)
    for state in SCHEDULER_STATES:
        scheduler.add_metric([state], state == readings.scheduler)
    yield from (breakers, gaps, oldest, depth, scheduler)
    yield _gauge("fetch_success_ratio", readings.fetch_success)
    yield _gauge("compute_success_ratio", readings.compute_success)
    yield _gauge("average_quality_score", readings.average_quality)
    yield _gauge("min_quality_score", readings.limits.min_quality)
    yield _gauge("queue_idle_seconds", readings.queue_idle)
    yield _gauge("workers", readings.workers)


def _gauge(name: str, value: float | None = None) -> GaugeMetricFamily:
    """An empty family, or of one without labels its value."""
    family = METRICS[name].family()
    assert isinstance(family, GaugeMetricFamily)
    if value is not None:
        family.add_metric([], value)
    return family


def _counter(name: str) -> CounterMetricFamily:
    family = METRICS[name].family()
    assert isinstance(family, CounterMetricFamily)
    return family


def _summary(name: str) -> SummaryMetricFamily:
    family = METRICS[name].family()
    assert isinstance(family, SummaryMetricFamily)
    return family


def process_registry(observer: Observer, active_streams: Callable[[], int] = lambda: 0) -> CollectorRegistry:
    """A registry of everything that a process without an API exports."""
    registry = CollectorRegistry()
    registry.register(PlatformMetrics(observer, active_streams))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry
