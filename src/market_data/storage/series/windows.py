"""Long reads in pieces: stored candles window by window, so that memory is bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import polars as pl

from market_data.model.instrument import Instrument, Series
from market_data.model.timeframe import MICROSECOND, TimeRange
from market_data.storage.series.own_features import own_among, selection
from market_data.storage.series.reader import only_of
from market_data.storage.server.database import Database

_OF_SERIES: Final = "symbol = %s AND asset_class = %s AND timeframe = %s"


@dataclass(frozen=True, slots=True)
class Windows:
    """Where stored rows lie, and reads of the next few of them."""

    database: Database

    def extent(self, series: Series, span: TimeRange | None) -> TimeRange | None:
        """From the first stored candle of [start, end) to just after the last; None when there is none."""
        where, parameters = _within(series, span)
        rows = self.database.rows(
            f"SELECT (SELECT timestamp FROM market_data_v2 WHERE {where} ORDER BY timestamp LIMIT 1) AS first, "
            f"(SELECT timestamp FROM market_data_v2 WHERE {where} ORDER BY timestamp DESC LIMIT 1) AS last",
            [*parameters, *parameters],
        )
        first, last = rows[0]["first"], rows[0]["last"]
        return None if first is None else TimeRange(first, last + MICROSECOND)

    def nth_from_end(self, series: Series, span: TimeRange | None, count: int) -> datetime | None:
        """Open time of the `count`th newest candle of [start, end); None when there are fewer."""
        where, parameters = _within(series, span)
        rows = self.database.rows(
            f"SELECT timestamp FROM market_data_v2 WHERE {where} ORDER BY timestamp DESC OFFSET %s LIMIT 1",
            [*parameters, count - 1],
        )
        return rows[0]["timestamp"] if rows else None

    def stored(self, series: Series, span: TimeRange, columns: Sequence[str]) -> pl.DataFrame:
        """These columns of the stored candles of [start, end), in order; those of the user's own features last."""
        where, parameters = _within(series, span)
        own = own_among(columns)
        present = [name for name in columns if name not in own]
        statement, times = selection(present, own, where, "ORDER BY timestamp")
        return self.database.frame(statement, parameters * times)

    def moment(self, series: Series) -> datetime | None:
        """When the series last changed; None when nothing was ever stored."""
        rows = self.database.rows(f"SELECT moment FROM series_moments WHERE {_OF_SERIES}", series.key)
        return rows[0]["moment"] if rows else None

    def actions_known(self, instrument: Instrument) -> tuple[datetime | None, datetime | None]:
        """When the newest version of a split and of a dividend became known; None without any."""
        (row,) = self.database.rows(
            "SELECT "
            "(SELECT max(known_from) FROM stock_splits a WHERE (a.symbol, a.asset_class) = (i.symbol, i.class))"
            " AS splits, "
            "(SELECT max(known_from) FROM dividends a WHERE (a.symbol, a.asset_class) = (i.symbol, i.class))"
            " AS dividends "
            "FROM (VALUES (%s, %s)) i (symbol, class)",
            (instrument.symbol, instrument.asset_class.value),
        )
        return row["splits"], row["dividends"]


def _within(series: Series, span: TimeRange | None) -> tuple[str, list[Any]]:
    only, parameters = only_of(series)
    if span is None:
        return _OF_SERIES + only, [*series.key, *parameters]
    return (
        f"{_OF_SERIES}{only} AND timestamp >= %s AND timestamp < %s",
        [*series.key, *parameters, span.start, span.end],
    )
