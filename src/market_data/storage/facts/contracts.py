"""Contracts as stored: who they are, what is said of them version by version, and whose candles a series has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import polars as pl

from market_data.model.contract import Contract
from market_data.model.instrument import AssetClass, Instrument, Kind, Status
from market_data.model.timeframe import MICROSECOND
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection

ALWAYS: Final = datetime(1, 1, 1, tzinfo=UTC)
_SAID: Final = ("status", "status_text", "status_since", "listed_from", "listed_to", "name")


@dataclass(frozen=True, slots=True)
class Since:
    """A contract's number and from when on it counts: as bearer of a name, or as owner of a series."""

    contract_id: int
    start: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A stored contract with what a source last said of it."""

    contract_id: int
    life: int
    source: str
    known_from: datetime
    contract: Contract


def lives_of(connection: Connection, contract: Contract, now: datetime) -> list[Since]:
    """The contracts that bore this venue's name, oldest first; one that is new is stored.

    Args:
        now: the moment a new one is stored under.
    """
    found = _lives(connection, contract)
    if not found:
        register(connection, contract, 1, now)
        found = _lives(connection, contract)
    return found


def _lives(connection: Connection, contract: Contract) -> list[Since]:
    rows = connection.execute(
        "SELECT c.contract_id, min(e.effective_at) FROM contracts c LEFT JOIN contract_events e "
        "ON e.contract_id = c.contract_id AND e.kind = 'name_reused' "
        "WHERE (venue, market, raw_symbol) = (%s, %s, %s) GROUP BY c.contract_id, life ORDER BY life",
        contract.key,
    )
    return [Since(number, start or ALWAYS) for number, start in rows]


def register(connection: Connection, contract: Contract, life: int, now: datetime) -> int:
    """Store who a contract is; the number of the one that is stored already where there is one."""
    connection.execute(
        "INSERT INTO contracts (venue, market, raw_symbol, life, symbol, asset_class, kind, base, quote, settlement, "
        "multiplier, expires_on, created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (venue, market, raw_symbol, life) DO NOTHING",
        [
            *contract.key,
            life,
            contract.symbol,
            contract.asset_class.value,
            contract.kind.value,
            contract.base,
            contract.quote,
            contract.settlement,
            contract.multiplier,
            contract.expires_on,
            now,
        ],
    )
    row = connection.execute(
        "SELECT contract_id FROM contracts WHERE (venue, market, raw_symbol, life) = (%s, %s, %s, %s)",
        [*contract.key, life],
    ).fetchone()
    assert row is not None
    number: int = row[0]
    return number


def at_their_time(timestamps: pl.Series, owners: Sequence[Since]) -> pl.Series:
    """Per open time the contract that counted then; null where none did."""
    if not owners:
        return pl.Series("contract_id", [None] * len(timestamps), pl.Int32)
    starts = pl.Series([owner.start for owner in owners], dtype=pl.Datetime("us", "UTC")).cast(pl.Int64).to_numpy()
    numbers = np.array([owner.contract_id for owner in owners], np.int32)
    at = np.searchsorted(starts, timestamps.cast(pl.Int64).to_numpy(), side="right") - 1
    return pl.Series("contract_id", numbers[np.maximum(at, 0)], pl.Int32)


def ties_of(connection: Connection, instrument: Instrument) -> list[Since]:
    """Whose candles an instrument's series has, in order of time; empty while nobody decided."""
    rows = connection.execute(
        "SELECT DISTINCT ON (coalesce(effective_from, '-infinity')) contract_id, effective_from FROM contract_ties "
        "WHERE (symbol, asset_class) = (%s, %s) ORDER BY coalesce(effective_from, '-infinity'), decided_at DESC",
        [instrument.symbol, instrument.asset_class.value],
    )
    return [Since(number, start or ALWAYS) for number, start in rows]


def owned_by(database: Database, instrument: Instrument) -> int | None:
    """The contract whose candles an instrument's series has at present; None while nobody decided."""
    with database.transaction() as connection:
        owners = ties_of(connection, instrument)
    return owners[-1].contract_id if owners else None


def tie(
    connection: Connection,
    instrument: Instrument,
    contract_id: int,
    *,
    source: str,
    reason: str,
    now: datetime,
    effective_from: datetime | None = None,
) -> None:
    """Fix whose candles an instrument's series has, from `effective_from` on (None: always)."""
    connection.execute(
        "INSERT INTO contract_ties VALUES (%s, %s, greatest(%s, coalesce((SELECT max(decided_at) + "
        "interval '1 microsecond' FROM contract_ties WHERE (symbol, asset_class) = (%s, %s)), '-infinity')), "
        "%s, %s, %s, %s)",
        [
            instrument.symbol,
            instrument.asset_class.value,
            now,
            instrument.symbol,
            instrument.asset_class.value,
            contract_id,
            effective_from,
            source,
            reason,
        ],
    )


def say(connection: Connection, contract_id: int, source: str, contract: Contract, now: datetime) -> bool:
    """Append what a source says of a contract where it differs from what it last said; whether it did."""
    last = connection.execute(
        f"SELECT {', '.join(_SAID)}, known_from FROM contract_versions WHERE (contract_id, source) = (%s, %s) "
        "ORDER BY known_from DESC LIMIT 1",
        [contract_id, source],
    ).fetchone()
    new = tuple(getattr(contract, name) for name in _SAID)
    if last is not None:
        if tuple(last[:-1]) == new:
            return False
        # A version is younger than the one before it even when a clock stands still or steps back.
        now = max(now, last[-1] + MICROSECOND)
    connection.execute(
        f"INSERT INTO contract_versions (contract_id, source, known_from, {', '.join(_SAID)}) VALUES (%s, %s, %s, %s, "
        "%s, %s, %s, %s, %s)",
        [contract_id, source, now, *(each.value if isinstance(each, Status) else each for each in new)],
    )
    return True


def newest(
    database: Database | Connection,
    where: str = "true",
    parameters: Sequence[Any] = (),
    as_of: datetime | None = None,
) -> list[Stored]:
    """Contracts with what each source says of them, by then known when `as_of` is given.

    Args:
        where: a condition on `c`, a row of contracts, and `v`, the newest version of one source.
    """
    statement = (
        f"SELECT {_COLUMNS} FROM contracts c JOIN LATERAL (SELECT DISTINCT ON (source) * FROM contract_versions w "
        "WHERE w.contract_id = c.contract_id AND (%s::timestamptz IS NULL OR known_from <= %s) "
        f"ORDER BY source, known_from DESC) v ON true WHERE {where} ORDER BY c.symbol, c.contract_id, v.source"
    )
    parameters = [as_of, as_of, *parameters]
    if isinstance(database, Database):
        with database.transaction() as connection:
            return [_stored(row) for row in connection.execute(statement, parameters)]
    return [_stored(row) for row in database.execute(statement, parameters)]


_COLUMNS: Final = (
    "c.contract_id, c.life, v.source, v.known_from, c.venue, c.market, c.raw_symbol, c.kind, c.base, c.quote, "
    "c.settlement, c.multiplier, c.expires_on, v.status, v.status_text, v.status_since, v.listed_from, v.listed_to, "
    "v.name"
)


def _stored(row: Iterable[Any]) -> Stored:
    number, life, source, known_from, venue, market, raw_symbol, kind, *rest = row
    base, quote, settlement, multiplier, expires_on, status, text, since, listed_from, listed_to, name = rest
    contract = Contract(
        venue=venue,
        market=market,
        raw_symbol=raw_symbol,
        kind=Kind(kind),
        base=base,
        quote=quote,
        settlement=settlement,
        multiplier=multiplier,
        expires_on=expires_on,
        status=Status(status),
        status_text=text,
        status_since=since,
        listed_from=listed_from,
        listed_to=listed_to,
        name=name,
    )
    return Stored(contract_id=number, life=life, source=source, known_from=known_from, contract=contract)


def instrument_of(contract: Contract) -> Instrument:
    """The instrument that the exact notation names."""
    return Instrument(contract.symbol, AssetClass(contract.asset_class))
