"""Takes back what a source no longer claims: what two complete answers in a row lack, unless there is doubt.

An answer is complete for the range that its provider's parse states. A list that is suddenly empty, one that loses more
than a fifth of ten or more entries, and a split that the price confirms are not withdrawn on that alone: doubt is told,
and a person may decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any, Final

import polars as pl

from market_data.model.actions import APART, ActionState
from market_data.model.dataset import SPLITS, Dataset
from market_data.model.instrument import Instrument
from market_data.model.provider import Page
from market_data.model.timeframe import TimeRange
from market_data.pipeline.write.believe import believed_splits, sessions_of
from market_data.pipeline.write.normalise import numbered
from market_data.storage.facts.actions import Answer, note_answer
from market_data.storage.facts.append import Provenance
from market_data.storage.facts.claims import (
    Missing,
    forget_missing,
    key_of,
    missing_claims,
    note_missing,
    withdraw,
)
from market_data.storage.facts.reads import bounds_of, newest_versions
from market_data.storage.series.reader import Reader
from market_data.storage.wire.connection import Connection

MANY: Final = 10
LARGEST_LOSS: Final = 1 / 5
MOVED_WITHIN: Final = timedelta(days=62)
"""An entry that vanishes as the same is told anew for a day this near was moved."""
EMPTY: Final = "the list of the source is empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A whole answer of a source: its rows, the range asked for, the range it is complete for, and when."""

    dataset: Dataset
    instrument: Instrument
    rows: pl.DataFrame
    asked: TimeRange
    complete: TimeRange
    requested_at: datetime
    fetched_at: datetime


@dataclass(slots=True)
class Compared:
    """What became of claims that an answer lacked: how many were withdrawn, wait for a further answer, are in doubt."""

    withdrawn: int = 0
    waiting: int = 0
    doubted: list[str] = field(default_factory=list)


def compare(connection: Connection, reader: Reader, whole: Whole, origin: Provenance) -> Compared:
    """Hold what a source claimed against its whole answer, after that was appended, in the same transaction.

    Args:
        connection: the transaction's, which holds the lock of these facts.
        reader: reads what was committed before.
        whole: the answer.
        origin: of which source, when, in which run.
    """
    dataset, instrument = whole.dataset, whole.instrument
    standing = newest_versions(reader.database, dataset, instrument).filter(pl.col("source") == origin.source)
    before = missing_claims(reader.database, dataset, instrument, origin.source)
    told = {tuple(key_of(dataset, row).values()) for row in whole.rows.iter_rows(named=True)}
    claims = [row for row in standing.iter_rows(named=True) if tuple(key_of(dataset, row).values()) not in told]
    for key in told & before.keys():
        forget_missing(connection, dataset, instrument, origin.source, before[key].claim)
    inside = _within(standing, dataset, whole.complete)
    gone = [row for row in claims if _in(row[dataset.time], dataset, whole.complete)]
    gone += [row for row in claims if row not in gone and _moved(row, whole, standing, before)]
    found = Compared()
    for row in gone:
        claim = key_of(dataset, row)
        earlier = before.get(tuple(claim.values()))
        doubt = _doubt(row, gone, inside, whole, reader, origin.now)
        if doubt is None and earlier is not None and earlier.since <= whole.requested_at:
            found.withdrawn += withdraw(connection, dataset, instrument, claim, origin)
            continue
        missing = Missing(claim=claim, since=earlier.since if earlier else whole.fetched_at, doubt=doubt)
        note_missing(connection, dataset, instrument, origin.source, missing, whole.fetched_at)
        if doubt is None:
            found.waiting += 1
        else:
            found.doubted.append(f"{dataset.name} of {row[dataset.time]} is no longer told by {origin.source}: {doubt}")
    return found


def take_answer(
    connection: Connection, reader: Reader, dataset: Dataset, instrument: Instrument, page: Page, asked: TimeRange,
    origin: Provenance,
) -> list[str]:  # fmt: skip
    """Put a source's answer on record and hold what it claimed before against it; returns what is to be told of that.

    Called once a page was appended, in the same transaction, of datasets whose entries may be withdrawn.
    """
    at = max(page.fetched_at, origin.now)
    answer = Answer(source=page.source, asked=asked, complete=page.complete, at=at)
    note_answer(connection, dataset, instrument, answer)
    if page.complete is None:
        return []
    whole = Whole(
        dataset=dataset,
        instrument=instrument,
        rows=numbered(dataset, page.frame),
        asked=asked,
        complete=page.complete,
        requested_at=page.requested_at,
        fetched_at=page.fetched_at,
    )
    found = compare(connection, reader, whole, origin)
    told = list(found.doubted)
    if found.withdrawn:
        told.append(f"{found.withdrawn} {dataset.name} withdrawn: {page.source} no longer tells them")
    if found.waiting:
        waiting = f"{found.waiting} {dataset.name} no longer told by {page.source}"
        told.append(f"{waiting}: withdrawn once a further answer lacks them")
    return told


def _within(standing: pl.DataFrame, dataset: Dataset, span: TimeRange) -> int:
    return sum(_in(day, dataset, span) for day in standing[dataset.time])


def _in(day: date, dataset: Dataset, span: TimeRange) -> bool:
    start, end = bounds_of(dataset, span)
    return bool(start <= day < end)


def _moved(
    row: Mapping[str, Any], whole: Whole, standing: pl.DataFrame, before: Mapping[tuple[Any, ...], Missing]
) -> bool:
    """Whether an entry vanished as the same came up for a day near by, also where the answer reaches back less far."""
    dataset = whole.dataset
    if not _in(row[dataset.time], dataset, whole.asked):
        return False
    earlier = before.get(tuple(key_of(dataset, row).values()))
    values = [name for name in ("amount", "currency", "split_from", "split_to") if name in row]
    keys = {tuple(key_of(dataset, each).values()): each for each in standing.iter_rows(named=True)}
    for told in whole.rows.iter_rows(named=True):
        known = keys.get(tuple(key_of(dataset, told).values()))
        new = known is None or (earlier is not None and known["known_from"] >= earlier.since - SAME_ANSWER)
        near = abs(told[dataset.time] - row[dataset.time]) <= MOVED_WITHIN
        if new and near and all(told[name] == row[name] for name in values):
            return True
    return False


SAME_ANSWER: Final = timedelta(minutes=10)
"""What one answer told was known, and what it lacked was missed, within so much."""


def _doubt(
    row: Mapping[str, Any],
    gone: Sequence[Mapping[str, Any]],
    inside: int,
    whole: Whole,
    reader: Reader,
    now: datetime,
) -> str | None:
    """Why a claim is not withdrawn on its absence alone; None when it is."""
    if whole.rows.is_empty():
        return EMPTY
    if inside >= MANY and len(gone) > LARGEST_LOSS * inside:
        return f"{len(gone)} of {inside} entries vanished at once"
    if whole.dataset is SPLITS and _confirmed(row, whole, reader, now):
        return "the price confirms it"
    return None


def _confirmed(row: Mapping[str, Any], whole: Whole, reader: Reader, now: datetime) -> bool:
    """Whether the price confirms a split that the source no longer tells, not even for a day near by."""
    ratio, day, sessions = Fraction(row["split_to"]) / Fraction(row["split_from"]), row["execution_date"], None
    sessions = sessions_of(whole.instrument)
    for told in whole.rows.iter_rows(named=True):
        same = Fraction(told["split_to"]) / Fraction(told["split_from"]) == ratio if told["split_from"] else False
        if same and abs(sessions(told["execution_date"], day)) <= APART:
            return False
    return any(
        split.state is ActionState.CONFIRMED and split.ratio == ratio and abs(sessions(split.date, day)) <= APART
        for split in believed_splits(reader, whole.instrument, now)
    )
