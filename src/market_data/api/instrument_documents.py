"""Response documents of the instruments routes: what is known here, and what the sources list."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import Field

from market_data.api.documents import Class, Count, Document, StatusName, SymbolName, Time


class InstrumentState(Document):
    """An instrument known here."""

    symbol: SymbolName
    asset_class: Class
    tracked: bool
    status: StatusName
    records_available: Count
    last_enrichment_time: Time | None


class ContractState(Document):
    """A contract as one source lists it."""

    contract_id: int
    symbol: Annotated[str, Field(examples=["BTC/USDT:USDT"])]
    """Its exact notation."""
    asset_class: Class
    kind: Annotated[str, Field(examples=["perpetual"])]
    venue: Annotated[str, Field(examples=["BINANCE"])]
    market: Annotated[str, Field(examples=["usdm"])]
    raw_symbol: Annotated[str, Field(examples=["BTCUSDT"])]
    life: Annotated[int, Field(ge=1, examples=[1])]
    """Counts the contracts that bore this name, from 1."""
    base: Annotated[str, Field(examples=["BTC"])]
    quote: str | None
    settlement: str | None
    multiplier: Annotated[str, Field(examples=["1"])]
    expires_on: date | None
    name: str | None
    source: Annotated[str, Field(examples=["binance"])]
    status: Annotated[str, Field(examples=["trading"])]
    status_text: str | None
    """The venue's own word."""
    status_since: Time | None
    listed_from: Time | None
    listed_to: Time | None
    known_from: Time
    own: str | None = None
    """The instrument whose own contract it is."""


class Instruments(Document):
    """A page of instruments, by symbol; of what the sources list only where something was looked for."""

    count: Count
    next: str | None
    """Cursor of the next page, null on the last."""
    instruments: list[InstrumentState]
    contracts: list[ContractState]
    """What the sources list that matches query, kind and status; empty without them."""


class Alias(Document):
    """What a source calls an instrument, and from when until when."""

    provider: Annotated[str, Field(examples=["binance"])]
    raw_symbol: Annotated[str, Field(examples=["BTCUSDT"])]
    venue: str | None
    valid_from: Time | None
    valid_to: Time | None


class ContractEvent(Document):
    """What happened to a contract on a day."""

    symbol: Annotated[str, Field(examples=["BTC/USDT:USDT"])]
    kind: Annotated[str, Field(examples=["date_corrected"])]
    effective_at: Time
    source: Annotated[str, Field(examples=["binance"])]
    known_from: Time
    ratio: str | None
    detail: str | None


class InstrumentEntry(Document):
    """Who an instrument is at every source."""

    symbol: SymbolName
    asset_class: Class
    contract: str | None
    """Whose candles its series has, in exact notation; null while nobody asked for it."""
    trading_status: str | None
    trading_note: str | None
    contracts: list[ContractState]
    aliases: list[Alias]
    events: list[ContractEvent]
