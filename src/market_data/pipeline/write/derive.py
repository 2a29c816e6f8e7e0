"""Everything that follows from the stored facts of a series: source values, features, notes and the quality score.

A row's result depends only on itself and on the rows its features and rules declare as lookback, never on where the
frame begins: so the same call serves first loads, corrections and reads as of a past moment, with the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from hashlib import sha256
from threading import BoundedSemaphore
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from market_data.model import quality
from market_data.model.contract import OTHER_CONTRACT
from market_data.model.cuts import Cut, evaluate_in_own_shares, rows_of_one_kind, zones
from market_data.model.dataset import UTC_MICROS
from market_data.model.feature import Feature
from market_data.model.instrument import AssetClass, Series
from market_data.model.observation import IntArray
from market_data.model.rule import Rule, Severity
from market_data.model.session import grid, lookback_start
from market_data.model.timeframe import TimeRange
from market_data.model.window import Window
from market_data.pipeline.write.normalise import as_doubles
from market_data.pipeline.write.observe import SOURCE_VALUES, expected_values, join_observations
from market_data.pipeline.write.validate import broken_rules
from market_data.storage.series.own_features import own_among

# Part of every row's version: raise it when a change here or in cuts.py changes a bit of any derived column.
DERIVATION_VERSION: Final = 2
COMPUTING: Final = 2
_ALWAYS: Final = ("open", "high", "low", "close", "volume")
EXPECTED_FIELDS: Final[Mapping[AssetClass, tuple[str, ...]]] = {
    AssetClass.STOCK: _ALWAYS,
    AssetClass.ETF: _ALWAYS,
    AssetClass.CRYPTO: (*_ALWAYS, "taker_buy_volume"),
}


@dataclass(frozen=True)
class Shelves:
    """What is computed and checked: the features and rules that bootstrap found."""

    features: tuple[Feature, ...]
    rules: tuple[Rule, ...]
    """The rules of candles."""
    reference_rules: tuple[Rule, ...] = ()
    """The rules of all other datasets."""
    freshness: Mapping[AssetClass, quality.Freshness] = field(default_factory=lambda: quality.FRESHNESS)
    """Ages that count as fresh and as stale."""
    computing: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(COMPUTING), compare=False, repr=False)
    """Room for those who compute features at once."""

    @cached_property
    def own(self) -> tuple[str, ...]:
        """Names of the features that are the user's own: they have a table of their own and no part in scores."""
        return tuple(own_among([feature.name for feature in self.features]))

    @property
    def noting(self) -> tuple[Rule, ...]:
        """The rules that look back over the stored series."""
        return tuple(rule for rule in self.rules if rule.severity is Severity.NOTE)

    def lookback(self, series: Series) -> int:
        """How many rows before a row its derived values may depend on."""
        reach = [f.lookback_for(series) for f in self.features if f.applies(series)]
        return max([*reach, *(rule.lookback for rule in self.noting), 0])

    @cached_property
    def version(self) -> str:
        """Changes with the definition of any feature or rule of candles: rows derived under another are stale."""
        versions = [f"{f.name}={f.version}" for f in self.features] + [f"{r.name}={r.version}" for r in self.rules]
        versions.append(f"derivation={DERIVATION_VERSION}")
        if self.freshness != quality.FRESHNESS:
            versions.append(f"freshness={sorted(self.freshness.items())}")
        return sha256(" ".join(versions).encode()).hexdigest()[:12]

    def history(self) -> dict[str, timedelta]:
        """How much of each own-clock dataset the features look back on."""
        spans: dict[str, timedelta] = {}
        for feature in self.features:
            for dataset, span in feature.observations.items():
                spans[dataset] = max(span, spans.get(dataset, timedelta(0)))
        return spans


def fact_score(series: Series, rows: pl.DataFrame, shelves: Shelves) -> pl.Series:
    """The quality of each fact alone, 0 to 1: what decides between sources.

    Its fields, its source's doubts and its freshness; the features are left out since they are the same for all.
    """
    share = quality.completeness(rows, EXPECTED_FIELDS[series.asset_class])
    # As the rule source_in_doubt: what a provider does not know counts against a row, where it comes from does not.
    # So does whose it is, where the series is another's.
    doubts = rows["notes"].str.contains("_unknown", literal=True) | of_another_contract(rows["notes"])
    checks = (~doubts).fill_null(value=True).cast(pl.Float64)
    fresh = quality.freshness(rows["data_age_seconds"], series.asset_class, shelves.freshness)
    whole = pl.repeat(1.0, rows.height, eager=True)
    return quality.score(completeness=share, checks=checks, features=whole, freshness=fresh).rename("quality_score")


def derive(
    series: Series,
    rows: pl.DataFrame,
    observations: Mapping[str, pl.DataFrame],
    shelves: Shelves,
    cuts: Sequence[Cut] = (),
) -> pl.DataFrame:
    """Derived columns of every row of `rows`, among them those that only serve as lookback.

    Args:
        series: whose rows they are.
        rows: consecutive stored candles in order: CANDLES' columns, `end`, `data_age_seconds`, `contract_id`,
            `disagrees`; of weeks `mixed`, where it is known.
        observations: own-clock values by dataset, reaching back as far as `Shelves.history` says.
        shelves: what to compute and check.
        cuts: where the series goes on in other shares or as another contract.

    Returns:
        `timestamp`, SOURCE_VALUES, one column per feature, feature_version, is_validated, quality_score,
        data_completeness, validation_notes, gap_detected, volume_anomaly.
    """
    joined = exactly(join_observations(rows, observations))
    seen = as_doubles(joined).with_columns(previous_expected=previous_expected(series, rows))
    applicable = [f for f in shelves.features if f.applies(series) and f.name not in shelves.own]
    window = window_of(series, seen, observations)
    with shelves.computing:
        values = evaluate_in_own_shares(shelves.features, window, cuts, joined)
    if "mixed" in rows.columns and rows["mixed"].any():
        # Of a candle in two kinds of shares nothing can be computed.
        values = values.select(pl.when(~rows["mixed"]).then(pl.col(name)).alias(name) for name in values.columns)
    notes = _broken(series, seen, shelves)
    for zone in zones(cuts, window.ends, shelves.lookback(series)) if cuts else ():
        notes = zone.put(notes, _broken(series, zone.frame(seen, zone.columns(window, joined)), shelves))
    history = rows_of_one_kind(cuts, window.ends) if cuts else np.arange(rows.height)
    present = _feature_share(window, history, values, applicable)
    scores = _scores(series, seen, notes, present, _completeness(series, seen, observations), shelves)
    texts = _validation_notes(notes, rows["notes"])
    return pl.concat(
        [
            joined.select("timestamp", *SOURCE_VALUES),
            values,
            scores,
            pl.DataFrame(
                {
                    "feature_version": [shelves.version] * rows.height,
                    "is_validated": (notes.list.len() == 0) & bool(shelves.rules),
                    "validation_notes": texts,
                    "gap_detected": notes.list.contains("gap"),
                    "volume_anomaly": notes.list.contains("volume_anomaly"),
                }
            ),
        ],
        how="horizontal",
    )


def _broken(series: Series, seen: pl.DataFrame, shelves: Shelves) -> pl.Series:
    """Per row the rules it breaks; a rejecting one only where the row was stored before there was the rule."""
    as_offered = seen.with_columns(asset_class=pl.lit(series.asset_class.value), first_of_timestamp=pl.lit(value=True))
    return broken_rules(as_offered, shelves.rules)


def exactly(joined: pl.DataFrame) -> pl.DataFrame:
    """Candles with their source values as exact numbers, `taker_sell_volume` among them."""
    # The difference is taken exactly; what rules and features see is rounded once.
    return joined.with_columns(taker_sell_volume=pl.col("volume") - pl.col("taker_buy_volume"))


def window_of(series: Series, seen: pl.DataFrame, observations: Mapping[str, pl.DataFrame]) -> Window:
    """What the features of a series are computed from: its candles as doubles, and own-clock values."""
    return Window.of(series, seen, {name: as_doubles(frame) for name, frame in observations.items()})


def previous_expected(series: Series, rows: pl.DataFrame) -> pl.Series:
    """Per row the open time of the candle the calendar expects just before it."""
    if rows.is_empty():
        return pl.Series("previous_expected", [], UTC_MICROS)
    start = lookback_start(series.asset_class, series.timeframe, rows["timestamp"][0], 1)
    opens = grid(series.asset_class, series.timeframe, TimeRange(start, rows["timestamp"][-1])).opens
    expected = pl.DataFrame({"previous_expected": opens}).cast(UTC_MICROS)
    expected = expected.with_columns(before=pl.col("previous_expected"))
    found = rows.select("timestamp").join_asof(
        expected.set_sorted("before"),
        left_on="timestamp",
        right_on="before",
        strategy="backward",
        allow_exact_matches=False,
    )
    return found["previous_expected"]


def _scores(
    series: Series, seen: pl.DataFrame, notes: pl.Series, present: pl.Series, complete: pl.Series, shelves: Shelves
) -> pl.DataFrame:
    # All divisions by NumPy: Polars multiplies by the reciprocal of a scalar, but not for a single row.
    passed = pl.Series(np.maximum(1.0 - notes.list.len().to_numpy() / max(len(shelves.noting), 1), 0.0))
    passed = passed.zip_with(~of_another_contract(seen["notes"]), pl.zeros(seen.height, eager=True))
    fresh = quality.freshness(seen["data_age_seconds"], series.asset_class, shelves.freshness)
    score = quality.score(completeness=complete, checks=passed, features=present, freshness=fresh)
    return pl.DataFrame({"quality_score": score, "data_completeness": complete})


def of_another_contract(notes: pl.Series) -> pl.Series:
    """Per row whether its source's remarks say that it is not of the series' own contract."""
    return notes.str.contains(OTHER_CONTRACT, literal=True).fill_null(value=False)


def _completeness(series: Series, seen: pl.DataFrame, observations: Mapping[str, pl.DataFrame]) -> pl.Series:
    """Share of the fields each row should have; where an instrument has derivatives, a candle without is incomplete."""
    plain = EXPECTED_FIELDS[series.asset_class]
    expected = expected_values(seen, observations)
    present = pl.sum_horizontal(pl.col(name).is_not_null().cast(pl.Int64) for name in plain)
    also = [(pl.col(name).is_not_null() & expected[name]).cast(pl.Int64) for name in expected.columns]
    # Divided once: a sum of shares would miss 1 by a rounding.
    wanted = len(plain) + expected.select(pl.sum_horizontal(pl.all().cast(pl.Int64))).to_series().to_numpy()
    found = seen.select(pl.sum_horizontal(present, *also)).to_series().to_numpy()
    return pl.Series("data_completeness", found / wanted)


def _feature_share(window: Window, history: IntArray, values: pl.DataFrame, applicable: Sequence[Feature]) -> pl.Series:
    """Features present, of those whose inputs and history are there; 1 where none could be.

    Args:
        window: the rows.
        history: by row how many rows before it may be looked back on.
        values: of all features.
        applicable: those that count.
    """
    known: dict[str, NDArray[np.bool_]] = {}
    possible = np.zeros(len(window), np.int64)
    present = np.zeros(len(window), np.int64)
    for feature in applicable:
        found = values[feature.name].is_not_null().to_numpy()
        allowed = history >= feature.lookback_for(window.series)
        if feature.possible is not None:
            allowed &= feature.possible(window)
        for name in feature.inputs:
            if name not in known:
                known[name] = ~np.isnan(window.column(name))
            allowed &= known[name]
        if feature.observations:
            # Whether history suffices there is the feature's own rule; it counts when it has a value.
            allowed &= found
        possible += allowed
        present += allowed & found
    return pl.Series(np.divide(present, possible, out=np.ones(len(window)), where=possible > 0))


def _validation_notes(notes: pl.Series, remarks: pl.Series) -> pl.Series:
    """Broken rules and the source's own remarks as one text, null when there is nothing to say."""
    said = pl.DataFrame({"rules": notes.list.join("; "), "remarks": remarks})
    return said.select(
        pl.concat_str(
            pl.when(pl.col("rules") != "").then("rules"), "remarks", separator="; ", ignore_nulls=True
        ).replace("", None)
    ).to_series()
