"""The table of the user's own features: its columns appear with them, their values go with the candles'."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import polars as pl
import psycopg
from psycopg import sql

from market_data.model.errors import ConfigError
from market_data.model.feature import Feature
from market_data.model.instrument import Series
from market_data.storage.server.database import Database
from market_data.storage.server.migrate import LOCK_KEY
from market_data.storage.server.migration_files import present_columns
from market_data.storage.wire.connection import Connection, Session, dial
from market_data.storage.wire.copy_in import copy_in
from market_data.storage.wire.copy_out import copy_out
from market_data.storage.wire.errors import translated

TABLE: Final = "user_features"
# Whoever declares waits for others who do the same.
DECLARING: Final = Session(lock_seconds=60)
_KEY: Final = ("symbol", "asset_class", "timeframe", "timestamp")
_OF_SERIES: Final = "symbol = %(symbol)s AND asset_class = %(asset_class)s AND timeframe = %(timeframe)s"


@dataclass(frozen=True, slots=True)
class Stored:
    """A feature of the user's that has a column."""

    name: str
    type: str
    unit: str
    version: str
    declared_at: datetime


def own_among(names: Sequence[str]) -> list[str]:
    """Those of the names that are columns of the user's own."""
    present = present_columns()
    return [name for name in names if name not in present]


def stored(database: Database) -> list[Stored]:
    """Every feature that has a column, by name; those that no file declares any more are among them."""
    rows = database.rows("SELECT name, type, unit, version, declared_at FROM user_feature_definitions ORDER BY name")
    return [Stored(**row) for row in rows]


def declare(
    database: Database, features: Sequence[Feature], violations: Callable[[Feature], Sequence[str]], now: datetime
) -> list[str]:
    """Make room for the features, all in one transaction while others who want the same wait.

    What is declared as before costs one small read. A definition that is new is put to the laws first.

    Args:
        violations: what a feature does wrong, in words.

    Returns:
        Names of the features whose definition is new.

    Raises:
        ConfigError: when a feature breaks a law, or gives text where numbers are stored or the other way round.
    """
    if not _new(features, stored(database)):
        return []
    conninfo = database.conninfo()
    with translated(conninfo), dial(conninfo, DECLARING) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK_KEY,))
        new = _new(features, stored(database))
        for each in new:
            if broken := violations(each):
                said = "; ".join(broken)
                raise ConfigError(
                    f"feature {each.name} is not taken in: {said}; see `market-data prove features --path FILE`"
                )
            _declare(connection, each, now)
    return [each.name for each in new]


def _new(features: Sequence[Feature], known: Sequence[Stored]) -> list[Feature]:
    """The features whose definition is not the one on record."""
    by_name = {each.name: each for each in known}
    for each in features:
        before = by_name.get(each.name)
        if before is not None and before.type != each.sql_type:
            raise ConfigError(
                f"feature {each.name} is stored as {before.type} and now gives {each.sql_type}: give it another name"
            )
    return [each for each in features if each.name not in by_name or by_name[each.name].version != each.version]


def _declare(connection: Connection, feature: Feature, now: datetime) -> None:
    connection.execute(
        sql.SQL("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} {}").format(
            sql.Identifier(TABLE), sql.Identifier(feature.name), sql.SQL(feature.sql_type)
        )
    )
    connection.execute(
        "INSERT INTO user_feature_definitions VALUES (%s, %s, %s, %s, %s) ON CONFLICT (name) DO UPDATE "
        "SET unit = excluded.unit, version = excluded.version, declared_at = excluded.declared_at",
        (feature.name, feature.sql_type, feature.unit, feature.version, now),
    )


def selection(columns: Sequence[str] | None, own: Sequence[str], where: str, order: str) -> tuple[str, int]:
    """A statement that reads stored candles with the user's own features beside them.

    Args:
        columns: of market_data_v2; None is all of them.
        own: features of the user's own.
        where: the rows of market_data_v2; speaks of the series and of times only.
        order: ORDER BY and what follows it; it may be repeated around the statement.

    Returns:
        The statement, and how often it has the parameters of `where`.
    """
    if not own:
        return f"SELECT {', '.join(columns or '*')} FROM market_data_v2 WHERE {where} {order}", 1
    wanted = [*(columns if columns is not None else ["m.*"]), *(f'u."{name}"' for name in own)]
    # Each side is bounded by itself: the planner carries equalities from one to the other, but no bounds of time.
    return (
        f"SELECT {', '.join(wanted)} FROM (SELECT * FROM market_data_v2 WHERE {where} {order}) m "
        f"LEFT JOIN (SELECT * FROM {TABLE} WHERE {where}) u USING ({', '.join(_KEY)}) {order}"
    ), 2


def write_own(connection: Connection, series: Series, derived: pl.DataFrame) -> None:
    """Store the user's own features of candles, in the transaction that writes the candles.

    A candle for which none has a value gets no row, and an old row of it becomes null throughout.

    Args:
        derived: `timestamp` and derived columns, whatever they are.
    """
    own = own_among(derived.columns)
    if not own or derived.is_empty():
        return
    rows = derived.select(
        *(pl.lit(value).alias(name) for name, value in zip(_KEY, series.key, strict=False)), "timestamp", *own
    )
    columns, key = _quoted(own), ", ".join(_KEY)
    connection.execute("DROP TABLE IF EXISTS pg_temp.staged_own")
    connection.execute(f"CREATE TEMP TABLE staged_own ON COMMIT DROP AS TABLE {TABLE} WITH NO DATA")
    copy_in(connection, "staged_own", rows)
    empty = " AND ".join(f's."{name}" IS NULL' for name in own)
    known = " AND ".join(f"u.{name} = s.{name}" for name in _KEY)
    replaced = ", ".join(f'"{name}" = excluded."{name}"' for name in own)
    connection.execute(
        f"INSERT INTO {TABLE} ({key}, {columns}) SELECT {key}, {columns} FROM staged_own s WHERE NOT ({empty}) "
        f"OR EXISTS (SELECT FROM {TABLE} u WHERE {known}) ON CONFLICT ({key}) DO UPDATE SET {replaced}"
    )


def stored_own(connection: Connection, series: Series, derived: pl.DataFrame) -> pl.DataFrame:
    """What is stored of the user's own features among the columns of `derived`, for its time span."""
    own = own_among(derived.columns)
    if not own:
        return derived.select("timestamp").clear()
    bounds = dict(zip(_KEY, series.key, strict=False))
    statement = psycopg.ClientCursor(connection).mogrify(
        f"SELECT timestamp, {_quoted(own)} FROM {TABLE} WHERE {_OF_SERIES} "
        "AND timestamp BETWEEN %(first)s AND %(last)s",
        {**bounds, "first": derived["timestamp"].min(), "last": derived["timestamp"].max()},
    )
    return copy_out(connection, statement)


def _quoted(names: Sequence[str]) -> str:
    # A name may be a word of SQL.
    return ", ".join(f'"{name}"' for name in names)
