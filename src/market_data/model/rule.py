"""Rule and @rule: a named Polars expression that is true when a row of a dataset is fine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import polars as pl

from market_data.model.dataset import CANDLES, Dataset
from market_data.model.fingerprint import docstring, fingerprint


class Severity(StrEnum):
    """What happens to a row that breaks a rule."""

    REJECT = "reject"
    """Quarantined, never stored as good. Looks at the row alone. Rows stored before there was the rule are noted."""
    NOTE = "note"
    """Stored with a lower score, the rule named in validation_notes. May look back along the series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A named check; null counts as fine, since a value that is absent cannot be wrong."""

    name: str
    expression: pl.Expr
    severity: Severity
    lookback: int
    doc: str
    dataset: Dataset = CANDLES
    version: str = ""
    """12 hex digits that change with the rule's code and constants, not with comments or docstrings."""


def rule(
    severity: Severity, *, lookback: int = 0, dataset: Dataset = CANDLES
) -> Callable[[Callable[[], pl.Expr]], Rule]:
    """Declare the expression a function returns as the rule of that name.

    Rejecting rules see the candle's columns as Float64 and `timestamp`, `end` (null when off the canonical grid),
    `first_of_timestamp` (false for a repeated timestamp within the batch) and `asset_class`.
    Noting rules see the stored series in order, also as Float64, and may look `lookback` rows back, no further:
    order statistics and comparisons only, so that the result does not depend on where the series was cut.
    Rules of another dataset see its columns, exact numbers as Float64, and look at the row alone.
    """

    def declare(expression: Callable[[], pl.Expr]) -> Rule:
        doc = docstring(expression).strip()
        if not doc:
            raise TypeError(f"rule {expression.__name__} has no docstring")
        name = expression.__name__
        return Rule(
            name=name,
            expression=expression(),
            severity=severity,
            lookback=lookback,
            doc=doc,
            dataset=dataset,
            version=fingerprint(expression, severity.value, lookback),
        )

    return declare
