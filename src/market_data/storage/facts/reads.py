"""Reads of facts: of each entry the newest version known by then, all at once or page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, Final

import polars as pl

from market_data.model.dataset import SERVED, Dataset
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import TimeRange
from market_data.storage.facts.packed import relation
from market_data.storage.facts.ticks import contracts_of
from market_data.storage.server.database import Database

Conditions = list[tuple[str, Sequence[Any]]]
_DAY: Final = timedelta(days=1)
_WHOSE: Final = "JOIN tick_sources o USING (contract_id) JOIN contracts c USING (contract_id)"


@dataclass(frozen=True, slots=True, kw_only=True)
class FactQuery:
    """Which facts of an instrument are wanted."""

    dataset: Dataset
    instrument: Instrument
    span: TimeRange | None = None
    as_of: datetime | None = None
    source: str | None = None


def newest_versions(
    database: Database,
    dataset: Dataset,
    instrument: Instrument,
    span: TimeRange | None = None,
    *,
    as_of: datetime | None = None,
    limit: int | None = None,
) -> pl.DataFrame:
    """Every source's newest version of each entry, by then known when `as_of` is given, in order of time.

    Returns:
        the dataset's columns and where each row came from; the newest `limit` entries when given.
    """
    return newest_facts(database, FactQuery(dataset=dataset, instrument=instrument, span=span, as_of=as_of), limit)


def newest_facts(database: Database, query: FactQuery, limit: int | None = None) -> pl.DataFrame:
    """All facts wanted in order of time, the newest `limit` when given; the newest version of each."""
    statement, parameters = _newest(query)
    bounded = f" LIMIT {int(limit)}" if limit else ""
    return database.frame(f"{statement} ORDER BY {query.dataset.time} DESC NULLS LAST{bounded}", parameters).reverse()


def fact_page(database: Database, query: FactQuery, after: Sequence[Any] | None, limit: int) -> pl.DataFrame:
    """The next `limit` facts behind the row whose `Dataset.order` columns are `after`; the newest version of each.

    Raises:
        StorageError, DatabaseUnavailable: what the database says.
    """
    statement, parameters = _newest(query, after)
    return database.frame(f"{statement} ORDER BY {', '.join(query.dataset.order)} LIMIT %s", [*parameters, limit])


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
        after = page.select(query.dataset.order).row(-1)


def newest_moment(
    database: Database, dataset: Dataset, instrument: Instrument, as_of: datetime | None = None
) -> datetime | None:
    """The newest moment any fact of an instrument is of, by then known when `as_of` is given; None without any."""
    found: datetime | None = database.rows(
        f"SELECT max({dataset.time}) AS newest FROM {relation(dataset, [dataset.time])} WHERE symbol = %s "
        "AND asset_class = %s AND (%s::timestamptz IS NULL OR known_from <= %s)",
        [instrument.symbol, instrument.asset_class.value, as_of, as_of],
    )[0]["newest"]
    return found


def holding(database: Database, symbol: str, asset_class: AssetClass | None = None) -> list[AssetClass]:
    """The asset classes under which any facts of a symbol are stored, stocks first."""
    classes = list(AssetClass) if asset_class is None else [asset_class]
    facts = [dataset for dataset in SERVED if dataset.names is None and not dataset.of_contracts]
    tables = [dataset.table for dataset in facts] + [f"{dataset.table}_packed" for dataset in facts if dataset.packed]
    owned = " OR ".join(
        f"EXISTS (SELECT FROM {table} f WHERE f.symbol = %(symbol)s AND f.asset_class = c.name)" for table in tables
    )
    rows = database.rows(
        f"SELECT c.name FROM unnest(%(classes)s::text[]) WITH ORDINALITY AS c (name, place) WHERE {owned} OR EXISTS ("
        "SELECT FROM tick_sources JOIN contracts k USING (contract_id) WHERE %(symbol)s IN (k.symbol, k.base) "
        "AND k.asset_class = c.name) ORDER BY c.place",
        {"classes": [each.value for each in classes], "symbol": symbol},
    )
    found = [AssetClass(row["name"]) for row in rows]
    if found or not any(_named(database, dataset, symbol) for dataset in SERVED if dataset.names is not None):
        return found
    # Whoever is only spoken of has no asset class; one is as good as another.
    return classes[:1]


def _named(database: Database, dataset: Dataset, symbol: str) -> bool:
    rows = database.rows(f"SELECT 1 FROM {dataset.table} WHERE {dataset.names} @> ARRAY[%s] LIMIT 1", [symbol])
    return bool(rows)


def _newest(query: FactQuery, after: Sequence[Any] | None = None) -> tuple[str, list[Any]]:
    """The statement, without an order, and its parameters.

    What a later version may have changed is looked at only after the newest version was chosen: else a superseded one
    would be taken for current wherever the newest is not among those that fit.
    """
    dataset = query.dataset
    fixed, changeable = _conditions(query)
    if after is not None:
        fixed.append((f"({', '.join(dataset.order)}) > ({', '.join(['%s'] * len(after))})", after))
    if dataset.of_contracts:
        where, parameters = _joined([*fixed, *changeable])
        return f"SELECT {_tick_columns(dataset)} FROM {dataset.table} f {_WHOSE}{where}", parameters
    columns = ", ".join(dataset.stored)
    if query.as_of is not None:
        fixed.append(("known_from <= %s", [query.as_of]))
    key = ", ".join(dataset.order)
    inner, first = _joined(fixed)
    told = ""
    if dataset.withdrawable:
        told = ", withdrawn"
        changeable.append(("NOT withdrawn", []))
    outer, second = _joined(changeable)
    source = relation(dataset, dataset.stored)
    newest = f"SELECT DISTINCT ON ({key}) {columns}{told} FROM {source}{inner} ORDER BY {key}, known_from DESC"
    return f"SELECT {columns} FROM ({newest}) AS newest{outer}", [*first, *second]


def _conditions(query: FactQuery) -> tuple[Conditions, Conditions]:
    """What is the same for every version of an entry, and what versions may differ in."""
    dataset, instrument = query.dataset, query.instrument
    fixed: Conditions = []
    changeable: Conditions = []
    if dataset.of_contracts:
        inner, parameters = contracts_of(instrument)
        fixed.append((f"contract_id = ANY(ARRAY({inner})) AND o.dataset = %s", [*parameters, dataset.name]))
        if query.span is not None:
            fixed.append(("day >= %s AND day <= %s", [query.span.start.date(), query.span.end.date()]))
    elif dataset.names is not None:
        key, named = ", ".join(dataset.order), f"{dataset.names} @> ARRAY[%s]"
        fixed.append((f"({key}) IN (SELECT {key} FROM {dataset.table} WHERE {named})", [instrument.symbol]))
        changeable.append((named, [instrument.symbol]))
    else:
        fixed.append(("symbol = %s AND asset_class = %s", [instrument.symbol, instrument.asset_class.value]))
    if query.source is not None:
        fixed.append(("source = %s", [query.source]))
    if query.span is not None:
        bounds = bounds_of(dataset, query.span)
        within = (f"{dataset.time} >= %s AND {dataset.time} < %s", bounds)
        (fixed if dataset.time in dataset.key else changeable).append(within)
    return fixed, changeable


def bounds_of(dataset: Dataset, span: TimeRange) -> tuple[datetime, datetime] | tuple[date, date]:
    """A range as bounds of the dataset's time column; a day lies in it when its midnight UTC does."""
    if not dataset.dated:
        return span.start, span.end
    return _day_from(span.start), _day_from(span.end)


def _day_from(moment: datetime) -> date:
    return moment.date() if moment.timetz().replace(tzinfo=None) == time() else moment.date() + _DAY


def _tick_columns(dataset: Dataset) -> str:
    looked_up = {
        "trade_id": "coalesce(f.trade_id, f.number::text) AS trade_id",
        "source": "source",
        "contract": "c.symbol AS contract",
        "contract_id": "contract_id",
    }
    return ", ".join(looked_up.get(name, f"f.{name}") for name in dataset.stored)


def _joined(conditions: Conditions) -> tuple[str, list[Any]]:
    if not conditions:
        return "", []
    where = " WHERE " + " AND ".join(text for text, _ in conditions)
    return where, [value for _, values in conditions for value in values]
