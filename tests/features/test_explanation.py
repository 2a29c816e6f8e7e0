"""An explanation holds what its value is made of, and nothing else."""

from __future__ import annotations

import statistics
from datetime import timedelta

import polars as pl
import pytest

import market_data.features
from market_data.model.errors import UsageError
from market_data.model.evaluation import evaluate
from market_data.model.explanation import explain
from market_data.model.feature import Feature
from market_data.model.trial import Trial, trial_window
from market_data.shelf import collect

FEATURES = collect(market_data.features, Feature)
WINDOW = trial_window(Trial(seed=4, rows=120))


@pytest.mark.parametrize("name", FEATURES)
def test_the_value_is_the_stored_one(name):
    each = FEATURES[name]
    stored = evaluate([each], WINDOW)[name]
    for row in (0, 60, 119):
        found = explain(each, WINDOW, row)
        assert repr(found.value) == repr(stored[row])
        assert found.rows.columns == ["timestamp", "end", *each.inputs]
        assert each.sections["Formula"] in str(found)


def test_the_rows_are_those_of_the_formula():
    found = explain(FEATURES["sma_20"], WINDOW, 70)
    assert found.rows.height == found.lookback + 1 == 20
    assert found.complete
    assert found.value == pytest.approx(statistics.fmean(found.rows["close"]), rel=1e-15)
    assert found.rows["end"][-1] == found.end


def test_at_the_beginning_it_says_that_rows_are_missing():
    found = explain(FEATURES["sma_20"], WINDOW, 5)
    assert (found.value, found.complete, found.rows.height) == (None, False, 6)
    assert "null" in str(found)
    assert "Rows: 6 of the 20" in str(found)


def test_observations_are_those_known_at_the_end():
    found = explain(FEATURES["funding_rate_percentile"], WINDOW, 100)
    rates = found.observations["funding_rates"]
    assert 250 < rates.height < 280
    assert rates["known_at"].max() <= found.end
    assert rates["timestamp"].min() >= found.end - timedelta(days=91)
    # By hand: of the newest known rate's trailing 90 days, the share strictly below it.
    newest = rates.sort("timestamp")["timestamp"][-1]
    trailing = rates.filter(pl.col("timestamp") > newest - timedelta(days=90))
    current = trailing.filter(pl.col("timestamp") == newest)["rate"][0]
    assert found.value == pytest.approx((trailing["rate"] < current).sum() / trailing.height * 100)


def test_a_row_that_is_not_there_is_refused():
    with pytest.raises(UsageError, match="120 rows"):
        explain(FEATURES["atr"], WINDOW, 120)
