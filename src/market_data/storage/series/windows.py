"""Long reads in pieces: stored candles window by window, facts page by page, so that memory is bounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import polars as pl

from market_data.model.dataset import NEWS, QUOTES, TRADES, Dataset
from market_data.model.instrument import Instrument, Series
from market_data.model.timeframe import MICROSECOND, TimeRange
from market_data.storage.series.own_features import own_among, selection
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
    if span is None:
        return _OF_SERIES, [*series.key]
    return f"{_OF_SERIES} AND timestamp >= %s AND timestamp < %s", [*series.key, span.start, span.end]


@dataclass(frozen=True, slots=True, kw_only=True)
class FactQuery:
    """Which facts of an instrument are wanted."""

    dataset: Dataset
    instrument: Instrument
    span: TimeRange | None = None
    as_of: datetime | None = None
    source: str | None = None

    @property
    def order(self) -> tuple[str, ...]:
        """The columns the rows are sorted by: source, then time and key; no two rows agree in all of them."""
        time = () if self.dataset is not NEWS else (self.dataset.time,)
        return ("source", *time, *self.dataset.key)

    @property
    def columns(self) -> tuple[str, ...]:
        """The dataset's columns and where they came from."""
        versioned = () if self.dataset in (TRADES, QUOTES) else ("known_from", "revision")
        known = () if self.dataset in (TRADES, QUOTES) else versioned
        return (*self.dataset.schema, "source", *known)


def fact_page(database: Database, query: FactQuery, after: Sequence[Any] | None, limit: int) -> pl.DataFrame:
    """The next `limit` facts behind the row whose `order` columns are `after`; the newest version of each.

    Raises:
        StorageError, DatabaseUnavailable: what the database says.
    """
    dataset, parameters = query.dataset, list[Any]()
    where = _fact_conditions(query, parameters)
    order, columns = ", ".join(query.order), ", ".join(query.columns)
    key = ", ".join(("source", *dataset.key))
    behind = ""
    if after is not None:
        behind = f"({order}) > ({', '.join(['%s'] * len(after))})"
        parameters += after
    if dataset in (TRADES, QUOTES):
        conditions = " AND ".join([*where, *([behind] if behind else [])])
        statement = f"SELECT {columns} FROM {dataset.table} WHERE {conditions} ORDER BY {order} LIMIT %s"
    else:
        statement = (
            f"SELECT {columns} FROM (SELECT DISTINCT ON ({key}) {columns} FROM {dataset.table} "
            f"WHERE {' AND '.join(where)} ORDER BY {key}, known_from DESC) AS newest "
            f"{'WHERE ' + behind if behind else ''} ORDER BY {order} LIMIT %s"
        )
    return database.frame(statement, [*parameters, limit])


def fact_pages(database: Database, query: FactQuery, rows: int, limit: int | None = None) -> Iterator[pl.DataFrame]:
    """All facts wanted, at most `limit`, in pages of `rows`; the first page comes even when it is empty."""
    after: tuple[Any, ...] | None = None
    left = limit
    while True:
        page = fact_page(database, query, after, rows if left is None else min(rows, left))
        if after is None or page.height:
            yield page
        left = None if left is None else left - page.height
        if page.height < rows or left == 0:
            return
        after = page.select(query.order).row(-1)


def _fact_conditions(query: FactQuery, parameters: list[Any]) -> list[str]:
    if query.dataset is NEWS:
        where = ["symbols @> ARRAY[%s]"]
        parameters.append(query.instrument.symbol)
    else:
        where = ["symbol = %s", "asset_class = %s"]
        parameters += [query.instrument.symbol, query.instrument.asset_class.value]
    if query.source is not None:
        where.append("source = %s")
        parameters.append(query.source)
    if query.span is not None:
        time = query.dataset.time
        bounds = [query.span.start, query.span.end]
        if query.dataset.schema[time] == pl.Date:
            # A date counts from its midnight UTC.
            where += [f"{time}::timestamp AT TIME ZONE 'UTC' >= %s", f"{time}::timestamp AT TIME ZONE 'UTC' < %s"]
        else:
            where += [f"{time} >= %s", f"{time} < %s"]
        parameters += bounds
    if query.as_of is not None and query.dataset not in (TRADES, QUOTES):
        where.append("known_from <= %s")
        parameters.append(query.as_of)
    return where
