"""Progress of an enrichment: a bar per series on stderr, nothing where that is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from market_data.cli.output import console

if TYPE_CHECKING:
    from market_data.model.instrument import Series
    from market_data.pipeline.fetch.candles import Progress


@contextmanager
def series_bars() -> Iterator[Callable[[Progress], None]]:
    """A function to call with every step; the bars vanish at the end, where the table takes their place."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[stage]}"),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=console(stderr=True), transient=True) as bars:
        tasks: dict[Series, int] = {}

        def step(progress: Progress) -> None:
            if progress.series not in tasks:
                tasks[progress.series] = bars.add_task(str(progress.series), total=progress.expected, stage="")
            bars.update(tasks[progress.series], completed=progress.done, total=progress.expected, stage=progress.stage)  # type: ignore[arg-type]

        yield step


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function to call with how many more are done; one bar with rate and time left on stderr."""
    if not sys.stderr.isatty() or not total:
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=total)
        yield lambda count: bars.advance(task, count)
