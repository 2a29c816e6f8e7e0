"""Series that close together: locked in one order, read in one statement, written in one transaction.

A candle that is newer than all that is stored of its series, or is stored already, needs nothing but what is read here.
Whatever else a batch holds (corrections, rows that come late, a split that is not judged yet) takes the longer way
within the same transaction. Rows come out the same, to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import polars as pl

from market_data.model.actions import Split
from market_data.model.cuts import Cut
from market_data.model.dataset import CANDLES
from market_data.model.errors import DatabaseUnavailable, MarketDataError, UsageError
from market_data.model.instrument import Instrument
from market_data.model.timeframe import MICROSECOND, TimeRange
from market_data.pipeline.write.believe import settle_near
from market_data.pipeline.write.derive import Shelves, derive
from market_data.pipeline.write.gaps import note_seen
from market_data.pipeline.write.ingest import (
    Batch,
    Clock,
    Outcome,
    Purpose,
    checked_rows,
    identified,
    ingest,
    log_batch,
    owned_by,
    scored,
    store,
    writing,
)
from market_data.pipeline.write.normalise import with_ends
from market_data.pipeline.write.ripple import COLUMNS, extent_of, histories
from market_data.pipeline.write.shares import changes_of_contract, cuts_at
from market_data.pipeline.write.weeks import has_weeks
from market_data.storage.facts.actions import split_from_row
from market_data.storage.facts.contracts import ALWAYS, Since
from market_data.storage.series.edge import Edge, Want, lock_together, read_edge
from market_data.storage.series.own_features import own_among, write_own
from market_data.storage.series.present import (
    Counts,
    Origin,
    append,
    facts_of,
    first_of,
    note_moment,
    prepare_partitions,
)
from market_data.storage.series.verdict import Verdict, classify
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection
from market_data.storage.wire.gathered import Gathered
from market_data.storage.work import audit
from market_data.storage.work.quarantine import quarantine, quarantine_unread
from market_data.storage.work.runs import hold_run

# Of a larger batch the rows are what costs, not the statements.
EDGE_ROWS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Offer:
    """A batch, and on whose behalf it is written."""

    batch: Batch
    purpose: Purpose


def ingest_batch(database: Database, shelves: Shelves, batch: Batch, purpose: Purpose, clock: Clock) -> Outcome:
    """Bring one batch into the database, a small one by the short way where that will do.

    Raises:
        Exception: whatever kept it from being stored; nothing of it is stored then.
    """
    if batch.frame.height > EDGE_ROWS:
        return ingest(database, shelves, batch, purpose, clock)
    (outcome,) = ingest_together(database, shelves, [Offer(batch, purpose)], clock)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def ingest_together(
    database: Database, shelves: Shelves, offers: Sequence[Offer], clock: Clock
) -> list[Outcome | Exception]:
    """Bring batches of different series into the database in one transaction; in their order what became of each.

    When that fails the group is split, until only the faulty series are left out: theirs is the error, and nothing of
    them is stored.

    Raises:
        UsageError: when two batches are of one series.
        DatabaseUnavailable: nothing of what is left is stored then.
    """
    if len({offer.batch.series for offer in offers}) < len(offers):
        raise UsageError("batches that are written together must be of different series")
    if not offers:
        return []
    try:
        return _Together(database, shelves, offers, clock).write()
    except DatabaseUnavailable:
        raise
    except Exception as error:
        if len(offers) > 1:
            middle = len(offers) // 2
            halves = (offers[:middle], offers[middle:])
            return [each for half in halves for each in ingest_together(database, shelves, half, clock)]
        if not isinstance(error, MarketDataError):
            audit.log_compute_failure(database, offers[0].batch.series, error, clock())
        return [error]


@dataclass(frozen=True, slots=True)
class _Closing:
    """Rows of one series that only have to be added, or are known already, with what is derived for the new ones."""

    place: int
    judged: pl.DataFrame
    new: pl.DataFrame
    derived: pl.DataFrame
    origin: Origin
    seconds: float


class _Together:
    """One transaction for several batches."""

    def __init__(self, database: Database, shelves: Shelves, offers: Sequence[Offer], clock: Clock) -> None:
        self.database, self.shelves, self.offers, self.clock = database, shelves, offers, clock
        self.checked = [checked_rows(shelves, offer.batch) for offer in offers]

    def write(self) -> list[Outcome | Exception]:
        """Commit all of it, or nothing."""
        for checked in self.checked:
            if checked.accepted.height:
                prepare_partitions(self.database, extent_of(checked.accepted["timestamp"]))
        outcomes, near = writing(self.database, self._write)
        for place in near:
            series, rows = self.offers[place].batch.series, self.checked[place].accepted
            settle_near(self.database, self.shelves, series, extent_of(rows["timestamp"]), self.clock)
        return list(outcomes)

    def _write(self, connection: Connection) -> tuple[list[Outcome], list[int]]:
        purposes = {(each.purpose.owner, each.purpose.run_id) for each in self.offers if each.purpose.owner is not None}
        for owner, run_id in sorted(purposes):
            hold_run(connection, run_id, owner)
        lock_together(connection, [offer.batch.series for offer in self.offers])
        edge = read_edge(connection, [self._want(place) for place in range(len(self.offers))])
        closing = [self._closing(edge, place) for place in range(len(self.offers))]
        added = [each for each in closing if each is not None]
        outcomes = [
            self._long_way(connection, place) if each is None else self._outcome(place, each)
            for place, each in enumerate(closing)
        ]
        self._add(connection, edge, added, outcomes)
        return outcomes, [place for place, checked in enumerate(self.checked)
                          if checked.accepted.height and edge.state(place)["near"]]  # fmt: skip

    def _want(self, place: int) -> Want:
        batch, rows = self.offers[place].batch, self.checked[place].accepted
        extent = extent_of(rows["timestamp"]) if rows.height else batch.span
        return Want(
            series=batch.series,
            extent=extent,
            span=batch.span,
            before=self.shelves.lookback(batch.series) if rows.height else 0,
            observed=histories(self.shelves, batch.series) if rows.height else {},
            until=(rows["end"].max() if rows.height else extent.end) + MICROSECOND,  # type: ignore[operator,arg-type]
            contract=batch.contract,
        )

    def _closing(self, edge: Edge, place: int) -> _Closing | None:
        """What is to be added; None where the batch has more to say than rows behind all that are stored."""
        started = time.perf_counter()
        batch, purpose, offered = self.offers[place].batch, self.offers[place].purpose, self.checked[place].accepted
        state, before = edge.state(place), edge.candles(place)
        beliefs = edge.of("beliefs", place).sort("date")
        judged_splits = state["claimed"] is None or (beliefs.height and beliefs["known_from"][0] >= state["claimed"])
        lives = _owners(edge.of("lives", place))
        if offered.is_empty() or before is None or not judged_splits or (batch.contract is not None and not lives):
            return None
        owned = offered.with_columns(contract_id=pl.lit(batch.contract_id, pl.Int32))
        if batch.contract is not None:
            owned = owned_by(offered, lives, _owners(edge.of("ties", place)))
        facts = edge.of("facts", place)
        judged = classify(scored(batch, owned, self.shelves), facts, batch.source)
        new = judged.filter(pl.col("verdict") == Verdict.INSERTED)
        same = judged.height - judged.filter(pl.col("verdict") == Verdict.UNCHANGED).height
        if new.height < same or (new.height and state["newest"] is not None and new["timestamp"][0] <= state["newest"]):
            return None
        cuts = cuts_at(_splits(beliefs))
        if has_weeks(batch.series) and cuts:
            return None  # made of days, where a split falls within it
        now = self.clock() if state["moment"] is None else max(self.clock(), state["moment"] + MICROSECOND)
        origin = Origin(
            source=batch.source, fetched_at=batch.fetched_at, now=now, run_id=purpose.run_id, actor=purpose.actor
        )
        derived = self._derived(edge, place, before, new, cuts)
        return _Closing(place, judged, new, derived, origin, time.perf_counter() - started)

    def _derived(
        self, edge: Edge, place: int, before: pl.DataFrame, new: pl.DataFrame, cuts: Sequence[Cut]
    ) -> pl.DataFrame:
        """What follows for new rows from those that stand before them."""
        series, facts = self.offers[place].batch.series, edge.of("facts", place)
        again = facts.filter("chosen").sort("known_from").unique("timestamp", keep="last").sort("timestamp")
        rows = pl.concat([before.select(COLUMNS), again.select(COLUMNS), new.select(COLUMNS)])
        rows = rows.tail(self.shelves.lookback(series) + new.height)
        disputed = edge.of("disputes", place)["timestamp"]
        rows = with_ends(series, rows).with_columns(disagrees=pl.col("timestamp").is_in(disputed.implode()))
        observations = edge.observations(place, rows["timestamp"][0]) if rows.height else {}
        derived = derive(series, rows, observations, self.shelves, [*cuts, *changes_of_contract(rows)])
        return derived.tail(new.height)

    def _outcome(self, place: int, closing: _Closing) -> Outcome:
        checked = self.checked[place]
        unchanged = closing.judged.height - closing.new.height + checked.repeated
        rejected = checked.rejected.height + self.offers[place].batch.unread.height
        counts = Counts(inserted=closing.new.height, unchanged=unchanged, rejected=rejected)
        return Outcome(counts=counts, seconds={"compute": closing.seconds})

    def _long_way(self, connection: Connection, place: int) -> Outcome:
        batch, purpose, checked = self.offers[place].batch, self.offers[place].purpose, self.checked[place]
        owned = identified(self.database, batch, checked.accepted, self.clock())
        found, outcome = replace(checked, accepted=scored(batch, owned, self.shelves)), Outcome()
        store(connection, self.database, self.shelves, batch, purpose, self.clock, found, outcome)
        return outcome

    def _add(self, connection: Connection, edge: Edge, added: Sequence[_Closing], outcomes: Sequence[Outcome]) -> None:
        if not added:
            return
        facts, present = [], []
        told = Gathered(connection)
        for each in added:
            batch, checked = self.offers[each.place].batch, self.checked[each.place]
            facts.append(facts_of(batch.series, each.judged, each.origin))
            derived = each.derived.drop(own_among(each.derived.columns))
            present.append(first_of(batch.series, each.new, derived, each.origin))
            self._note(told, edge, each, outcomes[each.place].counts)
            if each.new.height and own_among(each.derived.columns):
                write_own(connection, batch.series, each.derived)
            quarantine(connection, batch.series, checked.rejected, batch.source, each.origin.run_id, each.origin.now)
            quarantine_unread(
                connection, CANDLES, batch.series, batch.unread, batch.source, each.origin.run_id, each.origin.now
            )
        append(connection, pl.concat(facts), pl.concat(present))
        for instrument, span, now in _days(self.offers, added):
            audit.recount_quality(told, instrument, span, now)
        told.run()

    def _note(self, told: Gathered, edge: Edge, each: _Closing, counts: Counts) -> None:
        """The ledger, the logs, the progress and the moment of one series."""
        batch, purpose = self.offers[each.place].batch, self.offers[each.place].purpose
        series, now, times = batch.series, each.origin.now, self.checked[each.place].accepted["timestamp"]
        if each.new.height:
            note_moment(told, series, now)
            names = [feature.name for feature in self.shelves.features]
            audit.log_compute(told, series, each.derived, names, each.seconds * 1000, now)
        ledger = edge.ledger(each.place)
        note_seen(told, series, ledger, batch.span, times, batch.source, batch.fetched_at, now)
        log_batch(told, batch, purpose, counts, now)


def _splits(beliefs: pl.DataFrame) -> list[Split]:
    return [split_from_row(row) for row in beliefs.with_columns(reason=None).iter_rows(named=True)]


def _owners(rows: pl.DataFrame) -> list[Since]:
    """Contracts and since when they count, in order of time."""
    owners = [Since(number, start or ALWAYS) for number, start in rows.select("contract_id", "start").iter_rows()]
    return sorted(owners, key=lambda owner: owner.start)


def _days(offers: Sequence[Offer], added: Sequence[_Closing]) -> list[tuple[Instrument, TimeRange, datetime]]:
    """Stretches in which candles were added, by instrument; those that share a day as one."""
    found: list[tuple[Instrument, TimeRange, datetime]] = []
    by_instrument: dict[Instrument, list[tuple[TimeRange, datetime]]] = {}
    for each in (one for one in added if one.new.height):
        spans = by_instrument.setdefault(offers[each.place].batch.series.instrument, [])
        spans.append((extent_of(each.new["timestamp"]), each.origin.now))
    for instrument, spans in by_instrument.items():
        merged: list[tuple[TimeRange, datetime]] = []
        for span, now in sorted(spans, key=lambda pair: pair[0].start):
            if merged and span.start.date() <= (merged[-1][0].end - MICROSECOND).date():
                last, then = merged.pop()
                merged.append((TimeRange(last.start, max(last.end, span.end)), max(then, now)))
            else:
                merged.append((span, now))
        found += [(instrument, span, now) for span, now in merged]
    return found
