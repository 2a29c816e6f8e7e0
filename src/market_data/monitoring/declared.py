"""Every metric that is exported: its name, kind, meaning, labels, and where its value comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily

# More symbols than this are left out of the series per symbol: tracked ones and the most overdue come first.
MOST_SYMBOLS: Final = 1_000


class Kind(StrEnum):
    """What a value does over time: only grow, go up and down, or count and add up, by buckets too."""

    COUNTER = "counter"
    GAUGE = "gauge"
    SUMMARY = "summary"
    HISTOGRAM = "histogram"


# What bounds the values of each label.
LABELS: Final[Mapping[str, str]] = {
    "source": "the sources the program declares, and their channels",
    "dataset": "the datasets the program declares",
    "outcome": "of a fetch or computation: success, failure; of a row: inserted, updated, unchanged, kept, rejected",
    "symbol": f"at most {MOST_SYMBOLS:,}: tracked ones and the most overdue first",
    "asset_class": "stock, etf, crypto",
    "status": "of an instrument: healthy, warning, stale, error, not_enriched; of a request: HTTP's status codes",
    "kind": "the kinds of jobs",
    "state": "of a backfill: pending, in_progress, completed, failed; of the scheduler: running, paused, stopped",
    "severity": "warning, critical",
    "method": "GET, HEAD, POST, OPTIONS, other",
    "route": "the routes the program declares; none for what leads nowhere",
}


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric.

    Attributes:
        name: as exported, without the `_total`, `_sum`, `_count` and `_bucket` that its kind adds.
        local: whether it is of this process alone; else it comes from the database and is the same from every process.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    local: bool = False

    @property
    def series(self) -> tuple[str, ...]:
        """The names by which queries know it."""
        return tuple(self.name + ending for ending in _ENDINGS[self.kind])

    def family(self) -> Metric:
        """An empty family to be filled and exported."""
        return _FAMILIES[self.kind](self.name, self.help, labels=list(self.labels))


_ENDINGS: Final = {
    Kind.COUNTER: ("_total",),
    Kind.GAUGE: ("",),
    Kind.SUMMARY: ("_sum", "_count"),
    Kind.HISTOGRAM: ("_bucket", "_sum", "_count"),
}
_FAMILIES: Final[Mapping[Kind, Callable[..., Metric]]] = {
    Kind.COUNTER: CounterMetricFamily,
    Kind.GAUGE: GaugeMetricFamily,
    Kind.SUMMARY: SummaryMetricFamily,
}
_C, _G, _S, _H = Kind.COUNTER, Kind.GAUGE, Kind.SUMMARY, Kind.HISTOGRAM
_INSTRUMENT: Final = ("symbol", "asset_class")

_DECLARED: Final = (
    Declared("up", _G, "Whether the database answered: 1 or 0. At 0 nothing else of the database is exported."),
    Declared("fetches", _C, "Fetches by what became of them.", ("source", "dataset", "outcome")),
    Declared("fetch_seconds", _S, "Time sources took to answer, of fetches that were answered.", ("source", "dataset")),
    Declared("rows", _C, "Fetched rows by what became of them.", ("source", "dataset", "outcome")),
    Declared("trades_ingested", _C, "Trades stored.", ("source",)),
    Declared("ingestion_errors", _C, "Fetches that failed.", ("source", "dataset")),
    Declared("quota_remaining", _G, "Requests or weight left, as the source said last.", ("source",)),
    Declared("fetch_success_ratio", _G, "Share of the fetches of the last 24 hours that went well, 0 to 1."),
    Declared("breaker_state", _G, "The breaker of a source's channel, by its name: 0 closed, 1 half open, "
             "2 open.", ("source",)),
    Declared("computations", _C, "Feature computations by what became of them.", ("outcome",)),
    Declared("compute_seconds", _S, "Time spent computing features."),
    Declared("candles_computed", _C, "Candles whose features were computed."),
    Declared("compute_success_ratio", _G, "Share of the computations of the last 24 hours that went well, 0 to 1."),
    Declared("data_age_seconds", _G, "Since the newest candle ended.", _INSTRUMENT),
    Declared("data_lag_seconds", _G, "How long the first expected candle has been missing; 0 when none is, so no stock "
             "lags on a Sunday.", _INSTRUMENT),
    Declared("data_overdue_seconds", _G, "Of tracked instruments: how long the first expected candle has been missing "
             "since the schedule was to fetch it; 0 when none is.", _INSTRUMENT),
    Declared("alert_age_seconds", _G, "The setting quality.freshness.*.alert.", ("asset_class",)),
    Declared("critical_age_seconds", _G, "The setting quality.freshness.*.critical.", ("asset_class",)),
    Declared("quality_score", _G, "Mean quality of all candles, 0 to 1.", _INSTRUMENT),
    Declared("average_quality_score", _G, "Mean quality of the candles of the last 7 days, 0 to 1."),
    Declared("min_quality_score", _G, "The setting quality.min_quality_score."),
    Declared("instruments", _G, "Instruments by status.", ("status",)),
    Declared("open_gaps", _G, "Stretches known to be missing.", ("asset_class",)),
    Declared("oldest_gap_seconds", _G, "Since the oldest of them was found; 0 without any.", ("asset_class",)),
    Declared("queue_depth", _G, "Parts of jobs that wait or are worked on.", ("kind",)),
    Declared("queue_idle_seconds", _G, "How long no part of a job was begun or ended although one is due or under way; "
             "0 when none is."),
    Declared("backfills", _G, "Backfills by state.", ("state",)),
    Declared("workers", _G, "Workers that are alive."),
    Declared("scheduler_state", _G, "1 for the state the scheduler is in, 0 for the others.", ("state",)),
    Declared("alerts", _G, "Alerts that the platform itself finds firing.", ("severity",)),
    Declared("active_streams", _G, "Live streams of this process.", local=True),
    Declared("http_requests", _C, "Requests answered.", ("method", "route", "status"), local=True),
    Declared("http_request_seconds", _H, "Until the last byte of an answer was sent.", ("method", "route"), local=True),
)  # fmt: skip

METRICS: Final[Mapping[str, Declared]] = {
    one.name: Declared(f"market_data_{one.name}", one.kind, one.help, one.labels, one.local) for one in _DECLARED
}
"""Every metric by its name without the prefix `market_data_`."""
