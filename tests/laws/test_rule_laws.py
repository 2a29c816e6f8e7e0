"""Laws every rule keeps; a new rule inherits them by being declared."""

import random
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_series_equal

from market_data import rules as shelf_package
from market_data.model.dataset import CANDLES, UTC_MICROS
from market_data.model.rule import Rule, Severity
from market_data.shelf import collect

RULES = {name: rule for name, rule in collect(shelf_package, Rule).items() if rule.dataset is CANDLES}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
keeps = settings(max_examples=30, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32)
START = datetime(2024, 3, 1, tzinfo=UTC)
SEEN = {name: pl.Float64 if dtype.is_decimal() else dtype for name, dtype in CANDLES.schema.items()} | {
    "end": UTC_MICROS,
    "first_of_timestamp": pl.Boolean,
    "asset_class": pl.String,
    "disagrees": pl.Boolean,
    "previous_expected": UTC_MICROS,
}


def market(seed: int, rows: int) -> pl.DataFrame:
    """Hourly candles with jumps, still stretches, gaps and absent volumes."""
    rng, price, hour, moment = random.Random(seed), 100.0, timedelta(hours=1), START
    candles = []
    for _ in range(rows):
        still = rng.random() < 0.3
        opened, price = price, price if still else price * 2 ** rng.choice([rng.gauss(0, 0.01), rng.gauss(0, 0.2)])
        before = moment
        moment += hour * rng.choice([1, 1, 1, 2])
        candles.append(
            {
                "timestamp": moment,
                "end": moment + hour,
                "open": opened,
                "high": max(opened, price),
                "low": min(opened, price),
                "close": price,
                "volume": rng.choice([None, 0.0, *(rng.lognormvariate(3, 1) for _ in range(8))]),
                "first_of_timestamp": True,
                "asset_class": "stock",
                "disagrees": rng.random() < 0.1,
                "previous_expected": rng.choice([before, moment - hour]),
            }
        )
    frame = pl.DataFrame(candles, schema_overrides={"volume": pl.Float64})
    return frame.select(
        pl.col(name).cast(dtype) if name in frame.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in SEEN.items()
    )


def verdict(rule: Rule, frame: pl.DataFrame) -> pl.Series:
    return frame.select(rule.expression.fill_null(value=True).alias("fine")).to_series()


@every_rule
@keeps
@given(seed=seeds, data=st.data())
def test_the_future_changes_nothing(rule: Rule, seed: int, data: st.DataObject) -> None:
    frame = market(seed, rule.lookback + 40)
    now = data.draw(st.integers(1, frame.height))
    assert_series_equal(verdict(rule, frame).head(now), verdict(rule, frame.head(now)))


@every_rule
@keeps
@given(seed=seeds)
def test_the_lookback_is_enough(rule: Rule, seed: int) -> None:
    frame = market(seed, 2 * rule.lookback + 40)
    whole = verdict(rule, frame)
    for row in range(rule.lookback, frame.height, 7):
        window = frame.slice(row - rule.lookback, rule.lookback + 1)
        assert verdict(rule, window)[-1] == whole[row]


@every_rule
@keeps
@given(seed=seeds, data=st.data())
def test_the_start_does_not_matter(rule: Rule, seed: int, data: st.DataObject) -> None:
    frame = market(seed, 2 * rule.lookback + 40)
    start = data.draw(st.integers(0, frame.height - rule.lookback - 1))
    later = frame.slice(start)
    assert_series_equal(verdict(rule, later).slice(rule.lookback), verdict(rule, frame).slice(start + rule.lookback))


@every_rule
def test_what_is_absent_cannot_be_wrong(rule: Rule) -> None:
    # `end` is null to say that the candle is off the grid, `notes` is null to say that there is nothing to say.
    empty = pl.DataFrame([{}] * (rule.lookback + 3), schema=SEEN).with_columns(
        end=pl.lit(START), asset_class=pl.lit("crypto")
    )
    assert verdict(rule, empty).all()


@every_rule
def test_a_frame_without_rows_has_no_verdicts(rule: Rule) -> None:
    assert verdict(rule, pl.DataFrame(schema=SEEN)).len() == 0


@every_rule
def test_it_explains_itself(rule: Rule) -> None:
    assert rule.doc.endswith(".")
    assert rule.expression.meta.root_names()
    assert set(rule.expression.meta.root_names()) <= set(SEEN)


@every_rule
def test_a_rejecting_rule_looks_at_the_row_alone(rule: Rule) -> None:
    assert rule.severity is Severity.NOTE or rule.lookback == 0


def test_the_columns_of_the_enriched_table_have_their_rules() -> None:
    assert RULES["gap"].severity is Severity.NOTE
    assert RULES["volume_anomaly"].severity is Severity.NOTE
