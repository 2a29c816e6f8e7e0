"""Response documents of the operations routes: dashboard figures, listings, health."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from market_data.api.documents import (
    Class,
    ComputePipeline,
    Count,
    Document,
    Frame,
    InstrumentStatus,
    Job,
    Milliseconds,
    Percent,
    Score,
    SymbolName,
    Time,
)


class SchedulerState(Document):
    """Whether scheduled work starts by itself."""

    state: Annotated[Literal["running", "paused", "stopped"], Field(examples=["running"])]
    """stopped: no scheduler was seen lately."""
    jobs_queued: Count
    timestamp: Time


class Overview(Document):
    """The pipeline at a glance."""

    symbols_tracked: Count
    symbols_by_status: dict[str, Count]
    records_available: Count
    jobs_by_status: dict[str, Count]
    fetch_success_rate: Percent | None
    avg_quality_score: Score | None
    open_gaps: Count
    scheduler: SchedulerState
    timestamp: Time


class SymbolWork(Document):
    """An instrument's standing and its newest jobs."""

    symbol: SymbolName
    asset_class: Class
    status: InstrumentStatus
    recent_jobs: list[Job]
    timestamp: Time


class SourcePerformance(Document):
    """How one source did in the last 24 hours."""

    source: Annotated[str, Field(examples=["binance"])]
    total_fetches: Count
    success_rate: Percent | None
    avg_response_time_ms: Milliseconds | None
    records_fetched: Count
    api_quota_remaining: int | None


class Performance(Document):
    """How fast the pipeline is, by source and per computation."""

    sources: list[SourcePerformance]
    compute_pipeline: ComputePipeline
    timestamp: Time


class Check(Document):
    """Whether one thing the program depends on is well."""

    name: Annotated[str, Field(examples=["database"])]
    healthy: bool
    detail: str | None


class Health(Document):
    """Whether everything the program depends on is well."""

    status: Annotated[Literal["healthy", "degraded", "unhealthy"], Field(examples=["healthy"])]
    checks: list[Check]
    timestamp: Time


class Alive(Document):
    """The process answers."""

    status: Annotated[Literal["alive"], Field(examples=["alive"])]


class Capability(Document):
    """What a source serves of one dataset."""

    dataset: Annotated[str, Field(examples=["candles"])]
    asset_classes: list[Class]
    timeframes: list[Frame]
    history_days: dict[str, int]
    """Days of history by timeframe, `all` for every one; empty when unlimited."""
    live: bool


class ChannelState(Document):
    """One class of endpoints of a source's host, as all processes know it."""

    name: Annotated[str, Field(examples=["binance:archive"])]
    breaker: Annotated[Literal["closed", "open", "half_open"], Field(examples=["closed"])]
    asked_again_in: Annotated[float, Field(examples=[0.0])]
    """Seconds for which it is left alone: the breaker's rest, or what the source told."""
    reason: str | None
    """The last failure, or what the source said."""


class ProviderState(Document):
    """A source and how it does."""

    name: Annotated[str, Field(examples=["binance"])]
    ready: bool
    """Whether it can be asked."""
    reason: str | None
    """Why not, and what to do."""
    priority: dict[str, int]
    """By asset class: 1 is asked first."""
    breaker: Annotated[Literal["closed", "open", "half_open"], Field(examples=["closed"])]
    """Of its channels the one furthest from closed."""
    channels: list[ChannelState]
    quota_remaining: float | None
    capabilities: list[Capability]


class Providers(Document):
    """All enabled sources."""

    count: Count
    providers: list[ProviderState]
