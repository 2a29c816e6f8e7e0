"""The quality score of a candle and the status of an instrument: thresholds as data, and the arithmetic on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

import numpy as np
import polars as pl

from market_data.model.instrument import AssetClass

Status = Literal["healthy", "warning", "stale", "error", "not_enriched"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """Ages in seconds: the one aimed at, those that raise an alert, and the one from which data is stale."""

    target: float
    alert: float
    critical: float
    stale: float


_LISTED: Final = Freshness(target=60, alert=600, critical=300, stale=3600)
FRESHNESS: Final[Mapping[AssetClass, Freshness]] = {
    AssetClass.STOCK: _LISTED,
    AssetClass.ETF: _LISTED,
    AssetClass.CRYPTO: Freshness(target=30, alert=60, critical=120, stale=600),
}

# In percent: whole numbers, so that four full shares make exactly 1.
COMPLETENESS_PERCENT: Final = 40
CHECKS_PERCENT: Final = 30
FEATURES_PERCENT: Final = 20
FRESHNESS_PERCENT: Final = 10

MIN_QUALITY_SCORE: Final = 0.85
MIN_DATA_COMPLETENESS: Final = 0.95
HEALTHY_SCORE: Final = 0.90
HEALTHY_LAG: Final = timedelta(days=1)
STALE_LAG: Final = timedelta(days=3)


def completeness(rows: pl.DataFrame, expected: Sequence[str]) -> pl.Series:
    """Per row the share, 0 to 1, of the `expected` columns that hold a value; a column that is missing holds none."""
    if not expected:
        return pl.repeat(1.0, rows.height, eager=True).alias("data_completeness")
    present = [pl.col(name).is_not_null().cast(pl.Int64) for name in expected if name in rows.columns]
    if not present:
        return pl.repeat(0.0, rows.height, eager=True).alias("data_completeness")
    counts = rows.select(pl.sum_horizontal(present)).to_series().to_numpy()
    # Divided once: a sum of shares would miss 1 by a rounding. By NumPy: Polars multiplies by the reciprocal instead,
    # but not for a single row, so that a score would depend on the rows beside it.
    return pl.Series("data_completeness", counts / len(expected))


def freshness(
    latency_seconds: pl.Series, asset_class: AssetClass, limits_of: Mapping[AssetClass, Freshness] = FRESHNESS
) -> pl.Series:
    """1 up to the class's target latency, 0 from its stale threshold, linear between; null where unknown.

    The latency of a candle is how long after it could first have been had it was fetched, in seconds: `fetched_at`
    less the later of its end and the moment its page was asked for. A candle of last year that its source gave at once
    is as fresh as one of this minute, however long the run was at earlier pages or waited for its turn.
    """
    limits = limits_of[asset_class]
    # Divided by NumPy, see `completeness`.
    latency = latency_seconds.cast(pl.Float64).fill_null(np.nan).to_numpy()
    share = (limits.stale - latency) / (limits.stale - limits.target)
    return pl.Series("freshness", share, nan_to_null=True).clip(0.0, 1.0)


def score(*, completeness: pl.Series, checks: pl.Series, features: pl.Series, freshness: pl.Series) -> pl.Series:
    """The quality score, 0 to 1, of shares from 0 to 1 of equal length; a share that is unknown counts as 0."""
    weighted = (
        COMPLETENESS_PERCENT * completeness.fill_null(0.0)
        + CHECKS_PERCENT * checks.fill_null(0.0)
        + FEATURES_PERCENT * features.fill_null(0.0)
        + FRESHNESS_PERCENT * freshness.fill_null(0.0)
    )
    # Divided by NumPy, see `completeness`.
    return pl.Series("quality_score", weighted.to_numpy() / 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Least:
    """What an instrument's data must reach on average: below the score it is stale, below the completeness not well."""

    quality_score: float = MIN_QUALITY_SCORE
    data_completeness: float = MIN_DATA_COMPLETENESS


def status_name(
    *,
    lag: timedelta | None,
    quality_score: float | None,
    failed: bool,
    data_completeness: float | None = None,
    least: Least | None = None,
) -> Status:
    """The status of an instrument.

    Args:
        lag: for how long the first expected candle that is not stored has been due; None when nothing is stored.
        quality_score: mean score of its candles, None when nothing is stored.
        failed: whether the newest run of one of its timeframes failed.
        data_completeness: mean share of its candles' fields that hold a value; None counts as whole.
        least: what both must reach.

    Returns:
        `error` when one failed, `not_enriched` when nothing was ever stored, `stale` with a lag over 3 days or
        a score under the least (0.85), `healthy` with a lag under a day, a score over 0.9 and the least completeness
        (0.95), else `warning`.
    """
    if failed:
        return "error"
    if lag is None or quality_score is None:
        return "not_enriched"
    least = least or Least()
    if lag > STALE_LAG or quality_score < least.quality_score:
        return "stale"
    complete = data_completeness is None or data_completeness >= least.data_completeness
    if lag < HEALTHY_LAG and quality_score > HEALTHY_SCORE and complete:
        return "healthy"
    return "warning"
