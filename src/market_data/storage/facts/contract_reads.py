"""Reads of contracts for people: filtered, as they are or as they were known, with whose series they are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from market_data.model.errors import UsageError
from market_data.model.instrument import AssetClass, Instrument, Kind, Status
from market_data.storage.facts.contracts import Stored, newest
from market_data.storage.server.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which contracts are wanted; None is any."""

    query: str | None = None
    kind: str | None = None
    status: str | None = None
    asset_class: AssetClass | None = None
    as_of: datetime | None = None

    def __post_init__(self) -> None:
        for name, value, valid in (("kind", self.kind, list(Kind)), ("status", self.status, list(Status))):
            if value is not None and value not in valid:
                raise UsageError(f"Unknown {name} {value!r}. Valid: {', '.join(valid)}")


def contracts(database: Database, query: Query, of: Instrument | None = None) -> list[dict[str, Any]]:
    """The contracts wanted, by symbol, one row per source that lists them.

    Args:
        of: only those of the coin or share that this names, and those named exactly so.
    """
    where, parameters = ["true"], list[Any]()
    if query.query is not None:
        # Plain text, not a pattern.
        where.append("strpos(lower(c.symbol || ' ' || c.raw_symbol || ' ' || coalesce(v.name, '')), lower(%s)) > 0")
        parameters.append(query.query)
    for column, value in (("c.kind", query.kind), ("v.status", query.status), ("c.asset_class", query.asset_class)):
        if value is not None:
            where.append(f"{column} = %s")
            parameters.append(str(value))
    if of is not None:
        where.append("%s IN (c.base, c.symbol, c.raw_symbol) AND c.asset_class = %s")
        parameters += [of.symbol, of.asset_class.value]
    found = newest(database, " AND ".join(where), parameters, query.as_of)
    owned = _owned(database, [each.contract_id for each in found]) if of is not None else {}
    return [_row(each) | ({"own": owned.get(each.contract_id)} if of is not None else {}) for each in found]


def events(database: Database, contract_ids: list[int]) -> list[dict[str, Any]]:
    """What happened to contracts, in order: names reused, renamed, redenominated, dates corrected."""
    return database.rows(
        "SELECT c.symbol, e.kind, e.effective_at, e.source, e.known_from, e.ratio, e.detail FROM contract_events e "
        "JOIN contracts c USING (contract_id) WHERE contract_id = ANY(%s) ORDER BY effective_at, c.symbol",
        [contract_ids],
    )


def _owned(database: Database, numbers: list[int]) -> dict[int, str]:
    rows = database.rows(
        "SELECT contract_id, symbol FROM (SELECT DISTINCT ON (symbol, asset_class) * FROM contract_ties "
        "ORDER BY symbol, asset_class, decided_at DESC) t WHERE contract_id = ANY(%s)",
        [numbers],
    )
    return {row["contract_id"]: row["symbol"] for row in rows}


def _row(stored: Stored) -> dict[str, Any]:
    contract = stored.contract
    return {
        "contract_id": stored.contract_id,
        "symbol": contract.symbol,
        "asset_class": contract.asset_class.value,
        "kind": contract.kind.value,
        "venue": contract.venue,
        "market": contract.market,
        "raw_symbol": contract.raw_symbol,
        "life": stored.life,
        "base": contract.base,
        "quote": contract.quote,
        "settlement": contract.settlement,
        "multiplier": str(contract.multiplier.normalize()),
        "expires_on": contract.expires_on,
        "name": contract.name,
        "source": stored.source,
        "status": contract.status.value,
        "status_text": contract.status_text,
        "status_since": contract.status_since,
        "listed_from": contract.listed_from,
        "listed_to": contract.listed_to,
        "known_from": stored.known_from,
    }
