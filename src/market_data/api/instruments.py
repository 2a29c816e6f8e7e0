"""Instruments routes: what is known here, what the sources list, and who one symbol is at each of them."""

from __future__ import annotations

from typing import Annotated

import polars as pl
from fastapi import APIRouter, Query

from market_data.api.arguments import AssetClassQuery, Cursor, Symbol
from market_data.api.cursors import decoded, encoded
from market_data.api.instrument_documents import (
    Alias,
    ContractEvent,
    ContractState,
    InstrumentEntry,
    Instruments,
    InstrumentState,
)
from market_data.api.operations import instruments_known
from market_data.api.problems import described
from market_data.api.served import Backing, Served
from market_data.model.errors import UnknownInstrument
from market_data.model.instrument import Instrument, Kind, Status
from market_data.storage.facts.contract_reads import Query as ContractQuery
from market_data.storage.facts.contract_reads import contracts, events
from market_data.storage.facts.expectations import trading
from market_data.storage.facts.instruments import names_of

router = APIRouter(tags=["operations"])


@router.get("/instruments", responses=described())
def instruments(
    served: Backing,
    asset_class: AssetClassQuery = None,
    query: Annotated[
        str | None, Query(max_length=64, description="Only what has this text in its symbol or name.", examples=["BTC"])
    ] = None,
    kind: Annotated[Kind | None, Query(description="Only contracts of this kind.")] = None,
    status: Annotated[Status | None, Query(description="Only contracts of this status.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many.")] = 100,
    cursor: Cursor = None,
) -> Instruments:
    """Instruments that are tracked or were enriched, by symbol; with a filter also the contracts that match it."""
    after = None if cursor is None else decoded(cursor, (pl.String(), pl.String()))
    listed: list[ContractState] = []
    if query or kind or status:
        wanted = ContractQuery(query=query, kind=kind, status=status, asset_class=asset_class)
        listed = [ContractState(**row) for row in contracts(served.database, wanted)[:limit]]
    found = [
        instrument
        for instrument in instruments_known(served)
        if asset_class in (None, instrument.asset_class)
        and (query is None or query.lower() in instrument.symbol.lower())
        and (after is None or (instrument.symbol, instrument.asset_class.value) > after)
    ]
    shown = found[:limit]
    last = shown[-1] if shown else None
    more = last is not None and len(found) > limit
    return Instruments(
        count=len(shown),
        next=encoded([last.symbol, last.asset_class.value]) if more and last else None,
        instruments=_states(served, shown),
        contracts=listed,
    )


@router.get("/instruments/{symbol}", responses=described(404))
def instrument(served: Backing, symbol: Symbol, asset_class: AssetClassQuery = None) -> InstrumentEntry:
    """Who an instrument is at every source: contracts with status and since when, names, what happened to them."""
    names, database = served.names, served.database
    meant = names.meant(symbol, asset_class)
    if meant is None:
        raise UnknownInstrument(f"No source lists {symbol}.{names.suggestion(symbol)}")
    stored = names.stored_as(meant)
    listed = contracts(database, ContractQuery(), of=meant)
    stands = trading(database, [stored]).get(stored)
    return InstrumentEntry(
        symbol=stored.symbol,
        asset_class=stored.asset_class,
        contract=stands.symbol if stands else None,
        trading_status=stands.status.value if stands else None,
        trading_note=stands.words(served.now()) if stands else None,
        contracts=[ContractState(**row) for row in listed],
        aliases=[
            Alias(**{name: row[name] for name in Alias.model_fields})
            for row in names_of(database, stored.symbol, stored.asset_class)
        ],
        events=[
            ContractEvent(**row | {"ratio": None if row["ratio"] is None else str(row["ratio"])})
            for row in events(database, [row["contract_id"] for row in listed])
        ],
    )


def _states(served: Served, shown: list[Instrument]) -> list[InstrumentState]:
    tracked, now = set(served.tracked()), served.now()
    return [
        InstrumentState(
            symbol=standing.instrument.symbol,
            asset_class=standing.instrument.asset_class,
            tracked=standing.instrument in tracked,
            status=standing.status(now),  # type: ignore[arg-type]  # one of the five
            records_available=standing.records,
            last_enrichment_time=standing.enrichment.get("last_enrichment_time"),
        )
        for standing in map(served.standings.of, shown)
    ]
