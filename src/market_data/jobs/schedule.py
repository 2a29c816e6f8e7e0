"""The scheduler: APScheduler wakes it, the timetable says what is due, and that goes into the queue. It does no work.

How far it has come is stored, and moves on in the transaction that queues: so a run missed while the machine slept is
caught up once, and a second scheduler started by mistake finds nothing left to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from socket import gethostname
from typing import Any, Final
from uuid import uuid4

import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from market_data.jobs.datasets import plan_of
from market_data.jobs.queue import Jobs
from market_data.jobs.timetable import Line, Occasion, Timetable, due_between, next_occasions
from market_data.model.dataset import DATASETS
from market_data.model.errors import MarketDataError
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.job import CANDLES_NAME, JobReceipt, Kind, Task
from market_data.model.provider import Provider
from market_data.model.timeframe import Timeframe
from market_data.storage.series import coverage
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.work import jobs as work
from market_data.storage.work.state import read_state, write_state
from market_data.storage.work.switches import note_next_enrichments, note_scheduler
from market_data.storage.work.tracked import Tracked

log = structlog.get_logger()

WAKE_SECONDS: Final = 5.0
# Two schedulers' clocks may differ by so much; beyond it one of them was wrong.
CLOCKS_DIFFER: Final = timedelta(minutes=1)
STATE: Final = "scheduler"
KINDS: Final = {
    Line.DAILY: Kind.ENRICH,
    Line.AFTER_CLOSE: Kind.ENRICH,
    Line.CRYPTO: Kind.ENRICH,
    Line.REFERENCE: Kind.ENRICH,
    Line.HEAL: Kind.HEAL,
    Line.RECOMPUTE: Kind.RECOMPUTE,
    Line.RECONCILE: Kind.RECONCILE,
    Line.EVENTS: Kind.BACKFILL,
    Line.RETENTION: Kind.RETENTION,
    Line.LISTS: Kind.LISTS,
}
_FILLING: Final = (Line.CRYPTO, Line.DAILY, Line.REFERENCE)


@dataclass(frozen=True)
class Agenda:
    """From an occasion to its tasks: the tracked instruments, and what a source serves of them."""

    database: Database
    providers: Mapping[AssetClass, Sequence[Provider]]
    tracked: Callable[[], Sequence[Tracked]]

    def tasks(self, occasion: Occasion) -> list[Task]:
        """What is to be done at an occasion; nothing when nothing is tracked or open."""
        line, kind = occasion.line, KINDS[occasion.line]
        if line in (Line.RECOMPUTE, Line.RETENTION, Line.LISTS):
            return [Task(kind=kind)]
        if line is Line.HEAL:
            gaps = coverage.due(self.database, occasion.at)
            return [Task(kind=kind, instrument=series.instrument, timeframe=series.timeframe) for series in gaps]
        tracked = [one for one in self.tracked() if self._belongs(one.instrument.asset_class, occasion)]
        if line is Line.REFERENCE:
            return self._newest(tracked, "daily")
        if line is Line.EVENTS:
            events = [task for task in self._newest(tracked, "daily") if DATASETS[str(task.dataset)].withdrawable]
            return [replace(past(task, occasion.at), again=True) for task in events]
        candles = [
            Task(kind=kind, instrument=series.instrument, timeframe=series.timeframe, dataset=CANDLES_NAME)
            for one in tracked
            for series in one.series
        ]
        return candles + self._newest(tracked, "hourly") if line is Line.CRYPTO else candles

    def _belongs(self, asset_class: AssetClass, occasion: Occasion) -> bool:
        if occasion.line is Line.CRYPTO:
            return asset_class is AssetClass.CRYPTO
        if occasion.line is Line.DAILY:
            return asset_class is not AssetClass.CRYPTO
        return occasion.calendar in (None, asset_class.calendar)

    def _newest(self, tracked: Sequence[Tracked], schedule: str) -> list[Task]:
        """The newest of every dataset of that schedule that a source can be asked for, per instrument."""
        return [
            Task(kind=Kind.ENRICH, instrument=one.instrument, dataset=dataset.name)
            for dataset in DATASETS.values()
            if dataset.backfill is not None and dataset.backfill.schedule == schedule
            for one in tracked
            if one.instrument.asset_class in dataset.backfill.asset_classes
            and any(
                provider.capability(dataset, one.instrument, None) is not None and not provider.ready
                for provider in self.providers.get(one.instrument.asset_class, ())
            )
        ]


@dataclass(frozen=True, slots=True)
class Beside:
    """What a scheduler that runs does besides, every so many seconds; it must not raise."""

    do: Callable[[], None]
    seconds: float


class Scheduler:
    """Puts what is due into the queue; start, stop, pause, resume, trigger, and what comes next.

    Pausing is stored: it holds for every scheduler on the database and outlives restarts. What became due meanwhile is
    caught up once on resuming.
    """

    def __init__(self, jobs: Jobs, agenda: Agenda, timetable: Timetable, beside: Sequence[Beside] = ()) -> None:
        self._beside = beside
        self._jobs = jobs
        self._agenda = agenda
        self._timetable = timetable
        self._database = jobs.database
        self._waker: BackgroundScheduler | None = None

    def start(self) -> None:
        """Wake up now and every few seconds, in a thread of its own, until stopped."""
        if self._waker is not None:
            return
        self._waker = BackgroundScheduler(timezone="UTC")
        trigger = IntervalTrigger(seconds=WAKE_SECONDS, timezone="UTC")
        # A wake-up that comes late, or several at once after a sleep, are one: what is due does not depend on them.
        self._waker.add_job(self._wake, trigger, max_instances=1, coalesce=True, misfire_grace_time=None)
        for other in self._beside:
            every = IntervalTrigger(seconds=other.seconds, timezone="UTC")
            self._waker.add_job(other.do, every, max_instances=1, coalesce=True, misfire_grace_time=None)
        self._waker.start()
        self._wake()

    def stop(self) -> None:
        """End; a wake-up under way is waited for."""
        waker, self._waker = self._waker, None
        if waker is not None:
            waker.shutdown(wait=True)

    @property
    def running(self) -> bool:
        """Whether it was started in this process."""
        return self._waker is not None

    def tick(self, now: datetime) -> list[Occasion]:
        """Queue what became due since the last time anybody did; returns the occasions queued."""
        with self._database.transaction() as connection:
            state = read_state(connection, STATE, lock=True)
            paused = state.get("paused", False)
            made = [] if paused else self._queue_due(connection, state, now)
            note_next_enrichments(connection, {} if paused else self._coming(now))
        return made

    def pause(self, by: str = "user") -> None:
        """Queue nothing more, here and in every other scheduler, until resumed; jobs in the queue go on."""
        self._mark(paused=True, by=by)

    def resume(self, by: str = "user") -> None:
        """Go on; what became due meanwhile is caught up once."""
        self._mark(paused=False, by=by)

    def state(self) -> dict[str, Any]:
        """`paused`, by whom (`by`) and since when (`at`), and `until`: up to when occasions were dealt with."""
        with self._database.transaction() as connection:
            return {"paused": False, **read_state(connection, STATE)}

    def next_runs(self, now: datetime) -> list[Occasion]:
        """The next occasion of every line, soonest first; none while paused."""
        return [] if self.state()["paused"] else next_occasions(now, self._timetable)

    def trigger(self, instruments: Sequence[Instrument], timeframes: Sequence[Timeframe]) -> JobReceipt:
        """Queue the enrichment of one or many symbols now, also while paused."""
        return self._jobs.trigger(instruments, timeframes, origin="trigger")

    def fill(self) -> list[JobReceipt]:
        """Queue all that is tracked now: candles, then the whole past of what was never collected, else its newest.

        What waits already is left out; features are renewed last, from all of it.
        """
        now = self._jobs.clock()
        tasks = [task for line in _FILLING for task in self._agenda.tasks(Occasion(now, line))]
        with self._database.transaction() as connection:
            waiting = work.already_queued(connection)
            begun = work.backfills_begun(connection)
        candles = [task for task in tasks if task.series is not None]
        others = [task if work.twin_of(task)[1:] in begun else past(task, now) for task in tasks if task.series is None]
        receipts = []
        for kind, group in (
            (Kind.ENRICH, candles),
            (Kind.BACKFILL, [task for task in others if task.kind is Kind.BACKFILL]),
            (Kind.ENRICH, [task for task in others if task.kind is Kind.ENRICH]),
            (Kind.LISTS, [Task(kind=Kind.LISTS)]),
            (Kind.RECOMPUTE, [Task(kind=Kind.RECOMPUTE)]),
        ):
            # A backfill that waits will fetch the newest too.
            wanted = [
                task
                for task in group
                if work.twin_of(task) not in waiting and work.twin_of(replace(task, kind=Kind.BACKFILL)) not in waiting
            ]
            if wanted:
                receipts.append(self._jobs.submit(kind, wanted, origin="start"))
        return receipts

    def _wake(self) -> None:
        try:
            self.tick(self._jobs.clock())
            note_scheduler(self._database, gethostname(), self._jobs.clock())
        except MarketDataError as error:
            # Nothing is lost: the next wake-up finds the same due.
            log.warning("schedule_waits", error=str(error))

    def _queue_due(self, connection: Connection, state: dict[str, Any], now: datetime) -> list[Occasion]:
        last = datetime.fromisoformat(state["until"]) if "until" in state else now
        if last - now > CLOCKS_DIFFER:
            _start_again(connection, last, now)
            state, last = {**state, "until": now.isoformat()}, now
            write_state(connection, STATE, state, now)
        due = due_between(last, now, self._timetable)
        made = [occasion for occasion in due if self._queue(connection, occasion)]
        if due or "until" not in state:
            write_state(connection, STATE, {**state, "until": max(last, now).isoformat()}, now)
        return made

    def _coming(self, now: datetime) -> dict[Instrument, datetime | None]:
        """When candles of each tracked instrument are fetched next."""
        tracked = [one.instrument for one in self._agenda.tracked()]
        return {one: self._timetable.next_candles(one.asset_class, now) for one in tracked}

    def _queue(self, connection: Connection, occasion: Occasion) -> bool:
        waiting = work.already_queued(connection)
        tasks = [task for task in self._agenda.tasks(occasion) if work.twin_of(task) not in waiting]
        return self._jobs.enqueue(
            connection, uuid4(), KINDS[occasion.line], tasks, origin="schedule", occasion=occasion.name
        )

    def _mark(self, *, paused: bool, by: str) -> None:
        now = self._jobs.clock()
        with self._database.transaction() as connection:
            state = read_state(connection, STATE, lock=True)
            state.setdefault("until", now.isoformat())
            write_state(connection, STATE, {**state, "paused": paused, "by": by, "at": now.isoformat()}, now)


def _start_again(connection: Connection, last: datetime, now: datetime) -> None:
    """A scheduler's clock was ahead and was set right: what it did too early becomes due again when it is due."""
    log.warning(
        "clock_was_ahead",
        dealt_with_until=last.isoformat(),
        now=now.isoformat(),
        meaning="a scheduler on this database ran with a clock ahead of this one; from here on this one counts",
    )
    work.forget_occasions(connection, now)
    coverage.try_again(connection, now)


def past(task: Task, now: datetime) -> Task:
    """The backfill of a task's dataset over its default range."""
    start, end = plan_of(str(task.dataset)).span(now)
    return replace(task, kind=Kind.BACKFILL, start=start, end=end)
