"""The laws every feature obeys, found by discovery: no future, enough lookback, no start; all to the last bit."""

from __future__ import annotations

import itertools
import os

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import market_data.features
from market_data.model.evaluation import evaluate
from market_data.model.feature import SECTIONS, Feature
from market_data.model.instrument import AssetClass
from market_data.model.proof import bits, prove
from market_data.model.timeframe import Timeframe
from market_data.model.trial import Trial, trial_window
from market_data.shelf import collect

FEATURES = list(collect(market_data.features, Feature).values())
# `make prove` raises it to 10,000.
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
    assert len({each.version for each in FEATURES}) == len(FEATURES) == 18
