"""Healing against a real database and sources whose answers are written here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from asking_sources import asking
from market_data.model.errors import ProviderUnavailable
from market_data.model.instrument import AssetClass
from market_data.model.provider import Page
from market_data.model.timeframe import TimeRange
from market_data.pipeline.fetch.heal import Healer, Patience, joined
from market_data.storage.series import coverage as ledger
from market_data.storage.series.coverage import State, Stretch


def healer(desk: Any, *sources: Any, **patience: Any) -> Healer:
    return Healer(
        asking(desk.database, {AssetClass.CRYPTO: sources}, lambda: desk.now), desk.shelves, Patience(**patience)
    )


def missing(desk: Any, state: State = State.MISSING) -> list[Stretch]:
    with desk.database.transaction() as connection:
        return ledger.stretches(connection, desk.series, state=state)


@pytest.fixture
def gappy(desk: Any) -> Any:
    """Hours 0–9 without 2, 3 and 6."""
    desk.offer([desk.candle(i) for i in (0, 1, 4, 5, 7, 8, 9)])
    return desk


async def test_what_one_source_lacks_the_next_fills(gappy: Any, make_source: Callable[..., Any]) -> None:
    first, second = make_source("binance", [3]), make_source("polygon", range(10))
    (healed,) = await healer(gappy, first, second).heal()
    assert (healed.asked, healed.filled, healed.missing, healed.sources) == (3, 3, 0, ["binance", "polygon"])
    assert missing(gappy) == []
    with gappy.database.transaction() as connection:
        closed = [s for s in ledger.stretches(connection, gappy.series) if s.filled_at is not None]
    assert [(s.start, s.filled_by) for s in closed] == [
        (gappy.at(2), "polygon"), (gappy.at(3), "binance"), (gappy.at(6), "polygon"),
    ]  # fmt: skip
    assert gappy.present().height == 10
    # Gaps that lie close together are one request.
    assert first.asked == [TimeRange(gappy.at(2), gappy.at(7))]


async def test_a_failing_source_does_not_stop_the_next_and_comes_last_the_next_time(
    gappy: Any, make_source: Callable[..., Any]
) -> None:
    failing, other = make_source("binance", error=ProviderUnavailable("down")), make_source("polygon", [2, 3])
    (healed,) = await healer(gappy, failing, other).heal()
    assert (healed.filled, healed.missing) == (2, 1)
    assert healed.notes == ["binance: down", "polygon: no candles from 2024-12-31 14:00 to 2024-12-31 19:00"]
    (left,) = missing(gappy)
    assert (left.tries, left.next_try_at, left.last_error) == (
        1,
        gappy.now + timedelta(minutes=15),
        "binance: down; polygon: no candles from 2024-12-31 14:00 to 2024-12-31 19:00",
    )
    assert await healer(gappy, failing, other).heal() == [], "not before its time"
    gappy.now += timedelta(minutes=15)
    other.rows = [gappy.candle(6)]
    (healed,) = await healer(gappy, failing, other).heal()
    assert (healed.filled, len(failing.asked)) == (1, 1), "the other source was asked first and sufficed"


async def test_waits_double_and_a_gap_is_given_up_only_when_tried_and_old_enough(
    gappy: Any, make_source: Callable[..., Any]
) -> None:
    empty = make_source("binance")
    found_at = missing(gappy)[0].detected_at
    waits = []
    for _ in range(20):
        await healer(gappy, empty, tries=4, least_age=timedelta(hours=6)).heal()
        if not missing(gappy):
            break
        waits.append(missing(gappy)[0].next_try_at - gappy.now)
        gappy.now = missing(gappy)[0].next_try_at
    minutes = [wait / timedelta(minutes=1) for wait in waits]
    # 15 + 30 + 60 + 120 minutes are four tries but not six hours; the sixth try, after 7 h 45 min, is the last.
    assert minutes == [15, 30, 60, 120, 240]
    lost = missing(gappy, State.UNRECOVERABLE)
    assert [(s.start, s.tries, s.detected_at) for s in lost] == [
        (gappy.at(2), 6, found_at), (gappy.at(6), 6, found_at),
    ]  # fmt: skip
    assert lost[0].last_error == "binance: no candles from 2024-12-31 14:00 to 2024-12-31 19:00"
    gappy.offer([gappy.candle(2)], "yahoo")
    assert [s.start for s in missing(gappy, State.UNRECOVERABLE)] == [gappy.at(3), gappy.at(6)], "a late find counts"


async def test_a_gap_is_not_given_up_while_a_source_is_down(gappy: Any, make_source: Callable[..., Any]) -> None:
    down = make_source("binance", error=ProviderUnavailable("down"))
    for _ in range(4):
        await healer(gappy, down, tries=1, least_age=timedelta(0)).heal()
        gappy.now += timedelta(days=2)
    assert [s.tries for s in missing(gappy)] == [4, 4]


async def test_without_any_source_the_reason_says_so(gappy: Any, make_source: Callable[..., Any]) -> None:
    (healed,) = await healer(gappy).heal()
    assert healed.notes == ["nobody: serves BTC 1h"]


def test_distant_gaps_are_asked_for_apart(desk: Any) -> None:
    def gap(first: int, last: int) -> Stretch:
        return Stretch(start=desk.at(first), end=desk.at(last), state=State.MISSING, detected_at=desk.now)

    assert joined(desk.series, [gap(0, 1), gap(400, 402), gap(1000, 1001)]) == [
        TimeRange(desk.at(0), desk.at(402)), TimeRange(desk.at(1000), desk.at(1001)),
    ]  # fmt: skip


async def test_a_healed_candle_is_as_fresh_however_long_the_source_was_waited_for(
    gappy: Any, make_source: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source("binance")

    async def fetch(*_: Any, now: datetime) -> AsyncIterator[Page]:
        for number, position in enumerate((2, 3, 6), start=1):
            answered = now + number * timedelta(minutes=5)
            frame = gappy.frame([gappy.candle(position)])
            yield Page(frame=frame, source="binance", fetched_at=answered, response_ms=200.0)

    monkeypatch.setattr(source, "fetch_candles", fetch)
    (healed,) = await healer(gappy, source).heal()
    assert healed.filled == 3
    ages = dict(gappy.table("candles", "timestamp, data_age_seconds", "timestamp"))
    assert [ages[gappy.at(i)] for i in (2, 3, 6)] == [pytest.approx(0.2)] * 3
