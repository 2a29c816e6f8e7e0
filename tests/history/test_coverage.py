"""The coverage ledger as batches, audits and proofs write it, against a real database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from market_data.model.instrument import Series
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.write.gaps import audit_series, coverage
from market_data.pipeline.write.ledger import Coverage
from market_data.storage.series import coverage as ledger
from market_data.storage.series.coverage import State


def stretches(desk: Any, series: Series | None = None) -> list[tuple[int, int, str]]:
    """(first position, position after the last, state) of the ledger in order."""
    series = series or desk.series
    with desk.database.transaction() as connection:
        found = ledger.stretches(connection, series)
    hour = timedelta(hours=1)
    return [((s.start - desk.at(0)) // hour, (s.end - desk.at(0)) // hour, s.state.value) for s in found]


def writes(desk: Any) -> int:
    """Rows ever written to the ledger's table."""
    for _pooled in range(12):  # every pooled connection reports its own work, when asked
        with desk.database.transaction() as connection:
            connection.execute("SELECT pg_stat_force_next_flush()")
    (row,) = desk.database.rows(
        "SELECT n_tup_ins + n_tup_upd + n_tup_del AS n FROM pg_stat_user_tables WHERE relname = 'coverage'"
    )
    return int(row["n"])


def test_a_batch_shows_its_gap_and_another_fills_it(desk: Any) -> None:
    desk.offer([desk.candle(i) for i in (0, 1, 2, 5, 6)])
    assert stretches(desk) == [(0, 3, "present"), (3, 5, "missing"), (5, 7, "present")]
    desk.offer([desk.candle(3)], "yahoo")
    assert stretches(desk) == [(0, 3, "present"), (3, 4, "present"), (4, 5, "missing"), (5, 7, "present")]
    with desk.database.transaction() as connection:
        filled = ledger.stretches(connection, desk.series)[1]
    assert (filled.filled_by, filled.filled_at - filled.detected_at) == ("yahoo", timedelta(minutes=1))


def test_the_same_batch_again_writes_nothing(desk: Any) -> None:
    rows = [desk.candle(i) for i in (0, 1, 2, 5, 6)]
    desk.offer(rows)
    before = writes(desk)
    assert before == 3
    desk.offer(rows)
    assert writes(desk) == before


def test_a_rejected_candle_is_missing(desk: Any) -> None:
    desk.offer([desk.candle(0), desk.candle(1, high="40"), desk.candle(2)])
    assert stretches(desk) == [(0, 1, "present"), (1, 2, "missing"), (2, 3, "present")]


def test_an_audit_finds_what_was_lost_and_what_the_ledger_never_saw(desk: Any) -> None:
    desk.offer([desk.candle(i) for i in range(6)])
    with desk.database.transaction() as connection:
        connection.execute("DELETE FROM market_data_v2 WHERE timestamp = %s", [desk.at(2)])
    span = TimeRange(desk.at(0), desk.at(6))
    assert audit_series(desk.database, desk.series, desk.now, span).coverage == Coverage(6, 5, 0, 1, 0)
    assert stretches(desk) == [(0, 2, "present"), (2, 3, "missing"), (3, 6, "present")]
    with desk.database.transaction() as connection:
        connection.execute("DELETE FROM coverage")
    found = audit_series(desk.database, desk.series, desk.now)
    assert found.coverage == Coverage(expected=6, present=5, missing=1)
    assert found.corrected == 3
    assert audit_series(desk.database, desk.series, desk.now).corrected == 0


def test_a_coarser_candle_proves_that_nothing_was_traded(desk: Any) -> None:
    # Hours 0–3 make the four-hour candle from 12:00; hour 1 is absent and the others make up all of its volume.
    desk.offer([desk.candle(i) for i in (0, 2, 3, 4, 6, 7)])
    daily = type(desk)(desk.database, desk.shelves, Series(desk.series.instrument, Timeframe.H4))
    daily.offer([daily.candle(0, volume="30"), daily.candle(1, volume="31")])
    span = TimeRange(desk.at(0), desk.at(8))
    found = audit_series(desk.database, desk.series, desk.now, span)
    assert found.proved == 1
    assert found.coverage == Coverage(expected=8, present=6, no_trade=1, missing=1)
    assert stretches(desk)[1] == (1, 2, "no_trade")
    assert coverage(desk.database, desk.series, span, desk.now) == found.coverage
    assert audit_series(desk.database, desk.series, desk.now, span).corrected == 0


def test_another_sources_volume_proves_nothing(desk: Any) -> None:
    desk.offer([desk.candle(i) for i in (0, 2, 3)])
    coarse = type(desk)(desk.database, desk.shelves, Series(desk.series.instrument, Timeframe.H4))
    coarse.offer([coarse.candle(0, volume="30")], "yahoo")
    assert audit_series(desk.database, desk.series, desk.now, TimeRange(desk.at(0), desk.at(4))).proved == 0


def test_every_series_is_found(desk: Any) -> None:
    desk.offer([desk.candle(0)])
    coarse = type(desk)(desk.database, desk.shelves, Series(desk.series.instrument, Timeframe.H4))
    coarse.offer([coarse.candle(0)])
    assert ledger.known_series(desk.database) == [desk.series, coarse.series]
    assert ledger.known_series(desk.database, desk.series.instrument) == [desk.series, coarse.series]
    assert ledger.due(desk.database, desk.now) == {}
    assert State("missing") is State.MISSING
