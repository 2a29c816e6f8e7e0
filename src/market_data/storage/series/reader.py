"""Typed reads: facts, candles, features and observations as frames, `as_of` for what was known then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import polars as pl

from market_data.model.dataset import CANDLES, Dataset
from market_data.model.instrument import Instrument, Series
from market_data.model.timeframe import TimeRange
from market_data.storage.series.own_features import selection
from market_data.storage.server.database import Database

FACTS: Final = ", ".join((*CANDLES.values, "quality_score", "data_age_seconds", "contract_id"))
_OF_SERIES: Final = "symbol = %s AND asset_class = %s AND timeframe = %s"
MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads committed rows as frames or plain values; every method may raise StorageError or DatabaseUnavailable."""

    database: Database

    def newest_facts(self, series: Series, span: TimeRange) -> pl.DataFrame:
        """The newest version per timestamp, source and contract in [start, end), with `known_from`, `chosen`."""
        return self.database.frame(
            "SELECT DISTINCT ON (timestamp, source, contract_id) timestamp, source, known_from, chosen, "
            f"{FACTS} FROM candles WHERE {_OF_SERIES} AND timestamp >= %s AND timestamp < %s "
            "ORDER BY timestamp, source, contract_id, known_from DESC",
            (*series.key, span.start, span.end),
        )

    def corrections(self, series: Series, span: TimeRange, since: datetime) -> list[dict[str, Any]]:
        """What was corrected in the candles of a span since a moment, newest first.

        Returns:
            timestamp, field_corrected, old_value.
        """
        return self.database.rows(
            "SELECT timestamp, field_corrected, old_value FROM data_corrections WHERE dataset = 'candles' "
            "AND symbol = %s AND asset_class = %s AND timeframe = %s AND timestamp >= %s AND timestamp < %s "
            "AND correction_timestamp > %s ORDER BY id DESC",
            (*series.key, span.start, span.end, since),
        )

    def versions(self, series: Series, span: TimeRange) -> pl.DataFrame:
        """Every version of every source in [start, end), by timestamp and then in the order they became known."""
        return self.database.frame(
            f"SELECT timestamp, source, known_from, chosen, fetched_at, {FACTS} FROM candles "
            f"WHERE {_OF_SERIES} AND timestamp >= %s AND timestamp < %s ORDER BY timestamp, known_from, source",
            (*series.key, span.start, span.end),
        )

    def candles(
        self,
        series: Series,
        span: TimeRange,
        *,
        before: int = 0,
        after: int = 0,
        as_of: datetime | None = None,
    ) -> pl.DataFrame:
        """The candles standing in [start, end), with up to `before` earlier and `after` later ones, in order.

        Args:
            as_of: a past moment; the newest versions chosen by then. None reads the present.

        Returns:
            CANDLES' columns, `source`, `known_from`, `quality_score` (of the fact alone), `data_age_seconds` and
            `contract_id`.
        """
        parts = [self._standing(series, as_of, span)]
        if before:
            parts.insert(0, self._nearest(series, as_of, span.start, before, earlier=True))
        if after:
            parts.append(self._nearest(series, as_of, span.end, after, earlier=False))
        return pl.concat(parts)

    def _standing(self, series: Series, as_of: datetime | None, span: TimeRange) -> pl.DataFrame:
        known, moments = _known_by(as_of)
        return self.database.frame(
            f"SELECT DISTINCT ON (timestamp) timestamp, {FACTS}, source, known_from FROM candles "
            f"WHERE {_OF_SERIES} AND timestamp >= %s AND timestamp < %s AND chosen {known} "
            "ORDER BY timestamp, known_from DESC",
            (*series.key, span.start, span.end, *moments),
        )

    def _nearest(
        self, series: Series, as_of: datetime | None, moment: datetime, count: int, *, earlier: bool
    ) -> pl.DataFrame:
        """Up to `count` standing candles before a moment, or from it on, in order.

        Read in the order of the index, so that no plan ever sorts a whole series for its last day; most candles have
        one version, and where that was not enough more are read.
        """
        side, direction = ("timestamp < %s", "DESC") if earlier else ("timestamp >= %s", "ASC")
        known, moments = _known_by(as_of)
        limit = versions_worth(count)
        while True:
            rows = self.database.frame(
                f"SELECT timestamp, {FACTS}, source, known_from FROM candles WHERE {_OF_SERIES} AND {side} AND chosen "
                f"{known} ORDER BY timestamp {direction}, source {direction}, known_from {direction} LIMIT {limit}",
                (*series.key, moment, *moments),
            )
            found = newest_of(rows, limit, earlier=earlier)
            if rows.height < limit or found.height >= count:
                return found.head(count).sort("timestamp")
            limit *= 4

    def standing(
        self, series: Series, span: TimeRange | None, as_of: datetime, *, limit: int | None = None
    ) -> pl.DataFrame:
        """What stood at a past moment in [start, end), in order; the newest `limit` candles when given.

        Returns:
            CANDLES' columns, `source`, `fetched_at`, `data_age_seconds`, `contract_id`, `revision` (how many versions
            had stood by then, this one included) and `created_at` (when the first was stored).
        """
        if limit:
            end = datetime.max.replace(tzinfo=UTC) if span is None else span.end
            newest = self._nearest(series, as_of, end, limit, earlier=True)["timestamp"]
            if newest.len():
                span = TimeRange(newest[0] if span is None else max(newest[0], span.start), end)
        only, mine = only_of(series)
        where, parameters = f"{_OF_SERIES}{only} AND chosen AND known_from <= %s", [*series.key, *mine, as_of]
        if span is not None:
            where, parameters = f"{where} AND timestamp >= %s AND timestamp < %s", [*parameters, span.start, span.end]
        return self.database.frame(
            f"SELECT DISTINCT ON (timestamp) timestamp, {', '.join(CANDLES.values)}, source, "
            "fetched_at, data_age_seconds, contract_id, count(*) OVER versions AS revision, "
            "min(known_from) OVER versions AS created_at "
            f"FROM candles WHERE {where} WINDOW versions AS (PARTITION BY timestamp) "
            "ORDER BY timestamp, known_from DESC",
            tuple(parameters),
        )

    def first_known(self, series: Series, span: TimeRange | None = None) -> datetime | None:
        """When the first stored candle that opens in [start, end) became known; None when there is none."""
        where, parameters = f"{_OF_SERIES} AND chosen", list[object](series.key)
        if span is not None:
            where, parameters = f"{where} AND timestamp >= %s AND timestamp < %s", [*parameters, span.start, span.end]
        (row,) = self.database.rows(f"SELECT min(known_from) AS first FROM candles WHERE {where}", tuple(parameters))
        first: datetime | None = row["first"]
        return first

    def disagreements(self, series: Series, span: TimeRange, as_of: datetime | None = None) -> pl.Series:
        """Timestamps in [start, end) at which sources differ, or were known to by then."""
        return self.database.frame(
            f"SELECT DISTINCT timestamp FROM disagreements WHERE {_OF_SERIES} AND timestamp >= %s AND timestamp < %s "
            "AND (%s::timestamptz IS NULL OR recorded_at <= %s)",
            (*series.key, span.start, span.end, as_of, as_of),
        )["timestamp"]

    def observations(
        self, dataset: Dataset, instrument: Instrument, span: TimeRange, as_of: datetime | None = None
    ) -> pl.DataFrame:
        """The newest version of every own-clock value of [start, end), in order, with `known_at`."""
        columns = ", ".join(dataset.schema)
        key = ", ".join(dataset.key)
        return self.database.frame(
            f"SELECT DISTINCT ON ({key}) {columns} FROM {dataset.name} WHERE symbol = %s AND asset_class = %s "
            f"AND timestamp >= %s AND timestamp < %s AND (%s::timestamptz IS NULL OR known_from <= %s) "
            f"ORDER BY {key}, known_from DESC, source",
            (instrument.symbol, instrument.asset_class.value, span.start, span.end, as_of, as_of),
        ).sort("timestamp")

    def last_timestamps(self, series: Series, count: int) -> list[datetime]:
        """Open times of the newest `count` stored candles, oldest first; empty when there is none."""
        rows = self.database.rows(
            "SELECT timestamp FROM market_data_v2 WHERE symbol = %s AND asset_class = %s AND timeframe = %s "
            "ORDER BY timestamp DESC LIMIT %s",
            (*series.key, count),
        )
        return [row["timestamp"] for row in reversed(rows)]

    def features(
        self, series: Series, span: TimeRange | None = None, *, limit: int | None = None, own: Sequence[str] = ()
    ) -> pl.DataFrame:
        """Enriched candles of [start, end), in order; the newest `limit` of them when given.

        Args:
            own: features of the user's own, wanted after all other columns.
        """
        only, parameters = only_of(series)
        parameters = [*series.key, *parameters]
        where = _OF_SERIES + only
        if span is not None:
            parameters += [span.start, span.end]
            where += " AND timestamp >= %s AND timestamp < %s"
        bounded = f"ORDER BY timestamp DESC LIMIT {int(limit)}" if limit else "ORDER BY timestamp"
        statement, times = selection(None, own, where, bounded)
        return self.database.frame(statement, tuple(parameters * times)).sort("timestamp").drop("id")

    def timestamps(self, series: Series, span: TimeRange, *, limit: int | None = None) -> pl.Series:
        """Open times of the stored candles of [start, end), in order; the first `limit` when given."""
        bounded = f" LIMIT {int(limit)}" if limit else ""
        return self.database.frame(
            f"SELECT timestamp FROM market_data_v2 WHERE {_OF_SERIES} AND timestamp >= %s AND timestamp < %s "
            f"ORDER BY timestamp{bounded}",
            (*series.key, span.start, span.end),
        )["timestamp"]


def versions_worth(candles: int) -> int:
    """How many versions to read for so many candles, most of which have one."""
    return candles + candles // 8 + 16


def newest_of(versions: pl.DataFrame, limit: int, *, earlier: bool) -> pl.DataFrame:
    """The newest version of each candle, nearest first, of versions read in the order of the index up to a limit."""
    if versions.height == limit:
        # More versions of the last one may follow.
        versions = versions.filter(pl.col("timestamp") != versions["timestamp"][-1])
    newest = versions.sort("known_from").unique("timestamp", keep="last")
    return newest.sort("timestamp", descending=earlier)


def only_of(series: Series) -> tuple[str, list[object]]:
    """The condition, and its parameters, for the rows of the one contract that a reader wants to see.

    Rows of which nobody knows the contract are among them: they were stored before contracts were known.
    """
    number = series.instrument.only
    return ("", []) if number is None else (" AND (contract_id = %s OR contract_id IS NULL)", [number])


def _known_by(as_of: datetime | None) -> tuple[str, tuple[datetime, ...]]:
    return ("", ()) if as_of is None else ("AND known_from <= %s", (as_of,))
