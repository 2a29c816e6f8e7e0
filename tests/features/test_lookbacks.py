"""What a feature declares to need is enough, and of rows no more than needed: one less is noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest

import market_data.features
from market_data.model.evaluation import evaluate
from market_data.model.feature import Feature
from market_data.model.instrument import AssetClass
from market_data.model.proof import bits, prove
from market_data.model.timeframe import Timeframe
from market_data.model.trial import Trial, trial_window
from market_data.shelf import collect

FEATURES = collect(market_data.features, Feature)
KINDS = [
    (AssetClass.CRYPTO, Timeframe.H1),
    (AssetClass.CRYPTO, Timeframe.M15),
    (AssetClass.CRYPTO, Timeframe.D1),
    (AssetClass.STOCK, Timeframe.D1),
    (AssetClass.STOCK, Timeframe.H1),
    (AssetClass.STOCK, Timeframe.M30),
]

pytestmark = pytest.mark.filterwarnings("ignore:Series.values returning")


@pytest.mark.parametrize(("asset_class", "timeframe"), KINDS)
@pytest.mark.parametrize("name", FEATURES)
def test_of_no_rows_there_are_no_values(name: str, asset_class: AssetClass, timeframe: Timeframe) -> None:
    window = trial_window(Trial(seed=3, rows=3, asset_class=asset_class, timeframe=timeframe))
    assert evaluate([FEATURES[name]], window.rows(0, 0)).height == 0


@pytest.mark.parametrize(("asset_class", "timeframe"), KINDS)
@pytest.mark.parametrize("name", FEATURES)
def test_no_row_too_many(name: str, asset_class: AssetClass, timeframe: Timeframe) -> None:
    window = trial_window(Trial(seed=3, rows=300, asset_class=asset_class, timeframe=timeframe))
    each = FEATURES[name]
    if not each.applies(window.series):
        return
    lookback = each.lookback_for(window.series)
    whole = evaluate([each], window)[name]
    enough, fewer = set[bool](), set[bool]()
    for row in range(200, 300):
        for before, found in ((lookback, enough), (lookback - 1, fewer)):
            if before >= 0:
                part = evaluate([replace(each, lookback=before)], window.rows(row - before, row + 1))[name]
                found.add(bits(part)[-1] == bits(whole)[row])
    assert enough == {True}
    assert False in fewer or not lookback


@pytest.mark.parametrize("name", [name for name, each in FEATURES.items() if each.observations])
def test_the_declared_history_of_observations_is_enough(name: str) -> None:
    window = trial_window(Trial(seed=3, rows=300))
    assert evaluate([FEATURES[name]], window)[name].null_count() < 150
    assert prove([FEATURES[name]], window, range(100, 300, 9)) == []
