"""``backfill``: fill the past of a dataset, chunk by chunk, from where the last run was cut short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from market_data.cli.arguments import TIMEFRAMES, AssetClassName, Json, as_listed, parse_instruments, parse_timeframes
from market_data.cli.following import conclude, job_fields, summarise, work_off
from market_data.cli.invocation import Invocation, now
from market_data.cli.output import print_json, say
from market_data.cli.program import PARTLY_DONE
from market_data.model.errors import UsageError
from market_data.model.job import CANDLES_NAME, Kind, Status, Task

if TYPE_CHECKING:
    from uuid import UUID

    from market_data.bootstrap import App
    from market_data.model.backfill import Backfill
    from market_data.model.instrument import Instrument
    from market_data.model.timeframe import Timeframe

NAMES = "candles, trades, quotes, actions, dividends, earnings, splits, options-iv, news, derivatives"


def backfill(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help=f"One of {NAMES}.")],
    symbol: Annotated[
        list[str] | None, typer.Option("--symbol", "-s", metavar="SYMBOL", help="May be repeated. [default: tracked]")
    ] = None,
    asset_class: AssetClassName = None,
    timeframe: Annotated[
        list[str] | None,
        typer.Option("--timeframe", "-t", metavar="TF", help=f"Of candles: {TIMEFRAMES}. [default: as tracked]"),
    ] = None,
    days: Annotated[int | None, typer.Option(min=1, max=36_500, help="How far back. [default: by dataset]")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Ask anew for what was asked for before; what a list then lacks, twice.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what was begun and is not complete.")] = False,
    as_json: Json = False,
) -> None:
    """Fill the past of a dataset. Safe to stop and to run again: what is there is not fetched twice."""
    from market_data.jobs.datasets import plan_named

    invocation: Invocation = context.obj
    plan = plan_named(dataset)
    timeframes = parse_timeframes(timeframe) if timeframe else None
    with invocation.app(asks_providers=True) as app:
        named = as_listed(app, parse_instruments(symbol, asset_class, app.settings), asset_class) if symbol else None
        if resume:
            job_ids = _resumed(app, plan, named)
        else:
            asked = [replace(t, again=again) for t in _tasks(app, dataset, plan, named, timeframes, days)]
            job_ids = [app.jobs.submit(Kind.BACKFILL, asked).job_id]
        jobs = work_off(app, job_ids)
    if as_json:
        print_json([job_fields(job) for job in jobs])
    elif jobs:
        summarise(jobs)
        parts = [part for job in jobs for part in job.parts]
        if all(part.status is Status.COMPLETED and not sum(part.counts.values()) for part in parts):
            say("nothing was left to do")
    conclude(jobs, notes=not as_json)
    if plan.present and days is not None:
        say(f"no source tells {dataset} of the past: each run stores the moment, and the schedule does so every day")
        raise typer.Exit(PARTLY_DONE)


def _tasks(
    app: App,
    name: str,
    plan: Backfill,
    named: Sequence[Instrument] | None,
    timeframes: Sequence[Timeframe] | None,
    days: int | None,
) -> list[Task]:
    """A task per series or per dataset and instrument, all of the same range.

    Raises:
        UsageError: when nothing is left to fill.
    """
    from market_data.jobs.datasets import filled_by
    from market_data.storage.work.tracked import most_active

    start, end = plan.span(now(), days)
    tracked = {one.instrument: one.timeframes for one in app.tracked()}
    chosen = [one for one in named or tracked if one.asset_class in plan.asset_classes]
    if not named and plan.most_symbols is not None:
        chosen = most_active(app.database, chosen, plan.most_symbols, start)
    if named and len(chosen) < len(named):
        classes = ", ".join(sorted(plan.asset_classes))
        left = ", ".join(str(one) for one in named if one not in chosen)
        raise UsageError(f"{name} are of {classes}: leave out {left}, or correct --asset-class")
    if not chosen:
        raise UsageError(f"no symbol to backfill {name} of: name one with --symbol, or track some")
    if name == CANDLES_NAME:
        return [
            Task(
                kind=Kind.BACKFILL, instrument=one, timeframe=timeframe, dataset=CANDLES_NAME, start=start, end=end
            )
            for one in chosen
            for timeframe in timeframes or tracked.get(one) or parse_timeframes(None)
        ]  # fmt: skip
    if timeframes:
        raise UsageError(f"{name} have no timeframes: leave out --timeframe")
    return [
        Task(kind=Kind.BACKFILL, instrument=one, dataset=dataset.name, start=start, end=end)
        for dataset in filled_by(name)
        for one in chosen
    ]


def _resumed(app: App, plan: Backfill, named: Sequence[Instrument] | None) -> list[UUID]:
    """Jobs to go on with: those still in the queue, and a new one for the parts that failed or were cancelled."""
    from market_data.jobs.datasets import filled_by
    from market_data.storage.work.job_reads import unfinished_jobs

    found = unfinished_jobs(app.database, Kind.BACKFILL, [dataset.name for dataset in filled_by(plan.name)])
    waiting = [job.job_id for job in found if not job.status.final]
    done: set[tuple[object, ...]] = set()
    again: dict[tuple[object, ...], Task] = {}
    for job in found:
        for part in job.parts:
            key = (part.task.instrument, part.task.timeframe, part.task.dataset)
            wanted = named is None or part.task.instrument in named
            # The newest word on a series counts; older failures of it were made good since.
            if key in done or not wanted:
                continue
            done.add(key)
            if part.status in (Status.FAILED, Status.CANCELLED):
                again[key] = part.task
    if again:
        waiting.append(app.jobs.submit(Kind.BACKFILL, list(again.values())).job_id)
    if not waiting:
        say("nothing to resume: every backfill of this dataset is complete")
    return waiting
