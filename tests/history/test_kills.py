"""kill -9 at every step of a write, of the program and of PostgreSQL: afterwards all is as if nobody was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from history_desk import Desk, clear, state
from history_scenario import ACTED, act, prepare, prepare_time
from history_steps import killing_at, stepping

from market_data.model.errors import DatabaseReadOnly, DatabaseUnavailable
from market_data.pipeline.write.derive import Shelves
from market_data.storage.server.database import Database
from market_data.storage.server.migrate import upgrade
from market_data.storage.server.postmaster import Postmaster

# In `make test` a few of the steps, in `make prove` every one.
SOME = 16
REPORT_EVERY = 10


class Course:
    """The scenario's states, undisturbed: before, after, and the steps between."""

    def __init__(self, database: Database, shelves: Shelves) -> None:
        self.database, self.shelves = database, shelves
        self.restart()
        self.before = state(database)
        self.steps: list[str] = []
        with stepping(database, self.steps.append):
            assert act(self.desk()) == ACTED
        self.after = state(database)
        assert all(self.after[table] for table in self.after if table != "recompute_due")

    def restart(self) -> None:
        """Back to the state before the write."""
        clear(self.database)
        prepare(Desk(self.database, self.shelves))

    def desk(self) -> Desk:
        """A desk at the time of the write."""
        desk = Desk(self.database, self.shelves)
        prepare_time(desk)
        return desk

    def check(self, step: int) -> bool:
        """All or nothing now, and all after doing it again; returns whether it was all."""
        found = state(self.database)
        name = f"step {step}: {self.steps[step - 1]}"
        assert found in (self.before, self.after), name
        again = act(self.desk())
        assert again.fetched == ACTED.fetched, name
        assert state(self.database) == self.after, name
        return found == self.after


def told(steps: range) -> Iterator[int]:
    """The steps, with a line now and then: on a busy machine a sweep takes minutes."""
    started = time.monotonic()
    for done, step in enumerate(steps):
        if done and done % REPORT_EVERY == 0:
            print(f"{done} of {len(steps)} steps in {time.monotonic() - started:.0f} s", flush=True)
        yield step


def kill_the_program(database_url: str, course: Course, steps: range) -> list[bool]:
    committed = []
    for step in told(steps):
        course.restart()
        script = Path(__file__).with_name("history_scenario.py")
        ended = subprocess.run([sys.executable, str(script), database_url, str(step)], capture_output=True, check=False)
        assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
        committed.append(course.check(step))
    return committed


def kill_postgres(course: Course, steps: range) -> list[bool]:
    assert course.database.server is not None
    cluster = course.database.server.cluster
    committed = []
    for step in told(steps):
        course.restart()
        with stepping(course.database, killing_at(step, lambda: processes_of(cluster))), suppress(DatabaseUnavailable):
            act(course.desk())
        wait_until_back(course.database)
        committed.append(course.check(step))
    return committed


def processes_of(cluster: Path) -> list[int]:
    """PostgreSQL's main process and its children."""
    server = Postmaster.of(cluster)
    assert server is not None
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(server.pid)], capture_output=True, text=True, check=True)
    return [server.pid, *map(int, listed.stdout.split())]


def wait_until_back(database: Database) -> None:
    """Ask until the killed server is revived; a call in the middle of that is told to try again."""
    for _ in range(100):
        with suppress(DatabaseUnavailable):
            database.rows("SELECT 1")
            return
        time.sleep(0.1)
    pytest.fail("the server did not come back")


def test_killing_the_program_at_some_steps(database: Database, database_url: str, shelves: Shelves) -> None:
    course = Course(database, shelves)
    committed = kill_the_program(database_url, course, range(9, len(course.steps) + 1, SOME))
    assert not any(committed[:-1])


@pytest.mark.prove
def test_killing_the_program_at_every_step(
    database: Database, database_url: str, shelves: Shelves, record_property: Any
) -> None:
    course = Course(database, shelves)
    committed = kill_the_program(database_url, course, range(1, len(course.steps) + 1))
    # Only when killed just after the commit is it done.
    assert committed == [False] * (len(committed) - 1) + [True]
    record_property("steps_killed_program", len(committed))
    print(f"program killed at each of {len(committed)} steps")


@pytest.fixture
def own_server(data_home: Path) -> Iterator[Database]:
    with Database.open(None, data_home) as database:
        upgrade(database)
        yield database


def test_killing_postgres_at_some_steps(own_server: Database, shelves: Shelves) -> None:
    course = Course(own_server, shelves)
    kill_postgres(course, range(12, len(course.steps) + 1, 2 * SOME))


@pytest.mark.prove
def test_killing_postgres_at_every_step(own_server: Database, shelves: Shelves, record_property: Any) -> None:
    course = Course(own_server, shelves)
    committed = kill_postgres(course, range(1, len(course.steps) + 1))
    record_property("steps_killed_postgres", len(committed))
    print(f"PostgreSQL killed at each of {len(committed)} steps; {sum(committed)} of the writes were done")


def lose_the_connection(course: Course, steps: range) -> None:
    """The server ends the connection before a step: the caller is told, and nothing is half written."""
    for step in told(steps):
        course.restart()
        count = 0

        def ending(_name: str, step: int = step) -> None:
            nonlocal count
            count += 1
            if count == step:
                with psycopg.connect(course.database.conninfo(), autocommit=True) as other:
                    other.execute(
                        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                        "AND datname = current_database()"
                    )

        with stepping(course.database, ending), suppress(DatabaseUnavailable):
            act(course.desk())
        course.check(step)


def test_losing_the_connection_at_some_steps(database: Database, shelves: Shelves) -> None:
    course = Course(database, shelves)
    lose_the_connection(course, range(5, len(course.steps) + 1, SOME))


@pytest.mark.prove
def test_losing_the_connection_at_every_step(database: Database, shelves: Shelves) -> None:
    course = Course(database, shelves)
    lose_the_connection(course, range(1, len(course.steps) + 1))
    print(f"connection lost at each of {len(course.steps)} steps")


def test_a_database_that_turns_read_only(database: Database, shelves: Shelves) -> None:
    course = Course(database, shelves)
    course.restart()
    name = database.rows("SELECT current_database() AS name")[0]["name"]
    database.rows(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with Database.open(database.conninfo(), None) as refusing, pytest.raises(DatabaseReadOnly, match="no writes"):
        act(replaced(course.desk(), refusing))
    database.rows(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    assert state(database) == course.before


def replaced(desk: Desk, database: Database) -> Desk:
    """The same desk over another connection."""
    other = Desk(database, desk.shelves, desk.series)
    other.now = desk.now
    return other
