"""A worker over the sandbox: what is queued gets done, counted, tried again, stopped and cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from market_data.bootstrap import App
from market_data.cli.following import failures, troubles
from market_data.cli.logs import configure_logs
from market_data.jobs import parts as parts_module
from market_data.jobs import worker as worker_module
from market_data.jobs.datasets import PLANS
from market_data.model.errors import SchemaMismatch
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.job import CANDLES_NAME, JobState, Kind, Outcome, Status, Task
from market_data.model.timeframe import Timeframe
from market_data.storage.work.tracked import most_active

NOW = datetime(2026, 11, 20, 18, 30, 15, tzinfo=UTC)
BTC = Instrument("BTC", AssetClass.CRYPTO)
KO = Instrument("KO", AssetClass.STOCK)


def day(year: int, month: int, number: int) -> datetime:
    return datetime(year, month, number, tzinfo=UTC)


async def worked(app: App) -> None:
    await asyncio.wait_for(app.worker().run(wait=False), 60)


def listeners(app: App) -> int:
    return len(
        app.database.rows("SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN %' "
                          "AND datname = current_database()")
    )  # fmt: skip


async def seen(condition: Callable[[], object], seconds: float = 60) -> None:
    """Watch from outside, as users do, until something can be seen."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # another process would see no event either
            await asyncio.sleep(0.01)


def state(app: App, job_id) -> JobState:
    job = app.jobs.job(job_id)
    assert job is not None
    return job


async def test_a_job_is_done_and_its_counts_are_the_rows(opened) -> None:
    async with opened() as app:
        receipt = app.jobs.trigger([BTC], [Timeframe.H1, Timeframe.D1], start=day(2019, 9, 1), end=day(2019, 9, 11))
        await worked(app)
        job = state(app, receipt.job_id)
        assert (job.status, job.errors) == (Status.COMPLETED, [])
        assert [part.counts["inserted"] for part in job.parts] == [240, 10]
        assert [list(part.sources) for part in job.parts] == [["binance"], ["binance"]]
        assert [(part.done, part.expected) for part in job.parts] == [(240, 240), (10, 10)]
        assert all(part.quality_score and part.quality_score > 0.5 for part in job.parts)
        assert len(app.database.rows("SELECT 1 FROM market_data_v2")) == 250
        assert [job.job_id for job in app.jobs.history(success=True)] == [receipt.job_id]


async def test_it_says_which_sources_it_asks(opened) -> None:
    query = "SELECT name, enabled, priorities, capabilities, title, updated_at FROM providers ORDER BY name"
    async with opened() as app:
        await worked(app)
        binance, polygon, yahoo = rows = app.database.rows(query)
        assert [row["name"] for row in rows if row["enabled"]] == ["binance", "polygon", "yahoo"]
        assert [row["priorities"].get("crypto") for row in rows] == [1, 2, 3]
        assert (polygon["priorities"]["stock"], yahoo["priorities"]["etf"], yahoo["title"]) == (1, 2, "Yahoo Finance")
        assert binance["capabilities"]["candles"]["timeframes"] == ["1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w"]
        assert binance["capabilities"]["funding_rates"]["asset_classes"] == ["crypto"]
    async with opened(now=NOW + timedelta(hours=1), providers__yahoo__enabled=False) as app:
        await worked(app)
        again = app.database.rows(query)
        assert [row["enabled"] for row in again] == [True, True, False]
        # What is the same was not written.
        assert [row["updated_at"] - NOW for row in again] == [timedelta(0), timedelta(0), timedelta(hours=1)]


async def test_a_waiting_worker_is_woken_by_what_is_queued(opened, monkeypatch) -> None:
    monkeypatch.setattr(worker_module, "POLL_SECONDS", 3600.0)  # it would not look by itself
    async with opened() as app:
        worker = app.worker()
        running = asyncio.create_task(worker.run())
        await seen(lambda: listeners(app), 10)
        receipt = app.jobs.trigger([BTC], [Timeframe.D1], start=day(2019, 9, 1), end=day(2019, 9, 11))
        await seen(lambda: state(app, receipt.job_id).status.final, 20)
        worker.stop()
        await asyncio.wait_for(running, 30)


async def test_a_backfill_finds_nothing_to_do_the_second_time(opened) -> None:
    tasks = [
        Task(
            kind=Kind.BACKFILL, instrument=instrument, timeframe=Timeframe.H1, dataset=CANDLES_NAME,
            start=day(2019, 9, 1), end=day(2019, 9, 11),
        )
        for instrument in (BTC, KO)
    ]  # fmt: skip
    async with opened() as app:
        first = app.jobs.submit(Kind.BACKFILL, tasks)
        await worked(app)
        fetches = len(app.database.rows("SELECT 1 FROM enrichment_fetch_log"))
        second = app.jobs.submit(Kind.BACKFILL, tasks)
        await worked(app)
        done, again = state(app, first.job_id), state(app, second.job_id)
        # Seven sessions of seven candles: 2019-09-02 was Labor Day.
        assert [part.counts["inserted"] for part in done.parts] == [240, 42]
        assert again.status is Status.COMPLETED
        assert [sum(part.counts.values()) for part in again.parts] == [0, 0]
        assert len(app.database.rows("SELECT 1 FROM enrichment_fetch_log")) == fetches
        assert {row["status"] for row in app.database.rows("SELECT status FROM backfill_state")} == {"completed"}


async def test_what_fails_for_good_is_said_and_the_others_go_on(opened) -> None:
    nobody = Instrument("NOSUCH", AssetClass.CRYPTO)
    async with opened() as app:
        receipt = app.jobs.trigger([nobody, BTC], [Timeframe.D1], start=day(2019, 9, 1), end=day(2019, 9, 11))
        await worked(app)
        job = state(app, receipt.job_id)
        assert (job.status, job.outcome) == (Status.COMPLETED, Outcome.PARTIAL)
        assert [part.status for part in job.parts] == [Status.FAILED, Status.COMPLETED]
        assert job.parts[0].attempts == 1
        assert "NOSUCH" in job.errors[0]


async def test_a_source_that_fails_for_now_is_asked_again_and_then_given_up(opened) -> None:
    # Nobody listens on port 9 (discard) of loopback.
    dead = {"providers__binance__rest_url": "http://127.0.0.1:9", "providers__binance__max_retries": 0,
            "providers__binance__breaker_seconds": 0, "instruments__priority__crypto": ["binance"],
            "enrichment__max_retries": 2}  # fmt: skip
    async with opened(**dead) as app:
        receipt = app.jobs.trigger([BTC], [Timeframe.D1], start=day(2019, 9, 1), end=day(2019, 9, 11))
        await worked(app)
        (part,) = state(app, receipt.job_id).parts
        # Once, and two more tries.
        assert (part.status, part.attempts) == (Status.FAILED, 3)
    async with opened() as app:
        retried = app.jobs.trigger([BTC], [Timeframe.D1], start=day(2019, 9, 1), end=day(2019, 9, 11))
        await worked(app)
        assert state(app, retried.job_id).status is Status.COMPLETED


async def test_cancelled_under_way_it_stops_at_its_next_commit(opened) -> None:
    async with opened(pipelines__batch_size=500) as app:
        receipt = app.jobs.trigger([BTC], [Timeframe.M5], start=day(2019, 6, 1), end=day(2019, 9, 1))
        worker = app.worker()
        running = asyncio.create_task(worker.run())
        await seen(lambda: app.database.rows("SELECT 1 FROM market_data_v2 LIMIT 1"))
        await asyncio.to_thread(app.jobs.cancel, receipt.job_id)
        await seen(lambda: state(app, receipt.job_id).status.final)
        stored = len(app.database.rows("SELECT 1 FROM market_data_v2"))
        worker.stop()
        await asyncio.wait_for(running, 30)
        (part,) = state(app, receipt.job_id).parts
        assert part.status is Status.CANCELLED
        # All that was committed is counted, nothing came after, and it was not all.
        assert sum(part.counts.values()) == stored == len(app.database.rows("SELECT 1 FROM market_data_v2"))
        assert 0 < stored < 92 * 288


async def test_stopped_under_way_it_goes_back_into_the_queue_and_ends_the_same(opened) -> None:
    span = {"start": day(2019, 6, 1), "end": day(2019, 7, 1)}
    async with opened(pipelines__batch_size=500) as app:
        receipt = app.jobs.trigger([BTC], [Timeframe.M5], **span)
        worker = app.worker()
        running = asyncio.create_task(worker.run())
        await seen(lambda: app.database.rows("SELECT 1 FROM market_data_v2 LIMIT 1"))
        worker.stop()
        await asyncio.wait_for(running, 30)
        (part,) = state(app, receipt.job_id).parts
        assert (part.status, part.attempts) == (Status.QUEUED, 0)
        # What is committed is told while it waits.
        stored = len(app.database.rows("SELECT 1 FROM market_data_v2"))
        assert (part.counts["inserted"], list(part.sources)) == (stored, ["binance"])
        await worked(app)
        (part,) = state(app, receipt.job_id).parts
        assert (part.status, part.counts["inserted"], list(part.sources)) == (
            Status.COMPLETED, 30 * 288, ["binance"],
        )  # fmt: skip


async def test_told_to_stop_it_does_not_wait_for_a_source_that_never_answers(opened, monkeypatch) -> None:
    async def never(*_: object, **__: object):
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr(parts_module, "COMMIT_SECONDS", 0.5)
    async with opened(jobs__drain_seconds=0.5) as app:
        for name in ("binance", "polygon"):
            monkeypatch.setattr(app.providers[name], "fetch_candles", never)
        receipt = app.jobs.trigger([BTC, KO], [Timeframe.D1], start=day(2019, 9, 1), end=day(2019, 9, 11))
        worker = app.worker()
        running = asyncio.create_task(worker.run())
        await seen(lambda: state(app, receipt.job_id).status is Status.IN_PROGRESS)
        worker.stop()
        # The time to drain, and that for a commit under way, as docs/operations.md says.
        await asyncio.wait_for(running, 0.5 + 0.5 + 5)
        assert {(part.status, part.attempts) for part in state(app, receipt.job_id).parts} == {(Status.QUEUED, 0)}


async def test_what_a_dead_worker_left_is_found_and_done(opened) -> None:
    async with opened() as app:
        receipt = app.jobs.trigger([BTC], [Timeframe.D1], start=day(2019, 9, 1), end=day(2019, 9, 11))
        # As kill -9 leaves it: taken by a worker that was alive a moment ago and holds no connection any more.
        with app.database.transaction() as connection:
            connection.execute("SELECT procrastinate_register_worker_v1()")
            connection.execute("SELECT procrastinate_fetch_job_v2(NULL, (SELECT id FROM procrastinate_workers))")
            connection.execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 second'")
            connection.execute("UPDATE job_parts SET status = 'in_progress'")
        await worked(app)
        assert state(app, receipt.job_id).status is Status.COMPLETED


async def test_it_makes_room_for_a_newer_program(opened) -> None:
    async with opened(pipelines__batch_size=500) as app:
        receipt = app.jobs.trigger([BTC], [Timeframe.M5], start=day(2019, 6, 1), end=day(2019, 9, 1))
        running = asyncio.create_task(app.worker().run())
        await seen(lambda: app.database.rows("SELECT 1 FROM market_data_v2 LIMIT 1"))
        with app.database.transaction() as connection:
            connection.execute("UPDATE market_data_schema SET version_num = '9999'")
        with pytest.raises(SchemaMismatch, match="install the newer program"):
            await asyncio.wait_for(running, 30)
        (part,) = state(app, receipt.job_id).parts
        assert part.status is Status.QUEUED


async def test_it_waits_while_somebody_migrates(opened) -> None:
    async with opened() as app:
        receipt = app.jobs.trigger([BTC], [Timeframe.D1], start=day(2019, 9, 1), end=day(2019, 9, 11))
        with app.database.transaction() as connection:
            # What an ALTER TABLE of a migration holds.
            connection.execute("LOCK TABLE market_data_v2, candles, job_parts IN ACCESS EXCLUSIVE MODE")
            working = asyncio.create_task(worked(app))
            done, _ = await asyncio.wait({working}, timeout=1)
            assert not done
        await working
        assert state(app, receipt.job_id).status is Status.COMPLETED


async def test_chores_run(opened) -> None:
    async with opened() as app:
        await app.enricher.enrich([BTC], [Timeframe.D1], day(2019, 9, 1), day(2019, 9, 11))
        kinds = (Kind.HEAL, Kind.RECOMPUTE, Kind.RETENTION)
        made = [app.jobs.submit(kind, [Task(kind=kind)]) for kind in kinds]
        week = Task(kind=Kind.RECONCILE, instrument=BTC, timeframe=Timeframe.D1, start=day(2019, 9, 1),
                    end=day(2019, 9, 11))  # fmt: skip
        made.append(app.jobs.submit(Kind.RECONCILE, [week]))
        await worked(app)
        assert [state(app, receipt.job_id).errors for receipt in made] == [[], [], [], []]
        (compared,) = state(app, made[-1].job_id).parts
        assert compared.notes[0].startswith("10 compared")


async def test_old_jobs_are_forgotten(opened) -> None:
    async with opened(now=datetime(2026, 11, 20, tzinfo=UTC) + timedelta(days=100)) as later:
        old = later.jobs.trigger([BTC], [Timeframe.D1])
        await asyncio.to_thread(later.jobs.cancel, old.job_id)
        with later.database.transaction() as connection:
            connection.execute("UPDATE jobs SET created_at = created_at - interval '99 days'")
            connection.execute("UPDATE job_parts SET finished_at = finished_at - interval '99 days'")
        later.jobs.submit(Kind.RETENTION, [Task(kind=Kind.RETENTION)])
        await worked(later)
        assert later.jobs.job(old.job_id) is None


async def test_what_the_plan_does_not_include_is_said_once_while_others_go_on(opened, capsys) -> None:
    # The sandbox's key of a free plan: no earnings, no options; and nobody else to ask.
    basic = {"providers__polygon__api_key": "basic", "instruments__priority__stock": ["polygon"]}
    span = {"kind": Kind.BACKFILL, "start": NOW - timedelta(days=30), "end": NOW}
    stocks = [Instrument(symbol, AssetClass.STOCK) for symbol in ("KO", "MSFT", "IBM")]
    tasks = [Task(instrument=one, dataset=name, **span) for name in ("options", "earnings") for one in stocks]
    tasks += [Task(instrument=one, timeframe=Timeframe.D1, dataset=CANDLES_NAME, **span) for one in stocks]
    async with opened(**basic) as app:
        configure_logs("WARNING", "json")
        receipt = app.jobs.submit(Kind.BACKFILL, tasks)
        await worked(app)
        job = state(app, receipt.job_id)
    assert (job.status, job.outcome) == (Status.COMPLETED, Outcome.PARTIAL)
    assert [part.status for part in job.parts] == [Status.FAILED] * 6 + [Status.COMPLETED] * 3
    assert [part.attempts for part in job.parts[:6]] == [1] * 6
    assert all("upgrade your plan" in (part.error or "") for part in job.parts[:6])
    told = [line for line in capsys.readouterr().err.splitlines() if '"part_failed"' in line]
    assert len(told) == 1
    lines = failures(job.parts)
    assert len(lines) == 1
    assert lines[0].startswith("KO options, MSFT options, IBM options, KO earnings and 2 more: polygon")
    assert troubles(job.parts) == []


async def test_option_chains_are_backfilled_by_the_one_of_now(opened) -> None:
    start, end = PLANS["options-iv"].span(NOW)
    async with opened() as app:
        task = Task(kind=Kind.BACKFILL, instrument=KO, dataset="options", start=start, end=end)
        first, again = (app.jobs.submit(Kind.BACKFILL, [task]) for _ in range(2))
        await worked(app)
        (part,), (nothing,) = state(app, first.job_id).parts, state(app, again.job_id).parts
        assert (part.status, part.counts["inserted"] > 100) == (Status.COMPLETED, True)
        # It is asked again, for no chain of now is that of a moment ago; the same one writes nothing.
        assert (nothing.status, nothing.counts["inserted"], nothing.counts["updated"]) == (Status.COMPLETED, 0, 0)


async def test_events_to_come_are_asked_for_and_nothing_fails_where_there_are_none(opened) -> None:
    async with opened() as app:
        receipts = []
        for name in ("splits", "dividends", "earnings"):
            start, end = PLANS[name].span(NOW)
            task = Task(kind=Kind.BACKFILL, instrument=KO, dataset=name, start=start, end=end)
            receipts += [app.jobs.submit(Kind.BACKFILL, [task])]
            later = Task(kind=Kind.BACKFILL, instrument=KO, dataset=name, start=end, end=end + timedelta(days=9))
            receipts += [app.jobs.submit(Kind.BACKFILL, [later])]
        await worked(app)
        found = [state(app, receipt.job_id) for receipt in receipts]
        assert [job.errors for job in found] == [[]] * 6


def test_the_most_active_come_first(database) -> None:
    symbols = [Instrument(symbol, AssetClass.STOCK) for symbol in ("A", "B", "C", "D")]
    day = "INSERT INTO market_data_v2 (symbol, asset_class, timeframe, timestamp, open, high, low, close, volume, "
    with database.transaction() as connection:
        for symbol, close, volume, age in (("B", 10, 5, 1), ("B", 10, 5, 2), ("C", 7, 13, 1), ("D", 900, 900, 40)):
            connection.execute(
                f"{day} source, revision, fetched_at, computed_at, updated_at, created_at) VALUES "
                "(%s, 'stock', '1d', %s, %s, %s, %s, %s, %s, 'polygon', 1, %s, %s, %s, %s)",
                [symbol, NOW - timedelta(days=age), *[close] * 4, volume, *[NOW] * 4],
            )
    found = most_active(database, symbols, 3, NOW - timedelta(days=30))
    assert [one.symbol for one in found] == ["B", "C", "A"]
