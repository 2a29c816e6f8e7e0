"""A triggered job, as the client follows it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

from market_data.model.errors import MarketDataError

LOOK_SECONDS: Final = 0.5
OVER: Final = frozenset({"completed", "failed", "cancelled"})


class JobFailed(MarketDataError):
    """A job did not complete; `job` is its document."""

    def __init__(self, job: dict[str, Any]) -> None:
        super().__init__(f"job {job['job_id']} {job['status']}: {'; '.join(job['errors']) or 'no reason given'}")
        self.job = job


@dataclass(frozen=True, slots=True)
class Job:
    """A job that was queued."""

    receipt: dict[str, Any]
    """What was answered when it was queued."""
    read: Callable[[str], dict[str, Any]]

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.receipt["job_id"])

    def state(self) -> dict[str, Any]:
        """How it stands now."""
        return self.read(self.id)

    def wait(self, timeout: float | None = None, *, progress: bool = True) -> dict[str, Any]:
        """Wait until it is over; returns its document.

        Args:
            timeout: seconds to wait at most.
            progress: whether to show a bar on stderr, where that is a terminal.

        Raises:
            JobFailed: when it failed or was cancelled.
            TimeoutError: when it is not over in time; it goes on by itself.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with _bar() if progress and sys.stderr.isatty() else nullcontext(lambda _: None) as show:
            while True:
                job = self.state()
                show(job)
                if job["status"] == "completed":
                    return job
                if job["status"] in OVER:
                    raise JobFailed(job)
                if until is not None and time.monotonic() >= until:
                    raise TimeoutError(f"job {self.id} is {job['status']} after {timeout:g} s; it goes on by itself")
                time.sleep(LOOK_SECONDS)


class _bar:  # noqa: N801  # used like a function
    """A progress bar over the candles of a job."""

    def __enter__(self) -> Callable[[dict[str, Any]], None]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._progress.start()
        self._task = self._progress.add_task("queued", total=None)
        return self._show

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _show(self, job: dict[str, Any]) -> None:
        done = sum(part["records_done"] or 0 for part in job["results"])
        expected = [part["records_expected"] for part in job["results"]]
        total = None if None in expected else sum(expected)
        self._progress.update(self._task, description=job["status"], completed=done, total=total)
