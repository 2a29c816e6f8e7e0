"""The write rules: what an incoming candle does to the stored one."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import polars as pl

from market_data.model.contract import OTHER_CONTRACT
from market_data.model.dataset import CANDLES

# A source's remark on a row is provenance, not a value it may amend.
COMPARED: Final = tuple(name for name in CANDLES.values if name != "notes")
# A person's correction: stands against every source until it is reverted.
MANUAL: Final = "manual"


class Verdict(StrEnum):
    """What becomes of an incoming row."""

    INSERTED = "inserted"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    KEPT = "kept"


def classify(incoming: pl.DataFrame, facts: pl.DataFrame, source: str) -> pl.DataFrame:
    """The write rules.

    A source that gives candles of another contract is, to them, another source; a candle of the series' own contract
    takes the place of one of another, and never the other way round, whatever their scores.

    Args:
        incoming: accepted rows of one source, one per timestamp: CANDLES' columns, `contract_id`, `quality_score`, the
            score of the fact alone, and, where the series is tied to one, `own_contract`.
        facts: the newest stored version per timestamp, source and contract: the same columns, `source`, `known_from`,
            `chosen`.
        source: the incoming rows' source.

    Returns:
        `incoming` with `verdict`; `reason` (null unless updated); `present_source`, and for every compared column
        `<column>_present`: the values now standing, null where there are none.
    """
    if "own_contract" not in incoming.columns:
        incoming = incoming.with_columns(own_contract=pl.lit(None, pl.Int32))
    own = _own(incoming, facts, source).with_columns(has_own=pl.lit(value=True))
    known = incoming.join(own, on="timestamp", how="left", maintain_order="left").join(
        _standing(facts), on="timestamp", how="left", maintain_order="left"
    )
    # What a person says again after taking it back is news.
    repeated = pl.col("has_own").fill_null(value=False) & _same_values("own") & (source != MANUAL)
    same_source = (pl.col("present_source") == source) & _same_contract("present_contract")
    by_hand = pl.col("present_source") == MANUAL
    present_other = pl.col("present_marked") | _differs("present_contract")
    ours_at_last = (present_other & ~_marked() & ~_differs("contract_id")).fill_null(value=False)
    repeated &= ~ours_at_last
    better = (pl.col("quality_score") > pl.col("present_score")) & ~_same_values("present")
    better = (ours_at_last | better & ~(_marked() & ~present_other)) & ~by_hand
    verdict = (
        pl.when(repeated)
        .then(pl.lit(Verdict.UNCHANGED.value))
        .when(pl.col("present_source").is_null())
        .then(pl.lit(Verdict.INSERTED.value))
        .when(same_source | better | (source == MANUAL))
        .then(pl.lit(Verdict.UPDATED.value))
        .otherwise(pl.lit(Verdict.KEPT.value))
    )
    own_reason = "manual_correction" if source == MANUAL else "source_updated"
    reason = pl.when(same_source | (source == MANUAL)).then(pl.lit(own_reason)).otherwise(pl.lit("better_source"))
    return known.with_columns(verdict=verdict).with_columns(
        reason=pl.when(pl.col("verdict") == Verdict.UPDATED).then(reason)
    )


def _standing(facts: pl.DataFrame) -> pl.DataFrame:
    """What stands at each timestamp."""
    newest = facts.filter("chosen").sort("known_from").unique("timestamp", keep="last", maintain_order=True)
    return newest.select(
        "timestamp",
        present_source="source",
        present_score="quality_score",
        present_contract="contract_id",
        present_marked=_marked(),
        **{f"{c}_present": c for c in COMPARED},
    )


def _own(incoming: pl.DataFrame, facts: pl.DataFrame, source: str) -> pl.DataFrame:
    """What the source itself said before of the same contract, one row per timestamp."""
    said = facts.filter(pl.col("source") == source)
    told = said.join(incoming.select("timestamp", offered="contract_id"), on="timestamp", how="inner")
    same = told.filter(
        (pl.col("contract_id") == pl.col("offered")).fill_null(value=True)  # unknown on either side: the same
    )
    newest = same.sort("known_from").unique("timestamp", keep="last", maintain_order=True)
    return newest.select("timestamp", *(pl.col(c).alias(f"{c}_own") for c in COMPARED))


def _same_contract(present: str) -> pl.Expr:
    return (pl.col("contract_id") == pl.col(present)).fill_null(value=True)


def _differs(contract: str) -> pl.Expr:
    """Whether a contract is known not to be the series' own."""
    return (pl.col(contract) != pl.col("own_contract")).fill_null(value=False)


def _marked() -> pl.Expr:
    return pl.col("notes").str.contains(OTHER_CONTRACT, literal=True).fill_null(value=False)


def _same_values(whose: str) -> pl.Expr:
    return pl.all_horizontal(pl.col(c).eq_missing(pl.col(f"{c}_{whose}")) for c in COMPARED)
