"""Instrument, and Series: the identity of a run of candles."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

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


class Kind(StrEnum):
    """What sort of thing a contract is."""

    STOCK = "stock"
    ETF = "etf"
    SPOT = "spot"
    PERPETUAL = "perpetual"
    FUTURE = "future"

    @property
    def asset_class(self) -> AssetClass:
        """The asset class whose calendar and priority of sources it has."""
        return {Kind.STOCK: AssetClass.STOCK, Kind.ETF: AssetClass.ETF}.get(self, AssetClass.CRYPTO)


class Status(StrEnum):
    """What a venue says of a contract; decides what is expected of its series, never whose candles it takes."""

    NOT_YET_LISTED = "not_yet_listed"
    TRADING = "trading"
    HALTED = "halted"
    DELIVERING = "delivering"
    SETTLED = "settled"
    DELISTED = "delisted"

    @property
    def ended(self) -> bool:
        """Whether no candle follows its last one."""
        return self in (Status.DELIVERING, Status.SETTLED, Status.DELISTED)


@dataclass(frozen=True, slots=True, order=True)
class Instrument:
    """One tradable thing, by our canonical symbol: BTC, AAPL, BRK.B."""

    symbol: str
    asset_class: AssetClass
    only: int | None = field(default=None, compare=False)
    """The number of the contract whose rows alone a reader wants to see; all of the series when None."""

    def __str__(self) -> str:
        return f"{self.symbol} ({self.asset_class})"


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


MOST_LETTERS: Final = 64


def is_name(text: str) -> bool:
    """Whether a text can name an instrument: in any script, without blanks and with nothing unprintable."""
    return (
        0 < len(text) <= MOST_LETTERS
        and text.isprintable()
        and not any(each.isspace() for each in text)
        and any(each.isalnum() for each in text)
    )
