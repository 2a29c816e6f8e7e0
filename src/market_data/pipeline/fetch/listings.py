"""What every source calls every instrument, and since when: instrument lists folded into intervals, never deleted.

`fold` is pure: intervals stored, the list as it is now, the moment; out come intervals to add and to change.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import polars as pl

from market_data.model.contract import Contract
from market_data.model.dataset import INSTRUMENTS
from market_data.model.errors import MarketDataError, StorageError, UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Provider
from market_data.model.timeframe import EPOCH
from market_data.storage.facts.contract_lists import Recorded, record
from market_data.storage.facts.instruments import Interval, describe, intervals_of, lock_source, write
from market_data.storage.series.present import Counts
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection

# A list that lost more than this share of its instruments since the last one is taken for cut short.
VANISHED_AT_MOST: Final = 0.5
_FEW: Final = 10


@dataclass(slots=True)
class Fold:
    """What a list changes: intervals that are new, and stored ones as they are now."""

    added: list[Interval] = field(default_factory=list)
    changed: list[Interval] = field(default_factory=list)
    unchanged: int = 0
    kept_open: int = 0
    """Instruments that the list lacks, but so many that it is not believed."""


@dataclass(slots=True)
class Refreshed:
    """What became of a source's instrument list; `counts` are of intervals."""

    provider: str
    listed: int = 0
    contracts: int = 0
    counts: Counts = field(default_factory=Counts)
    notes: list[str] = field(default_factory=list)
    error: MarketDataError | None = None


def fold(stored: Iterable[Interval], listed: Iterable[Interval], now: datetime, *, complete: bool) -> Fold:
    """The intervals that follow when a source lists this.

    - A raw symbol that means what it meant is unchanged; a later `valid_from` of it is a new life.
    - One that means another instrument closes its interval and opens the next, at the same moment.
    - One that is delisted closes when the source says; one that a complete list lacks closes now.
    - An instrument whose raw symbol changed closes under the old name when the new one begins.

    Args:
        stored: all intervals of the source (and of the asset classes the list covers).
        listed: what it lists, with its own dates where it gives any.
        now: the moment of the list.
        complete: whether the list has everything that is traded; else what it lacks stays as it is.
    """
    rows = sorted(listed, key=lambda row: (row.valid_to is None, row.valid_to or now, row.raw_symbol))
    book = _Book(stored, now, {(row.raw_symbol, row.instrument, row.valid_to) for row in rows if row.valid_to})
    for row in rows:
        if row.valid_to is not None and row.valid_to <= now:
            book.delist(row)
    for row in rows:
        if row.valid_to is None or row.valid_to > now:
            book.list(row)
    if complete:
        book.close_missing({row.raw_symbol for row in rows})
    return book.result


class _Book:
    """Intervals of one source while a list is folded into them."""

    def __init__(
        self, stored: Iterable[Interval], now: datetime, ends: set[tuple[str, Instrument, datetime | None]]
    ) -> None:
        self.now = now
        self._ends = ends
        self.result = Fold()
        self._by_raw: dict[str, list[Interval]] = defaultdict(list)
        self._called: dict[Instrument, str] = {}
        for interval in stored:
            self._by_raw[interval.raw_symbol].append(interval)
            if interval.open:
                self._called[interval.instrument] = interval.raw_symbol

    def delist(self, row: Interval) -> None:
        """Close the interval that ended, or note one that was over before we came."""
        assert row.valid_to is not None
        same = [each for each in self._by_raw[row.raw_symbol] if each.instrument == row.instrument]
        if any(each.valid_to == row.valid_to for each in same):
            self.result.unchanged += 1
            return
        ended = [each for each in same if _before(each.valid_from, row.valid_to) and not self._claimed(each)]
        if ended:
            # It lasted when we last looked, or we only noticed that it was gone: the source knows better.
            self._end(ended[-1], row.valid_to)
            return
        start = row.valid_from or self._last_end(row.raw_symbol, before=row.valid_to)
        if _before(start, row.valid_to):
            self._add(replace(row, valid_from=start))
            # Who bears the name since we know not when bears it since then at the earliest.
            for each in self._by_raw[row.raw_symbol]:
                if each.valid_from is None and (each.valid_to is None or each.valid_to > row.valid_to):
                    self._change(each, replace(each, valid_from=row.valid_to))

    def _claimed(self, each: Interval) -> bool:
        return (each.raw_symbol, each.instrument, each.valid_to) in self._ends

    def _end(self, each: Interval, end: datetime) -> None:
        begun = [
            other.valid_from for other in self._by_raw[each.raw_symbol] if _later(other.valid_from, each.valid_from)
        ]
        # Never into the life of who bears the name next.
        following = min((start for start in begun if start is not None), default=None)
        self._change(each, replace(each, valid_to=min(end, following) if following else end))

    def list(self, row: Interval) -> None:
        """Keep the open interval, or close it and open the next."""
        current = next((each for each in self._by_raw[row.raw_symbol] if each.open), None)
        if current is None:
            self._open(row, self._start(row, self._last_end(row.raw_symbol)))
        elif current.instrument == row.instrument and not _later(row.valid_from, current.valid_from):
            known = replace(current, venue=row.venue or current.venue, valid_from=current.valid_from or row.valid_from)
            self._change(current, known)
        else:
            cut = row.valid_from if _later(row.valid_from, current.valid_from) else self.now
            assert cut is not None
            self._change(current, replace(current, valid_to=cut))
            self._open(row, cut)

    def close_missing(self, names: set[str]) -> None:
        """Close what a complete list lacks, unless it lacks too much to be believed."""
        open_ = [each for group in self._by_raw.values() for each in group if each.open and each.key is not None]
        missing = [each for each in open_ if each.raw_symbol not in names]
        if len(missing) > max(_FEW, VANISHED_AT_MOST * len(open_)):
            self.result.kept_open = len(missing)
            return
        heirs = {new.instrument: new for new in self.result.added if new.open}
        for each in missing:
            heir = heirs.get(each.instrument)
            cut = heir.valid_from if heir and _later(heir.valid_from, each.valid_from) else self.now
            self._change(each, replace(each, valid_to=cut))

    def _start(self, row: Interval, last: datetime | None) -> datetime | None:
        # The successor of another raw symbol began when it was listed, at the latest when we saw it.
        renamed = self._called.get(row.instrument, row.raw_symbol) != row.raw_symbol
        if row.valid_from is not None and not (last and row.valid_from < last):
            return row.valid_from
        return self.now if renamed else last

    def _open(self, row: Interval, start: datetime | None) -> None:
        self._add(replace(row, valid_from=start, valid_to=None))

    def _last_end(self, raw_symbol: str, before: datetime | None = None) -> datetime | None:
        ends = [each.valid_to for each in self._by_raw[raw_symbol] if each.valid_to is not None]
        return max((end for end in ends if before is None or end < before), default=None)

    def _add(self, interval: Interval) -> None:
        self.result.added.append(interval)
        self._by_raw[interval.raw_symbol].append(interval)

    def _change(self, old: Interval, new: Interval) -> None:
        if old == new:
            self.result.unchanged += 1
            return
        group = self._by_raw[old.raw_symbol]
        group[group.index(old)] = new
        # An interval added a moment ago is amended in place: twice in one list.
        target = self.result.added if old in self.result.added else self.result.changed
        if old in target:
            target[target.index(old)] = new
        else:
            target.append(new)


def _before(start: datetime | None, end: datetime) -> bool:
    return start is None or start < end


def _later(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and other is not None and one > other


@dataclass(frozen=True)
class Listings:
    """What refreshing needs: the database, the providers by priority, the clock."""

    database: Database
    providers: Mapping[AssetClass, Sequence[Provider]]
    clock: Callable[[], datetime]

    async def refresh(self, name: str | None, instruments: Sequence[Instrument]) -> list[Refreshed]:
        """Fetch every source's list (or one source's) and store what changed; one source's failure stops no other.

        Args:
            name: the provider to ask; None asks all.
            instruments: what a source without a list is asked for one by one.
        """
        by_name: dict[str, tuple[Provider, set[AssetClass]]] = {}
        for asset_class, providers in self.providers.items():
            for provider in providers:
                by_name.setdefault(provider.name, (provider, set()))[1].add(asset_class)
        return [
            await self._refresh(provider, classes, instruments)
            for provider, classes in by_name.values()
            if name in (None, provider.name)
        ]

    async def _refresh(
        self, provider: Provider, classes: set[AssetClass], instruments: Sequence[Instrument]
    ) -> Refreshed:
        result = Refreshed(provider.name)
        if reason := provider.ready:
            result.notes.append(f"skipped: {reason}")
            return result
        whole = {
            asset_class
            for one in provider.capabilities
            if one.dataset is INSTRUMENTS
            for asset_class in one.asset_classes & classes
        }
        try:
            await self._whole_list(provider, whole, result)
            wanted = [one for one in instruments if one.asset_class in classes - whole]
            await self._one_by_one(provider, wanted, result)
        except StorageError:
            raise
        except MarketDataError as error:
            result.error = error
        return result

    async def _whole_list(self, provider: Provider, classes: set[AssetClass], result: Refreshed) -> None:
        """All classes at once: a raw symbol may pass from one to another."""
        now, pages, listed = self.clock(), defaultdict[str, list[pl.DataFrame]](list), list[Contract]()
        for asset_class in sorted(classes):
            # The list is of everything: which instrument is named does not matter.
            anything = Instrument("", asset_class)
            async for page in provider.fetch(INSTRUMENTS, anything, EPOCH, now, now=now):
                pages[page.source].append(page.frame.filter(pl.col("asset_class") == asset_class.value))
                listed += page.listed
        for source, frames in pages.items():
            await asyncio.to_thread(self._store, source, pl.concat(frames), classes, result, complete=True)
        if listed:
            await asyncio.to_thread(self._record, provider.name, listed, result, complete=True)

    async def _one_by_one(self, provider: Provider, instruments: Sequence[Instrument], result: Refreshed) -> None:
        rows = []
        for instrument in instruments:
            try:
                listing = await provider.resolve(instrument)
            except UnknownInstrument:
                result.notes.append(f"does not list {instrument}")
                continue
            rows.append(
                {
                    "raw_symbol": listing.raw_symbol,
                    "symbol": instrument.symbol,
                    "asset_class": instrument.asset_class.value,
                    "venue": listing.venue,
                    "valid_from": listing.valid_from,
                    "valid_to": listing.valid_to,
                }
            )
            if listing.contract is not None:
                await asyncio.to_thread(self._record, provider.name, [listing.contract], result, complete=False)
        if rows:
            frame = INSTRUMENTS.conform(pl.DataFrame(rows, infer_schema_length=None))
            await asyncio.to_thread(self._store, provider.name, frame, set(), result, complete=False)

    def _record(self, source: str, listed: Sequence[Contract], result: Refreshed, *, complete: bool) -> None:
        def transaction(connection: Connection) -> Recorded:
            return record(connection, source, listed, self.clock(), complete=complete)

        found = self.database.retrying_transaction(transaction)
        result.contracts += len(listed)
        if found.kept:
            result.notes.append(f"{source} no longer lists {found.kept} contracts: too many to be believed")

    def _store(
        self, source: str, rows: pl.DataFrame, classes: set[AssetClass], result: Refreshed, *, complete: bool
    ) -> None:
        now = self.clock()

        def transaction(connection: Connection) -> Fold:
            lock_source(connection, source)
            covered = classes or {AssetClass(name) for name in rows["asset_class"].unique()}
            stored = intervals_of(connection, source, covered)
            found = fold(
                stored, (Interval.of(source, row) for row in rows.iter_rows(named=True)), now, complete=complete
            )
            write(connection, found.added, found.changed, now)
            describe(connection, rows, now)
            return found

        found = self.database.retrying_transaction(transaction)
        result.listed += rows.height
        result.counts += Counts(
            inserted=len(found.added), updated=len(found.changed), unchanged=found.unchanged, kept=found.kept_open
        )
        if found.kept_open:
            result.notes.append(
                f"{source} no longer lists {found.kept_open} instruments: too many to be believed, nothing was closed"
            )
