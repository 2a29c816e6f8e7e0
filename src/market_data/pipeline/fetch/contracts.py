"""Whose candles an instrument's series has: decided once, by who lists it first in priority, and kept from then on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import polars as pl
import structlog

from market_data.model.contract import OTHER_CONTRACT, Contract, Listing, Preference
from market_data.model.dataset import CANDLES, Dataset
from market_data.model.errors import MarketDataError, StorageError, UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument, Kind
from market_data.model.provider import Capability, Page, Provider
from market_data.model.timeframe import Timeframe
from market_data.pipeline.read.names import Names, unknown
from market_data.storage.facts.contract_lists import record
from market_data.storage.facts.contracts import Stored, lives_of, newest, tie, ties_of
from market_data.storage.server.database import Database

log = structlog.get_logger()


@dataclass(frozen=True)
class Contracts:
    """What deciding needs: the database, the sources by priority, what a bare coin means, the clock."""

    database: Database
    providers: Mapping[AssetClass, Sequence[Provider]]
    preference: Preference
    clock: Callable[[], datetime]
    _said: dict[tuple[str, str, str], Contract] = field(default_factory=dict)
    _locks: dict[Instrument, asyncio.Lock] = field(default_factory=dict)
    undecided: set[Instrument] = field(default_factory=set)
    """Whose first source could not be asked yet: what others give of them stands in."""

    async def own(self, instrument: Instrument) -> Stored | None:
        """The instrument's own contract; None where it cannot be told yet, or its source has no list.

        Raises:
            UnknownInstrument: when every source was asked and none lists it.
        """
        lock = self._locks.setdefault(instrument, asyncio.Lock())
        async with lock:
            found = await asyncio.to_thread(self.stored, instrument)
            if found is not None:
                await self._renew(found, instrument)
                return await asyncio.to_thread(self.stored, instrument)
            return await self._decide(instrument)

    def stored(self, instrument: Instrument) -> Stored | None:
        """The own contract as decided; None while nobody has."""
        with self.database.transaction() as connection:
            owners = ties_of(connection, instrument)
            if not owners:
                return None
            found = newest(connection, "c.contract_id = %s", [owners[-1].contract_id])
            source = connection.execute(
                "SELECT source FROM contract_ties WHERE (symbol, asset_class) = (%s, %s) "
                "ORDER BY decided_at DESC LIMIT 1",
                [instrument.symbol, instrument.asset_class.value],
            ).fetchone()
        return next((each for each in found if source and each.source == source[0]), found[0] if found else None)

    def stand_in(self, own: Stored) -> Contract | None:
        """The same coin's spot pair at the same source: what has candles from before a perpetual's listing."""
        if own.contract.kind is not Kind.PERPETUAL:
            return None
        pairs = newest(
            self.database,
            "c.base = %s AND c.kind = 'spot' AND c.venue = %s AND v.source = %s",
            [own.contract.base, own.contract.venue, own.source],
        )
        found = [each.contract for each in pairs]
        same = [each for each in found if each.quote == own.contract.quote]
        return next(iter(same), None) or replace(self.preference, kinds=(Kind.SPOT,)).best(found)

    def waits(self, name: str, own: Stored, instrument: Instrument) -> bool:
        """Whether a source comes before the one of the own contract, which can be asked and has the first word."""
        able = {provider.name: provider for provider in self._able(instrument)}
        order = list(able)
        if name not in able or own.source not in able or able[own.source].ready is not None:
            return False
        return order.index(name) < order.index(own.source)

    async def find(self, name: str, asset_class: AssetClass | None, names: Names) -> Instrument:
        """The instrument that the sources' lists know by a name; what they say is stored.

        Raises:
            UsageError: when it may mean several.
            UnknownInstrument: when no source lists it.
            MarketDataError: when none does and one could not be asked.
        """
        failures: list[MarketDataError] = []
        unlisted: list[Instrument] = []
        for wanted in [asset_class] if asset_class else AssetClass:
            for provider in self._able(Instrument(name, wanted)):
                if provider.ready is not None:
                    continue
                instrument = Instrument(
                    name.rpartition(":")[2] if name.startswith(f"{provider.name}:") else name, wanted
                )
                try:
                    listed = [each for each in await provider.contracts(instrument) if each.asset_class is wanted]
                    if not listed:
                        await provider.resolve(instrument)
                        unlisted.append(instrument)
                        break
                except UnknownInstrument:
                    continue
                except StorageError:
                    raise
                except MarketDataError as error:
                    failures.append(error)
                    continue
                await self.note(provider, listed)
                break
        meant = await asyncio.to_thread(names.meant, name, asset_class)
        if meant is not None or unlisted:
            return meant or unlisted[0]
        if failures:
            raise failures[0]
        raise unknown(name, names)

    async def note(self, provider: Provider, listed: Sequence[Contract]) -> None:
        """Store what a source says of contracts, where it is news to this process."""
        news = [each for each in listed if self._said.get((provider.name, each.market, each.raw_symbol)) != each]
        if news:
            await asyncio.to_thread(self._record, provider.name, news)
            self._said.update({(provider.name, each.market, each.raw_symbol): each for each in news})

    async def _renew(self, own: Stored, instrument: Instrument) -> None:
        """What its source says of it now; a source that cannot be asked changes nothing."""
        provider = next((p for p in self._able(instrument) if p.name == own.source), None)
        if provider is None or provider.ready is not None:
            return
        try:
            base = Instrument(own.contract.base, instrument.asset_class)
            listed = [*await provider.contracts(base)]
        except StorageError:
            raise
        except MarketDataError as error:
            log.info("contracts_not_renewed", provider=provider.name, instrument=str(instrument), error=str(error))
            return
        await self.note(provider, listed)

    async def _decide(self, instrument: Instrument) -> Stored | None:
        self.undecided.discard(instrument)
        refused: list[str] = []
        for provider in self._able(instrument):
            if provider.ready is not None:
                continue
            try:
                listed = await provider.contracts(instrument)
                if not listed:
                    # One without a list of contracts may know the name all the same.
                    await provider.resolve(instrument)
                    return None
            except UnknownInstrument as error:
                refused.append(str(error))
                continue
            except StorageError:
                raise
            except MarketDataError as error:
                # Who comes first cannot be told: nobody is bound to the second choice for an hour's outage.
                self.undecided.add(instrument)
                log.info("own_contract_undecided", provider=provider.name, instrument=str(instrument), error=str(error))
                return None
            await self.note(provider, listed)
            chosen = self._chosen(instrument, listed)
            if chosen is not None:
                await asyncio.to_thread(self._tie, provider, instrument, chosen)
                return await asyncio.to_thread(self.stored, instrument)
        if refused:
            raise UnknownInstrument("; ".join(refused))
        return None

    def _chosen(self, instrument: Instrument, listed: Sequence[Contract]) -> Contract | None:
        exact = [each for each in listed if each.symbol == instrument.symbol]
        return next(iter(exact), None) or self.preference.best(listed) or (listed[0] if len(listed) == 1 else None)

    def _able(self, instrument: Instrument) -> list[Provider]:
        return [
            provider
            for provider in self.providers.get(instrument.asset_class, ())
            if any(provider.capability(CANDLES, instrument, timeframe) for timeframe in Timeframe)
        ]

    def _record(self, source: str, listed: Sequence[Contract]) -> None:
        with self.database.transaction() as connection:
            record(connection, source, listed, self.clock())

    def _tie(self, provider: Provider, instrument: Instrument, chosen: Contract) -> None:
        now = self.clock()
        with self.database.transaction() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"tie/{instrument}"])
            if not ties_of(connection, instrument):
                number = lives_of(connection, chosen, now)[-1].contract_id
                reason = f"{provider.name} is the first of its sources that lists it"
                tie(connection, instrument, number, source=provider.name, reason=reason, now=now)


class Tied(Provider):
    """A source asked for the contract that a series is tied to, and for what stands in before its listing."""

    def __init__(self, inner: Provider, contracts: Contracts) -> None:
        self._inner = inner
        self._contracts = contracts
        self.name = inner.name  # type: ignore[misc]  # a class's own elsewhere, the inner one's here
        self.capabilities = inner.capabilities  # type: ignore[misc]

    @property
    def title(self) -> str:
        """As the inner provider."""
        return self._inner.title

    async def resolve(self, instrument: Instrument) -> Listing:
        """As the inner provider."""
        return await self._inner.resolve(instrument)

    async def contracts(self, instrument: Instrument) -> Sequence[Contract]:
        """As the inner provider."""
        return await self._inner.contracts(instrument)

    async def fetch_candles(
        self, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """Candles of the own contract; before it was listed those of the same coin's spot pair.

        The own contract is asked for the whole range, since the dates of lists have been wrong; what comes before its
        first candle, and before it was listed, is asked of the pair. A source that comes before the own contract's has
        nothing to say: only one that comes after it stands in.
        """
        own = await self._contracts.own(instrument)
        if own is not None and self._contracts.waits(self.name, own, instrument):
            return
        if own is None or own.source != self.name:
            async for page in self._inner.fetch_candles(instrument, timeframe, start, end, now=now):
                yield _standing_in(page) if instrument in self._contracts.undecided else page
            return
        exact = Instrument(own.contract.symbol, instrument.asset_class)
        pages = self._inner.fetch_candles(exact, timeframe, start, end, now=now)
        first = await anext(pages, None)
        until = end if first is None or first.frame.is_empty() else first.frame["timestamp"].min()
        if instrument != exact and own.contract.listed_from is not None and isinstance(until, datetime):
            until = min(until, own.contract.listed_from)
            async for page in self._before(own, instrument, timeframe, start, until, now):
                yield page
        if first is not None:
            yield first
            async for page in pages:
                yield page

    async def _before(
        self,
        own: Stored,
        instrument: Instrument,
        timeframe: Timeframe,
        start: datetime,
        until: datetime,
        now: datetime,
    ) -> AsyncIterator[Page]:
        pair = await asyncio.to_thread(self._contracts.stand_in, own) if start < until else None
        if pair is None:
            return
        exact = Instrument(pair.symbol, instrument.asset_class)
        async for page in self._inner.fetch_candles(exact, timeframe, start, until, now=now):
            yield page

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
        """As the inner provider, for the own contract where it is this source's."""
        return self._from(source, instrument, timeframe, start, end, now)

    async def _from(
        self, source: str, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, now: datetime
    ) -> AsyncIterator[Page]:
        own = await asyncio.to_thread(self._contracts.stored, instrument)
        if own is not None and own.source == self.name and source == self.name:
            instrument = Instrument(own.contract.symbol, instrument.asset_class)
        async for page in self._inner.fetch_candles_from(source, instrument, timeframe, start, end, now=now):
            yield page

    def fetch_trades(
        self, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """As the inner provider, for the own contract where it is this source's."""
        return self._trades(instrument, start, end, now)

    async def _trades(
        self, instrument: Instrument, start: datetime, end: datetime, now: datetime
    ) -> AsyncIterator[Page]:
        own = await self._contracts.own(instrument)
        if own is not None and own.source == self.name:
            instrument = Instrument(own.contract.symbol, instrument.asset_class)
        async for page in self._inner.fetch_trades(instrument, start, end, now=now):
            yield page

    def fetch(
        self, dataset: Dataset, instrument: Instrument, start: datetime, end: datetime, *, now: datetime
    ) -> AsyncIterator[Page]:
        """As the inner provider."""
        return self._inner.fetch(dataset, instrument, start, end, now=now)

    @property
    def ready(self) -> str | None:
        """As the inner provider."""
        return self._inner.ready

    def capability(self, dataset: Dataset, instrument: Instrument, timeframe: Timeframe | None) -> Capability | None:
        """As the inner provider."""
        return self._inner.capability(dataset, instrument, timeframe)


def tied(contracts: Contracts) -> dict[AssetClass, Sequence[Provider]]:
    """The sources by priority, each asked for the contracts that series are tied to."""
    wrapped: dict[str, Tied] = {}
    for group in contracts.providers.values():
        for provider in group:
            wrapped.setdefault(provider.name, Tied(provider, contracts))
    return {name: [wrapped[one.name] for one in group] for name, group in contracts.providers.items()}


def _standing_in(page: Page) -> Page:
    said = pl.concat_str("notes", pl.lit(OTHER_CONTRACT), separator="; ", ignore_nulls=True)
    return page if page.contract is None else replace(page, frame=page.frame.with_columns(notes=said))
