"""The canonical grid against facts listed by hand: NYSE's published holidays, early closes, and the clock changes."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data.model.instrument import AssetClass
from market_data.model.session import grid, lookback_start, session_date, sessions
from market_data.model.timeframe import Timeframe, TimeRange, from_micros, to_micros

STOCK, CRYPTO = AssetClass.STOCK, AssetClass.CRYPTO


def candles(asset_class: AssetClass, timeframe: str, start: str, end: str) -> list[str]:
    """Expected candles as `open-end`, e.g. `2024-07-03T13:30-17:00`; the end's day only where it is another."""
    found = grid(asset_class, Timeframe(timeframe), TimeRange(moment(start), moment(end)))
    return [span(from_micros(o), from_micros(e)) for o, e in zip(found.opens, found.ends, strict=True)]


def span(opened: datetime, ended: datetime) -> str:
    clock = "%H:%M" if opened.date() == ended.date() else "%Y-%m-%dT%H:%M"
    return f"{opened:%Y-%m-%dT%H:%M}-{ended.strftime(clock)}"


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("day", "opens", "closes"),
    [
        ("2024-07-02", "13:30", "20:00"),  # summer: New York is 4 hours behind UTC
        ("2024-07-03", "13:30", "17:00"),  # the day before Independence Day closes at 13:00
        ("2024-11-29", "14:30", "18:00"),  # the day after Thanksgiving closes at 13:00, winter: 5 hours behind
        ("2024-12-24", "14:30", "18:00"),  # Christmas Eve
        ("2024-03-08", "14:30", "21:00"),  # Friday before the clocks go forward on 2024-03-10
        ("2024-03-11", "13:30", "20:00"),  # Monday after
        ("2024-11-01", "13:30", "20:00"),  # Friday before the clocks go back on 2024-11-03
        ("2024-11-04", "14:30", "21:00"),  # Monday after
        ("2024-02-29", "14:30", "21:00"),  # leap day
        ("2012-10-31", "13:30", "20:00"),  # first day after Hurricane Sandy
    ],
)
def test_a_daily_candle_is_its_session(day: str, opens: str, closes: str) -> None:
    following = f"{moment(day) + timedelta(days=1):%Y-%m-%d}"
    assert candles(STOCK, "1d", day, following) == [f"{day}T{opens}-{closes}"]


@pytest.mark.parametrize(
    "day",
    [
        "2024-01-01", "2024-01-15", "2024-02-19", "2024-03-29", "2024-05-27", "2024-06-19", "2024-07-04", "2024-09-02",
        "2024-11-28", "2024-12-25",  # all full holidays of 2024
        "2024-07-06", "2024-07-07",  # a weekend
        "2012-10-29", "2012-10-30",  # Hurricane Sandy
        "2018-12-05", "2025-01-09",  # days of mourning for G. H. W. Bush and J. Carter
    ],
)  # fmt: skip
@pytest.mark.parametrize("timeframe", ["1m", "4h", "1d"])
def test_no_candle_on_a_day_without_trading(day: str, timeframe: str) -> None:
    assert candles(STOCK, timeframe, day, f"{moment(day) + timedelta(days=1):%Y-%m-%d}") == []


def test_2024_has_252_sessions_of_which_three_are_short() -> None:
    found = grid(STOCK, Timeframe.D1, TimeRange(moment("2024-01-01"), moment("2025-01-01")))
    hours = [(e - o) / 3_600_000_000 for o, e in zip(found.opens, found.ends, strict=True)]
    assert sorted(set(hours)) == [3.5, 6.5]
    assert (len(hours), hours.count(3.5)) == (252, 3)


def test_the_last_candle_of_a_session_is_shorter() -> None:
    assert candles(STOCK, "4h", "2024-07-02", "2024-07-04") == [
        "2024-07-02T13:30-17:30",
        "2024-07-02T17:30-20:00",
        "2024-07-03T13:30-17:00",
    ]
    assert candles(STOCK, "1h", "2024-07-03", "2024-07-04") == [
        "2024-07-03T13:30-14:30",
        "2024-07-03T14:30-15:30",
        "2024-07-03T15:30-16:30",
        "2024-07-03T16:30-17:00",
    ]
    assert candles(STOCK, "1h", "2024-07-02T19:00", "2024-07-03") == ["2024-07-02T19:30-20:00"]
    assert candles(STOCK, "30m", "2024-11-29", "2024-11-30")[-2:] == [
        "2024-11-29T17:00-17:30",
        "2024-11-29T17:30-18:00",
    ]


@pytest.mark.parametrize(("timeframe", "whole", "short"), [
    ("1m", 390, 210), ("5m", 78, 42), ("15m", 26, 14), ("30m", 13, 7), ("1h", 7, 4), ("4h", 2, 1),
])  # fmt: skip
def test_candles_of_a_session_are_counted(timeframe: str, whole: int, short: int) -> None:
    assert len(candles(STOCK, timeframe, "2024-12-23", "2024-12-24")) == whole
    assert len(candles(STOCK, timeframe, "2024-12-24", "2024-12-25")) == short


@pytest.mark.parametrize(
    ("start", "end", "week"),
    [
        # Monday is a holiday: the week's candle opens with Tuesday's session.
        ("2024-01-15", "2024-01-22", "2024-01-16T14:30-2024-01-19T21:00"),
        ("2024-09-02", "2024-09-09", "2024-09-03T13:30-2024-09-06T20:00"),
        # Friday is a holiday: it ends with Thursday's.
        ("2024-03-25", "2024-04-01", "2024-03-25T13:30-2024-03-28T20:00"),
        # The Friday after Thanksgiving is short.
        ("2024-11-25", "2024-12-02", "2024-11-25T14:30-2024-11-29T18:00"),
        # The clocks change between two weeks, not within one.
        ("2024-03-04", "2024-03-11", "2024-03-04T14:30-2024-03-08T21:00"),
        ("2024-03-11", "2024-03-18", "2024-03-11T13:30-2024-03-15T20:00"),
        # A week across the new year.
        ("2024-12-30", "2025-01-06", "2024-12-30T14:30-2025-01-03T21:00"),
    ],
)
def test_a_weekly_candle_is_its_sessions(start: str, end: str, week: str) -> None:
    assert candles(STOCK, "1w", start, end) == [week]


def test_a_week_begins_once_however_the_range_cuts_it() -> None:
    assert candles(STOCK, "1w", "2024-01-17", "2024-01-20") == []
    assert candles(STOCK, "1w", "2024-01-16T14:30", "2024-01-16T14:31") == ["2024-01-16T14:30-2024-01-19T21:00"]


def test_etfs_trade_as_stocks_do() -> None:
    assert candles(AssetClass.ETF, "1d", "2024-07-03", "2024-07-06") == [
        "2024-07-03T13:30-17:00",
        "2024-07-05T13:30-20:00",
    ]


def test_crypto_trades_always() -> None:
    assert candles(CRYPTO, "4h", "2024-03-10T01:00", "2024-03-10T09:00") == [
        "2024-03-10T04:00-08:00",
        "2024-03-10T08:00-12:00",
    ]
    assert candles(CRYPTO, "1d", "2024-02-28", "2024-03-02") == [
        "2024-02-28T00:00-2024-02-29T00:00",
        "2024-02-29T00:00-2024-03-01T00:00",
        "2024-03-01T00:00-2024-03-02T00:00",
    ]


def test_crypto_weeks_start_on_monday() -> None:
    # 2024-01-01 was a Monday; 1970-01-01 a Thursday.
    assert candles(CRYPTO, "1w", "2023-12-30", "2024-01-09") == [
        "2024-01-01T00:00-2024-01-08T00:00",
        "2024-01-08T00:00-2024-01-15T00:00",
    ]
    assert candles(CRYPTO, "1w", "1970-01-01", "1970-01-06") == ["1970-01-05T00:00-1970-01-12T00:00"]


@pytest.mark.parametrize(("timeframe", "count"), [
    ("1m", 1440), ("5m", 288), ("15m", 96), ("30m", 48), ("1h", 24), ("4h", 6), ("1d", 1),
])  # fmt: skip
def test_a_crypto_day_has_all_its_candles_when_clocks_change(timeframe: str, count: int) -> None:
    assert len(candles(CRYPTO, timeframe, "2024-03-10", "2024-03-11")) == count
    assert len(candles(CRYPTO, timeframe, "2024-11-03", "2024-11-04")) == count


def test_only_closed_candles_are_kept() -> None:
    day = grid(STOCK, Timeframe.H1, TimeRange(moment("2024-07-03"), moment("2024-07-04")))
    assert len(day.closed_by(moment("2024-07-03T16:59:59"))) == 3
    assert len(day.closed_by(moment("2024-07-03T17:00"))) == 4


def test_the_date_of_a_session_is_the_exchanges() -> None:
    assert session_date("XNYS", moment("2024-07-03T01:00")) == "2024-07-02"
    assert session_date("XNYS", moment("2024-07-03T13:30")) == "2024-07-03"
    assert session_date("24/7", moment("2024-07-03T01:00")) == "2024-07-03"


def test_sessions_are_those_that_open_in_the_range() -> None:
    at = to_micros(moment("2024-07-03T13:30"))
    assert [len(part) for part in sessions("XNYS", at, at + 1)] == [1, 1]
    assert [len(part) for part in sessions("XNYS", at + 1, at + 2)] == [0, 0]


moments = st.datetimes(datetime(1995, 1, 1), datetime(2029, 12, 31), timezones=st.just(UTC))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    asset_class=st.sampled_from(AssetClass),
    timeframe=st.sampled_from(Timeframe),
    start=moments,
    parts=st.lists(st.timedeltas(timedelta(microseconds=1), timedelta(days=20)), min_size=1, max_size=6),
)
def test_the_grid_of_a_union_is_the_union_of_grids(
    asset_class: AssetClass, timeframe: Timeframe, start: datetime, parts: list[timedelta]
) -> None:
    whole = grid(asset_class, timeframe, TimeRange(start, start + sum(parts, timedelta(0))))
    pieces = []
    for length in parts:
        pieces.append(grid(asset_class, timeframe, TimeRange(start, start + length)))
        start += length
    assert np.array_equal(whole.opens, np.concatenate([piece.opens for piece in pieces]))
    assert np.array_equal(whole.ends, np.concatenate([piece.ends for piece in pieces]))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(asset_class=st.sampled_from(AssetClass), timeframe=st.sampled_from(Timeframe), start=moments)
def test_candles_follow_each_other_without_overlap(
    asset_class: AssetClass, timeframe: Timeframe, start: datetime
) -> None:
    found = grid(asset_class, timeframe, TimeRange(start, start + timedelta(days=25)))
    assert (found.opens < found.ends).all()
    assert (found.ends[:-1] <= found.opens[1:]).all()
    assert (found.ends - found.opens <= timeframe.micros).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    asset_class=st.sampled_from(AssetClass),
    timeframe=st.sampled_from(Timeframe),
    before=moments,
    count=st.integers(0, 60),
)
def test_a_lookback_holds_enough_candles(
    asset_class: AssetClass, timeframe: Timeframe, before: datetime, count: int
) -> None:
    start = lookback_start(asset_class, timeframe, before, count)
    assert len(grid(asset_class, timeframe, TimeRange(start, before))) >= count
