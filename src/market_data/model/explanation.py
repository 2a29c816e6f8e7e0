"""The numbers behind one value of a feature: its formula, the rows and the observations that went into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from market_data.model.cuts import Factor
from market_data.model.errors import UsageError
from market_data.model.evaluation import evaluate
from market_data.model.feature import Feature
from market_data.model.timeframe import from_micros
from market_data.model.window import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """Rows looked back on that are from before a split or of another contract.

    Attributes:
        before: open time of the first row after them.
        rows: how many.
        factor: how many of the candle's shares one of theirs was, as a fraction: what their prices were divided by and
            their volumes multiplied with. None: another contract, counted as absent.
    """

    before: datetime
    rows: int
    factor: str | None

    def __str__(self) -> str:
        said = "of another contract: absent" if self.factor is None else f"in {self.factor} shares for one"
        return f"{self.rows} rows before {self.before:%Y-%m-%dT%H:%M:%SZ} {said}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One value of a feature and all that it depends on.

    Attributes:
        value: recomputed from `rows` and `observations` alone; None where it is null.
        sections: the feature's Summary, Formula, Null rule and Source.
        rows: the candle and the lookback before it: timestamp, end and the inputs; fewer where the series begins.
        observations: by dataset, those of the declared history that were known at the candle's end.
        complete: whether as many rows were there as the feature looks back.
        conversions: how those of `rows` that are in other shares than the candle were converted, oldest first.
    """

    feature: str
    version: str
    unit: str
    timestamp: datetime
    end: datetime
    value: float | str | None
    sections: Mapping[str, str]
    lookback: int
    complete: bool
    applies: bool
    rows: pl.DataFrame
    observations: Mapping[str, pl.DataFrame]
    conversions: tuple[Conversion, ...] = ()

    def __str__(self) -> str:
        value = "null" if self.value is None else f"{self.value} {self.unit}"
        lines = [f"{self.feature} at {self.timestamp:%Y-%m-%dT%H:%M:%SZ} = {value}"]
        lines += [f"  {name}: {text}" for name, text in self.sections.items() if name != "Summary"]
        lines.append(f"  Rows: {self.rows.height} of the {self.lookback + 1} it looks at")
        lines += [f"  Converted: {conversion}" for conversion in self.conversions]
        lines += [f"  Observations of {name}: {seen.height}" for name, seen in self.observations.items()]
        return "\n".join(lines)


def explain(feature: Feature, window: Window, row: int, factors: Sequence[Factor] = ()) -> Explanation:
    """What the feature's value in a row of the window is made of.

    Args:
        feature: the feature.
        window: in the shares of the row's candle.
        row: its place.
        factors: which rows of the window were converted, and by what.

    Raises:
        UsageError: when the window has no such row.
    """
    if not 0 <= row < len(window):
        raise UsageError(f"row {row} is not one of the {len(window)} rows of {window.series}")
    applies = feature.applies(window.series)
    lookback = feature.lookback_for(window.series) if applies else 0
    part = window.rows(max(0, row - lookback), row + 1)
    closed = from_micros(int(window.ends[row]))
    seen = {
        name: window.observations.frames[name].filter(
            pl.col("known_at") <= closed, pl.col("timestamp") >= closed - history, pl.col("timestamp") <= closed
        )
        for name, history in feature.observations.items()
        if name in window.observations.frames
    }
    conversions = [
        Conversion(before=from_micros(int(window.opens[end])), rows=end - max(begin, row - lookback),
                   factor=None if ratio is None else str(ratio))
        for begin, end, ratio in factors
        if end > row - lookback
    ]  # fmt: skip
    rows = {
        "timestamp": pl.Series(part.opens).cast(pl.Datetime("us", "UTC")),
        "end": pl.Series(part.ends).cast(pl.Datetime("us", "UTC")),
    } | {name: pl.Series(part.column(name), nan_to_null=True) for name in feature.inputs}
    return Explanation(
        feature=feature.name,
        version=feature.version,
        unit=feature.unit,
        timestamp=from_micros(int(window.opens[row])),
        end=closed,
        value=evaluate([feature], part.observing(seen))[feature.name][-1],
        sections=feature.sections,
        lookback=lookback,
        complete=len(part) == lookback + 1,
        applies=applies,
        rows=pl.DataFrame(rows),
        observations=seen,
        conversions=tuple(conversions),
    )
