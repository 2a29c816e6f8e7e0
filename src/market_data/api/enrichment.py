"""Enrichment routes: status and metrics, triggering and following jobs, pausing the schedule."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query

from market_data.api.arguments import AssetClassQuery, Cursor, Symbol, SymbolQuery, TimeframeName
from market_data.api.arguments import timeframes as parsed
from market_data.api.documents import InstrumentStatus, Job, Jobs, PipelineMetrics, Receipt
from market_data.api.jobs import cancelled_job, job_document, job_page
from market_data.api.operation_documents import SchedulerState
from market_data.api.problems import Problem, described
from market_data.api.served import Backing, Served
from market_data.model.job import Status
from market_data.monitoring.readings import LOG_WINDOW, QUALITY_WINDOW

MOST_SYMBOLS: Final = 500
MOST_JOBS: Final = 200

router = APIRouter(prefix="/enrichment", tags=["enrichment"])
JobLimit = Annotated[int, Query(ge=1, le=MOST_JOBS, description="At most so many jobs.")]


@router.get("/status/{symbol}", response_model=InstrumentStatus, responses=described(404))
def status(served: Backing, symbol: Symbol, asset_class: AssetClassQuery = None) -> Any:
    """Where an instrument stands: freshness, quality and what is stored."""
    return served.standings.of(served.known_instrument(symbol, asset_class)).fields(served.now())


@router.get("/metrics", responses=described())
def metrics(served: Backing) -> PipelineMetrics:
    """How fetching, computing and backfilling went: logs of 24 hours, quality of 7 days."""
    return PipelineMetrics.model_validate(pipeline_metrics(served))


def pipeline_metrics(served: Served) -> dict[str, Any]:
    """CONTRACT's `/enrichment/metrics`."""
    now = served.now()
    return {
        "fetch_pipeline": served.tallies.fetches(now - LOG_WINDOW),
        "compute_pipeline": served.tallies.computations(now - LOG_WINDOW),
        "data_quality": served.tallies.quality((now - QUALITY_WINDOW).date()),
        "backfill_progress": served.tallies.backfills(),
        "timestamp": now,
    }


@router.post("/trigger", status_code=202, responses=described())
def trigger(
    served: Backing,
    symbol: Annotated[
        list[SymbolQuery], Query(min_length=1, max_length=MOST_SYMBOLS, description="One or more symbols.")
    ],
    asset_class: AssetClassQuery = None,
    timeframes: Annotated[
        list[TimeframeName],
        Query(min_length=1, max_length=64, description="Which candles of each symbol.", examples=[["1d", "1h"]]),
    ] = ["1d"],  # noqa: B006  # FastAPI copies it
) -> Receipt:
    """Queue the enrichment of symbols; 202 as soon as the job is durable."""
    wanted = parsed(timeframes)
    instruments = list(dict.fromkeys(served.instrument(name, asset_class) for name in symbol))
    names, classes = [each.symbol for each in instruments], {each.asset_class for each in instruments}
    if len(classes) > 1:
        raise Problem(
            422,
            "several-asset-classes",
            f"These symbols are of several asset classes: {', '.join(map(str, instruments))}",
            action="Ask for each class by itself.",
        )
    receipt = served.jobs.trigger(instruments, wanted, origin="api")
    return Receipt(
        job_id=str(receipt.job_id),
        symbol=names[0] if len(names) == 1 else None,
        symbols=names,
        asset_class=classes.pop(),
        timeframes=wanted,
        status=receipt.status.value,
        total_records_to_process=receipt.total_records,
        estimated_duration_seconds=receipt.estimated_seconds,
        timestamp=receipt.timestamp,
    )


@router.get("/jobs", responses=described())
def jobs(
    served: Backing,
    status: Annotated[Status | None, Query(description="Only jobs of this status.")] = None,
    limit: JobLimit = 50,
    cursor: Cursor = None,
) -> Jobs:
    """Jobs, newest first."""
    return job_page(served, limit, cursor, status=status)


@router.get("/jobs/{job_id}", responses=described(404))
def job(served: Backing, job_id: UUID) -> Job:
    """One job: its status and what became of each timeframe."""
    found = served.jobs.job(job_id)
    if found is None:
        raise Problem(404, "unknown-job", f"There is no job {job_id}", action="GET /api/v1/enrichment/jobs lists them.")
    return job_document(found)


@router.post("/jobs/{job_id}/cancel", responses=described(404))
def cancel(served: Backing, job_id: UUID) -> Job:
    """Cancel a job: what waits never begins, what is being worked on stops at its next commit."""
    return cancelled_job(served, job_id)


@router.get("/history", responses=described())
def history(
    served: Backing,
    symbol: Annotated[SymbolQuery | None, Query(description="Only jobs with this symbol.")] = None,
    success: Annotated[bool | None, Query(description="Only jobs that went well, or that did not.")] = None,
    limit: JobLimit = 50,
    cursor: Cursor = None,
) -> Jobs:
    """Jobs that are over, newest first."""
    return job_page(
        served, limit, cursor, symbol=symbol and served.instrument(symbol, None).symbol, success=success, over=True
    )


@router.post("/pause", responses=described())
def pause(served: Backing) -> SchedulerState:
    """Stop starting scheduled work; jobs are kept, and what was triggered still runs."""
    served.switch(paused=True)
    return SchedulerState.model_validate(served.scheduler())


@router.post("/resume", responses=described())
def resume(served: Backing) -> SchedulerState:
    """Start scheduled work again."""
    served.switch(paused=False)
    return SchedulerState.model_validate(served.scheduler())
