"""Asks what happened to shares along with their prices: splits, payments, and the rates that those need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID, uuid4

import polars as pl
import structlog

from market_data.model.dataset import DIVIDENDS, FX_RATES, SPLITS, Dataset
from market_data.model.errors import MarketDataError, StorageError, attributed
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Page, Provider
from market_data.model.timeframe import TimeRange
from market_data.pipeline.write.believe import PRICED_IN
from market_data.storage.facts.actions import asked_since, covered
from market_data.storage.facts.append import Provenance, append, lock_facts
from market_data.storage.facts.reads import newest_versions
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection

log = structlog.get_logger()

FRESH: Final = timedelta(days=1)
"""An answer this young need not be asked for again with every candle."""
AHEAD: Final = timedelta(days=90)
RATE_BEFORE: Final = timedelta(days=5)


class Collecting(Protocol):
    """What collects a dataset; see `Collector`."""

    async def collect(self, dataset: Dataset, instrument: Instrument, span: TimeRange, *, run_id: UUID) -> Any:
        """Fetch and append; what went wrong is in the result's `error`."""


@dataclass(frozen=True)
class Actions:
    """Keeps the events of shares up to what their candles need."""

    database: Database
    collector: Collecting
    providers: Mapping[AssetClass, Sequence[Provider]]
    clock: Callable[[], datetime]

    async def along(self, instrument: Instrument, since: datetime | None) -> list[str]:
        """Ask for splits and payments since the first candle where nobody was asked lately; what failed, in words.

        Prices are worth having without: their failure is none of the candles'.
        """
        if instrument.asset_class is AssetClass.CRYPTO or since is None:
            return []
        now, notes = self.clock(), list[str]()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        span = TimeRange(since.replace(hour=0, minute=0, second=0, microsecond=0), midnight + AHEAD)
        able = self.providers.get(instrument.asset_class, ())
        for dataset in (SPLITS, DIVIDENDS):
            if not any(each.capability(dataset, instrument, None) and not each.ready for each in able):
                continue
            if await asyncio.to_thread(self._known, dataset, instrument, since.date(), now):
                continue
            collected = await self.collector.collect(dataset, instrument, span, run_id=uuid4())
            if collected.error is not None:
                notes.append(f"{dataset.name}: {collected.error}")
        return notes + await self.rates(instrument)

    async def rates(self, instrument: Instrument) -> list[str]:
        """Fetch the rates that payments in other currencies need and that are not stored; what failed, in words."""
        notes: list[str] = []
        for currency, span in (await asyncio.to_thread(self._needed, instrument)).items():
            for provider in self.providers.get(instrument.asset_class, ()):
                if provider.ready or provider.capability(FX_RATES, instrument, None) is None:
                    continue
                try:
                    found = 0
                    async for page in _rates(provider, instrument, currency, span, self.clock()):
                        found += await asyncio.to_thread(self._store, instrument, page)
                except StorageError:
                    raise
                except MarketDataError as error:
                    notes.append(attributed(provider.name, error))
                    log.warning("no_rates", currency=currency, instrument=str(instrument), error=str(error))
                    continue
                if found:
                    break
        return notes

    def _known(self, dataset: Dataset, instrument: Instrument, first: date, now: datetime) -> bool:
        answers = [
            TimeRange(row["start_time"], row["end_time"])
            for row in asked_since(self.database, dataset, instrument)
            if row["answered_at"] > now - FRESH
        ]
        return covered(answers, first, now.date())

    def _needed(self, instrument: Instrument) -> dict[str, TimeRange]:
        """Per currency from shortly before its first payment without a rate to its last."""
        now = self.clock()
        paid = newest_versions(self.database, DIVIDENDS, instrument)
        foreign = paid.filter((pl.col("currency") != PRICED_IN) & (pl.col("ex_date") <= now.date()))
        known = newest_versions(self.database, FX_RATES, instrument)
        needed: dict[str, TimeRange] = {}
        for currency in foreign["currency"].unique().sort():
            rated = set(known.filter(pl.col("currency") == currency)["date"])
            days = [day for day in foreign.filter(pl.col("currency") == currency)["ex_date"] if day not in rated]
            if days:
                first, last = (datetime.combine(day, datetime.min.time(), now.tzinfo) for day in (min(days), max(days)))
                needed[currency] = TimeRange(first - RATE_BEFORE, min(last + timedelta(days=1), now))
        return needed

    def _store(self, instrument: Instrument, page: Page) -> int:
        def transaction(connection: Connection) -> int:
            lock_facts(connection, FX_RATES, instrument)
            origin = Provenance(source=page.source, now=self.clock(), run_id=uuid4())
            counts = append(connection, self.database, FX_RATES, instrument, page.frame, origin).counts
            return counts.fetched

        return self.database.retrying_transaction(transaction)


def _rates(
    provider: Provider, instrument: Instrument, currency: str, span: TimeRange, now: datetime
) -> AsyncIterator[Page]:
    return provider.fetch_rates(instrument, currency, span.start, span.end, now=now)
