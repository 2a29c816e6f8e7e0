"""The live edge: the locks of all series that close together, and all that their newest candles need, in one statement.

Read under the locks in the writer's own transaction: nothing of these series changes until it ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl
import psycopg

from market_data.model.contract import Contract
from market_data.model.dataset import CANDLES, DATASETS, UTC_MICROS
from market_data.model.instrument import Series
from market_data.model.timeframe import TimeRange
from market_data.storage.series.coverage import Stretch, around
from market_data.storage.series.reader import FACTS, newest_of, versions_worth
from market_data.storage.wire.connection import Connection
from market_data.storage.wire.copy_out import copy_out
from market_data.storage.wire.stacked import Layer, apart, stacked

# A split this near is judged by the candle's price.
NEAR_DAYS: Final = 10
_TEXT, _NUMBER = pl.String(), pl.Int64()
_CANDLES: Final[dict[str, pl.DataType]] = {
    "n": _NUMBER,
    **dict(CANDLES.schema),
    "quality_score": pl.Float64(),
    "data_age_seconds": pl.Float64(),
    "contract_id": pl.Int32(),
    "source": _TEXT,
    "known_from": UTC_MICROS,
}
_FACTS: Final[dict[str, pl.DataType]] = {**_CANDLES, "chosen": pl.Boolean()}
_STATE: Final[dict[str, pl.DataType]] = {
    "n": _NUMBER, "moment": UTC_MICROS, "newest": UTC_MICROS, "claimed": UTC_MICROS, "near": pl.Boolean(),
}  # fmt: skip
_OWNERS: Final[dict[str, pl.DataType]] = {"n": _NUMBER, "contract_id": pl.Int32(), "start": UTC_MICROS}
_BELIEFS: Final[dict[str, pl.DataType]] = {
    "n": _NUMBER, "known_from": UTC_MICROS, "date": pl.Date(), "split_from": CANDLES.schema["open"],
    "split_to": CANDLES.schema["open"], "state": _TEXT,
}  # fmt: skip
_LEDGER: Final[dict[str, pl.DataType]] = {
    "n": _NUMBER, "start_time": UTC_MICROS, "end_time": UTC_MICROS, "state": _TEXT, "detected_at": UTC_MICROS,
    "filled_at": UTC_MICROS, "filled_by": _TEXT, "tries": _NUMBER, "next_try_at": UTC_MICROS, "last_error": _TEXT,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What one series needs: the facts of `extent`, `before` candles ahead of it, the ledger around `span`, its owners.

    `observed` says by dataset how long before the oldest of those candles own-clock values are wanted, up to `until`.
    """

    series: Series
    extent: TimeRange
    span: TimeRange
    before: int
    observed: Mapping[str, timedelta]
    until: datetime
    contract: Contract | None


@dataclass(frozen=True, slots=True)
class Edge:
    """What was read, by the place of each want in their order."""

    wants: Sequence[Want]
    layers: Mapping[str, Mapping[int, pl.DataFrame]]
    empty: Mapping[str, pl.DataFrame]

    def of(self, layer: str, place: int) -> pl.DataFrame:
        """A layer's rows of one want."""
        return self.layers[layer].get(place, self.empty[layer])

    def state(self, place: int) -> dict[str, Any]:
        """When the series last changed (`moment`), its newest candle, and what there is to know of splits."""
        return self.of("state", place).row(0, named=True)

    def candles(self, place: int) -> pl.DataFrame | None:
        """The standing candles before the extent, in order; None when more versions than were read are needed."""
        want = self.wants[place]
        limit = versions_worth(want.before)
        rows = self.of("candles", place).sort("timestamp", "source", "known_from", descending=True)
        found = newest_of(rows, limit, earlier=True)
        if rows.height == limit and found.height < want.before:
            return None
        return found.head(want.before).sort("timestamp")

    def observations(self, place: int, oldest: datetime) -> dict[str, pl.DataFrame]:
        """The newest version of each own-clock value that the want named, by dataset.

        Args:
            place: of the want.
            oldest: open time of the first candle that is looked back on.
        """
        want, found = self.wants[place], {}
        for name, history in want.observed.items():
            inside = (pl.col("timestamp") >= oldest - history) & (pl.col("timestamp") < want.until)
            rows = self.of(name, _first_of_instrument(self.wants, place)).filter(inside)
            found[name] = rows.select(DATASETS[name].schema.names()).sort("timestamp")
        return found

    def ledger(self, place: int) -> list[Stretch]:
        """The stretches of coverage around the span, in order."""
        return around(self.of("ledger", place).drop("n").sort("start_time"))


def lock_together(connection: Connection, series: Sequence[Series]) -> None:
    """Wait until nobody else writes any of these series or recounts their quality; in one order for everybody."""
    instruments = sorted({(each.symbol, each.asset_class.value) for each in series})
    shared = [f"observations/{symbol}/{asset_class}" for symbol, asset_class in instruments]
    own = sorted("/".join(each.key) for each in series)
    quality = [f"quality of {symbol}/{asset_class}" for symbol, asset_class in instruments]
    connection.execute(
        "SELECT CASE kind WHEN 0 THEN pg_advisory_xact_lock_shared(hashtextextended(name, 0)) "
        "WHEN 1 THEN pg_advisory_xact_lock(hashtextextended(name, 0)) "
        "ELSE pg_advisory_xact_lock(hashtextextended(name, 1)) END "
        "FROM unnest(%s::integer[], %s::text[]) AS locks (kind, name)",
        [[0] * len(shared) + [1] * len(own) + [2] * len(quality), [*shared, *own, *quality]],
    )


def read_edge(connection: Connection, wants: Sequence[Want]) -> Edge:
    """All that the wants need, in one statement."""
    layers = [*_of_series(), *_observations(wants)]
    statement = f"{_WANTED} {stacked(layers)}"
    rows = copy_out(connection, psycopg.ClientCursor(connection).mogrify(statement, _parameters(wants)))
    parted = apart(rows, layers)
    by_want = {
        name: {int(place): frame for (place,), frame in found.partition_by("n", as_dict=True).items()}
        for name, found in parted.items()
    }
    return Edge(wants, by_want, {name: frame.clear() for name, frame in parted.items()})


def _of_series() -> list[Layer]:
    return [
        Layer("state", _STATE, _STATE_OF),
        Layer("candles", _CANDLES, "SELECT * FROM known"),
        Layer("facts", _FACTS, _FACTS_OF),
        Layer("disputes", {"n": _NUMBER, "timestamp": UTC_MICROS}, _DISPUTES),
        Layer("ledger", _LEDGER, _AROUND),
        Layer("lives", _OWNERS, _LIVES),
        Layer("ties", _OWNERS, _TIES),
        Layer("beliefs", _BELIEFS, _BELIEVED),
    ]


def _observations(wants: Sequence[Want]) -> list[Layer]:
    layers = []
    for name in sorted({name for want in wants for name in want.observed}):
        dataset = DATASETS[name]
        key = ", ".join(dataset.key)
        columns = ", ".join(dataset.schema)
        query = (
            f"SELECT i.n, o.* FROM instruments i CROSS JOIN LATERAL (SELECT DISTINCT ON ({key}) {columns} "
            f"FROM {dataset.table} WHERE (symbol, asset_class) = (i.symbol, i.asset_class) AND i.dataset = '{name}' "
            f"AND timestamp >= i.since AND timestamp < i.until ORDER BY {key}, known_from DESC, source) o"
        )
        layers.append(Layer(name, {"n": _NUMBER, **dataset.schema}, query))
    return layers


def _parameters(wants: Sequence[Want]) -> dict[str, Any]:
    reach: dict[tuple[int, str], timedelta] = {}
    until: dict[tuple[int, str], datetime] = {}
    for place, want in enumerate(wants):
        first = _first_of_instrument(wants, place)
        for name, history in want.observed.items():
            reach[first, name] = max(history, reach.get((first, name), history))
            until[first, name] = max(want.until, until.get((first, name), want.until))
    contracts = [want.contract.key if want.contract else (None, None, None) for want in wants]
    return {
        "symbols": [want.series.symbol for want in wants],
        "classes": [want.series.asset_class.value for want in wants],
        "timeframes": [want.series.timeframe.value for want in wants],
        "firsts": [want.extent.start for want in wants],
        "lasts": [want.extent.end for want in wants],
        "limits": [versions_worth(want.before) if want.before else 0 for want in wants],
        "starts": [want.span.start for want in wants],
        "ends": [want.span.end for want in wants],
        "venues": [venue for venue, _, _ in contracts],
        "markets": [market for _, market, _ in contracts],
        "names": [name for _, _, name in contracts],
        "places": [place for place, _ in reach],
        "datasets": [name for _, name in reach],
        "reach": list(reach.values()),
        "until": list(until.values()),
    }


def _first_of_instrument(wants: Sequence[Want], place: int) -> int:
    """The place of the first want of the same instrument: its observations are read once for all timeframes."""
    instrument = wants[place].series.instrument
    return next(n for n, want in enumerate(wants) if want.series.instrument == instrument)


_WANTED: Final = f"""
WITH w AS MATERIALIZED (
    SELECT n - 1 AS n, symbol, asset_class, timeframe, first, until, versions, start_time, end_time, venue, market,
        raw_symbol
    FROM unnest(%(symbols)s::text[], %(classes)s::text[], %(timeframes)s::text[], %(firsts)s::timestamptz[],
        %(lasts)s::timestamptz[], %(limits)s::integer[], %(starts)s::timestamptz[], %(ends)s::timestamptz[],
        %(venues)s::text[], %(markets)s::text[], %(names)s::text[])
    WITH ORDINALITY AS given (symbol, asset_class, timeframe, first, until, versions, start_time, end_time, venue,
        market, raw_symbol, n)
), known AS MATERIALIZED (
    SELECT w.n, c.* FROM w CROSS JOIN LATERAL (
        SELECT timestamp, {FACTS}, source, known_from FROM candles
        WHERE symbol = w.symbol AND asset_class = w.asset_class AND timeframe = w.timeframe
            AND timestamp < w.first AND chosen
        ORDER BY timestamp DESC, source DESC, known_from DESC LIMIT w.versions
    ) c
), oldest AS MATERIALIZED (
    SELECT w.symbol, w.asset_class, least(min(w.first), min(known.timestamp)) AS since
    FROM w LEFT JOIN known USING (n) GROUP BY w.symbol, w.asset_class
), instruments AS MATERIALIZED (
    SELECT w.n, w.symbol, w.asset_class, o.dataset, oldest.since - o.reach AS since, o.until
    FROM unnest(%(places)s::bigint[], %(datasets)s::text[], %(reach)s::interval[], %(until)s::timestamptz[])
        AS o (n, dataset, reach, until) JOIN w USING (n) JOIN oldest USING (symbol, asset_class)
)"""
_STATE_OF: Final = f"""
SELECT w.n, m.moment, newest.timestamp AS newest, claimed.known_from AS claimed, claimed.near
FROM w LEFT JOIN series_moments m USING (symbol, asset_class, timeframe)
LEFT JOIN LATERAL (
    SELECT timestamp FROM candles WHERE symbol = w.symbol AND asset_class = w.asset_class AND timeframe = w.timeframe
    ORDER BY timestamp DESC LIMIT 1
) newest ON true
LEFT JOIN LATERAL (
    SELECT max(known_from) AS known_from,
        coalesce(bool_or(abs(execution_date - w.first::date) <= {NEAR_DAYS}), false) AS near
    FROM stock_splits WHERE (symbol, asset_class) = (w.symbol, w.asset_class) AND w.asset_class <> 'crypto'
) claimed ON true"""
_FACTS_OF: Final = f"""
SELECT w.n, c.* FROM w CROSS JOIN LATERAL (
    SELECT DISTINCT ON (timestamp, source, contract_id) timestamp, {FACTS}, source, known_from, chosen FROM candles
    WHERE symbol = w.symbol AND asset_class = w.asset_class AND timeframe = w.timeframe
        AND timestamp >= w.first AND timestamp < w.until
    ORDER BY timestamp, source, contract_id, known_from DESC
) c"""
_DISPUTES: Final = """
SELECT DISTINCT k.n, d.timestamp FROM (SELECT n, min(timestamp) AS oldest FROM known GROUP BY n) k JOIN w USING (n)
JOIN disagreements d ON (d.symbol, d.asset_class, d.timeframe) = (w.symbol, w.asset_class, w.timeframe)
    AND d.timestamp >= k.oldest"""
_AROUND: Final = """
SELECT w.n, c.start_time, c.end_time, c.state, c.detected_at, c.filled_at, c.filled_by, c.tries, c.next_try_at,
    c.last_error
FROM w JOIN coverage c ON (c.symbol, c.asset_class, c.timeframe) = (w.symbol, w.asset_class, w.timeframe)
    AND c.start_time >= coalesce((SELECT max(b.start_time) FROM coverage b
        WHERE (b.symbol, b.asset_class, b.timeframe) = (w.symbol, w.asset_class, w.timeframe)
            AND b.start_time < w.start_time), '-infinity')
    AND c.start_time <= coalesce((SELECT min(a.start_time) FROM coverage a
        WHERE (a.symbol, a.asset_class, a.timeframe) = (w.symbol, w.asset_class, w.timeframe)
            AND a.start_time >= w.end_time), 'infinity')"""
_LIVES: Final = """
SELECT w.n, c.contract_id, min(e.effective_at) AS start FROM w
JOIN contracts c ON (c.venue, c.market, c.raw_symbol) = (w.venue, w.market, w.raw_symbol)
LEFT JOIN contract_events e ON e.contract_id = c.contract_id AND e.kind = 'name_reused'
GROUP BY w.n, c.contract_id"""
_TIES: Final = """
SELECT DISTINCT ON (w.n, coalesce(t.effective_from, '-infinity')) w.n, t.contract_id, t.effective_from AS start
FROM w JOIN contract_ties t ON (t.symbol, t.asset_class) = (w.symbol, w.asset_class)
ORDER BY w.n, coalesce(t.effective_from, '-infinity'), t.decided_at DESC"""
_BELIEVED: Final = """
SELECT w.n, b.known_from, b.date, b.split_from, b.split_to, b.state
FROM w JOIN split_beliefs b ON (b.symbol, b.asset_class) = (w.symbol, w.asset_class) AND w.asset_class <> 'crypto'
    AND b.known_from = (SELECT max(known_from) FROM split_beliefs l
        WHERE (l.symbol, l.asset_class) = (w.symbol, w.asset_class))"""
