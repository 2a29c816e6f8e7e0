"""Applies the rejecting rules: good rows go on, bad ones are told apart with the names of the rules they broke."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from market_data.model.instrument import Series
from market_data.model.rule import Rule, Severity
from market_data.pipeline.normalise import as_doubles


@dataclass(frozen=True, slots=True)
class Checked:
    """Rows of a batch, parted: `rejected` has one more column, `rules`, a list of names."""

    accepted: pl.DataFrame
    rejected: pl.DataFrame


def validate(series: Series, rows: pl.DataFrame, rules: Sequence[Rule]) -> Checked:
    """Part normalised rows by the rejecting rules; every row is in exactly one of the two results."""
    rejecting = [rule for rule in rules if rule.severity is Severity.REJECT]
    seen = as_doubles(rows).with_columns(asset_class=pl.lit(series.asset_class.value))
    broken = broken_rules(seen, rejecting)
    fine = broken.list.len() == 0
    return Checked(rows.filter(fine), rows.with_columns(rules=broken).filter(~fine))


def broken_rules(rows: pl.DataFrame, rules: Sequence[Rule]) -> pl.Series:
    """Per row the names of the rules it breaks, in the order of `rules`; an empty list when none."""
    if not rules:
        return pl.Series("rules", [[]] * rows.height, pl.List(pl.String))
    names = [
        pl.when(~rule.expression.fill_null(value=True)).then(pl.lit(rule.name)).alias(f"rule_{rule.name}")
        for rule in rules
    ]
    broken = rows.select(names)
    return broken.select(rules=pl.concat_list(pl.all()).list.drop_nulls()).to_series()
