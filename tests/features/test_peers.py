"""The peer of the benchmark computes the same: every feature by pandas' own rolling, shifting and joining."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.features import FEATURES, SERIES, candles, observations
from bench.peers import by_pandas

from market_data.model.evaluation import evaluate
from market_data.model.window import Window

pytest.importorskip("pandas")


@pytest.mark.parametrize("kept", [1.0, 0.97], ids=["whole", "with gaps"])
def test_pandas_agrees(kept: float) -> None:
    rows = 6000
    frame = candles(rows).sample(fraction=kept, seed=5).sort("timestamp")
    seen = observations(rows)
    ours, theirs = evaluate(FEATURES, Window.of(SERIES, frame, seen)), by_pandas(frame, seen)()
    assert set(theirs.columns) == {each.name for each in FEATURES}
    for each in FEATURES:
        if each.labels:
            assert ours[each.name].to_list() == [text if isinstance(text, str) else None for text in theirs[each.name]]
        else:
            column, other = ours[each.name].to_numpy(), theirs[each.name].to_numpy(np.float64)
            assert (np.isnan(column) == np.isnan(other)).all(), each.name
            assert np.nanmax(np.abs(column - other) / np.maximum(np.abs(other), 1e-6)) < 1e-8, each.name
