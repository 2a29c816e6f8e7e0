"""Timeframes, ranges, and their errors."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from market_data.model.errors import UsageError
from market_data.model.timeframe import Timeframe, TimeRange, from_micros, to_micros

JANUARY = datetime(2024, 1, 1, tzinfo=UTC)


def test_the_eight_timeframes_and_their_lengths() -> None:
    minutes = {name: int(Timeframe(name).duration.total_seconds()) // 60 for name in Timeframe}
    assert minutes == {"1m": 1, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "4h": 240, "1d": 1440, "1w": 10080}
    assert [t.value for t in Timeframe if not t.intraday] == ["1d", "1w"]
    assert Timeframe.M1.micros == 60_000_000


def test_timeframes_are_parsed_in_order_and_once() -> None:
    assert Timeframe.parse_many(["1d", "1h", "1d"]) == (Timeframe.D1, Timeframe.H1)
    assert Timeframe.parse_many([]) == ()


def test_unknown_timeframes_are_named_with_all_valid_ones() -> None:
    with pytest.raises(UsageError) as refused:
        Timeframe.parse_many(["2h", "1d", "3d"])
    assert str(refused.value) == "Invalid timeframes: ['2h', '3d']. Valid: 1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w"


@pytest.mark.parametrize("name", ["1H", "60m", "", " 1h", "D1", "1d "])
def test_timeframes_are_not_guessed(name: str) -> None:
    with pytest.raises(UsageError, match="Invalid timeframes"):
        Timeframe.parse_many([name])


def test_a_range_is_half_open() -> None:
    day = TimeRange(JANUARY, JANUARY + timedelta(days=1))
    assert JANUARY in day
    assert JANUARY + timedelta(days=1) not in day
    assert JANUARY - timedelta(microseconds=1) not in day


def test_a_range_is_in_utc_whatever_zone_it_was_given_in() -> None:
    tokyo = timezone(timedelta(hours=9))
    given_in_tokyo = TimeRange(datetime(2024, 1, 1, 9, tzinfo=tokyo), datetime(2024, 1, 2, 9, tzinfo=tokyo))
    assert given_in_tokyo == TimeRange(JANUARY, JANUARY + timedelta(days=1))
    assert given_in_tokyo.start.tzinfo is UTC


@pytest.mark.parametrize("end", [JANUARY, JANUARY - timedelta(seconds=1)])
def test_a_range_that_ends_before_it_starts_is_refused(end: datetime) -> None:
    with pytest.raises(UsageError, match=r"start 2024-01-01T00:00:00Z is not before end 202[34]-"):
        TimeRange(JANUARY, end)


@pytest.mark.parametrize(("start", "end", "name"), [
    (datetime(2024, 1, 1), JANUARY, "start"), (JANUARY, datetime(2024, 1, 2), "end"),
])  # fmt: skip
def test_a_bound_without_a_zone_is_refused(start: datetime, end: datetime, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} 2024-01-0. 00:00:00 has no time zone"):
        TimeRange(start, end)


def test_a_range_is_split_into_steps_and_a_rest() -> None:
    hour = timedelta(hours=1)
    parts = list(TimeRange(JANUARY, JANUARY + 2.5 * hour).split(hour))
    assert [(part.start - JANUARY, part.end - JANUARY) for part in parts] == [
        (0 * hour, hour),
        (hour, 2 * hour),
        (2 * hour, 2.5 * hour),
    ]


@given(
    length=st.timedeltas(timedelta(microseconds=1), timedelta(days=400)),
    step=st.timedeltas(timedelta(days=3), timedelta(days=500)),
)
def test_the_parts_of_a_range_are_the_range(length: timedelta, step: timedelta) -> None:
    parts = list(TimeRange(JANUARY, JANUARY + length).split(step))
    assert (parts[0].start, parts[-1].end) == (JANUARY, JANUARY + length)
    assert all(one.end == following.start for one, following in pairwise(parts))
    assert all(timedelta(0) < part.end - part.start <= step for part in parts)


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_microseconds_are_exact(moment: datetime) -> None:
    assert from_micros(to_micros(moment)) == moment


def test_microseconds_count_from_1970() -> None:
    # 2024-01-01 is 19,723 days after 1970-01-01.
    assert to_micros(JANUARY) == 19_723 * 86_400 * 1_000_000
