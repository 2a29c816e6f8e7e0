"""What is due when, against the exchange's published hours and the calendar on the wall."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from market_data.jobs.timetable import Line, Occasion, Timetable, due_between, every_occasion, next_occasions

TIMETABLE = Timetable()


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def closes(start: str, end: str) -> list[str]:
    found = every_occasion(utc(start), utc(end), TIMETABLE)
    return [f"{o.at:%m-%dT%H:%M}" for o in found if o.line is Line.AFTER_CLOSE]


def test_it_follows_the_exchange_through_the_change_of_the_clock_a_half_day_and_a_holiday() -> None:
    # New York leaves summer time on Sunday 2025-11-02: 16:00 there is 20:00 UTC before and 21:00 after.
    assert closes("2025-10-30T00:00", "2025-11-04T23:59") == [
        "10-30T20:15",
        "10-31T20:15",
        "11-03T21:15",
        "11-04T21:15",
    ]
    # Thanksgiving 2025-11-27 closed, the day after until 13:00 (18:00 UTC).
    assert closes("2025-11-26T00:00", "2025-12-01T23:59") == ["11-26T21:15", "11-28T18:15", "12-01T21:15"]


def test_a_missed_run_is_caught_up_once() -> None:
    due = due_between(utc("2025-11-03T00:00"), utc("2025-11-05T12:00"), TIMETABLE)
    assert [(o.line, f"{o.at:%d %H:%M}") for o in due] == [
        (Line.AFTER_CLOSE, "04 21:15"),
        (Line.LISTS, "05 00:45"),
        (Line.DAILY, "05 01:30"),
        (Line.REFERENCE, "05 02:30"),
        (Line.RETENTION, "05 03:15"),
        (Line.CRYPTO, "05 11:05"),
        (Line.HEAL, "05 11:20"),
        (Line.RECOMPUTE, "05 11:40"),
    ]


def test_bounds_are_half_open_so_that_nothing_is_due_twice_or_never() -> None:
    at = utc("2025-11-05T01:30")
    before, after = at - timedelta(microseconds=1), at + timedelta(microseconds=1)
    daily = [Occasion(at, Line.DAILY)]
    assert due_between(before, at, TIMETABLE) == daily
    assert due_between(at, after, TIMETABLE) == []
    assert due_between(after, before, TIMETABLE) == []
    assert daily[0].name == "daily@2025-11-05T01:30Z"


def test_ticking_often_or_seldom_finds_the_same() -> None:
    start, end = utc("2025-11-01T00:00"), utc("2025-11-08T00:00")
    whole = every_occasion(start, end, TIMETABLE)
    pieces, moment = [], start
    while moment < end:
        pieces += due_between(moment, moment + timedelta(minutes=7), TIMETABLE)
        moment += timedelta(minutes=7)
    assert [o for o in pieces if o.at <= end] == whole


def test_turned_off_it_still_heals() -> None:
    lines = {
        o.line for o in every_occasion(utc("2025-11-01T00:00"), utc("2025-11-08T00:00"), Timetable(enriching=False))
    }
    assert lines == {
        Line.REFERENCE, Line.HEAL, Line.RECOMPUTE, Line.RECONCILE, Line.RETENTION, Line.LISTS, Line.EVENTS,
    }  # fmt: skip


def test_the_next_runs_are_told_for_every_line() -> None:
    # A Friday evening: the exchange closes next on Monday.
    found = {o.line: f"{o.at:%a %H:%M}" for o in next_occasions(utc("2025-11-07T21:20"), TIMETABLE)}
    assert found == {
        Line.HEAL: "Fri 22:20",
        Line.RECOMPUTE: "Fri 21:40",
        Line.CRYPTO: "Fri 22:05",
        Line.LISTS: "Sat 00:45",
        Line.DAILY: "Sat 01:30",
        Line.REFERENCE: "Sat 02:30",
        Line.RETENTION: "Sat 03:15",
        Line.RECONCILE: "Sun 05:00",
        Line.EVENTS: "Sat 04:00",
        Line.AFTER_CLOSE: "Mon 21:15",
    }
