"""A worker that is stopped in the middle of a commit: others finish its work, and when it wakes it writes nothing."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from job_stage import PAUSE, SETTINGS, Stage, backfill, left_under_way, stage, tables, wait_for

from market_data.model.job import Status
from market_data.storage.work.owners import COMMIT_LOCK

COMMITTING = (
    "SELECT DISTINCT a.pid FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.locktype = 'advisory' "
    f"AND l.classid = {COMMIT_LOCK} AND l.granted"
)


def stopped_in_a_commit(stage: Stage, name: str) -> int:
    """SIGSTOP a program while one of its transactions holds its run; returns the connection."""
    process = stage.processes[name]
    for _ in range(4000):
        if stage.app.database.rows(COMMITTING):
            os.kill(process.pid, signal.SIGSTOP)
            # What was on its way may have been committed before it stood still.
            time.sleep(0.05)
            if found := stage.app.database.rows(COMMITTING):
                return int(found[0]["pid"])
            os.kill(process.pid, signal.SIGCONT)
        PAUSE.wait(0.002)
    pytest.fail("never caught in a commit")


def stopped_and_woken(home: Path, monkeypatch: pytest.MonkeyPatch, *, stalled: float, times: int, days: int) -> None:
    settings: dict[str, Any] = {**SETTINGS, "jobs.stalled_seconds": stalled}
    monkeypatch.setattr("job_stage.SETTINGS", settings)
    with stage(home / "calm") as calm:
        job_id = backfill(calm.app, 4, days)
        calm.app.run(calm.app.worker().run(wait=False))
        assert wait_for(calm, job_id, 1).errors == []
        wanted = tables(calm.app)
    with stage(home / "hung") as hung:
        job_id = backfill(hung.app, 4, days)
        freed = []
        for count in range(times):
            first, second = f"worker{count}", f"worker{count + 1}"
            if first not in hung.processes:
                hung.start(first, "worker")
            held = stopped_in_a_commit(hung, first)
            stood = time.monotonic()
            hung.start(second, "worker")
            while hung.app.database.rows("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [held]):
                assert time.monotonic() - stood < 10 * stalled, "it keeps what it held"
                time.sleep(0.02)
            freed.append(time.monotonic() - stood)
            PAUSE.wait(random.Random(count).uniform(0, 1))
            os.kill(hung.processes[first].pid, signal.SIGCONT)
        job = wait_for(hung, job_id, 300)
        PAUSE.wait(1.5)
        hung.end()
        got = tables(hung.app)
        left = left_under_way(hung.app)
        revisions = hung.app.database.rows("SELECT max(revision) AS most FROM market_data_v2")[0]["most"]
    print(f"stopped {times} times in a commit; freed after {', '.join(f'{each:.1f}' for each in freed)} s")
    assert (job.status, job.errors) == (Status.COMPLETED, [])
    assert (left, revisions) == (0, 1)
    assert sum(part.counts["inserted"] for part in job.parts) == len(wanted["market_data_v2"]) > 0
    for name, rows in wanted.items():
        assert got[name] == rows, name


def test_a_stopped_worker_frees_its_instrument_and_writes_nothing_late(
    data_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_and_woken(data_home, monkeypatch, stalled=1.5, times=1, days=45)


@pytest.mark.prove
def test_stopped_again_and_again_with_the_silence_of_five_seconds(
    data_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_and_woken(data_home, monkeypatch, stalled=5, times=5, days=150)
