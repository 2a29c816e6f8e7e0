"""The scheduler over simulated weeks: exactly the expected jobs, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from market_data.bootstrap import App
from market_data.jobs.queue import Jobs
from market_data.jobs.schedule import Agenda, Scheduler
from market_data.jobs.timetable import Timetable
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe
from market_data.pipeline.read.status import Standings
from market_data.storage.server.database import Database
from market_data.storage.work import audit
from market_data.storage.work.switches import note_scheduler, scheduler_state
from market_data.storage.work.tracked import track, tracked, untrack

BTC = Instrument("BTC", AssetClass.CRYPTO)
KO = Instrument("KO", AssetClass.STOCK)
TIMETABLE = Timetable()
TICK = timedelta(minutes=20)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class Simulated:
    """A scheduler whose time is made here; what it queues counts as done at once."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = utc("2025-11-01T00:00")
        self.jobs = Jobs(database, lambda: self.now)
        agenda = Agenda(database, {}, lambda: tracked(database, {KO: (Timeframe.D1,)}))
        self.one, self.other = (Scheduler(self.jobs, agenda, Timetable()) for _ in range(2))

    def until(self, text: str) -> None:
        """Let time pass, both schedulers awake."""
        while self.now < utc(text):
            self.now += TICK
            self.one.tick(self.now)
            self.other.tick(self.now)
            with self.database.transaction() as connection:
                connection.execute("UPDATE job_parts SET status = 'completed' WHERE status = 'queued'")

    def made(self) -> list[tuple[str, list[str]]]:
        """Every job in the order of its occasions: which, and the series of its parts."""
        rows = self.database.rows(
            "SELECT occasion, split_part(occasion, '@', 2) AS at, (SELECT coalesce(array_agg(coalesce(symbol || ' ' || "
            "timeframe, kind) ORDER BY number), '{}') FROM job_parts p WHERE p.job_id = j.id) AS parts FROM jobs j "
            "ORDER BY at, occasion"
        )
        return [(row["occasion"], row["parts"]) for row in rows]


PARTS = {
    "after_close/XNYS": ["KO 1d"],
    "crypto": ["BTC 1h", "BTC 4h"],
    "daily": ["KO 1d"],
    "events": [],
    "heal": [],
    "lists": ["lists"],
    "recompute": ["recompute"],
    "reconcile": ["BTC 1h", "BTC 4h", "KO 1d"],
    "reference": [],
    "retention": ["retention"],
}


def expected(start: str, end: str, closes: list[str]) -> Iterator[tuple[str, list[str]]]:
    """What the user's documents say is due in (start, end], written out; closes are given."""
    found = {f"after_close/XNYS@{close}Z" for close in closes}
    hour = utc(start).replace(minute=0)
    while hour <= utc(end):
        due = {"crypto": 5, "heal": 20, "recompute": 40}
        if hour.hour == 0:
            due["lists"] = 45
        if hour.hour == 1:
            due["daily"] = 30
        if hour.hour == 2:
            due["reference"] = 30
        if hour.hour == 3:
            due["retention"] = 15
        if hour.hour == 4 and hour.isoweekday() == 6:
            due["events"] = 0
        if hour.hour == 5 and hour.isoweekday() == 7:
            due["reconcile"] = 0
        for line, minute in due.items():
            at = hour + timedelta(minutes=minute)
            if utc(start) < at <= utc(end):
                found.add(f"{line}@{at:%Y-%m-%dT%H:%MZ}")
        hour += timedelta(hours=1)
    for name in sorted(found, key=lambda name: (name.partition("@")[2], name)):
        yield name, PARTS[name.partition("@")[0]]


@pytest.fixture
def time(database: Database) -> Simulated:
    track(database, [BTC], [Timeframe.H1, Timeframe.H4], utc("2025-11-01T00:00"))
    return Simulated(database)


def test_weeks_with_two_schedulers_a_dst_change_sleep_a_pause_a_holiday_and_a_half_day(time: Simulated) -> None:
    time.until("2025-11-05T00:00")
    # New York left summer time on the 2nd: the close moved from 20:00 to 21:00 UTC. The 1st was a Saturday.
    wanted = list(expected("2025-11-01T00:20", "2025-11-05T00:00", ["2025-11-03T21:15", "2025-11-04T21:15"]))
    assert time.made() == wanted

    # The machine sleeps for three weeks and wakes on a Wednesday noon: every line is caught up once.
    time.now = utc("2025-11-26T12:00") - TICK
    time.until("2025-11-26T12:00")
    caught_up = [
        ("events@2025-11-22T04:00Z", []),
        ("reconcile@2025-11-23T05:00Z", PARTS["reconcile"]),
        ("after_close/XNYS@2025-11-25T21:15Z", PARTS["after_close/XNYS"]),
        ("lists@2025-11-26T00:45Z", PARTS["lists"]),
        # Its only series was queued for the close a moment ago and still waits.
        ("daily@2025-11-26T01:30Z", []),
        ("reference@2025-11-26T02:30Z", PARTS["reference"]),
        ("retention@2025-11-26T03:15Z", PARTS["retention"]),
        ("crypto@2025-11-26T11:05Z", PARTS["crypto"]),
        ("heal@2025-11-26T11:20Z", PARTS["heal"]),
        ("recompute@2025-11-26T11:40Z", PARTS["recompute"]),
    ]
    wanted += caught_up
    assert time.made() == wanted

    # Thanksgiving is the 27th; on the 28th the exchange closes at 13:00 New York, 18:00 UTC.
    time.until("2025-11-29T12:00")
    wanted += expected("2025-11-26T12:00", "2025-11-29T12:00", ["2025-11-26T21:15", "2025-11-28T18:15"])
    assert time.made() == wanted

    # Paused by one, and so by both; resumed, what became due meanwhile is caught up once.
    time.one.pause("the test")
    time.until("2025-11-29T18:00")
    assert time.made() == wanted
    assert (time.other.state()["paused"], time.other.next_runs(time.now)) == (True, [])
    time.other.resume("the test")
    time.until("2025-12-01T00:00")
    wanted += [
        ("crypto@2025-11-29T18:05Z", PARTS["crypto"]),
        ("heal@2025-11-29T18:20Z", PARTS["heal"]),
        ("recompute@2025-11-29T17:40Z", PARTS["recompute"]),
    ]
    wanted += expected("2025-11-29T18:20", "2025-12-01T00:00", [])
    assert sorted(time.made()) == sorted(wanted)


def test_when_each_is_covered_next_is_in_the_table_and_in_the_standing(time: Simulated) -> None:
    enriched = [BTC, KO, Instrument("NOBODY", AssetClass.CRYPTO)]
    with time.database.transaction() as connection:
        for one in enriched:
            audit.record_status(connection, Series(one, Timeframe.D1), "binance", None, None, time.now)
    standings = Standings(time.database, {Instrument("KO", AssetClass.STOCK): [Timeframe.D1]}, TIMETABLE.next_candles)

    def told(at: str) -> tuple[dict[str, str | None], dict[str, str | None]]:
        now = utc(at)
        time.one.tick(now)
        note_scheduler(time.database, "here", now)
        rows = time.database.rows("SELECT symbol, next_enrichment AS next FROM enrichment_status")
        table = {row["symbol"]: row["next"] and f"{row['next']:%m-%dT%H:%M}" for row in rows}
        found = {one.symbol: standings.of(one).fields(now)["next_enrichment"] for one in enriched}
        return table, {symbol: at and f"{at:%m-%dT%H:%M}" for symbol, at in found.items()}

    # Friday's daily cycle, then the close of the half day after Thanksgiving, 13:00 in New York, and 15 minutes.
    for at, coin, share in (
        ("2025-11-28T01:04", "11-28T01:05", "11-28T01:30"),
        ("2025-11-28T01:30", "11-28T02:05", "11-28T18:15"),
        ("2025-11-28T18:15", "11-28T19:05", "11-29T01:30"),
    ):
        wanted = {"BTC": coin, "KO": share, "NOBODY": None}
        assert told(at) == (wanted, wanted)
    nothing = dict.fromkeys(("BTC", "KO", "NOBODY"))
    time.one.pause()
    assert told("2025-11-28T18:20") == (nothing, nothing)
    time.one.resume()
    untrack(time.database, [KO], time.now)
    assert told("2025-11-28T18:25")[1] == nothing | {"BTC": "11-28T19:05"}
    # Nobody has heard of a scheduler for long: nothing will come by itself.
    assert standings.of(BTC).fields(utc("2025-11-28T18:40"))["next_enrichment"] is None


def test_what_still_waits_is_not_queued_again(time: Simulated) -> None:
    time.one.tick(utc("2025-11-03T00:00"))
    time.one.tick(utc("2025-11-03T00:10"))
    time.one.tick(utc("2025-11-03T01:10"))
    parts = {name: parts for name, parts in time.made() if name.startswith("crypto")}
    assert parts == {"crypto@2025-11-03T00:05Z": PARTS["crypto"], "crypto@2025-11-03T01:05Z": []}


def test_a_clock_that_steps_back_a_little_repeats_nothing(time: Simulated) -> None:
    time.until("2025-11-01T03:05")
    before = time.made()
    time.now = utc("2025-11-01T03:04:10")
    time.until("2025-11-01T03:05")
    assert time.made() == before


def test_a_clock_that_was_ahead_silences_nothing(time: Simulated) -> None:
    time.until("2025-11-01T01:00")
    time.now = utc("2025-11-01T03:00")  # two hours ahead, for a few wake-ups
    time.until("2025-11-01T03:10")
    with time.database.transaction() as connection:
        connection.execute(
            "INSERT INTO coverage (symbol, asset_class, timeframe, start_time, end_time, state, detected_at, tries, "
            "next_try_at) VALUES ('BTC', 'crypto', '1h', %s, %s, 'missing', %s, 1, %s)",
            [utc("2025-10-01T00:00"), utc("2025-10-01T01:00"), time.now, time.now + timedelta(days=400)],
        )
    time.now = utc("2025-11-01T01:01") - TICK
    with capture_logs() as logs:
        time.until("2025-11-01T03:10")
    told = [entry for entry in logs if entry["event"] == "clock_was_ahead"]
    assert [entry["dealt_with_until"] for entry in told] == ["2025-11-01T03:20:00+00:00"], "once"
    again = expected("2025-11-01T01:01", "2025-11-01T03:21", [])
    made = [(name, ["BTC 1h"] if name.startswith("heal") else parts) for name, parts in again]
    assert [each for each in time.made() if each[0] and utc(each[0][-17:-1]) > utc("2025-11-01T01:01")] == made
    assert time.database.rows("SELECT max(next_try_at) AS at FROM coverage")[0]["at"] <= time.now


def test_a_scheduler_heard_of_in_the_future_is_not_taken_for_one_that_runs(database: Database) -> None:
    note_scheduler(database, "elsewhere", utc("2026-12-01T00:00"))
    assert scheduler_state(database, utc("2025-11-01T00:00")) == "stopped"


def test_it_starts_wakes_and_stops(database: Database, time: Simulated) -> None:
    time.one.start()
    time.one.start()
    assert time.one.running
    time.one.stop()
    time.one.stop()
    assert not time.one.running
    assert time.one.state()["until"] == "2025-11-01T00:00:00+00:00"


def test_one_or_many_symbols_are_triggered_also_while_paused(time: Simulated) -> None:
    time.one.pause()
    receipt = time.one.trigger([BTC, KO], [Timeframe.D1])
    job = time.jobs.job(receipt.job_id)
    assert job is not None
    assert (job.symbols, job.origin) == (["BTC", "KO"], "trigger")


async def test_the_program_fills_what_it_tracks(opened: Callable[..., object]) -> None:
    tracked_here = {"instruments__tracked__crypto": ["BTC"], "instruments__tracked__stock": [],
                    "instruments__tracked__etf": [], "instruments__timeframes__crypto": ["1d"]}  # fmt: skip
    async with opened(**tracked_here) as app:  # type: ignore[attr-defined]
        assert isinstance(app, App)
        receipts = app.scheduler().fill()
        names = [[str(task) for task in receipt.tasks] for receipt in receipts]
        assert names[0] == ["BTC 1d"]
        assert "BTC funding_rates" in names[1]
        assert names[-1] == ["recompute"]
        assert app.scheduler().fill() == []
