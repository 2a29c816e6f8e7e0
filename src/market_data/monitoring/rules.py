"""The alert rules: each as Prometheus' expression and as a function of readings, which say the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from market_data.monitoring.readings import InstrumentReading, Readings

Severity = Literal["warning", "critical"]

SUCCESS: Final = 0.95
OLD: Final = timedelta(hours=24)
QUEUE_STUCK: Final = timedelta(hours=1)
GAPS_OLD: Final = timedelta(days=2)
# So many subjects of one rule are told apart; what goes beyond is one alert more.
MOST_SUBJECTS: Final = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition that holds: of what, and the words for it."""

    subject: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """One alert rule.

    Attributes:
        hold: for how long its condition must hold before it fires.
        expression: PromQL; every time series it gives is an alert.
        subject: the label that tells its alerts apart; empty when there can only be one.
        summary: what is wrong, one line; `{{ $labels.… }}` stands for labels.
        action: what to do.
        holds: the same condition on readings; None where only Prometheus can tell.
    """

    name: str
    severity: Severity
    hold: timedelta
    expression: str
    subject: tuple[str, ...] = ()
    summary: str
    action: str
    holds: Callable[[Readings], Iterable[Finding]] | None

    @property
    def title(self) -> str:
        """The summary for those who see no labels: their names stand for them."""
        return re.sub(r"\{\{ \$labels\.(\w+) \}\}", r"\1", self.summary)


def findings(rule: AlertRule, readings: Readings) -> list[Finding]:
    """What a rule finds; beyond `MOST_SUBJECTS` the rest together."""
    found = list(rule.holds(readings)) if rule.holds else []
    if len(found) > MOST_SUBJECTS:
        found = [*found[:MOST_SUBJECTS], Finding("others", f"and {len(found) - MOST_SUBJECTS} more")]
    return found


def overdue_beyond_critical(readings: Readings) -> list[InstrumentReading]:
    """Tracked instruments whose data is overdue by more than their class's critical age, the worst first."""
    critical = readings.limits.critical_seconds
    late = [one for one in readings.instruments if (one.overdue or 0) > critical[one.instrument.asset_class]]
    return sorted(late, key=lambda one: -(one.overdue or 0))


def _name(one: InstrumentReading) -> str:
    return f"{one.instrument.symbol}/{one.instrument.asset_class}"


def _stale(readings: Readings) -> Iterator[Finding]:
    for one in overdue_beyond_critical(readings):
        yield Finding(_name(one), f"overdue for {_span(one.overdue)}")


def _late(readings: Readings) -> Iterator[Finding]:
    stale, bounds = overdue_beyond_critical(readings), readings.limits.alert_seconds
    for one in readings.instruments:
        if (one.overdue or 0) > bounds[one.instrument.asset_class] and one not in stale:
            yield Finding(_name(one), f"overdue for {_span(one.overdue)}")


def _old(readings: Readings) -> Iterator[Finding]:
    for one in readings.instruments:
        if one.overdue and one.lag is not None and one.lag > OLD.total_seconds():
            yield Finding(_name(one), f"the first missing candle ended {_span(one.lag)} ago")


def _below(share: float | None, least: float, what: str) -> Iterator[Finding]:
    if share is not None and share < least:
        yield Finding("", f"{what}: {share:.1%}, less than {least:.0%}")


def _poor(readings: Readings) -> Iterator[Finding]:
    score, least = readings.average_quality, readings.limits.min_quality
    if score is not None and score < least:
        yield Finding("", f"mean quality of 7 days {score:.3f}, less than {least:.3f}")


def _with_status(readings: Readings, status: str) -> Iterator[Finding]:
    names = [_name(one) for one in readings.instruments if one.status == status]
    if names:
        yield Finding("", ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else ""))


def _if(condition: bool, detail: str) -> Sequence[Finding]:
    return [Finding("", detail)] if condition else []


def _span(seconds: float | None) -> str:
    """A length of time as people say it."""
    left = seconds or 0.0
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if left >= 2 * length:
            return f"{left / length:.0f} {unit}"
    return f"{left:.0f} seconds"


_MINUTES: Final = timedelta(minutes=1)
_OF_INSTRUMENT: Final = "max by (symbol, asset_class)"
_BEYOND: Final = (
    f"{_OF_INSTRUMENT} (market_data_data_overdue_seconds) > on (asset_class) group_left () max by (asset_class)"
)

RULES: Final[Sequence[AlertRule]] = (
    AlertRule(
        name="MarketDataStale",
        severity="critical",
        hold=5 * _MINUTES,
        expression=f"{_BEYOND} (market_data_critical_age_seconds)",
        subject=("symbol", "asset_class"),
        summary="{{ $labels.symbol }} ({{ $labels.asset_class }}) is overdue beyond its critical age",
        action="See /readyz and `market-data jobs`: is a worker alive, did the last fetch fail?",
        holds=_stale,
    ),
    AlertRule(
        name="MarketDataLate",
        severity="warning",
        hold=5 * _MINUTES,
        expression=f"({_BEYOND} (market_data_alert_age_seconds)) unless on (symbol, asset_class) "
        f"({_BEYOND} (market_data_critical_age_seconds))",
        subject=("symbol", "asset_class"),
        summary="{{ $labels.symbol }} ({{ $labels.asset_class }}) is overdue beyond the age that is worth a warning",
        action="See /readyz and `market-data jobs`: is a worker alive, did the last fetch fail?",
        holds=_late,
    ),
    AlertRule(
        name="MarketDataOld",
        severity="warning",
        hold=5 * _MINUTES,
        expression=f"{_OF_INSTRUMENT} (market_data_data_lag_seconds) > {OLD.total_seconds():.0f} "
        f"and on (symbol, asset_class) {_OF_INSTRUMENT} (market_data_data_overdue_seconds) > 0",
        subject=("symbol", "asset_class"),
        summary="{{ $labels.symbol }} ({{ $labels.asset_class }}) lacks data of more than a day",
        action="`market-data status SYMBOL` says why the last run failed; `market-data untrack SYMBOL` if it is gone.",
        holds=_old,
    ),
    AlertRule(
        name="MarketDataFetchesFail",
        severity="warning",
        hold=15 * _MINUTES,
        expression=f"min(market_data_fetch_success_ratio) < {SUCCESS}",
        summary="Fewer than 95 % of the fetches of 24 hours went well",
        action="`market-data providers` shows which source does not answer.",
        holds=lambda readings: _below(readings.fetch_success, SUCCESS, "fetches of 24 hours that went well"),
    ),
    AlertRule(
        name="MarketDataComputationsFail",
        severity="critical",
        hold=15 * _MINUTES,
        expression=f"min(market_data_compute_success_ratio) < {SUCCESS}",
        summary="Fewer than 95 % of the feature computations of 24 hours went well",
        action="The worker's log has the error; enrichment_compute_log.error_details too.",
        holds=lambda readings: _below(readings.compute_success, SUCCESS, "computations of 24 hours that went well"),
    ),
    AlertRule(
        name="MarketDataQualityLow",
        severity="warning",
        hold=15 * _MINUTES,
        expression="min(market_data_average_quality_score) < max(market_data_min_quality_score)",
        summary="The mean quality of 7 days is below quality.min_quality_score",
        action="`market-data quality SYMBOL` shows which checks fail on which days.",
        holds=_poor,
    ),
    AlertRule(
        name="MarketDataNeverFetched",
        severity="warning",
        hold=60 * _MINUTES,
        expression='max(market_data_instruments{status="not_enriched"}) > 0',
        summary="Tracked instruments were never fetched",
        action="`market-data jobs` shows whether they wait or failed.",
        holds=lambda readings: _with_status(readings, "not_enriched"),
    ),
    AlertRule(
        name="MarketDataRunsFail",
        severity="warning",
        hold=120 * _MINUTES,
        expression='max(market_data_instruments{status="error"}) > 0',
        summary="The last run of some instruments failed",
        action="`market-data status SYMBOL` says why.",
        holds=lambda readings: _with_status(readings, "error"),
    ),
    AlertRule(
        name="MarketDataBreakerOpen",
        severity="warning",
        hold=15 * _MINUTES,
        expression="max by (source) (market_data_breaker_state) > 0",
        subject=("source",),
        summary="{{ $labels.source }} keeps failing and is left alone",
        action="`market-data providers` tries it; the other sources stand in meanwhile.",
        holds=lambda readings: [
            Finding(source, f"its breaker is {state.replace('_', ' ')}")
            for source, state in readings.breakers.items()
            if state != "closed"
        ],
    ),
    AlertRule(
        name="MarketDataGapsOld",
        severity="warning",
        hold=60 * _MINUTES,
        expression=f"max by (asset_class) (market_data_oldest_gap_seconds) > {GAPS_OLD.total_seconds():.0f}",
        subject=("asset_class",),
        summary="Gaps of {{ $labels.asset_class }} have been open for more than two days",
        action="`market-data gaps SYMBOL --heal` tries to close them.",
        holds=lambda readings: [
            Finding(asset_class, f"{count} open, the oldest for {_span(oldest)}")
            for asset_class, (count, oldest) in readings.gaps.items()
            if oldest > GAPS_OLD.total_seconds()
        ],
    ),
    AlertRule(
        name="MarketDataNoWorker",
        severity="critical",
        hold=5 * _MINUTES,
        expression="max(market_data_workers) == 0",
        summary="No worker is alive: nothing is fetched or computed",
        action="Start one: `market-data worker`, or `market-data up`.",
        holds=lambda readings: _if(readings.workers == 0, "none reported within a minute"),
    ),
    AlertRule(
        name="MarketDataQueueStuck",
        severity="warning",
        hold=10 * _MINUTES,
        expression=f"max(market_data_queue_idle_seconds) > {QUEUE_STUCK.total_seconds():.0f}",
        summary="Work is due, but none was begun or ended for an hour",
        action="`market-data jobs` shows what waits; restart the worker if it hangs.",
        holds=lambda readings: _if(
            readings.queue_idle > QUEUE_STUCK.total_seconds(), f"nothing moved for {_span(readings.queue_idle)}"
        ),
    ),
    AlertRule(
        name="MarketDataSchedulerPaused",
        severity="warning",
        hold=timedelta(hours=24),
        expression='max(market_data_scheduler_state{state="paused"}) == 1',
        summary="The schedule has been paused for a day",
        action="`market-data scheduler --resume`",
        holds=lambda readings: _if(readings.scheduler == "paused", "paused by hand"),
    ),
    AlertRule(
        name="MarketDataSchedulerStopped",
        severity="critical",
        hold=5 * _MINUTES,
        expression='max(market_data_scheduler_state{state="stopped"}) == 1',
        summary="No scheduler runs: nothing is queued by itself",
        action="Start one: `market-data scheduler`, or `market-data up`.",
        # Whoever evaluates the rules is a scheduler.
        holds=None,
    ),
    AlertRule(
        name="MarketDataDown",
        severity="critical",
        hold=2 * _MINUTES,
        expression="max(market_data_up) == 0 or absent(market_data_up)",
        summary="The database does not answer, or no process exports metrics",
        action="/readyz of a process that runs says which.",
        # Without a database there is nothing to take readings from.
        holds=None,
    ),
)
