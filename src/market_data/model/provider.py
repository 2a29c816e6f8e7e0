"""Provider: what a source can serve and how it is asked; Page: what one answer held."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError

from market_data.model.contract import Contract, Listing
from market_data.model.dataset import CANDLES, Dataset
from market_data.model.errors import UnknownInstrument, UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.rows import none_rejected
from market_data.model.text import fault_of_key
from market_data.model.timeframe import Timeframe, TimeRange


class ProviderSettings(BaseModel):
    """Settings every provider has; each adds its own addresses and limits."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    enabled: bool = True
    """Whether the provider is asked at all."""
    requests_per_minute: float = Field(default=60, gt=0)
    """Our own limit, kept under the source's and shared by all processes of an installation."""
    timeout_seconds: float = Field(default=30, gt=0)
    """Longest wait for one answer, all of it."""
    max_response_bytes: int = Field(default=256 * 2**20, gt=0)
    """Longest answer read, unpacked; a longer one is refused as malformed. JSON is allowed less: 16 to 64 MiB."""
    rate_window_seconds: float = Field(default=60, gt=0)
    """The window the limit is counted in: a short one spreads requests evenly, a long one allows bursts."""
    max_retries: int = Field(default=3, ge=0)
    """Further tries after a transient failure, 2, 4, 8 … s apart, jittered."""
    deadline_seconds: float = Field(default=120, gt=0)
    """Longest time for one request with its retries; a longer Retry-After is not waited for."""
    breaker_failures: int = Field(default=3, ge=1)
    """Failed requests in a row after which the source is left alone."""
    breaker_seconds: float = Field(default=300, ge=0)
    """How long it is left alone."""

    @field_validator("*")
    @classmethod
    def _check_key(cls, value: Any) -> Any:
        """Where it is read, so that no library is given what it would quote in an error."""
        if not isinstance(value, SecretStr):
            return value
        key = value.get_secret_value().strip()
        if fault := fault_of_key(key):
            raise PydanticCustomError("key", "{fault}", {"fault": fault})
        return SecretStr(key)

    @property
    def requests_per_window(self) -> tuple[float, float]:
        """The limit as (requests, seconds)."""
        return self.requests_per_minute * self.rate_window_seconds / 60, self.rate_window_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """What a provider can serve of one dataset."""

    dataset: Dataset
    asset_classes: frozenset[AssetClass]
    timeframes: frozenset[Timeframe] = frozenset()
    """Empty where the dataset has none."""
    reach: Mapping[Timeframe | None, timedelta] = field(default_factory=dict)
    """How far back history goes, where it is limited; the key None speaks for every timeframe."""
    live: bool = False

    def reaches_back(self, timeframe: Timeframe | None, now: datetime) -> datetime | None:
        """The earliest moment served, None when unlimited."""
        reach = self.reach.get(timeframe, self.reach.get(None))
        return None if reach is None else now - reach


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Rows of one answer in the dataset's schema, in order, with where they came from."""

    frame: pl.DataFrame
    rejected: pl.DataFrame = field(default_factory=none_rejected)
    """What the answer held besides that is no row of the dataset, as sent, each with the reason: `model.rows`."""
    source: str
    """The provider's name, with the market after a colon where it matters: ``binance:spot``."""
    fetched_at: datetime
    response_ms: float
    """From asking to the whole answer; waiting for a limit of our own, before asking, is no part of it."""
    quota_remaining: float | None = None
    contract: Contract | None = None
    """Whose rows they are; None where the source has no list."""
    complete: TimeRange | None = None
    """The range of which the source has told all it has: what it lacks there is not so. None where that is not sure:
    beyond the source's reach, before its oldest row, after a page that was cut."""
    listed: tuple[Contract, ...] = ()
    """Of an instrument list: the contracts it holds."""

    @property
    def holds_something(self) -> bool:
        """Whether there is a row, good or rejected."""
        return not (self.frame.is_empty() and self.rejected.is_empty())

    @property
    def requested_at(self) -> datetime:
        """When it was asked for."""
        return self.fetched_at - timedelta(milliseconds=self.response_ms)


class Provider(ABC):
    """A source of market data; found by being declared in `market_data.providers`.

    Built by bootstrap as ``cls(settings, http)``: its own settings and the shared HTTP client. All times are UTC,
    ranges are [start, end), candles are on the canonical grid, closed by `now`, and carry raw prices.
    Methods raise only errors of `market_data.model.errors`.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[ProviderSettings]] = ProviderSettings
    capabilities: ClassVar[tuple[Capability, ...]]

    @abstractmethod
    def __init__(self, settings: Any, http: Any) -> None: ...

    @abstractmethod
    async def resolve(self, instrument: Instrument) -> Listing:
        """The provider's own name for an instrument, from its instrument list.

        Raises:
            UnknownInstrument: when it does not list it.
        """

    async def contracts(self, instrument: Instrument) -> Sequence[Contract]:
        """Every contract of its list that the instrument's symbol may mean, whatever trades; empty when none does.

        A symbol may be what a contract is of (BTC), its exact notation (BTC/USDT:USDT) or the source's own name.
        """
        try:
            listing = await self.resolve(instrument)
        except UnknownInstrument:
            return ()
        return () if listing.contract is None else (listing.contract,)

    @abstractmethod
    def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """Closed candles that open in [start, end), oldest page first; pages without rows may be left out."""

    def fetch_candles_from(
        self,
        source: str,
        instrument: Instrument,
        timeframe: Timeframe,
        start: datetime,
        end: datetime,
        *,
        now: datetime,
    ) -> AsyncIterator[Page]:
        """Candles of one of its sources only, by the name `Page.source` gives it; for comparing sources.

        Raises:
            UnsupportedRequest: when it has no such source.
        """
        if source != self.name:
            raise UnsupportedRequest(f"{self.name} has no source {source!r}, only {self.name!r}")
        return self.fetch_candles(instrument, timeframe, start, end, now=now)

    def fetch_trades(
        self, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """Trades of [start, end), oldest page first."""
        raise UnsupportedRequest(f"{self.name} serves no trades")

    def fetch(
        self, dataset: Dataset, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """Rows of any other dataset of [start, end), oldest page first."""
        raise UnsupportedRequest(f"{self.name} serves no {dataset.name}")

    def fetch_rates(
        self, instrument: Instrument, currency: str, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """FX_RATES of days in [start, end): what a unit of a currency was worth in that of the instrument's prices."""
        raise UnsupportedRequest(f"{self.name} serves no rates of currencies")

    @property
    def title(self) -> str:
        """What it is, in words: the first sentence of its description."""
        return (inspect.getdoc(type(self)) or self.name).partition(".")[0]

    @property
    def ready(self) -> str | None:
        """None when the provider can be asked; else why not, in one sentence that says what to do."""
        return None

    def capability(self, dataset: Dataset, instrument: Instrument, timeframe: Timeframe | None) -> Capability | None:
        """What it serves of `dataset` for this instrument and timeframe; None when nothing."""
        for capability in self.capabilities:
            if (
                capability.dataset is dataset
                and instrument.asset_class in capability.asset_classes
                and (dataset is not CANDLES or timeframe in capability.timeframes)
            ):
                return capability
        return None
