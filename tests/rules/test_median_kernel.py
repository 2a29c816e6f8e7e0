"""The kernels behind the rules, against NumPy's own median and sessions listed by hand."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from market_data.rules.history import _no_jump
from market_data.rules.row import _within_session


def usual(returns: np.ndarray, row: int) -> bool:
    """The rule of one return as docs/decisions/0012-row-rules.md states it, by NumPy's own median and quantile."""
    before = returns[row - 31 : row] if row >= 31 else np.array([np.nan])
    if np.isnan(before).any() or np.isnan(returns[row]):
        return True
    distances = np.abs(before - np.median(before))
    # Of 31 values the one with 27 below it is the quantile 27/30.
    limit = max(12 * 1.4826 * np.median(distances), 3 * np.quantile(distances, 27 / 30), 0.01)
    return bool(abs(returns[row] - np.median(before)) <= limit)


@pytest.mark.parametrize("rows", [0, 1, 31, 32, 33, 400, 5000])
def test_jumps_are_those_of_the_definition(rows: int) -> None:
    generator = np.random.default_rng(rows)
    closes = 100 * np.exp(np.cumsum(0.004 * generator.standard_t(2, rows)))
    closes[rows // 2 : rows // 2 + 2] = np.nan
    found = _no_jump(pl.Series(closes)).to_numpy()
    returns = np.log(closes / np.concatenate([[np.nan], closes[:-1]])[:rows])
    expected = [usual(returns, row) for row in range(rows)]
    assert found.tolist() == expected
    assert rows < 5000 or 20 < expected.count(False) < 500


def test_absent_and_impossible_prices_are_no_jump_and_spoil_only_their_windows() -> None:
    closes = [*([100.0, 100.0, 100.1] * 27), 200.0]
    assert _no_jump(pl.Series(closes)).to_list() == [True] * 81 + [False]
    for spoilt in (None, 0.0, -1.0):
        assert _no_jump(pl.Series([*closes[:70], spoilt, *closes[71:]])).all()
        assert not _no_jump(pl.Series([spoilt, *closes[1:]])).all()


def test_moments_within_a_session() -> None:
    # 2024-07-03 closes at 17:00 UTC, the 4th is a holiday.
    moments = [datetime(2024, 7, 3, 16, 59), datetime(2024, 7, 3, 17), datetime(2024, 7, 4, 15), None]
    rows = pl.DataFrame({"timestamp": moments, "asset_class": ["stock"] * 4}).with_columns(
        pl.col("timestamp").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    )
    assert _within_session(rows.to_struct()).to_list() == [True, False, False, True]
    assert _within_session(rows.slice(2, 1).to_struct()).to_list() == [False]
    assert _within_session(rows.with_columns(asset_class=pl.lit("crypto")).to_struct()).all()
    assert _within_session(rows.head(0).to_struct()).to_list() == []


def test_before_the_first_session_known_nothing_is_inside() -> None:
    rows = pl.DataFrame({"timestamp": [datetime(1960, 1, 4, 15, tzinfo=UTC)], "asset_class": ["stock"]})
    assert _within_session(rows.to_struct()).to_list() == [False]
