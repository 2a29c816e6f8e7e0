"""Tracked symbols in the database: what was tracked or untracked by hand, over what the settings name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe
from market_data.storage.server.database import Database


@dataclass(frozen=True, slots=True)
class Tracked:
    """An instrument that scheduled work covers, with its timeframes and who named it (settings or command)."""

    instrument: Instrument
    timeframes: tuple[Timeframe, ...]
    named_in: str

    @property
    def series(self) -> list[Series]:
        """One series per timeframe."""
        return [Series(self.instrument, timeframe) for timeframe in self.timeframes]


def track(
    database: Database, instruments: Iterable[Instrument], timeframes: Sequence[Timeframe], now: datetime
) -> None:
    """Track instruments with these timeframes from now on; earlier ones of theirs are replaced."""
    _write(database, instruments, timeframes, now, active=True)


def untrack(database: Database, instruments: Iterable[Instrument], now: datetime) -> None:
    """Leave instruments alone from now on, even when the settings name them; what is stored stays."""
    _write(database, instruments, list(Timeframe), now, active=False)


def tracked(database: Database, settings: Mapping[Instrument, tuple[Timeframe, ...]]) -> list[Tracked]:
    """All that is tracked: what the settings name, changed by what was tracked and untracked since."""
    found = {instrument: Tracked(instrument, names, "settings") for instrument, names in settings.items()}
    for row in database.rows("SELECT symbol, asset_class, timeframes, active FROM tracked_symbols"):
        instrument = Instrument(row["symbol"], AssetClass(row["asset_class"]))
        if row["active"]:
            found[instrument] = Tracked(instrument, tuple(map(Timeframe, row["timeframes"])), "command")
        else:
            found.pop(instrument, None)
    return sorted(found.values(), key=lambda one: (one.instrument.asset_class, one.instrument.symbol))


def most_active(database: Database, instruments: Sequence[Instrument], most: int, since: datetime) -> list[Instrument]:
    """The instruments with the highest traded value (price times volume) since then, by their stored days.

    Those of which no day is stored come last, in their order.
    """
    rows = database.rows(
        "SELECT symbol, asset_class, sum(close * volume) AS traded FROM market_data_v2 "
        "WHERE timeframe = '1d' AND timestamp >= %s AND (symbol, asset_class) IN "
        "(SELECT * FROM unnest(%s::text[], %s::text[])) GROUP BY 1, 2",
        [since, [one.symbol for one in instruments], [one.asset_class.value for one in instruments]],
    )
    traded = {Instrument(row["symbol"], AssetClass(row["asset_class"])): row["traded"] or 0 for row in rows}
    return sorted(instruments, key=lambda one: -traded.get(one, 0))[:most]


def _write(
    database: Database,
    instruments: Iterable[Instrument],
    timeframes: Sequence[Timeframe],
    now: datetime,
    *,
    active: bool,
) -> None:
    with database.transaction() as connection:
        for instrument in instruments:
            connection.execute(
                "INSERT INTO tracked_symbols (symbol, asset_class, timeframes, active, created_at, updated_at) "
                "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (symbol, asset_class) DO UPDATE SET "
                "(timeframes, active, updated_at) = (excluded.timeframes, excluded.active, excluded.updated_at)",
                [instrument.symbol, instrument.asset_class.value, [t.value for t in timeframes], active, now, now],
            )
