"""The vocabulary of jobs: what kinds there are, the task of one part, and the state that is reported of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe

CANDLES_NAME: Final = "candles"


class Kind(StrEnum):
    """What a job does."""

    ENRICH = "enrich"
    BACKFILL = "backfill"
    HEAL = "heal"
    RECOMPUTE = "recompute"
    RECONCILE = "reconcile"
    RETENTION = "retention"
    LISTS = "lists"

    @property
    def priority(self) -> int:
        """The higher, the sooner; what streams ask for goes before all of them (`LIVE_PRIORITY`)."""
        return _PRIORITIES[self]


LIVE_PRIORITY: Final = 50
_PRIORITIES: Final = {
    Kind.ENRICH: 40,
    Kind.HEAL: 30,
    Kind.BACKFILL: 20,
    Kind.LISTS: 15,
    Kind.RECONCILE: 10,
    Kind.RECOMPUTE: 5,
    Kind.RETENTION: 0,
}


class Status(StrEnum):
    """Where a job or a part of one stands."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """True when nothing more will come of it."""
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


class Outcome(StrEnum):
    """How good what became of a job or a part of one is."""

    SUCCESS = "success"
    PARTIAL = "partial"
    FAILED = "failed"


# Rows that were fetched and are stored now, or were before.
STORED: Final = ("inserted", "updated", "unchanged", "kept")


def outcome_of(outcomes: Iterable[Outcome]) -> Outcome:
    """That of several together: partial as soon as they differ."""
    found = set(outcomes)
    return found.pop() if len(found) == 1 else Outcome.PARTIAL if found else Outcome.SUCCESS


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one part of a job is to do.

    Attributes:
        dataset: name of the dataset fetched; None where the kind fetches none.
        start: first moment wanted; None continues from what is stored.
        end: exclusive; None means the present.
        again: whether what was asked for before is asked for anew; what a list of events then lacks, twice.
    """

    kind: Kind
    instrument: Instrument | None = None
    timeframe: Timeframe | None = None
    dataset: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    again: bool = False

    @property
    def series(self) -> Series | None:
        """The series it is about, None when it is about none."""
        if self.instrument is None or self.timeframe is None:
            return None
        return Series(self.instrument, self.timeframe)

    @property
    def lock(self) -> str:
        """Parts with the same lock are never worked on at the same time."""
        if self.instrument is None:
            return self.kind.value
        name = f"{self.instrument.symbol}/{self.instrument.asset_class}"
        if self.timeframe is not None:
            return f"{CANDLES_NAME}/{name}/{self.timeframe}"
        return f"{self.dataset}/{name}"

    def __str__(self) -> str:
        names = [str(self.series or (self.instrument.symbol if self.instrument else ""))]
        if self.dataset not in (None, CANDLES_NAME):
            names.append(str(self.dataset))
        return " ".join(name for name in names if name) or self.kind.value


@dataclass(frozen=True, slots=True, kw_only=True)
class PartState:
    """One part of a job: its task and what became of it so far."""

    number: int
    run_id: UUID
    task: Task
    status: Status
    attempts: int = 0
    done: int | None = None
    expected: int | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    sources: Sequence[str] = ()
    quality_score: float | None = None
    gaps: int | None = None
    notes: Sequence[str] = ()
    error: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def outcome(self) -> Outcome:
        """How good it is: partial where rows were refused, candles are missing, or it failed half-way."""
        stored = any(self.counts.get(name) for name in STORED)
        if self.status is Status.COMPLETED:
            rejected = bool(self.counts.get("rejected"))
            if rejected and not stored:
                return Outcome.FAILED
            return Outcome.PARTIAL if rejected or self.gaps else Outcome.SUCCESS
        return Outcome.PARTIAL if stored else Outcome.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """A job and its parts.

    Attributes:
        origin: who asked: user, api, schedule.
        occasion: the due moment of the schedule it stands for.
    """

    job_id: UUID
    kind: Kind
    origin: str
    occasion: str | None
    created_at: datetime
    parts: Sequence[PartState]

    @property
    def status(self) -> Status:
        """That of its parts together: failed when none went well; what failed of the others is in `errors`."""
        found = {part.status for part in self.parts}
        if found & {Status.QUEUED, Status.IN_PROGRESS}:
            return Status.QUEUED if found == {Status.QUEUED} else Status.IN_PROGRESS
        if Status.FAILED in found and Status.COMPLETED not in found:
            return Status.FAILED
        return Status.CANCELLED if Status.CANCELLED in found else Status.COMPLETED

    @property
    def outcome(self) -> Outcome | None:
        """How good it is, None while it is not over."""
        return outcome_of(part.outcome for part in self.parts) if self.status.final else None

    @property
    def symbols(self) -> list[str]:
        """Symbols of its parts, each once."""
        return list(dict.fromkeys(part.task.instrument.symbol for part in self.parts if part.task.instrument))

    @property
    def asset_class(self) -> AssetClass | None:
        """The asset class, None when there are several or none."""
        found = {part.task.instrument.asset_class for part in self.parts if part.task.instrument}
        return found.pop() if len(found) == 1 else None

    @property
    def timeframes(self) -> list[Timeframe]:
        """Timeframes of its parts, each once."""
        return list(dict.fromkeys(part.task.timeframe for part in self.parts if part.task.timeframe))

    @property
    def errors(self) -> list[str]:
        """One line per part that failed."""
        return [f"{part.task}: {part.error}" for part in self.parts if part.error]

    @property
    def started_at(self) -> datetime | None:
        """When the first part began."""
        return min((part.started_at for part in self.parts if part.started_at), default=None)

    @property
    def finished_at(self) -> datetime | None:
        """When the last part ended; None while one has not."""
        if not self.status.final:
            return None
        return max((part.finished_at for part in self.parts if part.finished_at), default=self.created_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReceipt:
    """What is known of a job when it was queued.

    Attributes:
        total_records: candles expected between what is stored and the end asked for; None where it cannot be told.
        estimated_seconds: at the pace of recent parts; None before there were any.
    """

    job_id: UUID
    kind: Kind
    tasks: Sequence[Task]
    total_records: int | None
    estimated_seconds: float | None
    timestamp: datetime
    status: Status = Status.QUEUED
