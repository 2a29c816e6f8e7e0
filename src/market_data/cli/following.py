"""Following jobs at the terminal: a worker here until they are over, bars on the way, a summary at the end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from market_data.cli.ending import end_as, say_incomplete
from market_data.cli.figures import UNKNOWN, score
from market_data.cli.output import console, print_rows, say
from market_data.cli.program import print_error
from market_data.cli.signals import stopping, unwind_on_signals
from market_data.model.job import JobState, PartState, Status, outcome_of

if TYPE_CHECKING:
    from uuid import UUID

    from market_data.bootstrap import App

LOOK_SECONDS: Final = 0.3
SHOWN_NAMES: Final = 4
# One Ctrl-C may arrive twice, by the terminal and by who started us.
IMPATIENT_SECONDS: Final = 1.0
COUNTED: Final = ("inserted", "updated", "unchanged", "kept", "rejected")


def work_off(app: App, job_ids: Sequence[UUID]) -> list[JobState]:
    """Work until these jobs are over, or until Ctrl-C; returns them as they are then."""
    with bars() as show:
        app.run(_work_off(app, job_ids, show))
    return states(app, job_ids)


def states(app: App, job_ids: Sequence[UUID]) -> list[JobState]:
    """The jobs as they stand."""
    return [job for job_id in job_ids if (job := app.jobs.job(job_id)) is not None]


async def _work_off(app: App, job_ids: Sequence[UUID], show: Callable[[Sequence[PartState]], None]) -> None:
    worker = app.worker()
    with stopped_by_signals(worker.stop, "what is not done stays in the queue"):
        working = asyncio.create_task(worker.run())
        while not working.done():
            found = await asyncio.to_thread(states, app, job_ids)
            show([part for job in found for part in job.parts])
            if all(job.status.final for job in found):
                worker.stop()
                break
            await asyncio.wait({working}, timeout=LOOK_SECONDS)
        await working


@contextmanager
def stopped_by_signals(stop: Callable[[], None], what_then: str) -> Iterator[None]:
    """While the block runs, a signal to end stops its work at the next commits; a second one ends it at once."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    asked_at: float | None = None

    def ask() -> None:
        nonlocal asked_at
        if asked_at is None:
            asked_at = loop.time()
            say(f"stopping at the next commit; {what_then}")
            stop()
        elif task is not None and loop.time() - asked_at > IMPATIENT_SECONDS:
            task.cancel()

    numbers = stopping()
    for number in numbers:
        loop.add_signal_handler(number, ask)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
        unwind_on_signals()


@contextmanager
def bars() -> Iterator[Callable[[Sequence[PartState]], None]]:
    """A function to call with the parts now and then: a bar for all, and one each for those being worked on.

    Nothing where stderr is not a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:<16}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        whole = progress.add_task("all parts", total=0, rate="")
        shown: dict[int, TaskID] = {}

        def show(parts: Sequence[PartState]) -> None:
            progress.update(whole, total=len(parts), completed=sum(part.status.final for part in parts))
            for place, part in enumerate(parts):
                if part.status is Status.IN_PROGRESS and part.expected:
                    if place not in shown:
                        shown[place] = progress.add_task(str(part.task), total=part.expected, rate="")
                    bar = shown[place]
                    speed = progress.tasks[progress.task_ids.index(bar)].speed
                    rate = f"{speed:,.0f}/s" if speed else UNKNOWN
                    progress.update(bar, completed=part.done or 0, total=part.expected, rate=rate)
                elif place in shown:
                    progress.remove_task(shown.pop(place))

        yield show


def summarise(jobs: Sequence[JobState], title: str | None = None) -> None:
    """A table of the parts of jobs, and their sum."""
    lines = [part_line(part) for job in jobs for part in job.parts]
    if len(lines) > 1:
        total: dict[str, Any] = {name: sum(line[name] for line in lines) for name in ("rows", *COUNTED)}
        gaps = [line["gaps"] for line in lines if line["gaps"] is not None]
        lines.append(
            {
                **lines[0],
                "part": "sum",
                "source": [],
                "gaps": sum(gaps) if gaps else None,
                "quality": None,
                **total,
                "status": "",
            }
        )
    for name in ("kept", "rejected"):
        if not any(line[name] for line in lines):
            for line in lines:
                del line[name]
    print_rows(title, lines)


def part_line(part: PartState) -> dict[str, Any]:
    """A part as a line of a table."""
    counts = {name: part.counts.get(name, 0) for name in COUNTED}
    return {
        "part": str(part.task),
        "source": list(part.sources),
        "rows": sum(counts.values()),
        **counts,
        "gaps": part.gaps,
        "quality": score(part.quality_score),
        "status": part.status.value.replace("_", " "),
    }


def job_fields(job: JobState) -> dict[str, Any]:
    """A job as JSON."""
    return {
        "job_id": job.job_id,
        "kind": job.kind,
        "status": job.status,
        "outcome": job.outcome,
        "origin": job.origin,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "parts": [
            {
                "symbol": part.task.instrument.symbol if part.task.instrument else None,
                "asset_class": part.task.instrument.asset_class if part.task.instrument else None,
                "timeframe": part.task.timeframe,
                "dataset": part.task.dataset,
                "status": part.status,
                **{f"records_{name}": part.counts.get(name, 0) for name in COUNTED},
                "sources": list(part.sources),
                "quality_score": part.quality_score,
                "gaps": part.gaps,
                "notes": list(part.notes),
                "error": part.error,
            }
            for part in job.parts
        ],
    }


def troubles(parts: Sequence[PartState]) -> list[str]:
    """The notes of parts, each once, without those that failed them: they are said as errors."""
    errors = tuple(part.error for part in parts if part.error)
    noted = dict.fromkeys(note for part in parts for note in part.notes)
    return [f"note: {note}" for note in noted if not note.endswith(errors)]


def failures(parts: Sequence[PartState]) -> list[str]:
    """What failed, each thing once, with the parts it failed."""
    named: dict[str, list[str]] = {}
    for part in parts:
        if part.error:
            named.setdefault(part.error, []).append(str(part.task))
    lines = []
    for error, names in named.items():
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        lines.append(f"{', '.join(names[:SHOWN_NAMES])}{more}: {error}")
    return lines


def conclude(jobs: Sequence[JobState], *, notes: bool) -> None:
    """Tell what went wrong, each thing once.

    Raises:
        typer.Exit: 1 when nothing went well; 3 when some did not, rows were refused or candles are missing.
    """
    parts = [part for job in jobs for part in job.parts]
    for line in troubles(parts) if notes else ():
        say(line)
    for line in failures(parts):
        print_error(line)
    bad = [part for part in parts if part.status is not Status.COMPLETED]
    waiting = [part for part in bad if not part.status.final]
    if waiting:
        say(f"{len(waiting)} of {len(parts)} parts wait in the queue: any worker goes on with them")
    say_incomplete(sum(part.counts.get("rejected", 0) for part in parts), sum(part.gaps or 0 for part in parts))
    end_as(outcome_of(part.outcome for part in parts))
