"""Claims that a complete answer lacked: remembered, withdrawn by a further version, or held in doubt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg.types.json import Jsonb

from market_data.model.dataset import Dataset
from market_data.model.instrument import Instrument
from market_data.storage.facts.append import Provenance
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection

_WHOSE: Final = "symbol = %s AND asset_class = %s AND dataset = %s AND source = %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A claim that an answer lacked: its key, since when, and why it is not withdrawn on that alone."""

    claim: Mapping[str, Any]
    since: datetime
    doubt: str | None


def key_of(dataset: Dataset, row: Mapping[str, Any]) -> dict[str, Any]:
    """What tells an entry of a source apart, as it is kept."""
    return {name: row[name] if isinstance(row[name], int) else str(row[name]) for name in dataset.key}


def missing_claims(
    database: Database, dataset: Dataset, instrument: Instrument, source: str
) -> dict[tuple[Any, ...], Missing]:
    """What earlier answers of a source lacked, by key."""
    rows = database.rows(
        f"SELECT claim, missing_since, doubt FROM missing_claims WHERE {_WHOSE}",
        _whose(dataset, instrument, source),
    )
    return {
        tuple(row["claim"][name] for name in dataset.key): Missing(
            claim=row["claim"], since=row["missing_since"], doubt=row["doubt"]
        )
        for row in rows
    }


def awaiting(database: Database, dataset: Dataset, instrument: Instrument) -> bool:
    """Whether something that an answer lacked waits for a further one, without any doubt."""
    if not dataset.withdrawable:
        return False
    rows = database.rows(
        "SELECT 1 FROM missing_claims WHERE symbol = %s AND asset_class = %s AND dataset = %s AND doubt IS NULL "
        "LIMIT 1",
        (instrument.symbol, instrument.asset_class.value, dataset.name),
    )
    return bool(rows)


def note_missing(
    connection: Connection, dataset: Dataset, instrument: Instrument, source: str, missing: Missing, at: datetime
) -> None:
    """Remember that an answer lacked a claim, and the doubt."""
    connection.execute(
        "INSERT INTO missing_claims (symbol, asset_class, dataset, source, claim, missing_since, last_missing, doubt) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (symbol, asset_class, dataset, source, claim) "
        "DO UPDATE SET last_missing = excluded.last_missing, doubt = excluded.doubt",
        (*_whose(dataset, instrument, source), Jsonb(dict(missing.claim)), missing.since, at, missing.doubt),
    )


def forget_missing(
    connection: Connection, dataset: Dataset, instrument: Instrument, source: str, claim: Mapping[str, Any]
) -> None:
    """A claim was told again, or is withdrawn: it is not missing."""
    connection.execute(
        f"DELETE FROM missing_claims WHERE {_WHOSE} AND claim = %s",
        (*_whose(dataset, instrument, source), Jsonb(dict(claim))),
    )


def withdraw(
    connection: Connection,
    dataset: Dataset,
    instrument: Instrument,
    claim: Mapping[str, Any],
    origin: Provenance,
    *,
    by: str = "collect",
    comment: str | None = None,
) -> bool:
    """Append a version that says the source took a claim back; False when it does not stand.

    Args:
        claim: its key.
        origin: of which source, when, in which run.
        by: who decided: the collecting of complete answers, or a person.
        comment: why, where a person did.
    """
    values = ", ".join(dataset.schema)
    same = " AND ".join(f"{name} = %s" for name in dataset.key)
    found = connection.execute(
        f"INSERT INTO {dataset.table} (symbol, asset_class, source, known_from, revision, withdrawn, run_id, {values}) "
        "SELECT symbol, asset_class, source, greatest(%s, known_from + interval '1 microsecond'), revision + 1, true, "
        f"%s, {values} FROM (SELECT * FROM {dataset.table} WHERE symbol = %s AND asset_class = %s AND source = %s "
        f"AND {same} ORDER BY known_from DESC LIMIT 1) newest WHERE NOT withdrawn RETURNING revision",
        (
            origin.now, origin.run_id, instrument.symbol, instrument.asset_class.value, origin.source,
            *(claim[name] for name in dataset.key),
        ),
    ).fetchone()  # fmt: skip
    forget_missing(connection, dataset, instrument, origin.source, claim)
    if found is None:
        return False
    connection.execute(
        "INSERT INTO data_corrections (dataset, symbol, asset_class, timestamp, revision, field_corrected, old_value, "
        "new_value, reason, source, corrected_by, run_id, correction_timestamp, comment) "
        "VALUES (%s, %s, %s, %s::date::timestamp AT TIME ZONE 'UTC', %s, 'withdrawn', 'false', 'true', %s, %s, %s, %s, "
        "%s, %s)",
        (
            dataset.name, instrument.symbol, instrument.asset_class.value, claim[dataset.time], found[0],
            "source_updated" if by == "collect" else "manual_correction", origin.source, by, origin.run_id, origin.now,
            comment,
        ),
    )  # fmt: skip
    return True


def doubts(database: Database, instrument: Instrument | None = None) -> list[dict[str, Any]]:
    """Claims in doubt, newest first: a source no longer tells them, and that alone does not withdraw them."""
    where, parameters = "doubt IS NOT NULL", list[object]()
    if instrument is not None:
        where += " AND symbol = %s AND asset_class = %s"
        parameters += [instrument.symbol, instrument.asset_class.value]
    return database.rows(
        "SELECT symbol, asset_class, dataset, source, claim, missing_since, last_missing, doubt FROM missing_claims "
        f"WHERE {where} ORDER BY missing_since DESC",
        parameters,
    )


def _whose(dataset: Dataset, instrument: Instrument, source: str) -> tuple[str, str, str, str]:
    return instrument.symbol, instrument.asset_class.value, dataset.name, source
