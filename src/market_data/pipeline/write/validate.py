"""Applies the rejecting rules: good rows go on, bad ones are told apart with the names of the rules they broke."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from market_data.model.dataset import CANDLES, Dataset
from market_data.model.instrument import Series
from market_data.model.rows import DUPLICATE_KEY, VALUE_MISSING
from market_data.model.rule import Rule, Severity
from market_data.pipeline.write.normalise import as_doubles

# A candle without one of these is none. Rules take null for fine, since most values may be absent.
REQUIRED: Final = ("timestamp", "open", "high", "low", "close", "volume")
NOTE_CONTRADICTED: Final = "sent_twice_unknown"
_COMPARED: Final = tuple(name for name in CANDLES.schema if name != "notes")


@dataclass(frozen=True, slots=True)
class Checked:
    """Rows of a batch, parted: `rejected` has one more column, `rules`, a list of names.

    `repeated` counts further rows that say again exactly what an accepted one says, `noted` by its name
    the accepted rows that break a noting rule, where the dataset has no column to say so.
    """

    accepted: pl.DataFrame
    rejected: pl.DataFrame
    repeated: int = 0
    noted: dict[str, int] = field(default_factory=dict)


def validate(series: Series, rows: pl.DataFrame, rules: Sequence[Rule]) -> Checked:
    """Part normalised rows by the rejecting rules; every row is accepted, rejected, or counted as repeated.

    Of rows that share a timestamp the first good one is accepted; others are repeated when they say the same, else
    rejected.
    """
    rejecting = [rule for rule in rules if rule.severity is Severity.REJECT]
    seen = as_doubles(rows).with_columns(
        asset_class=pl.lit(series.asset_class.value), first_of_timestamp=pl.lit(value=True)
    )
    broken = _broken(seen, rejecting)
    fine = broken.list.len() == 0
    if rows["timestamp"].n_unique() == rows.height:
        return Checked(rows.filter(fine), rows.with_columns(rules=broken).filter(~fine))
    # A bad row must not take the place of a good one: only good rows compete for being first.
    marked = seen.with_columns(fine=fine).with_columns(
        first_of_timestamp=~pl.col("fine") | pl.col("timestamp").is_first_distinct().over("fine")
    )
    broken = _broken(marked.drop("fine"), rejecting)
    first = broken.list.len() == 0
    accepted = rows.filter(first)
    same = rows.with_columns(rules=broken, second=fine & ~first).filter(~first)
    repeats = same.join(accepted, on=_COMPARED, how="semi", nulls_equal=True, maintain_order="left")["second"].sum()
    unlike = same.filter("second").join(accepted, on=_COMPARED, how="anti", nulls_equal=True, maintain_order="left")
    rejected = pl.concat([same.filter(~pl.col("second")), unlike]).drop("second")
    return Checked(_doubted(accepted, unlike["timestamp"]), rejected, int(repeats))


def _doubted(rows: pl.DataFrame, contradicted: pl.Series) -> pl.DataFrame:
    """The rows, noted where the source sent another one of the same moment: nobody can tell which is right."""
    if contradicted.is_empty():
        return rows
    note = pl.concat_str("notes", pl.lit(NOTE_CONTRADICTED), separator="; ", ignore_nulls=True)
    return rows.with_columns(
        notes=pl.when(pl.col("timestamp").is_in(contradicted.implode())).then(note).otherwise("notes")
    )


def validate_facts(dataset: Dataset, frame: pl.DataFrame, rules: Sequence[Rule]) -> Checked:
    """Part rows of a dataset other than candles by its rules; names of noting ones are added to the row's own notes.

    Of good rows with one key the first is accepted; others are repeated when they say the same, else rejected.
    """
    rows = _with_defaults(dataset, dataset.conform(frame))
    own = [rule for rule in rules if rule.dataset is dataset]
    if rows.is_empty():
        return Checked(rows, rows.clear().with_columns(rules=pl.lit([], pl.List(pl.String))))
    # Rules look at signs and sizes: any of the doubles next to a number will do.
    seen = rows.with_columns(pl.col(name).cast(pl.Float64) for name, kind in rows.schema.items() if kind.is_decimal())
    broken = broken_rules(seen, [rule for rule in own if rule.severity is Severity.REJECT])
    absent = _absent(dataset, rows)
    if absent is not None:
        broken = pl.select(pl.concat_list(absent, broken)).to_series()
    notes = broken_rules(seen, [rule for rule in own if rule.severity is Severity.NOTE])
    good = broken.list.len() == 0
    fine = _noted(dataset, rows, notes).filter(good)
    bad = rows.filter(~good).with_columns(rules=broken.filter(~good))
    first = fine.select(pl.struct(dataset.key).is_first_distinct()).to_series()
    accepted = fine.filter(first)
    others = fine.filter(~first)
    # Mostly there are none, and looking for them would sort out every row.
    unlike = others
    if others.height:
        unlike = others.join(accepted, on=list(dataset.schema), how="anti", nulls_equal=True, maintain_order="left")
    refused = unlike.with_columns(rules=pl.lit([DUPLICATE_KEY], pl.List(pl.String)))
    unsaid = notes.filter(good & ("notes" not in dataset.schema)).explode().drop_nulls().value_counts()
    return Checked(accepted, pl.concat([bad, refused]), others.height - unlike.height, dict(unsaid.iter_rows()))


def _with_defaults(dataset: Dataset, rows: pl.DataFrame) -> pl.DataFrame:
    """What a source may leave unsaid, as the record says it: a dividend is cash, the first of its day."""
    fields = dataset.record.model_fields.items()
    told = {name: field.default for name, field in fields if isinstance(field.default, str | int)}
    return rows.with_columns(pl.col(name).fill_null(value) for name, value in told.items())


def _absent(dataset: Dataset, rows: pl.DataFrame) -> pl.Series | None:
    """Per row that a value is missing which no row is without; None where none is."""
    missing = rows.select(pl.any_horizontal(pl.col(name).is_null() for name in dataset.required)).to_series()
    if not missing.any():
        return None
    nothing = pl.lit([], pl.List(pl.String))
    return pl.select(pl.when(missing).then(pl.lit([VALUE_MISSING])).otherwise(nothing)).to_series()


def _noted(dataset: Dataset, rows: pl.DataFrame, notes: pl.Series) -> pl.DataFrame:
    """The rows, the rules they are noted by named where the dataset has a column for remarks."""
    if "notes" not in dataset.schema or not notes.list.len().sum():
        return rows
    own = pl.concat_list(pl.col("notes")).list.drop_nulls()
    together = rows.select(own.list.concat(notes).list.join("; ")).to_series()
    return rows.with_columns(notes=pl.when(together != "").then(together))


def _broken(rows: pl.DataFrame, rejecting: Sequence[Rule]) -> pl.Series:
    broken = broken_rules(rows, rejecting)
    missing = rows.select(pl.any_horizontal(pl.col(name).is_null() for name in REQUIRED)).to_series()
    if not missing.any():
        return broken
    names = pl.DataFrame({"broken": broken, "missing": missing})
    absent = pl.when("missing").then(pl.lit([VALUE_MISSING])).otherwise(pl.lit([], pl.List(pl.String)))
    return names.select(pl.concat_list(absent, "broken")).to_series()


def broken_rules(rows: pl.DataFrame, rules: Sequence[Rule]) -> pl.Series:
    """Per row the names of the rules it breaks, in the order of `rules`; an empty list when none."""
    nothing = pl.Series("rules", [[]], pl.List(pl.String))
    if not rules:
        return nothing.new_from_index(0, rows.height)
    fine = rows.select(rule.expression.fill_null(value=True).alias(rule.name) for rule in rules)
    # Most rows break none, and texts and lists are dear: they are made only where there is something to name.
    flawed = ~fine.select(pl.all_horizontal(pl.all())).to_series()
    names = fine.filter(flawed).select(
        pl.concat_list(pl.when(~pl.col(rule.name)).then(pl.lit(rule.name)) for rule in rules).list.drop_nulls()
    )
    lists = pl.concat([nothing, names.to_series()])
    return lists.gather(flawed.cum_sum() * flawed).alias("rules")
