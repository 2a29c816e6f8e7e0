"""Operations routes: dashboard figures, instruments and providers, and the health of the process."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from market_data.api.arguments import AssetClassQuery, Symbol
from market_data.api.jobs import job_page
from market_data.api.operation_documents import (
    Alive,
    Capability,
    ChannelState,
    Check,
    Health,
    Overview,
    Performance,
    Providers,
    ProviderState,
    SymbolWork,
)
from market_data.api.problems import described
from market_data.api.served import Backing, Served
from market_data.model.errors import MarketDataError
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Provider
from market_data.monitoring.readings import LOG_WINDOW, QUALITY_WINDOW, Readings
from market_data.monitoring.rules import QUEUE_STUCK, overdue_beyond_critical
from market_data.transport.gate import breaker_state, worst_breaker
from market_data.transport.ledger import Standing

MOST_NAMED: Final = 3

dashboard = APIRouter(prefix="/enrichment/dashboard", tags=["operations"])
listings = APIRouter(tags=["operations"])
probes = APIRouter(tags=["operations"])


@dashboard.get("/overview", responses=described())
def overview(served: Backing) -> Overview:
    """The pipeline at a glance."""
    now = served.now()
    standings = [served.standings.of(instrument) for instrument in instruments_known(served)]
    gaps = served.tallies.gaps(now)
    depth = served.tallies.jobs_by_status(now - LOG_WINDOW)
    return Overview(
        symbols_tracked=len(standings),
        symbols_by_status=dict(Counter(standing.status(now) for standing in standings)),
        records_available=sum(standing.records for standing in standings),
        jobs_by_status=depth,
        fetch_success_rate=served.tallies.fetches(now - LOG_WINDOW)["success_rate"],
        avg_quality_score=served.tallies.quality((now - QUALITY_WINDOW).date())["avg_quality_score"],
        open_gaps=sum(row["open_gaps"] for row in gaps),
        scheduler=served.scheduler(),  # type: ignore[arg-type]  # validated by the model
        timestamp=now,
    )


@dashboard.get("/job-status/{symbol}", responses=described(404))
def job_status(served: Backing, symbol: Symbol, asset_class: AssetClassQuery = None) -> SymbolWork:
    """An instrument's standing and its newest jobs."""
    standing, now = served.standings.of(served.known_instrument(symbol, asset_class)), served.now()
    instrument = standing.instrument
    return SymbolWork(
        symbol=instrument.symbol,
        asset_class=instrument.asset_class,
        status=standing.fields(now),  # type: ignore[arg-type]  # validated by the model
        recent_jobs=job_page(served, 10, None, symbol=instrument.symbol).jobs,
        timestamp=now,
    )


@dashboard.get("/metrics", responses=described())
def performance(served: Backing) -> Performance:
    """How fast the pipeline is, by source."""
    now = served.now()
    return Performance(
        sources=served.tallies.by_source(now - LOG_WINDOW),  # type: ignore[arg-type]  # validated by the model
        compute_pipeline=served.tallies.computations(now - LOG_WINDOW),  # type: ignore[arg-type]
        timestamp=now,
    )


@dashboard.get("/health", responses=described())
def health(served: Backing) -> Health:
    """Whether the scheduler and everything the program depends on is well."""
    return health_of(served)


def instruments_known(served: Served) -> list[Instrument]:
    """Every instrument that is tracked or was enriched, by symbol."""
    tracked = set(served.tracked())
    stored = {Instrument(row["symbol"], AssetClass(row["asset_class"])) for row in served.tallies.known()}
    return sorted(tracked | stored, key=lambda instrument: (instrument.symbol, instrument.asset_class.value))


@listings.get("/providers", responses=described())
def providers(served: Backing) -> Providers:
    """The enabled sources: what each serves, whether it can be asked, and how it does."""
    standings = served.app.channels()
    found = [_provider(served, name, provider, standings) for name, provider in sorted(served.app.providers.items())]
    return Providers(count=len(found), providers=found)


def _provider(served: Served, name: str, provider: Provider, standings: Mapping[str, Standing]) -> ProviderState:
    opened = next((http.channels for http in served.app.connections if http.name == name), {})
    channels = [_channel(channel, standings[channel]) for channel in opened]
    quotas = [channel.quota_remaining for channel in opened.values() if channel.quota_remaining is not None]
    order = served.app.settings.instruments.priority
    return ProviderState(
        name=name,
        ready=provider.ready is None,
        reason=provider.ready,
        priority={group.value: names.index(name) + 1 for group, names in order.items() if name in names},
        breaker=worst_breaker(standings[channel] for channel in opened).value,
        channels=channels,
        quota_remaining=min(quotas, default=None),
        capabilities=[
            Capability(
                dataset=capability.dataset.name,
                asset_classes=sorted(capability.asset_classes),
                timeframes=sorted(capability.timeframes, key=lambda timeframe: timeframe.duration),
                history_days={str(frame or "all"): reach.days for frame, reach in capability.reach.items()},
                live=capability.live,
            )
            for capability in provider.capabilities
        ],
    )


def _channel(name: str, standing: Standing) -> ChannelState:
    return ChannelState(
        name=name,
        breaker=breaker_state(standing).value,
        asked_again_in=max(standing.rests_for, standing.banned_for),
        reason=(standing.ban if standing.banned_for else standing.fault) or None,
    )


@probes.get("/healthz", responses=described(413, 500, alone=True))
async def healthz() -> Alive:
    """Liveness: this process answers. Needs no key."""
    return Alive(status="alive")


@probes.get(
    "/readyz", response_model=Health, responses={**described(), 503: {"model": Health, "description": "Not ready"}}
)
async def readyz(request: Request, served: Backing) -> Response:
    """Readiness: the database answers; without a scheduler or worker it is degraded. Without a key: the code alone."""
    # Not among the threads that answer requests, all of which may be busy.
    found = await asyncio.get_running_loop().run_in_executor(served.probing, health_of, served)
    status = 503 if found.status == "unhealthy" else 200
    if not request.state.known:
        return Response(status_code=status)
    return JSONResponse(found.model_dump(mode="json"), status)


def health_of(served: Served) -> Health:
    """Database, scheduler, workers, queue, sources and data, each with whether it is well; never raises."""
    now = served.now()
    try:
        readings = served.observer.read()
    except MarketDataError as error:
        checks = [Check(name="database", healthy=False, detail=type(error).__name__)]
        return Health(status="unhealthy", checks=checks, timestamp=now)
    checks = [
        Check(name="database", healthy=True, detail=None),
        Check(name="scheduler", healthy=readings.scheduler == "running", detail=readings.scheduler),
        Check(name="workers", healthy=readings.workers > 0, detail=f"{readings.workers} alive"),
        _queue(readings),
        *(
            Check(name=f"source {source}", healthy=state == "closed", detail=f"breaker {state}")
            for source, state in readings.breakers.items()
        ),
        _data(readings),
    ]
    status = "healthy" if all(check.healthy for check in checks) else "degraded"
    return Health(status=status, checks=checks, timestamp=now)  # type: ignore[arg-type]  # one of the three


def _queue(readings: Readings) -> Check:
    waiting, idle = sum(readings.queue_depth.values()), readings.queue_idle
    detail = f"{waiting} parts wait or are worked on"
    stuck = idle > QUEUE_STUCK.total_seconds()
    return Check(
        name="queue", healthy=not stuck, detail=f"{detail}; none begun or ended for {idle:.0f} s" if stuck else detail
    )


def _data(readings: Readings) -> Check:
    late = overdue_beyond_critical(readings)
    names = ", ".join(f"{one.instrument.symbol} ({one.overdue:.0f} s)" for one in late[:MOST_NAMED])
    more = f" and {len(late) - MOST_NAMED} more" if len(late) > MOST_NAMED else ""
    detail = f"overdue beyond the critical age: {names}{more}" if late else "no tracked instrument is overdue"
    return Check(name="data", healthy=not late, detail=detail)
