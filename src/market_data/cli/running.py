"""``up``, ``worker``, ``scheduler``, ``jobs``: the platform that keeps itself current, whole and in parts."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer

from market_data.cli.arguments import Json
from market_data.cli.exporting import metrics_of
from market_data.cli.figures import score, seconds
from market_data.cli.following import (
    conclude,
    failures,
    job_fields,
    part_line,
    stopped_by_signals,
    summarise,
    troubles,
    work_off,
)
from market_data.cli.invocation import Invocation, now
from market_data.cli.memory import share_heaps
from market_data.cli.output import print_fields, print_json, print_rows, say, tell
from market_data.cli.serving import beside
from market_data.cli.signals import stopping
from market_data.model.errors import MarketDataError, UsageError
from market_data.model.job import JobState, PartState, Status

if TYPE_CHECKING:
    from market_data.bootstrap import App
    from market_data.jobs.worker import Worker
    from market_data.storage.work.presence import Presence

LOOK_SECONDS: Final = 0.5


def up(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Bring everything up to date, show it, and end.")] = False,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of the HTTP interface; 0 takes a free one. [default: 8000]"),
    ] = None,
    join: Annotated[
        bool, typer.Option("--join", help="Run beside one that is up on this data: one more worker and interface.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the whole platform: database, scheduler, worker and HTTP interface in one process, until Ctrl-C.

    With --sandbox on recorded and modelled history, without network and keys, in a database of its own.
    """
    share_heaps()
    from market_data.storage.work.presence import running

    invocation: Invocation = context.obj
    if once and invocation.sandbox:
        from market_data.cli.recorded import show_recorded

        show_recorded(invocation, as_json=as_json)
        return
    invocation.settings()  # how remarks are printed is a setting
    say(f"market-data: starting {'the sandbox and ' * invocation.sandbox}the database")
    with invocation.app(asks_providers=True) as app:
        _log_as_service(app)
        _introduce(app, invocation)
        if once:
            done = work_off(app, _first_jobs(app))
            if as_json:
                print_json([job_fields(job) for job in done])
            else:
                summarise(done)
            conclude(done, notes=not as_json)
            return
        with running(app.database) as presence:
            if not presence.present and not join:
                raise _up_already(presence)
            _keep_up(app, presence, port)
        _farewell(app)


def worker(
    context: typer.Context,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=100, help="Parts at the same time. [default: max_concurrent_symbols]")
    ] = None,
) -> None:
    """Work on what is in the queue until Ctrl-C or SIGTERM. Any number may run, on any machines, on one database."""
    invocation: Invocation = context.obj
    more = {"pipelines.max_concurrent_symbols": (concurrency, "--concurrency")} if concurrency else None
    with invocation.app(asks_providers=True, more=more) as app:
        _log_as_service(app)
        with metrics_of(app):
            say(f"working on {app.database.name} until Ctrl-C")
            app.run(_serve(app))
        _farewell(app)


def scheduler(
    context: typer.Context,
    pause: Annotated[bool, typer.Option("--pause", help="Queue nothing more until resumed, then end.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on, then end.")] = False,
    show: Annotated[bool, typer.Option("--status", help="Say where it stands and what comes next, then end.")] = False,
    as_json: Json = False,
) -> None:
    """Queue what is due, until Ctrl-C or SIGTERM. A second one by mistake does no double work."""
    invocation: Invocation = context.obj
    if pause and resume:
        raise UsageError("--pause or --resume, not both")
    with invocation.app() as app:
        found = app.scheduler()
        if pause or resume:
            (found.pause if pause else found.resume)()
        if pause or resume or show:
            _show_scheduler(found.state(), found.next_runs(now()), as_json=as_json)
            return
        _log_as_service(app)
        stop = threading.Event()
        for number in stopping():
            signal.signal(number, lambda *_: stop.set())
        with metrics_of(app):
            found.start()
            _tell_next(found.next_runs(now()))
            stop.wait()
            found.stop()


def jobs(
    context: typer.Context,
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="Only this one, with its parts.")] = None,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Cancel it; work under way stops at its next commit.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """Show jobs, the newest first; or one with its parts."""
    invocation: Invocation = context.obj
    if cancel and job is None:
        raise UsageError("--cancel needs the JOB to cancel: see 'market-data jobs'")
    with invocation.app() as app:
        if job is None:
            found = app.jobs.jobs(limit=limit)
        else:
            one = app.jobs.cancel(_job_id(job)) if cancel else app.jobs.job(_job_id(job))
            if one is None:
                raise UsageError(f"there is no job {job}: see 'market-data jobs'")
            found = [one]
    if as_json:
        print_json([job_fields(one) for one in found])
    elif job is not None:
        summarise(found, f"{found[0].kind} {found[0].job_id}: {found[0].status.value.replace('_', ' ')}")
        for line in [*troubles(found[0].parts), *failures(found[0].parts)]:
            typer.echo(line)
    elif found:
        print_rows(None, [_job_line(one) for one in found])
    else:
        say("no jobs yet")


async def _serve(app: App) -> None:
    """Work until told to stop, and tell what got done."""
    found = app.worker()
    with stopped_by_signals(found.stop, "what is not done stays in the queue"):
        telling = asyncio.create_task(_tell(app, found))
        try:
            await found.run()
        except asyncio.CancelledError:
            say("stopped at once; what was committed is kept")
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling


async def _tell(app: App, _worker: Worker) -> None:
    """A line for every part that ends, and one whenever the queue has run empty."""
    from market_data.storage.work.job_reads import ended_since

    since, busy, said = now(), True, set[str]()
    while True:
        try:
            ended = await asyncio.to_thread(ended_since, app.database, since)
            left = sum((await asyncio.to_thread(app.jobs.depth)).values())
        except MarketDataError as error:
            say(f"waiting for the database: {error}")
            ended, left = [], 1
        for part in ended:
            since = max(since, part.finished_at or since)
            if part.error in said:
                continue
            said |= {part.error} if part.error else set()
            if line := _told(part):
                tell(line)
        if busy and not left:
            say("up to date; waiting for what is due next (Ctrl-C ends)")
        busy = bool(left)
        await asyncio.sleep(LOOK_SECONDS)


def _told(part: PartState) -> str | None:
    """One line on a part that ended; None for a chore that found nothing to do."""
    line = part_line(part)
    what = f"{part.task.kind:<9} {part.task!s:<22}"
    if part.status is not Status.COMPLETED:
        return f"{what} {part.status}: {part.error or ''}".rstrip()
    if not line["rows"] and part.task.instrument is None:
        return None
    spent = (part.finished_at - part.started_at).total_seconds() if part.finished_at and part.started_at else 0.0
    changed = " · ".join(f"{line[name]:,} {name}" for name in ("inserted", "updated", "unchanged") if line[name])
    sources = f" from {', '.join(part.sources)}" if part.sources else ""
    quality = f" · quality {score(part.quality_score)}" if part.quality_score is not None else ""
    return f"{what} {changed or 'nothing new'}{sources} in {seconds(spent)}{quality}"


def _introduce(app: App, invocation: Invocation) -> None:
    where = app.database.server.home.parent if app.database.server else app.database.name
    kind = "sandbox: recorded and modelled history, no network, no keys" if invocation.sandbox else "live sources"
    say(f"market-data is up on {kind}")
    say(f"data in {where}")
    for asset_class in dict.fromkeys(one.instrument.asset_class for one in app.tracked()):
        of_class = [one for one in app.tracked() if one.instrument.asset_class is asset_class]
        names = ", ".join(one.instrument.symbol for one in of_class)
        frames = " ".join(dict.fromkeys(frame.value for one in of_class for frame in one.timeframes))
        say(f"tracking {asset_class}: {names} ({frames})")


def _first_jobs(app: App) -> list[UUID]:
    """Queue whatever is tracked, so that nothing waits for its first due moment."""
    receipts = app.scheduler().fill()
    parts = sum(len(receipt.tasks) for receipt in receipts)
    say(f"filling {parts} series and datasets" if parts else "everything is queued already")
    return [receipt.job_id for receipt in receipts]


def _tell_next(runs: Sequence[Any]) -> None:
    if not runs:
        say("the scheduler is paused: 'market-data scheduler --resume'")
        return
    say("next: " + ", ".join(f"{run.line.value.replace('_', ' ')} {run.at:%a %H:%M}" for run in runs[:5]) + " UTC")


def _farewell(app: App) -> None:
    left = sum(app.jobs.depth().values())
    say(
        f"stopped; {left} part{'s' * (left > 1)} left in the queue, to go on with at the next start"
        if left
        else "stopped; nothing was left"
    )


def _show_scheduler(state: dict[str, Any], runs: Sequence[Any], *, as_json: bool) -> None:
    next_runs = [{"line": run.line, "calendar": run.calendar, "at": run.at} for run in runs]
    if as_json:
        print_json({**state, "next_runs": next_runs})
        return
    times: dict[str, Any] = {name: datetime.fromisoformat(state[name]) for name in ("until", "at") if name in state}
    print_fields("Scheduler", {**state, **times})
    if next_runs:
        print_rows("Next (UTC)", next_runs)


def _job_line(job: JobState) -> dict[str, Any]:
    names = job.symbols
    return {
        "job": str(job.job_id),
        "kind": job.kind,
        "status": job.status.value.replace("_", " "),
        "symbols": ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else ""),
        "parts": len(job.parts),
        "done": sum(part.status.final for part in job.parts),
        "rows": sum(sum(part.counts.values()) for part in job.parts),
        "created": job.created_at.replace(microsecond=0),
        "error": job.errors[0] if job.errors else None,
    }


def _job_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise UsageError(f"{text!r} is not the id of a job: see 'market-data jobs'") from None


def _keep_up(app: App, presence: Presence, port: int | None) -> None:
    """Scheduler, worker and interface, until told to stop."""
    scheduler = app.scheduler()
    scheduler.start()
    try:
        with metrics_of(app), beside(app, port) as address:
            if presence.present:
                presence.tell(address, now())
            say(f"serving on {address}/api/v1")
            _first_jobs(app)
            _tell_next(scheduler.next_runs(now()))
            app.run(_serve(app))
    finally:
        scheduler.stop()


def _up_already(presence: Presence) -> MarketDataError:
    """Where the other one is, in one line."""
    other = presence.other()
    where = f"{other['address']}, process {other['pid']} on {other['host']}" if other else "it is still starting"
    return MarketDataError(
        f"the platform is up on this data already ({where}): use it, end it first, or give --join to run beside it"
    )


def _log_as_service(app: App) -> None:
    """What runs for long logs as the settings say; commands that end by themselves keep quiet."""
    from market_data.cli.logs import configure_logs

    monitoring = app.settings.monitoring
    configure_logs(monitoring.log_level, monitoring.log_format)
