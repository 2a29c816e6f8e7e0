"""Venues to order: sources whose contracts live as a test says, and a desk that pulls their candles into a database.

The close of every candle tells whose it is: the number of its contract times a thousand, and its hour.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import polars as pl

from market_data.model.contract import Contract, Listing, Preference, means
from market_data.model.dataset import CANDLES
from market_data.model.errors import MarketDataError, ProviderUnavailable, StorageError, UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument, Kind, Series, Status
from market_data.model.provider import Capability, Page, Provider
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.fetch.contracts import Contracts, tied
from market_data.pipeline.write.derive import Shelves
from market_data.pipeline.write.ingest import Batch, Purpose, ingest
from market_data.storage.server.database import Database

DAWN = datetime(2025, 1, 6, tzinfo=UTC)
HOUR = timedelta(hours=1)
COIN = Instrument("COIN", AssetClass.CRYPTO)
HOURS = Series(COIN, Timeframe.H1)


@dataclass
class Life:
    """A contract in the world: its number, what the venue says of it, and the hours in which it was traded."""

    number: int
    contract: Contract
    hours: set[int] = field(default_factory=set)
    shown: bool = True
    """Whether the venue's list still holds it."""
    seen: bool = False
    """Whether somebody read the list while it was in it."""

    @property
    def trades(self) -> bool:
        return self.contract.status is Status.TRADING

    def say(self, **changes: Any) -> None:
        self.contract = replace(self.contract, **changes)


@dataclass
class World:
    """All contracts that ever were, by source, and the time."""

    lives: dict[str, list[Life]] = field(default_factory=lambda: {"alpha": [], "beta": []})
    hour: int = 0
    down: set[str] = field(default_factory=set)

    @property
    def now(self) -> datetime:
        return DAWN + self.hour * HOUR

    def list(self, source: str, kind: Kind, quote: str, *, dated: bool = True) -> Life:
        """A new contract, under the name that all of its kind and quote bear."""
        number = 1 + sum(map(len, self.lives.values()))
        market = "usdm" if kind is Kind.PERPETUAL else "spot"
        settlement = quote if kind is Kind.PERPETUAL else None
        contract = Contract(
            venue=source.upper(), market=market, raw_symbol=f"COIN{quote}", kind=kind, base="COIN", quote=quote,
            settlement=settlement, listed_from=self.now if dated else None,
        )  # fmt: skip
        self.lives[source].append(Life(number, contract))
        return self.lives[source][-1]

    def advance(self, hours: int) -> None:
        """Let time pass; what trades is traded in every hour."""
        for life in self.everyone():
            if life.trades:
                life.hours |= set(range(self.hour, self.hour + hours))
        self.hour += hours

    def everyone(self) -> list[Life]:
        return [life for lives in self.lives.values() for life in lives]

    def numbered(self, number: int) -> Life:
        return next(life for life in self.everyone() if life.number == number)


class Venue(Provider):
    """A source of the world."""

    capabilities = (
        Capability(dataset=CANDLES, asset_classes=frozenset({AssetClass.CRYPTO}), timeframes=frozenset({Timeframe.H1})),
    )

    def __init__(self, name: str, world: World) -> None:
        self.name = name  # type: ignore[misc]
        self.world = world
        self.asked: list[tuple[str, int, int]] = []

    async def contracts(self, instrument: Instrument) -> Sequence[Contract]:
        self._answer()
        for life in self._shown():
            life.seen = True
        return [life.contract for life in self._shown() if means(instrument.symbol, life.contract)]

    async def resolve(self, instrument: Instrument) -> Listing:
        found = await self.contracts(instrument)
        exact = [each for each in found if each.symbol == instrument.symbol]
        best = next(iter(exact), None) or Preference().best(found)
        if best is None:
            raise UnknownInstrument(f"{self.name} does not list {instrument}")
        return Listing(instrument, self.name, best.raw_symbol, contract=best)

    async def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        contract = (await self.resolve(instrument)).contract
        first, last = (int((moment - DAWN) / HOUR) for moment in (start, min(end, now)))
        self.asked.append((instrument.symbol, first, last))
        # Whoever asks for a name gets the candles of all who bore it, as exchanges give them.
        bearers = [life for life in self.world.lives[self.name] if contract and life.contract.key == contract.key]
        rows = sorted((hour, life.number) for life in bearers for hour in life.hours if first <= hour < last)
        if rows:
            yield Page(
                frame=candles(rows), source=self.name, fetched_at=self.world.now, response_ms=1.0, contract=contract
            )

    def _shown(self) -> list[Life]:
        return [life for life in self.world.lives[self.name] if life.shown]

    def _answer(self) -> None:
        if self.name in self.world.down:
            raise ProviderUnavailable(f"{self.name} is down")


def candles(rows: Sequence[tuple[int, int]]) -> pl.DataFrame:
    """Candles of (hour, number)."""
    closes = [str(number * 1000 + hour % 1000) for hour, number in rows]
    columns = dict.fromkeys(("open", "high", "low", "close"), closes) | {"volume": ["1"] * len(rows)}
    frame = pl.DataFrame(columns).select(pl.all().cast(CANDLES.schema["close"]))
    moments = pl.Series("timestamp", [DAWN + hour * HOUR for hour, _ in rows], CANDLES.schema["timestamp"])
    return CANDLES.conform(frame.with_columns(moments))


class Pull:
    """Pulls a series from the sources by priority into a database, as enriching does."""

    def __init__(self, database: Database, world: World) -> None:
        self.database, self.world = database, world
        self.venues = {name: Venue(name, world) for name in world.lives}
        self.contracts = Contracts(
            database, {AssetClass.CRYPTO: list(self.venues.values())}, Preference(), lambda: world.now
        )
        self.providers = tied(self.contracts)[AssetClass.CRYPTO]

    def forget_process(self) -> None:
        """As a new process would begin: knowing only what is stored."""
        self.contracts = Contracts(
            self.database, {AssetClass.CRYPTO: list(self.venues.values())}, Preference(), lambda: self.world.now
        )
        self.providers = tied(self.contracts)[AssetClass.CRYPTO]

    def __call__(self, series: Series = HOURS, first: int = 0, last: int | None = None) -> str | None:
        """Ask for [first, last); returns who gave it, None when nobody did."""
        span = TimeRange(DAWN + first * HOUR, DAWN + (self.world.hour if last is None else last) * HOUR)
        return asyncio.run(self._pull(series, span)) if span.start < span.end else None

    async def _pull(self, series: Series, span: TimeRange) -> str | None:
        for provider in self.providers:
            try:
                pages = [
                    page
                    async for page in provider.fetch_candles(
                        series.instrument, series.timeframe, span.start, span.end, now=self.world.now
                    )
                ]
            except StorageError:
                raise
            except MarketDataError:
                continue
            begun = span.start
            for position, page in enumerate(pages):
                following = pages[position + 1 : position + 2]
                end = following[0].frame["timestamp"].min() if following else span.end
                self._store(series, page, TimeRange(begun, end))  # type: ignore[arg-type]
                begun = end  # type: ignore[assignment]
            if pages:
                return provider.name
        return None

    def _store(self, series: Series, page: Page, span: TimeRange) -> None:
        batch = Batch(
            series=series, frame=page.frame, source=page.source, fetched_at=page.fetched_at,
            requested_at=page.fetched_at, span=span, response_ms=1.0, quota_remaining=None, contract=page.contract,
        )  # fmt: skip
        ingest(self.database, Shelves((), ()), batch, Purpose(run_id=uuid4(), span=span), lambda: self.world.now)

    def rows(self, instrument: Instrument = COIN) -> list[tuple[int, int, bool, int | None]]:
        """Per stored candle: its hour, the number of the life it is of, whether it is marked, its contract's number."""
        found = self.database.rows(
            "SELECT timestamp, close, validation_notes, contract_id FROM market_data_v2 "
            "WHERE symbol = %s ORDER BY timestamp",
            [instrument.symbol],
        )
        return [
            (
                int((row["timestamp"] - DAWN) / HOUR),
                int(row["close"]) // 1000,
                "other_contract" in (row["validation_notes"] or ""),
                row["contract_id"],
            )
            for row in found
        ]
