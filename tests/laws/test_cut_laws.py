"""The laws of cut series: each window is in the shares of its own candle, to the last bit, however the series came."""

from __future__ import annotations

import os
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import market_data.features
from market_data.model.cuts import PRICES, SHARES, Cut, evaluate_in_own_shares, rows_of_one_kind, zones
from market_data.model.evaluation import evaluate
from market_data.model.feature import Feature
from market_data.model.instrument import AssetClass
from market_data.model.live import LiveSeries
from market_data.model.observation import micros
from market_data.model.proof import bits
from market_data.model.timeframe import Timeframe
from market_data.model.trial import Trial, trial_frame, trial_window
from market_data.model.window import Window
from market_data.shelf import collect

FEATURES = list(collect(market_data.features, Feature).values())
EXAMPLES = int(os.environ.get("MARKET_DATA_PROOF_EXAMPLES", "60")) // 3
# What one unit of a feature is when one share becomes four: money per share a quarter, shares four.
IN_PRICES = {"atr", "sma_20", "sma_50"}
IN_SHARES = {"rolling_volume_20", "delta"}

pytestmark = pytest.mark.filterwarnings("ignore:Series.values returning")

# A returned sum of shares, a reverse split, ratios that no binary fraction holds.
RATIOS = [Fraction(2), Fraction(3), Fraction(3, 2), Fraction(7, 5), Fraction(1, 10), Fraction(1000001, 1000000)]
trials = st.builds(
    Trial,
    seed=st.integers(0, 2**32),
    rows=st.integers(60, 220),
    asset_class=st.sampled_from(AssetClass),
    timeframe=st.sampled_from([Timeframe.M30, Timeframe.H1, Timeframe.D1]),
    scale=st.sampled_from([0.01, 1.0, 1e5]),
    step=st.sampled_from([1e-3, 0.02, 0.5]),
    gaps=st.sampled_from([0.0, 0.02]),
    absent=st.sampled_from([0.0, 0.01]),
)
places = st.lists(st.tuples(st.integers(1, 220), st.sampled_from([*RATIOS, None])), min_size=1, max_size=4)


def cuts_at(frame: pl.DataFrame, chosen: list[tuple[int, Fraction | None]]) -> list[Cut]:
    """Cuts just before the rows of these numbers; several may fall on one."""
    ends = micros(frame["end"])
    return [Cut(int(ends[(row - 1) % len(ends)]), ratio) for row, ratio in chosen]


def one_by_one(frame: pl.DataFrame, cuts: list[Cut], lookback: int, row: int) -> pl.DataFrame:
    """The rows that one row's features see, by the definition: each converted by the product of the cuts between."""
    ends = micros(frame["end"])
    rows = frame[max(0, row - lookback) : row + 1].to_dicts()
    for place, values in enumerate(rows, start=max(0, row - lookback)):
        between = [cut.ratio for cut in cuts if ends[place] <= cut.moment < ends[row]]
        for name, value in values.items():
            if not isinstance(value, float) or not between:
                continue
            if None in between:
                values[name] = None
                continue
            factor = Fraction(1)
            for ratio in between:
                factor *= ratio or 0
            if name in PRICES:
                values[name] = float(Fraction(value) / factor)
            elif name in SHARES:
                values[name] = float(Fraction(value) * factor)
    return pl.DataFrame(rows, frame.schema)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trials, places, st.data())
def test_every_row_sees_its_window_in_its_own_shares(
    trial: Trial, chosen: list[tuple[int, Fraction | None]], data: st.DataObject
) -> None:
    frame, window = trial_frame(trial), trial_window(trial)
    cuts = cuts_at(frame, chosen)
    found = evaluate_in_own_shares(FEATURES, window, cuts)
    near = sorted(
        {min(len(frame) - 1, (row % len(frame)) + after) for row, _ in chosen for after in (0, 1, 13, 49, 50)}
    )
    for row in {*near, data.draw(st.integers(0, len(frame) - 1))}:
        for each in FEATURES:
            if not each.applies(window.series):
                continue
            seen = one_by_one(frame, cuts, each.lookback_for(window.series), row)
            alone = window.rows(row - len(seen) + 1, row + 1)
            columns = {name: seen[name].to_numpy() for name, kind in seen.schema.items() if kind == pl.Float64}
            expected = evaluate([each], alone.with_columns(columns))[each.name][-1:]
            assert bits(found[each.name][row : row + 1]) == bits(expected), (each.name, row)


@settings(max_examples=EXAMPLES, deadline=None)
@given(trials, places)
def test_windows_without_a_cut_keep_their_bits(trial: Trial, chosen: list[tuple[int, Fraction | None]]) -> None:
    frame, window = trial_frame(trial), trial_window(trial)
    cuts = cuts_at(frame, chosen)
    found, uncut = evaluate_in_own_shares(FEATURES, window, cuts), evaluate(FEATURES, window)
    ends = micros(frame["end"])
    for each in FEATURES:
        lookback = each.lookback_for(window.series) if each.applies(window.series) else 0
        first = ends[np.maximum(np.arange(len(ends)) - lookback, 0)]
        spans = np.any([(first <= cut.moment) & (cut.moment < ends) for cut in cuts], axis=0)
        assert (bits(found[each.name])[~spans] == bits(uncut[each.name])[~spans]).all(), each.name


@settings(max_examples=EXAMPLES, deadline=None)
@given(trials, places, st.integers(0, 219), st.integers(0, 219))
def test_where_a_frame_begins_and_ends_changes_nothing(
    trial: Trial, chosen: list[tuple[int, Fraction | None]], one: int, other: int
) -> None:
    frame, window = trial_frame(trial), trial_window(trial)
    cuts = cuts_at(frame, chosen)
    whole = evaluate_in_own_shares(FEATURES, window, cuts)
    start, stop = sorted((one % len(frame), other % len(frame) + 1))
    lookback = max(each.lookback_for(window.series) for each in FEATURES)
    before = max(0, start - lookback)
    piece = evaluate_in_own_shares(FEATURES, window.rows(before, stop), cuts)[start - before :]
    for name in whole.columns:
        assert (bits(piece[name]) == bits(whole[name][start:stop])).all(), name


@settings(max_examples=EXAMPLES, deadline=None)
@given(trials, places, st.integers(1, 219))
def test_candle_by_candle_has_the_bits_of_the_whole(
    trial: Trial, chosen: list[tuple[int, Fraction | None]], begin: int
) -> None:
    frame, window = trial_frame(trial), trial_window(trial)
    cuts, begin = sorted(cuts_at(frame, chosen), key=lambda cut: cut.moment), begin % len(frame)
    whole = evaluate_in_own_shares(FEATURES, window, cuts)
    ends = micros(frame["end"])
    # The rows so far are in their own shares: cuts among them are told again.
    live = LiveSeries(FEATURES, window.rows(0, 0).observing(dict(window.observations.frames)))
    for row, candle in enumerate(frame.iter_rows(named=True)):
        for cut in cuts:
            if row and ends[row - 1] <= cut.moment < ends[row]:
                live.cut(cut.ratio)
        found = live.close(candle["timestamp"], candle["end"], candle)
        if row >= begin:
            assert repr(found) == repr(whole.row(row, named=True)), row


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.builds(
        Trial,
        seed=st.integers(0, 2**32),
        rows=st.integers(60, 220),
        asset_class=st.just(AssetClass.STOCK),
        timeframe=st.sampled_from([Timeframe.M30, Timeframe.D1]),
        step=st.sampled_from([0.02, 0.1]),
    ),
    st.lists(st.tuples(st.integers(1, 220), st.sampled_from(RATIOS)), min_size=1, max_size=4),
)
def test_values_are_those_of_the_split_adjusted_series(trial: Trial, chosen: list[tuple[int, Fraction]]) -> None:
    """Scale-free ones as they are, the others after conversion by the row's own factor."""
    smooth = trial_frame(trial)
    ends = micros(smooth["end"])
    cuts = cuts_at(smooth, list(chosen))
    own = [Fraction(1)] * len(ends)
    for cut in cuts:
        own = [ratio if end > cut.moment else ratio * cut.ratio for ratio, end in zip(own, ends, strict=True)]
    # The series as it was traded: prices of before a split are that much higher.
    traded = smooth.with_columns(
        *(pl.Series(name, _by_row(smooth[name], own, up=True)) for name in PRICES if name in smooth.columns),
        *(pl.Series(name, _by_row(smooth[name], own, up=False)) for name in SHARES if name in smooth.columns),
    )
    adjusted = evaluate(FEATURES, Window.of(trial_window(trial).series, smooth))
    window = Window.of(trial_window(trial).series, traded)
    found = evaluate_in_own_shares(FEATURES, window, cuts)
    for each in FEATURES:
        ours, theirs = found[each.name], adjusted[each.name]
        if each.labels:
            assert ours.equals(theirs), each.name
            continue
        if each.name in IN_PRICES:
            ours = pl.Series([v and v / float(r) for v, r in zip(ours, own, strict=True)], dtype=pl.Float64)
        elif each.name in IN_SHARES:
            ours = pl.Series([v and v * float(r) for v, r in zip(ours, own, strict=True)], dtype=pl.Float64)
        assert (ours.is_null() == theirs.is_null()).all(), each.name
        np.testing.assert_allclose(ours.drop_nulls(), theirs.drop_nulls(), rtol=1e-12, atol=1e-12, err_msg=each.name)


def _by_row(values: pl.Series, own: list[Fraction], *, up: bool) -> list[float | None]:
    return [
        None if value is None else float(Fraction(value) * (ratio if up else 1 / ratio))
        for value, ratio in zip(values, own, strict=True)
    ]


def test_zones_of_neighbouring_cuts() -> None:
    ends = np.arange(1, 21, dtype=np.int64) * 10
    # Rows 5, 8 and 8 again begin a new part; 5 -> x2, 8 -> x3 and x5.
    cuts = [Cut(80, Fraction(3)), Cut(50, Fraction(2)), Cut(85, Fraction(5)), Cut(0, Fraction(9)), Cut(200, None)]
    first, second = zones(cuts, ends, 4)
    assert (first.first, first.start, first.stop, first.factors) == (1, 5, 8, ((1, 5, Fraction(2)),))
    assert (second.first, second.start, second.stop) == (4, 8, 12)
    assert second.factors == ((4, 5, Fraction(30)), (5, 8, Fraction(15)))
    assert zones(cuts, ends, 0) == []


def test_history_ends_where_another_contract_begins() -> None:
    ends = np.arange(1, 9, dtype=np.int64) * 10
    cuts = [Cut(30, None), Cut(50, Fraction(2))]
    assert rows_of_one_kind(cuts, ends).tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
