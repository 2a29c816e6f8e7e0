"""kill -9 of worker, scheduler and database in turn, with faulty sources: the tables are an undisturbed run's."""

from __future__ import annotations

import random
from pathlib import Path
from uuid import UUID

import pytest
from job_stage import FAULTS, PAUSE, Stage, backfill, left_under_way, stage, tables, wait_for

from market_data.model.job import Status


def disturb(stage: Stage, job_id: UUID, kills: int, chance: random.Random) -> int:
    """Kill one after the other whenever the work has come a little further; returns how many while it was under way."""
    names = ("worker", "scheduler", "database")
    for done in range(kills):
        wanted = stage.fetches() + chance.randint(1, 12)
        for _ in range(1200):
            job = stage.job(job_id)
            if job is not None and job.status.final:
                return done
            if stage.fetches() >= wanted:
                break
            PAUSE.wait(0.05)
        PAUSE.wait(chance.uniform(0, 0.2))
        stage.kill(names[done % len(names)])
    return kills


def compare_with_undisturbed(home: Path, *, symbols: int, days: int, kills: int, seed: int) -> None:
    with stage(home / "calm") as calm:
        job_id = backfill(calm.app, symbols, days)
        calm.app.run(calm.app.worker().run(wait=False))
        assert wait_for(calm, job_id, 1).errors == []
        wanted = tables(calm.app)
    with stage(home / "stormy", FAULTS) as stormy:
        job_id = backfill(stormy.app, symbols, days)
        for name in ("worker", "scheduler"):
            stormy.start(name)
        killed = disturb(stormy, job_id, kills, random.Random(seed))
        job = wait_for(stormy, job_id, 1800)
        stormy.end()
        got = tables(stormy.app)
        assert left_under_way(stormy.app) == 0
        queue = stormy.app.database.rows(
            "SELECT count(*) AS left FROM procrastinate_jobs WHERE status IN ('todo', 'doing')"
        )
        revisions = stormy.app.database.rows("SELECT max(revision) AS most FROM market_data_v2")
    assert killed == kills
    assert (job.status, job.errors) == (Status.COMPLETED, [])
    assert sum(part.counts["inserted"] for part in job.parts) == len(wanted["market_data_v2"]) > 0
    assert (queue[0]["left"], revisions[0]["most"]) == (0, 1)
    for name, rows in wanted.items():
        assert got[name] == rows, name


def test_kill_each_in_turn(data_home: Path) -> None:
    compare_with_undisturbed(data_home, symbols=4, days=45, kills=3, seed=20261121)


@pytest.mark.prove
def test_kill_a_hundred_times(data_home: Path) -> None:
    compare_with_undisturbed(data_home, symbols=50, days=150, kills=100, seed=20261122)
