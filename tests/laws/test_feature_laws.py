"""The laws every feature obeys, found by discovery: no future, enough lookback, no start; all to the last bit."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import market_data.features
from market_data.model import evaluation, panel
from market_data.model.evaluation import evaluate
from market_data.model.feature import SECTIONS, Feature
from market_data.model.instrument import AssetClass
from market_data.model.live import LiveSeries
from market_data.model.proof import bits, prove, prove_on_trials
from market_data.model.timeframe import Timeframe
from market_data.model.trial import Trial, trial_frame, trial_observations, trial_window
from market_data.shelf import collect

FEATURES = list(collect(market_data.features, Feature).values())
# More of them by hand; `make prove` tries 10,000 of another kind.
EXAMPLES = int(os.environ.get("MARKET_DATA_PROOF_EXAMPLES", "60"))

# exchange_calendars 4.13 reads Series.values, which pandas 3 announces to change.
pytestmark = pytest.mark.filterwarnings("ignore:Series.values returning")

trials = st.builds(
    Trial,
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 220),
    asset_class=st.sampled_from(AssetClass),
    timeframe=st.sampled_from(Timeframe),
    scale=st.sampled_from([1e-12, 0.01, 1.0, 100.0, 1e5, 1e12]),
    step=st.sampled_from([1e-9, 1e-3, 0.02, 0.5, 3.0]),
    gaps=st.sampled_from([0.0, 0.0, 0.02, 0.3]),
    absent=st.sampled_from([0.0, 0.0, 0.01, 0.2]),
    flat=st.booleans(),
    idle=st.sampled_from([0.0, 0.3, 1.0]),
    extreme=st.sampled_from([0.0, 0.0, 0.02, 0.3]),
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trials, st.data())
def test_no_future_enough_lookback_no_start(trial: Trial, data: st.DataObject) -> None:
    window = trial_window(trial)
    cuts = data.draw(st.lists(st.integers(0, max(0, len(window) - 1)), min_size=1, max_size=2))
    assert prove(FEATURES, window, cuts) == []


@settings(max_examples=EXAMPLES, deadline=None)
@given(trials)
def test_never_infinite_and_never_nan(trial: Trial) -> None:
    for column in evaluate(FEATURES, trial_window(trial)):
        if column.dtype == pl.Float64:
            assert np.isfinite(column.drop_nulls().to_numpy()).all(), column.name


@settings(max_examples=max(1, EXAMPLES // 5), deadline=None)
@given(trials, st.randoms(use_true_random=False))
def test_pieces_in_any_order_give_the_same_bits(trial: Trial, random: object) -> None:
    """A series computed in pieces, each with its lookback loaded, equals the series computed at once."""
    window = trial_window(trial)
    whole = evaluate(FEATURES, window)
    cuts = sorted({0, len(window), *(random.randrange(len(window) + 1) for _ in range(6))})  # type: ignore[attr-defined]
    for each in FEATURES:
        lookback = each.lookback_for(window.series)
        for start, stop in itertools.pairwise(cuts):
            before = max(0, start - lookback)
            piece = evaluate([each], window.rows(before, stop))[each.name][start - before :]
            assert (bits(piece) == bits(whole[each.name][start:stop])).all(), (each.name, start, stop)


@settings(max_examples=max(1, EXAMPLES // 5), deadline=None)
@given(st.lists(trials, min_size=1, max_size=5), trials, st.integers(1, 400))
def test_a_series_in_a_panel_has_the_bits_it_has_alone(several: list[Trial], kind: Trial, rows: int) -> None:
    """Series of any length and time, one after the other in one frame, do not see each other."""
    trials = [replace(one, asset_class=kind.asset_class, timeframe=kind.timeframe) for one in several]
    frames = [trial_frame(one) for one in trials]
    seen = [trial_observations(one) for one in trials]
    together = pl.concat(with_symbol(frame, place) for place, frame in enumerate(frames))
    observations = {
        # In another order than the candles.
        name: pl.concat(with_symbol(seen[place][name], place) for place in reversed(range(len(seen))))
        for name in seen[0]
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panel, "BLOCK_ROWS", rows)
        found = panel.evaluate_panel(FEATURES, kind.asset_class, kind.timeframe, together, observations)
    alone = pl.concat(evaluate(FEATURES, trial_window(one)) for one in trials)
    for name in alone.columns:
        assert (bits(found[name]) == bits(alone[name])).all(), name


def with_symbol(frame: pl.DataFrame, place: int) -> pl.DataFrame:
    return frame.with_columns(symbol=pl.lit(f"S{place}"))


@settings(max_examples=max(1, EXAMPLES // 5), deadline=None)
@given(trials)
def test_candle_by_candle_has_the_bits_of_the_whole(trial: Trial) -> None:
    """Beginning anywhere in the series, with the rows so far, each new candle's features are those of the batch."""
    window, frame = trial_window(trial), trial_frame(trial)
    whole = evaluate(FEATURES, window)
    live = LiveSeries(FEATURES, window.rows(0, len(window) // 3))
    for row in range(len(window) // 3, len(window)):
        candle = frame.row(row, named=True)
        found = live.close(candle["timestamp"], candle["end"], candle)
        # Equal in order and, for zeros, in sign.
        assert repr(found) == repr(whole.row(row, named=True)), row


@settings(max_examples=max(1, EXAMPLES // 20), deadline=None)
@given(trials, st.integers(3, 60))
def test_blocks_and_threads_give_the_bits_of_one_piece(trial: Trial, rows: int) -> None:
    window = trial_window(trial)
    half = window.rows(0, len(window) // 2)
    whole = evaluate(FEATURES, window)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "BLOCK_ROWS", rows)
        patch.setattr(evaluation, "SMALLEST_BLOCK_ROWS", 1)
        pieces = evaluate(FEATURES, window)
        first, second = evaluation.evaluate_many(FEATURES, [window, half])
    for name in whole.columns:
        assert (bits(pieces[name]) == bits(whole[name])).all(), name
        assert (bits(first[name]) == bits(whole[name])).all(), name
        assert (bits(second[name]) == bits(whole[name][: len(half)])).all(), name


@pytest.mark.parametrize("each", FEATURES, ids=lambda each: each.name)
class TestEveryFeature:
    def test_explains_itself(self, each: Feature) -> None:
        assert set(each.sections) == {"Summary", *SECTIONS}
        assert all(len(text) > 10 for text in each.sections.values())
        assert each.unit

    def test_has_a_value_somewhere(self, each: Feature) -> None:
        """The laws would hold of a column that is always null."""
        column = evaluate([each], trial_window(Trial(seed=1, rows=200)))[each.name]
        assert column.null_count() < 100

    def test_is_null_on_an_empty_series_and_an_only_candle_gives_one_row(self, each: Feature) -> None:
        window = trial_window(Trial(seed=1, rows=1))
        assert evaluate([each], window.rows(0, 0)).height == 0
        assert evaluate([each], window).height == 1
        if each.lookback_for(window.series):
            assert evaluate([each], window)[each.name].to_list() == [None]

    def test_has_a_version(self, each: Feature) -> None:
        assert len(each.version) == 12


def test_names_and_versions_are_distinct() -> None:
    assert len({each.version for each in FEATURES}) == len(FEATURES)


@pytest.mark.prove
def test_ten_thousand_series() -> None:
    assert list(prove_on_trials(FEATURES, 10_000)) == []
