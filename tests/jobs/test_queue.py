"""The queue: what is asked for is there at once, whole, and is cancelled whole."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from market_data.jobs.queue import Jobs
from market_data.model.errors import UsageError
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.job import Kind, Status, Task
from market_data.model.timeframe import Timeframe
from market_data.storage.server.database import Database

NOW = datetime(2026, 11, 20, 18, 30, 15, tzinfo=UTC)
BTC = Instrument("BTC", AssetClass.CRYPTO)
ETH = Instrument("ETH", AssetClass.CRYPTO)


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database, lambda: NOW)


def queued(database: Database) -> list[tuple[object, ...]]:
    rows = database.rows("SELECT task_name, priority, lock, status::text, args FROM procrastinate_jobs ORDER BY id")
    return [tuple(row.values()) for row in rows]


def test_every_series_is_a_part_with_a_lock_of_its_own(database: Database, jobs: Jobs) -> None:
    receipt = jobs.trigger([BTC, ETH], [Timeframe.H1, Timeframe.D1])
    job_id = str(receipt.job_id)
    assert queued(database) == [
        ("market_data.enrich", 40, "candles/BTC/crypto/1h", "todo", {"job_id": job_id, "number": 0}),
        ("market_data.enrich", 40, "candles/BTC/crypto/1d", "todo", {"job_id": job_id, "number": 1}),
        ("market_data.enrich", 40, "candles/ETH/crypto/1h", "todo", {"job_id": job_id, "number": 2}),
        ("market_data.enrich", 40, "candles/ETH/crypto/1d", "todo", {"job_id": job_id, "number": 3}),
    ]
    job = jobs.job(receipt.job_id)
    assert job is not None
    assert (job.status, job.symbols, job.timeframes) == (
        Status.QUEUED,
        ["BTC", "ETH"],
        [Timeframe.H1, Timeframe.D1],
    )


def test_the_receipt_says_how_many_candles_are_to_come(jobs: Jobs) -> None:
    start, end = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC)
    receipt = jobs.trigger([BTC, ETH], [Timeframe.H1, Timeframe.D1], start=start, end=end)
    # Two instruments, two days: 48 hours and 2 days each.
    assert (receipt.total_records, receipt.estimated_seconds) == (100, None)


def test_a_job_without_parts_is_refused(database: Database, jobs: Jobs) -> None:
    with pytest.raises(UsageError, match="1 to 10,000 parts"):
        jobs.trigger([], [Timeframe.H1])
    assert database.rows("SELECT * FROM jobs") == []


def test_an_occasion_makes_one_job(database: Database, jobs: Jobs) -> None:
    tasks = [Task(kind=Kind.RECOMPUTE)]
    made = []
    for _ in range(2):
        with database.transaction() as connection:
            made.append(
                jobs.enqueue(connection, uuid4(), Kind.RECOMPUTE, tasks, origin="schedule", occasion="recompute@noon")
            )
    assert made == [True, False]
    assert len(queued(database)) == 1


def test_nothing_is_queued_when_the_transaction_fails(database: Database, jobs: Jobs) -> None:
    with suppress(ZeroDivisionError), database.transaction() as connection:
        assert jobs.enqueue(connection, uuid4(), Kind.HEAL, [Task(kind=Kind.HEAL)], origin="user")
        raise ZeroDivisionError
    assert (queued(database), jobs.jobs()) == ([], [])


def test_a_cancelled_job_never_begins(database: Database, jobs: Jobs) -> None:
    receipt = jobs.trigger([BTC], [Timeframe.H1])
    job = jobs.cancel(receipt.job_id)
    assert job is not None
    assert job.status is Status.CANCELLED
    assert [row[3] for row in queued(database)] == ["cancelled"]
    assert jobs.cancel(uuid4()) is None
    assert [job.job_id for job in jobs.history(success=False)] == [receipt.job_id]
    assert jobs.history(success=True) == []
    assert jobs.history(symbol="ETH") == []
    assert [job.job_id for job in jobs.jobs(status=Status.CANCELLED)] == [receipt.job_id]


def test_jobs_are_found_by_the_status_they_show(database: Database, jobs: Jobs) -> None:
    mixtures = [
        ["queued", "queued"],
        ["queued", "completed"],
        ["in_progress", "failed"],
        ["completed", "completed"],
        ["failed", "cancelled"],
        ["cancelled", "completed"],
    ]
    for mixture in mixtures:
        receipt = jobs.trigger([BTC], [Timeframe.H1, Timeframe.D1])
        with database.transaction() as connection:
            for number, status in enumerate(mixture):
                connection.execute(
                    "UPDATE job_parts SET status = %s WHERE job_id = %s AND number = %s",
                    [status, receipt.job_id, number],
                )
    with database.transaction() as connection:
        jobs.enqueue(connection, uuid4(), Kind.HEAL, [], origin="schedule", occasion="nothing to heal")
    every = jobs.jobs()
    assert len(every) == 7
    found = {status: sorted(job.job_id for job in jobs.jobs(status=status)) for status in Status}
    shown = {status: sorted(job.job_id for job in every if job.status is status) for status in Status}
    assert found == shown
    assert {status: len(ids) for status, ids in found.items()} == {
        Status.QUEUED: 1,
        Status.IN_PROGRESS: 2,
        Status.COMPLETED: 2,
        Status.FAILED: 1,
        Status.CANCELLED: 1,
    }
