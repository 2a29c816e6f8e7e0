"""The numbers behind the features of one stored candle: what each looked at, and the formula it followed."""

from __future__ import annotations

from datetime import datetime

from market_data.model.cuts import Factor, zones
from market_data.model.errors import UsageError
from market_data.model.explanation import Explanation
from market_data.model.explanation import explain as explain_row
from market_data.model.instrument import Series
from market_data.model.observation import micros
from market_data.model.timeframe import MICROSECOND, TimeRange
from market_data.pipeline.write.derive import Shelves, exactly, window_of
from market_data.pipeline.write.normalise import as_doubles, with_ends
from market_data.pipeline.write.observe import join_observations
from market_data.pipeline.write.ripple import COLUMNS, observed
from market_data.pipeline.write.shares import cuts_of
from market_data.pipeline.write.weeks import with_made_weeks
from market_data.storage.series.reader import Reader


def explain(reader: Reader, shelves: Shelves, series: Series, timestamp: datetime) -> list[Explanation]:
    """Every feature of the candle that opens at `timestamp`, computed again from what is stored.

    Raises:
        UsageError: when no candle of the series opens then; it names the newest one.
    """
    span = TimeRange(timestamp, timestamp + MICROSECOND)
    rows = with_ends(series, reader.candles(series, span, before=shelves.lookback(series)).select(COLUMNS))
    if rows.is_empty() or rows["timestamp"][-1] != timestamp:
        raise UsageError(f"no candle of {series} opens at {timestamp:%Y-%m-%dT%H:%M:%SZ}{_newest(reader, series)}")
    rows, cuts = with_made_weeks(reader, series, rows, cuts_of(reader, series, rows))
    observations = observed(reader, shelves, series, rows)
    exact = exactly(join_observations(rows, observations))
    seen, place, factors = as_doubles(exact), rows.height - 1, list[Factor]()
    window = window_of(series, seen, observations)
    for zone in zones(cuts, micros(rows["end"]), shelves.lookback(series)):
        if zone.start <= place < zone.stop:
            window, place = zone.window(window, zone.columns(window, exact)), place - zone.first
            factors = [(begin - zone.first, end - zone.first, ratio) for begin, end, ratio in zone.factors]
    return [explain_row(feature, window, place, factors) for feature in shelves.features if feature.applies(series)]


def _newest(reader: Reader, series: Series) -> str:
    newest = reader.last_timestamps(series, 1)
    return f"; the newest stored opens at {newest[0]:%Y-%m-%dT%H:%M:%SZ}" if newest else "; none is stored"
