"""The numbers behind the features of one candle: what each looked at, and the formula it followed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from market_data.model.errors import UsageError
from market_data.model.evaluation import evaluate
from market_data.model.feature import Feature
from market_data.model.instrument import Series
from market_data.model.timeframe import MICROSECOND, TimeRange
from market_data.pipeline.derive import Shelves, doubles_of, window_of
from market_data.pipeline.normalise import with_ends
from market_data.pipeline.observe import join_observations
from market_data.pipeline.ripple import COLUMNS, observed
from market_data.storage.reader import Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """How a feature's value of one candle came about."""

    feature: str
    value: float | str | None
    unit: str
    formula: str
    null_rule: str
    source: str
    window: tuple[datetime, ...]
    """Open times of the candles it may look at, the explained one last."""
    inputs: dict[str, list[float | None]]
    """The values of each input column over the window, as the doubles that entered the formula."""


def explain(reader: Reader, shelves: Shelves, series: Series, timestamp: datetime) -> list[Explanation]:
    """Every feature of the candle that opens at `timestamp`, computed again from what is stored.

    Raises:
        UsageError: when no candle of the series opens then; it names the nearest ones.
    """
    span = TimeRange(timestamp, timestamp + MICROSECOND)
    rows = with_ends(series, reader.candles(series, span, before=shelves.lookback(series)).select(COLUMNS))
    if rows.is_empty() or rows["timestamp"][-1] != timestamp:
        raise UsageError(f"no candle of {series} opens at {timestamp:%Y-%m-%dT%H:%M:%SZ}{_nearest(reader, series)}")
    observations = observed(reader, shelves, series, rows)
    seen = doubles_of(join_observations(rows, observations))
    values = evaluate(shelves.features, window_of(series, seen, observations))
    applicable = [feature for feature in shelves.features if feature.applies(series)]
    return [_explained(feature, series, seen, values[feature.name][-1]) for feature in applicable]


def _explained(feature: Feature, series: Series, seen: pl.DataFrame, value: float | str | None) -> Explanation:
    looked_at = seen.tail(feature.lookback_for(series) + 1)
    return Explanation(
        feature=feature.name,
        value=value,
        unit=feature.unit,
        formula=feature.sections["Formula"],
        null_rule=feature.sections["Null"],
        source=feature.sections["Source"],
        window=tuple(looked_at["timestamp"]),
        inputs={name: looked_at[name].to_list() for name in feature.inputs if name in looked_at.columns},
    )


def _nearest(reader: Reader, series: Series) -> str:
    newest = reader.last_timestamps(series, 1)
    return f"; the newest stored opens at {newest[0]:%Y-%m-%dT%H:%M:%SZ}" if newest else "; none is stored"
