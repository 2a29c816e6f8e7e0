"""The quality score and the status, against values worked out by hand from CONTRACT §6 and §3."""

from datetime import timedelta

import polars as pl
import pytest

from market_data.model.instrument import AssetClass
from market_data.model.quality import completeness, freshness, score, status_name

HOURS = timedelta(hours=1)


@pytest.mark.parametrize(
    ("asset_class", "seconds", "expected"),
    [
        ("crypto", 0.0, 1.0),
        ("crypto", 30.0, 1.0),
        ("crypto", 315.0, 0.5),  # halfway from 30 to 600
        ("crypto", 600.0, 0.0),
        ("crypto", 1e9, 0.0),
        ("stock", 60.0, 1.0),
        ("stock", 1830.0, 0.5),  # halfway from 60 to 3600
        ("etf", 2715.0, 0.25),
        ("etf", 3600.0, 0.0),
    ],
)
def test_freshness(asset_class: str, seconds: float, expected: float) -> None:
    assert freshness(pl.Series([seconds]), AssetClass(asset_class)).to_list() == pytest.approx([expected])


def test_freshness_of_an_unknown_latency_is_unknown() -> None:
    assert freshness(pl.Series([None], dtype=pl.Float64), AssetClass.STOCK).to_list() == [None]


def test_completeness() -> None:
    rows = pl.DataFrame({"open": [1.0, None, None], "close": [1.0, 2.0, None], "volume": [0.0, 0.0, 0.0]})
    expected = ("open", "close", "volume", "taker_buy_volume")
    assert completeness(rows, expected).to_list() == [0.75, 0.5, 0.25]
    assert completeness(rows, ("open", "close", "volume"))[0] == 1.0
    assert completeness(rows, ()).to_list() == [1.0, 1.0, 1.0]
    assert completeness(rows, ("vwap",)).to_list() == [0.0, 0.0, 0.0]


def shares(*values: float | None) -> pl.Series:
    return pl.Series(values, dtype=pl.Float64)


@pytest.mark.parametrize(
    ("complete", "checks", "features", "fresh", "expected"),
    [
        (1, 1, 1, 1, 1.0),
        (0, 0, 0, 0, 0.0),
        (1, 0, 0, 0, 0.40),
        (0, 1, 0, 0, 0.30),
        (0, 0, 1, 0, 0.20),
        (0, 0, 0, 1, 0.10),
        (0.5, 0.5, 0.5, 0.5, 0.5),
        (1, 1, 1, None, 0.9),
    ],
)
def test_score(complete: float, checks: float, features: float, fresh: float | None, expected: float) -> None:
    found = score(
        completeness=shares(complete), checks=shares(checks), features=shares(features), freshness=shares(fresh)
    )
    assert found.to_list() == pytest.approx([expected])


def test_full_marks_make_exactly_one() -> None:
    one = shares(1.0)
    assert score(completeness=one, checks=one, features=one, freshness=one).to_list() == [1.0]


@pytest.mark.parametrize(
    ("lag", "quality_score", "failed", "expected"),
    [
        (0 * HOURS, 0.95, False, "healthy"),
        (23.9 * HOURS, 0.901, False, "healthy"),
        (24 * HOURS, 0.95, False, "warning"),
        (72 * HOURS, 0.95, False, "warning"),
        (72.1 * HOURS, 0.95, False, "stale"),
        (0 * HOURS, 0.90, False, "warning"),
        (0 * HOURS, 0.85, False, "warning"),
        (0 * HOURS, 0.849, False, "stale"),
        (0 * HOURS, 0.95, True, "error"),
        (None, None, True, "error"),
        (None, None, False, "not_enriched"),
    ],
)
def test_status(lag: timedelta | None, quality_score: float | None, failed: bool, expected: str) -> None:
    assert status_name(lag=lag, quality_score=quality_score, failed=failed) == expected
