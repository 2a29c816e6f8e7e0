"""Writes what the write rules (`verdict.py`) say: facts, the present that follows from them, corrections.

Facts (`candles`) are only ever appended; the present (`market_data_v2`) is the newest chosen fact of each timestamp
with what is derived from it. Nothing here commits: the caller's transaction holds everything of one batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Final
from uuid import UUID

import polars as pl
import psycopg

from market_data.model.dataset import CANDLES, UTC_MICROS
from market_data.model.instrument import Series
from market_data.model.timeframe import MICROSECOND, TimeRange
from market_data.storage.series.own_features import own_among, stored_own, write_own
from market_data.storage.series.verdict import COMPARED, Verdict
from market_data.storage.server.database import Database
from market_data.storage.server.partitions import ensure_partitions, partitions_of
from market_data.storage.wire.connection import Connection
from market_data.storage.wire.copy_in import copy_in
from market_data.storage.wire.copy_out import copy_out
from market_data.storage.wire.gathered import Writes

# The columns of a candle that the present shows as its source gave them.
PRESENT_VALUES: Final = (
    *("open", "high", "low", "close", "volume"),
    *("quote_volume", "vwap", "trade_count", "taker_buy_volume"),
)
_GROWING: Final = ("candles", "market_data_v2")
_SERIES: Final = ("symbol", "asset_class", "timeframe")
_KEY: Final = (*_SERIES, "timestamp")


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the rows of a batch; together they are all rows that came in."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    kept: int = 0
    rejected: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Counts)))

    @property
    def fetched(self) -> int:
        """All rows that came in."""
        return sum(getattr(self, f.name) for f in fields(Counts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a batch came from: stored with each of its rows."""

    source: str
    fetched_at: datetime
    now: datetime
    run_id: UUID
    actor: str
    comment: str | None = None
    """Why a person corrected it."""


def prepare_partitions(database: Database, span: TimeRange) -> None:
    """Make the partitions that candles of `span` need, in a short transaction of its own ahead of the write.

    Those seen once are not looked for again, until a write fails.
    """
    wanted = [(table, each) for table in _GROWING for each in partitions_of(table, span.start, span.end)]
    if all(each.name in database.partitions for _, each in wanted):
        return
    with database.transaction() as connection:
        for table in _GROWING:
            ensure_partitions(connection, table, span.start, span.end)
    database.partitions.update(each.name for _, each in wanted)


def lock_series(connection: Connection, series: Series) -> None:
    """Wait until no other writer is at this series; held until the transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", ["/".join(series.key)])


def next_moment(connection: Connection, series: Series, now: datetime) -> datetime:
    """`now`, or just after the series' last change where the clock stood still or stepped back; needs its lock."""
    row = connection.execute(
        "SELECT moment FROM series_moments WHERE (symbol, asset_class, timeframe) = (%s, %s, %s)", series.key
    ).fetchone()
    return now if row is None else max(now, row[0] + MICROSECOND)


def note_moment(connection: Writes, series: Series, moment: datetime) -> None:
    """Remember that the series changed at this moment."""
    connection.execute(
        "INSERT INTO series_moments VALUES (%s, %s, %s, %s) ON CONFLICT (symbol, asset_class, timeframe) "
        "DO UPDATE SET moment = excluded.moment",
        [*series.key, moment],
    )


def write(
    connection: Connection, series: Series, judged: pl.DataFrame, derived: pl.DataFrame, origin: Origin
) -> Counts:
    """Append the new facts and bring the present up to date, inside the caller's transaction and series lock.

    Args:
        judged: what `classify` returned.
        derived: `timestamp` and every derived column, for the inserted and updated rows.
        origin: where `judged` came from.

    Returns:
        How many rows were inserted, updated, unchanged, kept; `rejected` is 0 here.
    """
    counts = {verdict: judged.filter(pl.col("verdict") == verdict) for verdict in Verdict}
    if counts[Verdict.UNCHANGED].height < judged.height:
        present = derived.drop(own_among(derived.columns))
        first = first_of(series, counts[Verdict.INSERTED], present, origin)
        append(connection, facts_of(series, judged, origin), first)
        _update_present(connection, series, counts[Verdict.UPDATED], present, origin)
        write_own(connection, series, derived)
    return Counts(**{verdict.value: rows.height for verdict, rows in counts.items()})


def facts_of(series: Series, judged: pl.DataFrame, origin: Origin) -> pl.DataFrame:
    """The versions that judged rows add to `candles`."""
    new = judged.filter(pl.col("verdict") != Verdict.UNCHANGED)
    return new.select(
        *_identity(series),
        "timestamp",
        source=pl.lit(origin.source),
        known_from=pl.lit(origin.now),
        fetched_at=pl.lit(origin.fetched_at),
        chosen=pl.col("verdict") != Verdict.KEPT,
        reason="reason",
        actor=pl.lit(origin.actor),
        run_id=pl.lit(str(origin.run_id)),
        **{name: pl.col(name) for name in (*CANDLES.values, "quality_score", "data_age_seconds", "contract_id")},
    )


def append(connection: Connection, facts: pl.DataFrame, present: pl.DataFrame) -> None:
    """Add versions, and rows of the present that are the first at their timestamps, of any number of series.

    Nothing stands there and the series are locked: straight into the tables, whose keys guard the rest.
    """
    copy_in(connection, "candles", facts)
    copy_in(connection, "market_data_v2", present)


def _present_rows(series: Series, rows: pl.DataFrame, derived: pl.DataFrame, origin: Origin) -> pl.DataFrame:
    # The fact's own score stays with the fact: the present's is derived.
    values = rows.select("timestamp", "data_age_seconds", "contract_id", *PRESENT_VALUES)
    # What is derived stands before what was said: a week within which a split falls is made of its days.
    values = values.drop(name for name in PRESENT_VALUES if name in derived.columns)
    return values.join(derived, on="timestamp", how="left", maintain_order="left").select(
        *_identity(series),
        pl.exclude("data_age_seconds"),
        taker_sell_volume=pl.col("volume") - pl.col("taker_buy_volume"),
        source=pl.lit(origin.source),
        fetched_at=pl.lit(origin.fetched_at),
        data_age_seconds="data_age_seconds",
        computed_at=pl.lit(origin.now),
        updated_at=pl.lit(origin.now),
    )


def first_of(series: Series, rows: pl.DataFrame, derived: pl.DataFrame, origin: Origin) -> pl.DataFrame:
    """Inserted rows as the present shows them."""
    return _present_rows(series, rows, derived, origin).with_columns(
        revision=pl.lit(1, pl.Int32), created_at=pl.lit(origin.now)
    )


def _update_present(
    connection: Connection, series: Series, rows: pl.DataFrame, derived: pl.DataFrame, origin: Origin
) -> None:
    if rows.is_empty():
        return
    staged = _present_rows(series, rows, derived, origin)
    columns = [name for name in staged.columns if name not in _KEY]
    _stage(connection, staged)
    revised = connection.execute(
        f"UPDATE market_data_v2 m SET {', '.join(f'{c} = s.{c}' for c in columns)}, revision = m.revision + 1, "
        f"amended_from = m.revision FROM staged s WHERE {_SAME_ROW} RETURNING m.timestamp, m.revision",
        _bounds(series, rows),
    ).fetchall()
    revisions = pl.DataFrame(revised, {"timestamp": UTC_MICROS, "revision": pl.Int32}, orient="row")
    _append_corrections(connection, series, rows.join(revisions, on="timestamp"), origin)


def refresh_derived(connection: Connection, series: Series, derived: pl.DataFrame, now: datetime) -> int:
    """Write derived columns of stored rows where they differ from what is stored; returns how many rows differed."""
    if derived.is_empty():
        return 0
    differing = _differing(connection, series, derived)
    if differing.is_empty():
        return 0
    write_own(connection, series, differing.select(derived.columns))
    columns = [name for name in derived.columns if name not in ("timestamp", *own_among(derived.columns))]
    _stage(connection, differing.select(*_identity(series), "timestamp", *columns))
    return connection.execute(
        f"UPDATE market_data_v2 m SET {', '.join(f'{c} = s.{c}' for c in columns)}, computed_at = %(now)s, "
        f"updated_at = %(now)s FROM staged s WHERE {_SAME_ROW}",
        {**_bounds(series, differing), "now": now},
    ).rowcount


def _differing(connection: Connection, series: Series, derived: pl.DataFrame) -> pl.DataFrame:
    """Rows of `derived` whose stored values are others; compared here, since most of a ripple's rows do not differ."""
    columns = [name for name in derived.columns if name != "timestamp"]
    bounds = _bounds(series, derived)
    present = [name for name in columns if name not in own_among(columns)]
    statement = psycopg.ClientCursor(connection).mogrify(
        f"SELECT timestamp, {', '.join(present)} FROM market_data_v2 WHERE symbol = %(symbol)s "
        "AND asset_class = %(asset_class)s AND timeframe = %(timeframe)s AND timestamp BETWEEN %(first)s AND %(last)s",
        bounds,
    )
    stored = copy_out(connection, statement)
    stored = stored.join(stored_own(connection, series, derived), on="timestamp", how="left")
    both = derived.join(stored, on="timestamp", how="inner", suffix="_stored", maintain_order="left")
    return both.filter(pl.any_horizontal(pl.col(c).ne_missing(pl.col(f"{c}_stored")) for c in columns))


def _append_corrections(connection: Connection, series: Series, amended: pl.DataFrame, origin: Origin) -> None:
    fields = [
        amended.filter(pl.col(name).ne_missing(pl.col(f"{name}_present"))).select(
            "timestamp",
            "revision",
            "reason",
            field_corrected=pl.lit(name),
            old_value=plain_text(f"{name}_present", amended.schema[name]),
            new_value=plain_text(name, amended.schema[name]),
        )
        for name in COMPARED
    ]
    corrections = pl.concat(fields).with_columns(
        *_identity(series),
        source=pl.lit(origin.source),
        corrected_by=pl.lit(origin.actor),
        comment=pl.lit(origin.comment, pl.String),
        run_id=pl.lit(str(origin.run_id)),
        correction_timestamp=pl.lit(origin.now),
    )
    copy_in(connection, "data_corrections", corrections)


def plain_text(column: str, dtype: pl.DataType) -> pl.Expr:
    """A value as text, decimals without the trailing zeros of their scale."""
    text = pl.col(column).cast(pl.String)
    if not dtype.is_decimal():
        return text
    return text.str.strip_chars_end("0").str.strip_chars_end(".")


def _identity(series: Series) -> list[pl.Expr]:
    return [pl.lit(value).alias(name) for name, value in zip(_SERIES, series.key, strict=True)]


def _bounds(series: Series, rows: pl.DataFrame) -> dict[str, object]:
    identity = dict(zip(_SERIES, series.key, strict=True))
    return {**identity, "first": rows["timestamp"].min(), "last": rows["timestamp"].max()}


# The constants let the planner leave out the partitions and the rows that cannot be meant.
_SAME_ROW: Final = " AND ".join(
    [
        *(f"m.{name} = s.{name}" for name in _KEY),
        *(f"m.{name} = %({name})s" for name in _SERIES),
        "m.timestamp BETWEEN %(first)s AND %(last)s",
    ]
)


def _stage(connection: Connection, frame: pl.DataFrame) -> None:
    columns = ", ".join(frame.columns)
    connection.execute("DROP TABLE IF EXISTS pg_temp.staged")
    connection.execute(f"CREATE TEMP TABLE staged ON COMMIT DROP AS SELECT {columns} FROM market_data_v2 WITH NO DATA")
    copy_in(connection, "staged", frame)
    # Without its size known, the planner compares every row with every other.
    connection.execute("ANALYZE pg_temp.staged")
