"""Owners: what the dead and the hung left is closed, their locks are free, and the living are left alone."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from market_data.model.errors import LeaseLost, MarketDataError
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.job import Kind, Task
from market_data.model.timeframe import Timeframe
from market_data.storage.server.database import Database
from market_data.storage.work import jobs as work
from market_data.storage.work import owners
from market_data.storage.work.owner import Owner
from market_data.storage.work.owners import Closed, close_orphans
from market_data.storage.work.runs import hold_run, start_run

BTC = Instrument("BTC", AssetClass.CRYPTO)
NOW = datetime(2026, 11, 20, 18, tzinfo=UTC)
LIVES = """
import sys
from datetime import UTC, datetime
from market_data.storage.server.database import Database
from market_data.storage.work.owner import Owner
with Database.open(sys.argv[1], None) as database:
    print(Owner(database, lambda: datetime.now(UTC)).number, flush=True)
    sys.stdin.read()
"""


def clock() -> datetime:
    return NOW


@contextmanager
def process(database_url: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that owns something, and its number."""
    started = subprocess.Popen(
        [sys.executable, "-c", LIVES, database_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    try:
        yield started, int(started.stdout.readline())
    finally:
        started.kill()
        started.communicate()


def begin(database: Database, owner: int | None, run_id: UUID | None = None) -> UUID:
    run_id = run_id or uuid4()
    with database.transaction() as connection:
        start_run(connection, run_id, "enrich", BTC, NOW, timeframe=Timeframe.H1, owner=owner)
    return run_id


def status(database: Database, run_id: UUID) -> tuple[str, str | None]:
    (row,) = database.rows("SELECT status, error FROM runs WHERE id = %s", [run_id])
    return row["status"], row["error"]


def test_who_was_killed_is_found_at_once_and_who_lives_is_left_alone(database: Database, database_url: str) -> None:
    with process(database_url) as (killed, number), process(database_url) as (_, living):
        run, other = begin(database, number), begin(database, living)
        assert close_orphans(database, 60.0, NOW) == Closed()
        killed.kill()
        killed.wait()
        assert close_orphans(database, 60.0, NOW) == Closed(owners=1, runs=1)
        assert status(database, run) == ("failed", "its process ended before it did")
        assert status(database, other) == ("in_progress", None)


def test_what_was_left_by_a_program_that_knew_no_owners_is_closed(database: Database) -> None:
    run = begin(database, None)
    database.rows(
        "INSERT INTO backfill_state (symbol, asset_class, timeframe, backfill_job_id, start_date, end_date, status) "
        "VALUES ('BTC', 'crypto', '1h', %s, now(), now(), 'in_progress')",
        [run],
    )
    assert close_orphans(database, 60.0, NOW) == Closed(runs=1, backfills=1)
    (backfill,) = database.rows("SELECT status, error_message AS error FROM backfill_state")
    assert tuple(backfill.values()) == ("failed", "its process ended before it did")


def test_a_part_goes_back_to_where_it_waits_and_its_backfill_with_it(database: Database) -> None:
    job, run = uuid4(), uuid4()
    task = Task(
        kind=Kind.BACKFILL, instrument=BTC, timeframe=Timeframe.H1, dataset="candles", start=NOW, end=NOW
    )  # fmt: skip
    with database.transaction() as connection:
        work.insert_job(connection, job, Kind.BACKFILL, "user", None, NOW)
        work.insert_parts(connection, job, [(run, 1, task)], NOW)
        work.begin_part(connection, job, 0, 4_711, NOW)
    assert close_orphans(database, 60.0, NOW) == Closed(parts=1, backfills=1)
    assert database.rows("SELECT status FROM job_parts")[0]["status"] == "queued"
    assert database.rows("SELECT status FROM backfill_state")[0]["status"] == "pending"
    with database.transaction() as connection:
        work.begin_part(connection, job, 0, 4_712, NOW)
        # Whoever had it before wakes up: it is another's now.
        work.requeue_part(connection, run, 4_711, "late", counts_as_try=True)
        assert not work.end_part(connection, run, 4_711, work.Status.COMPLETED, NOW)
    (part,) = database.rows("SELECT status, attempts, owner FROM job_parts")
    assert tuple(part.values()) == ("in_progress", 0, 4_712)


def test_who_hangs_in_a_commit_is_ended_and_frees_what_it_held(database: Database, database_url: str) -> None:
    owner = Owner(database, clock)
    run = begin(database, owner.number)
    hangs, seen = threading.Event(), threading.Event()
    found: list[BaseException] = []

    def commit() -> None:
        try:
            with database.transaction() as connection:
                hold_run(connection, run, owner.number)
                connection.execute("SELECT pg_advisory_xact_lock(4711)")
                seen.set()
                hangs.wait(30)
                connection.execute("UPDATE runs SET error = 'written late'")
        except MarketDataError as error:
            found.append(error)

    thread = threading.Thread(target=commit)
    thread.start()
    assert seen.wait(10)
    database.rows("UPDATE owners SET heard_at = heard_at - interval '61 s'")
    assert close_orphans(database, 60.0, NOW) == Closed(owners=1, runs=1)
    with psycopg.connect(database_url) as other:
        assert other.execute("SELECT pg_try_advisory_xact_lock(4711)").fetchone() == (True,)
    hangs.set()
    thread.join(30)
    assert len(found) == 1, "its connection was ended"
    assert status(database, run) == ("failed", "its process ended before it did")


def test_it_gets_another_number_and_cannot_go_on_with_what_was_taken(database: Database) -> None:
    owner = Owner(database, clock)
    run, before = begin(database, owner.number), owner.number
    database.rows("UPDATE owners SET heard_at = heard_at - interval '61 s'")
    close_orphans(database, 60.0, NOW)
    with pytest.raises(MarketDataError):
        owner._beat()
    owner._beat()
    assert owner.number != before
    with pytest.raises(LeaseLost), database.transaction() as connection:
        hold_run(connection, run, before)
    with pytest.raises(LeaseLost), database.transaction() as connection:
        hold_run(connection, run, owner.number)


def test_a_lost_session_is_taken_up_again_under_the_same_number(database: Database) -> None:
    owner = Owner(database, clock)
    before = owner.number
    assert owner._connection is not None
    owner._connection.close()
    owner._beat()
    assert owner.number == before
    assert close_orphans(database, 60.0, NOW) == Closed()


def test_who_leaves_closes_what_is_still_open(database: Database) -> None:
    owner = Owner(database, clock)
    run = begin(database, owner.number)
    owner.close()
    assert status(database, run)[0] == "failed"
    assert database.rows("SELECT 1 FROM owners") == []


def test_a_database_that_may_only_be_read_is_opened_all_the_same(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from market_data.storage.work.owner import open_owner

    begin(database, None)
    closing: Any = owners._close

    def refused(connection: Any, now: datetime) -> Any:
        connection.execute("SET TRANSACTION READ ONLY")
        return closing(connection, now)

    monkeypatch.setattr(owners, "_close", refused)
    open_owner(database, clock, 5.0, 60.0)
