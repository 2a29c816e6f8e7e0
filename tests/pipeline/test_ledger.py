"""The coverage ledger against a model that keeps one word per expected candle."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange, to_micros
from market_data.pipeline.write.ledger import Coverage, Sighting, proved_empty, revise, tally
from market_data.storage.series.coverage import State, Stretch

BTC = Series(Instrument("BTC", AssetClass.CRYPTO), Timeframe.H1)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
# Thanksgiving week of 2024: a holiday, a half day (close 18:00 UTC) and a weekend; and the end of summer time.
SERIES = {
    "crypto hours": (BTC, datetime(2024, 3, 1, tzinfo=UTC)),
    "crypto weeks": (Series(BTC.instrument, Timeframe.W1), datetime(2024, 3, 1, tzinfo=UTC)),
    "stock hours": (Series(Instrument("AAPL", AssetClass.STOCK), Timeframe.H1), datetime(2024, 11, 25, tzinfo=UTC)),
    "stock days": (Series(Instrument("SPY", AssetClass.ETF), Timeframe.D1), datetime(2024, 10, 25, tzinfo=UTC)),
    "stock weeks": (Series(Instrument("SPY", AssetClass.ETF), Timeframe.W1), datetime(2024, 10, 25, tzinfo=UTC)),
}


def sighting(span: TimeRange, opens: list[int], moment: datetime = NOW, *, whole: bool = False) -> Sighting:
    return Sighting(
        span=span, opens=np.array(opens, np.int64), source="binance", closed_by=NOW, now=moment, whole=whole
    )


def states(series: Series, ledger: list[Stretch]) -> dict[int, State]:
    """One word per candle, found by asking the calendar stretch by stretch."""
    found: dict[int, State] = {}
    for stretch in ledger:
        candles = grid(series.asset_class, series.timeframe, stretch.span)
        assert stretch.start == datetime.fromtimestamp(candles.opens[0] / 1e6, UTC)
        assert stretch.end == datetime.fromtimestamp(candles.ends[-1] / 1e6, UTC)
        for opened in candles.opens.tolist():
            assert opened not in found, "a candle lies in two stretches"
            found[opened] = stretch.state
    return found


@pytest.mark.parametrize("name", SERIES)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_ledger_equals_a_word_per_candle(name: str, data: st.DataObject) -> None:
    series, origin = SERIES[name]
    step = series.timeframe.duration / 2
    horizon = 60
    model: dict[int, State] = {}
    ledger: list[Stretch] = []
    for turn in range(data.draw(st.integers(1, 8), label="batches")):
        first = data.draw(st.integers(0, horizon - 1), label="first")
        last = data.draw(st.integers(first + 1, horizon), label="last")
        span = TimeRange(origin + first * step, origin + last * step)
        expected = grid(series.asset_class, series.timeframe, span).opens.tolist()
        seen = sorted(data.draw(st.sets(st.sampled_from(expected)) if expected else st.just(set()), label="seen"))
        whole = data.draw(st.booleans(), label="audit")
        ledger = revise(series, ledger, sighting(span, seen, NOW + timedelta(minutes=turn), whole=whole))
        for moment in expected:
            if moment in seen:
                model[moment] = State.PRESENT
            elif whole or moment not in model:
                model[moment] = State.MISSING
        if model:
            everything = TimeRange(_at(min(model)), _at(max(model)) + timedelta(microseconds=1))
            for moment in grid(series.asset_class, series.timeframe, everything).opens.tolist():
                model.setdefault(moment, State.MISSING)
        assert states(series, ledger) == model
        if expected and not whole:
            again = revise(series, ledger, sighting(span, seen, NOW + timedelta(days=9)))
            assert again == ledger, "the same batch again must write nothing"
    span = TimeRange(origin - 3 * step, origin + (horizon + 3) * step)
    counts = tally(series, ledger, span, NOW)
    assert counts.expected == len(grid(series.asset_class, series.timeframe, span))
    assert counts.expected == counts.present + counts.no_trade + counts.missing + counts.unrecoverable
    assert counts.present == sum(state is State.PRESENT for state in model.values())


def _at(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def hours(first: int, last: int) -> TimeRange:
    return TimeRange(datetime(2024, 3, 1, first, tzinfo=UTC), datetime(2024, 3, 1, last, tzinfo=UTC))


def opens(*hour: int) -> list[int]:
    return [to_micros(datetime(2024, 3, 1, h, tzinfo=UTC)) for h in hour]


def test_a_gap_remembers_when_it_was_found_and_who_filled_it() -> None:
    later = NOW + timedelta(hours=2)
    ledger = revise(BTC, [], sighting(hours(0, 6), opens(0, 1, 4, 5)))
    assert [(s.start.hour, s.end.hour, s.state.value) for s in ledger] == [
        (0, 2, "present"), (2, 4, "missing"), (4, 6, "present"),
    ]  # fmt: skip
    ledger = revise(BTC, ledger, sighting(hours(2, 3), opens(2), later))
    filled, rest = ledger[1], ledger[2]
    assert (filled.start.hour, filled.end.hour, filled.state) == (2, 3, State.PRESENT)
    assert (filled.detected_at, filled.filled_at, filled.filled_by) == (NOW, later, "binance")
    assert (rest.start.hour, rest.end.hour, rest.state, rest.detected_at) == (3, 4, State.MISSING, NOW)


def test_what_lies_between_two_loads_is_missing() -> None:
    ledger = revise(BTC, [], sighting(hours(10, 12), opens(10, 11)))
    ledger = revise(BTC, ledger, sighting(hours(2, 4), opens(2, 3)))
    assert [(s.start.hour, s.end.hour, s.state.value) for s in ledger] == [
        (2, 4, "present"), (4, 10, "missing"), (10, 12, "present"),
    ]  # fmt: skip


def test_open_candles_are_not_expected() -> None:
    seen = Sighting(
        span=hours(0, 6), opens=np.array(opens(0, 1), np.int64), source="binance",
        closed_by=datetime(2024, 3, 1, 2, 30, tzinfo=UTC), now=NOW,
    )  # fmt: skip
    assert [(s.start.hour, s.end.hour, s.state.value) for s in revise(BTC, [], seen)] == [(0, 2, "present")]
    assert tally(BTC, [], hours(0, 6), datetime(2024, 3, 1, 2, 30, tzinfo=UTC)) == Coverage(expected=2, missing=2)


def test_a_proof_cuts_the_missing_stretch() -> None:
    ledger = revise(BTC, [], sighting(hours(0, 8), opens(0, 7)))
    (proved,) = opens(3)
    ledger = proved_empty(BTC, ledger, hours(2, 5), {proved: "binance:spot: nothing left"}, NOW)
    assert [(s.start.hour, s.end.hour, s.state.value) for s in ledger] == [
        (0, 1, "present"), (1, 3, "missing"), (3, 4, "no_trade"), (4, 7, "missing"), (7, 8, "present"),
    ]  # fmt: skip
    assert ledger[2].filled_by == "binance:spot"
