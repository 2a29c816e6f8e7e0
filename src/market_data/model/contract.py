"""Contract: what a venue lists, and the notation that names it exactly: BTC/USDT, BTC/USDT:USDT-270326, AAPL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from market_data.model.instrument import AssetClass, Instrument, Kind, Status

# Stocks are listed once, whoever sells their prices: rows of two sources are of one contract.
US_VENUE: Final = "US"
SHARES: Final = "shares"
# The remark on a candle that is not of its series' own contract.
OTHER_CONTRACT: Final = "other_contract"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One contract as a source lists it.

    Attributes:
        venue, market: where it is traded: BINANCE and usdm, US and shares.
        raw_symbol: the venue's own name for it.
        kind: what sort of thing it is.
        base: the coin or share.
        quote: what its price is in; None where the source does not say.
        settlement: what profit is paid in; None for what is delivered at once.
        multiplier: how many of the base one unit of it is.
        expires_on: the last day of a future.
        status: what the venue says now.
        status_text: the same in the venue's own word.
        status_since: since when, where the venue says it.
        listed_from, listed_to: the venue's own dates of its first and last moment, where it gives them.
        name: in words.
    """

    venue: str
    market: str
    raw_symbol: str
    kind: Kind
    base: str
    quote: str | None = None
    settlement: str | None = None
    multiplier: Decimal = Decimal(1)
    expires_on: date | None = None
    status: Status = Status.TRADING
    status_text: str | None = None
    status_since: datetime | None = None
    listed_from: datetime | None = None
    listed_to: datetime | None = None
    name: str | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it apart while it lives; a name that is used again gets a life of its own."""
        return (self.venue, self.market, self.raw_symbol)

    @property
    def asset_class(self) -> AssetClass:
        """The asset class of its kind."""
        return self.kind.asset_class

    @property
    def symbol(self) -> str:
        """The exact notation: ``AAPL``, ``BTC/USDT``, ``BTC/USDT:USDT``, ``BTC/USD:BTC``, ``BTC/USDT:USDT-270326``."""
        if self.kind in (Kind.STOCK, Kind.ETF):
            return self.base
        pair = f"{self.base}/{self.quote}" if self.quote else self.base
        settled = pair if self.settlement is None else f"{pair}:{self.settlement}"
        return settled if self.expires_on is None else f"{settled}-{self.expires_on:%y%m%d}"


@dataclass(frozen=True, slots=True)
class Listing:
    """The name a provider gives an instrument, and since when and until when: [valid_from, valid_to)."""

    instrument: Instrument
    provider: str
    raw_symbol: str
    venue: str | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    contract: Contract | None = None
    """What it is there, where the provider knows."""


@dataclass(frozen=True, slots=True)
class Preference:
    """Which contract a bare coin means where several are listed: by kind first, then by what it is quoted in."""

    kinds: tuple[str, ...] = (Kind.PERPETUAL, Kind.SPOT)
    quotes: tuple[str, ...] = ("USDT", "USDC", "FDUSD", "USD")

    def best(self, contracts: Iterable[Contract]) -> Contract | None:
        """The contract meant; what trades at the moment has no say in it. None when none is of these kinds and quotes.

        A share has one contract only.
        """
        fitting = [
            each
            for each in contracts
            if each.asset_class is not AssetClass.CRYPTO
            or (each.kind in self.kinds and each.quote in self.quotes and each.settlement in (None, each.quote))
        ]
        return min(fitting, key=self._rank, default=None)

    def _rank(self, contract: Contract) -> tuple[int, int, str]:
        if contract.asset_class is not AssetClass.CRYPTO:
            return (0, 0, contract.raw_symbol)
        return (self.kinds.index(contract.kind), self.quotes.index(str(contract.quote)), contract.raw_symbol)


def means(name: str, contract: Contract) -> bool:
    """Whether a name may mean a contract: what it is of, its exact notation, or the venue's own name."""
    return name in (contract.base, contract.symbol, contract.raw_symbol)


def contract_cuts(contract_ids: pl.Series) -> NDArray[np.intp]:
    """Positions at which a series passes to another contract: no window may reach over one.

    A row of which nobody knows the contract is of that before it.
    """
    known = contract_ids.fill_null(strategy="forward").fill_null(strategy="backward")
    return np.flatnonzero((known != known.shift(1)).fill_null(value=False).to_numpy())
