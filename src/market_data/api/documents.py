"""Response documents: the models of what the routes answer, with an example of every field."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from market_data.model.instrument import AssetClass
from market_data.model.timeframe import Timeframe

Percent = Annotated[float, Field(ge=0, le=100, examples=[98.5])]
Score = Annotated[float, Field(ge=0, le=1, examples=[0.97])]
Count = Annotated[int, Field(ge=0, examples=[240])]
Seconds = Annotated[float, Field(ge=0, examples=[75.2])]
Milliseconds = Annotated[float, Field(ge=0, examples=[182.4])]
Time = Annotated[AwareDatetime, Field(examples=["2026-01-31T13:30:00Z"])]
Day = Annotated[date, Field(examples=["2026-01-31"])]
SymbolName = Annotated[str, Field(examples=["BTC"])]
Class = Annotated[AssetClass, Field(examples=["crypto"])]
Frame = Annotated[Timeframe, Field(examples=["1h"])]
StatusName = Annotated[Literal["healthy", "warning", "stale", "error", "not_enriched"], Field(examples=["healthy"])]
JobStatus = Annotated[
    Literal["queued", "in_progress", "completed", "failed", "cancelled"], Field(examples=["completed"])
]
JobId = Annotated[str, Field(examples=["5f0c1c3e-4f0e-4f53-9a37-0f6f3f0e8a11"])]
Exact = Annotated[float, Field(examples=[7975.89])]


class Document(BaseModel):
    """A JSON object; every field is always present, null where it is not known."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class InstrumentStatus(Document):
    """Where an instrument stands."""

    symbol: SymbolName
    asset_class: Class
    status: StatusName
    """By how long the first expected candle has been missing, and by quality."""
    last_enrichment_time: Time | None
    last_fetch_source: Annotated[str | None, Field(examples=["binance"])]
    data_age_seconds: Seconds | None
    """Time since the newest candle ended."""
    records_available: Count
    quality_score: Score | None
    validation_rate: Percent | None
    timeframes_available: list[Frame]
    history: Annotated[
        list[Frame], Field(description="Stored timeframes that are not tracked: nobody keeps them current.")
    ]
    next_enrichment: Time | None
    error_message: Annotated[str | None, Field(examples=["binance: no answer within 30 s"])]
    contract: Annotated[str | None, Field(examples=["BTC/USDT:USDT"])]
    """Whose candles its series has, in exact notation; null where no source has a list."""
    trading_status: str | None
    """What the venue says of that contract: trading, halted, delivering, settled, delisted, not_yet_listed."""
    trading_note: str | None
    """Why nothing new is expected of it, and since when; null while it trades."""
    timestamp: Time


class FetchPipeline(Document):
    """Fetches of the last 24 hours."""

    total_fetches: Count
    successful: Count
    success_rate: Percent | None
    avg_response_time_ms: Milliseconds | None
    api_quota_remaining: Annotated[int | None, Field(examples=[1143])]
    """The least of what each source said last."""


class ComputePipeline(Document):
    """Feature computations of the last 24 hours."""

    total_computations: Count
    successful: Count
    success_rate: Percent | None
    avg_computation_time_ms: Milliseconds | None


class QualityTotals(Document):
    """Candles of the last 7 days, each counting once."""

    symbols_tracked: Count
    avg_validation_rate: Percent | None
    avg_quality_score: Score | None


class BackfillTotals(Document):
    """Backfills by state."""

    in_progress: Count
    completed: Count
    failed: Count
    pending: Count


class PipelineMetrics(Document):
    """How the pipeline does."""

    fetch_pipeline: FetchPipeline
    compute_pipeline: ComputePipeline
    data_quality: QualityTotals
    backfill_progress: BackfillTotals
    timestamp: Time


class Receipt(Document):
    """A queued job."""

    job_id: JobId
    symbol: SymbolName | None
    """Null when several were given."""
    symbols: list[SymbolName]
    asset_class: Class
    timeframes: list[Frame]
    status: JobStatus
    total_records_to_process: Count | None
    """Null where it cannot be told."""
    estimated_duration_seconds: Seconds | None
    """Null before there was anything to judge by."""
    timestamp: Time


class JobPart(Document):
    """What became of one timeframe or dataset of one symbol."""

    symbol: SymbolName | None
    timeframe: Frame | None
    dataset: Annotated[str | None, Field(examples=["candles"])]
    status: JobStatus
    records_done: Count | None
    records_expected: Count | None
    records_inserted: Count
    records_updated: Count
    records_unchanged: Count
    records_kept: Count
    records_rejected: Count
    source: Annotated[str | None, Field(examples=["binance"])]
    quality_score: Score | None
    error: str | None


class Job(Document):
    """A job and its parts."""

    job_id: JobId
    kind: Annotated[str, Field(examples=["enrich"])]
    origin: Annotated[str, Field(examples=["api"])]
    symbol: SymbolName | None
    symbols: list[SymbolName]
    asset_class: Class | None
    timeframes: list[Frame]
    status: JobStatus
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    success: bool | None
    """Whether all parts went well; null until it is over."""
    outcome: Annotated[Literal["success", "partial", "failed"] | None, Field(examples=["success"])]
    """`partial` where some parts failed, rows were refused or candles are missing; null until it is over."""
    results: list[JobPart]
    errors: Annotated[list[str], Field(examples=[["binance: no answer within 30 s"]])]


class Jobs(Document):
    """A page of jobs, newest first."""

    count: Count
    next: str | None
    """Cursor of the next page, null on the last."""
    jobs: list[Job]


class QualitySummary(Document):
    """A period in four figures."""

    avg_validation_rate: Percent | None
    avg_quality_score: Score | None
    total_gaps_detected: Count
    total_anomalies: Count


class DailyQuality(Document):
    """One day."""

    date: Day
    total_records: Count
    validated_records: Count
    validation_rate: Percent | None
    gaps_detected: Count
    anomalies_detected: Count
    avg_quality_score: Score | None
    data_completeness: Score | None


class FetchLog(Document):
    """One fetch."""

    source: Annotated[str, Field(examples=["binance"])]
    timeframe: Frame | None
    records_fetched: Count
    records_inserted: Count
    response_time_ms: Milliseconds | None
    success: bool
    timestamp: Time


class Quality(Document):
    """How good an instrument's data is."""

    symbol: SymbolName
    asset_class: Class
    period_days: Annotated[int, Field(ge=1, le=365, examples=[7])]
    summary: QualitySummary
    daily_metrics: list[DailyQuality]
    recent_fetch_logs: list[FetchLog]
    timestamp: Time
