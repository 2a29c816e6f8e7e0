"""Instrument, the names providers give it, and Series: the identity of a run of candles."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from market_data.model.errors import UsageError
from market_data.model.timeframe import Timeframe


class AssetClass(StrEnum):
    """What kind of thing is traded; decides calendar, priority of providers and freshness."""

    STOCK = "stock"
    ETF = "etf"
    CRYPTO = "crypto"

    @classmethod
    def parse(cls, name: str) -> AssetClass:
        """The asset class of that name.

        Raises:
            UsageError: naming the valid ones.
        """
        try:
            return cls(name)
        except ValueError:
            raise UsageError(f"Invalid asset class: {name!r}. Valid: {', '.join(cls)}") from None

    @property
    def calendar(self) -> str:
        """Name of the trading calendar: an ISO 10383 code, or 24/7."""
        return "24/7" if self is AssetClass.CRYPTO else "XNYS"


@dataclass(frozen=True, slots=True, order=True)
class Instrument:
    """One tradable thing, by our canonical symbol: BTC, AAPL, BRK.B."""

    symbol: str
    asset_class: AssetClass

    def __str__(self) -> str:
        return f"{self.symbol} ({self.asset_class})"


@dataclass(frozen=True, slots=True)
class Listing:
    """The name a provider gives an instrument, and since when and until when: [valid_from, valid_to)."""

    instrument: Instrument
    provider: str
    raw_symbol: str
    venue: str | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """Identity of a run of candles: instrument and timeframe."""

    instrument: Instrument
    timeframe: Timeframe

    @property
    def symbol(self) -> str:
        """The canonical symbol."""
        return self.instrument.symbol

    @property
    def asset_class(self) -> AssetClass:
        """The instrument's asset class."""
        return self.instrument.asset_class

    @property
    def key(self) -> tuple[str, str, str]:
        """(symbol, asset_class, timeframe) as the tables spell them."""
        return (self.symbol, self.asset_class.value, self.timeframe.value)

    def __str__(self) -> str:
        return f"{self.symbol} {self.timeframe}"
