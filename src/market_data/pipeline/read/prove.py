"""Checks the promises on the user's own data, by samples: nothing is written, whatever is tried is rolled back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from uuid import uuid4

import polars as pl

from market_data.model.dataset import CANDLES
from market_data.model.instrument import Series
from market_data.model.session import grid
from market_data.model.timeframe import MICROSECOND, TimeRange
from market_data.pipeline.read.history import enriched
from market_data.pipeline.write.derive import Shelves
from market_data.pipeline.write.gaps import coverage, covered_span
from market_data.pipeline.write.ingest import Batch, Purpose, ingest
from market_data.pipeline.write.ripple import COLUMNS, Ripple, computed
from market_data.pipeline.write.weeks import SPLIT_WITHIN
from market_data.storage.series.reader import Reader
from market_data.storage.series.verdict import COMPARED, MANUAL, Verdict
from market_data.storage.server.database import Database
from market_data.storage.wire.connection import Connection

# Candles in each stretch that is looked at.
STRETCH_CANDLES = 50
SHOWN_FAILURES = 5
_WRITTEN = ("computed_at", "updated_at")


@dataclass(slots=True)
class Check:
    """One promise held against one series: how many cases were looked at, and where it did not hold."""

    promise: str
    series: Series
    cases: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether nothing spoke against it."""
        return not self.failures

    def differing(self, found: pl.DataFrame, expected: pl.DataFrame, what: str) -> None:
        """Count the rows of `expected` as cases, and tell those that `found` does not have to the bit."""
        self.cases += expected.height
        if found.equals(expected.select(found.columns)):
            return
        if found.height != expected.height:
            self.failures.append(f"{what}: {found.height} rows, expected {expected.height}")
            return
        for name in found.columns:
            wrong = found.filter(found[name].ne_missing(expected[name]))
            for moment in wrong["timestamp"].head(SHOWN_FAILURES):
                self.failures.append(f"{what}: {name} at {moment:%Y-%m-%dT%H:%M:%SZ}")


class _TakenBack(Exception):
    """No error: the way out of a transaction that must not commit, with what would have been written."""

    def __init__(self, judged: pl.DataFrame) -> None:
        self.judged = judged


@dataclass(frozen=True)
class Prover:
    """What proving needs, and how many samples of each promise to look at."""

    database: Database
    shelves: Shelves
    clock: Callable[[], datetime]
    samples: int = 5
    seed: int = 0

    @property
    def reader(self) -> Reader:
        """Reads the database."""
        return Reader(self.database)

    def prove(self, series: Series) -> Iterator[Check]:
        """Every promise for a series, one at a time."""
        opens = self.reader.timestamps(series, _EVER)
        stretches = list(self._stretches(series, opens))
        yield self._idempotent(series, stretches)
        yield self._independent_of_start(series, stretches)
        yield self._without_look_ahead(series, stretches)
        yield self._as_of(series, stretches)
        yield self._coverage(series, opens)
        yield self._ripple(series, stretches)

    def _stretches(self, series: Series, opens: pl.Series) -> Iterator[TimeRange]:
        """The first, the newest and some random stretches of stored candles."""
        if opens.is_empty():
            return
        chosen = random.Random(f"{self.seed} {series}")
        last = max(opens.len() - STRETCH_CANDLES, 0)
        places = {0, last} | {chosen.randint(0, last) for _ in range(self.samples)}
        for place in sorted(places):
            part = opens[place : place + STRETCH_CANDLES]
            yield TimeRange(part[0], part[-1] + MICROSECOND)

    def _idempotent(self, series: Series, stretches: list[TimeRange]) -> Check:
        """What each source last said, said again, changes nothing."""
        check = Check("the same again changes nothing", series)
        for span in stretches:
            facts = self.reader.newest_facts(series, span).filter(pl.col("source") != MANUAL)
            for (source, contract), rows in facts.group_by("source", "contract_id"):
                said = rows.select(CANDLES.schema.names()).sort("timestamp")
                judged = self._rehearse(series, str(source), contract, said, span)
                wrong = judged.filter(pl.col("verdict") != Verdict.UNCHANGED)
                check.cases += rows.height
                check.failures += [
                    f"{source} at {row['timestamp']}: {row['verdict']}" for row in wrong.iter_rows(named=True)
                ]
                if judged.height != rows.height:
                    check.failures.append(f"{source}: {rows.height - judged.height} stored rows would now be rejected")
        return check

    def _rehearse(
        self, series: Series, source: str, contract: object, rows: pl.DataFrame, span: TimeRange
    ) -> pl.DataFrame:
        """What the write rules say of rows; everything is done as for fetched ones and then rolled back."""
        now = self.clock()
        batch = Batch(
            series=series,
            frame=rows,
            source=source,
            fetched_at=now,
            requested_at=now,
            span=span,
            response_ms=0.0,
            quota_remaining=None,
            contract_id=contract if isinstance(contract, int) else None,
        )

        def take_back(_connection: Connection, judged: pl.DataFrame, _now: datetime) -> None:
            raise _TakenBack(judged)

        purpose = Purpose(run_id=uuid4(), span=span, actor="prove")
        try:
            ingest(self.database, self.shelves, batch, purpose, self.clock, take_back)
        except _TakenBack as taken:
            return taken.judged
        return pl.DataFrame(schema={"timestamp": CANDLES.schema["timestamp"], "verdict": pl.String})

    def _independent_of_start(self, series: Series, stretches: list[TimeRange]) -> Check:
        """Stored values are those computed from the lookback alone, and those from twice as much."""
        check = Check("where the computation starts does not matter", series)
        lookback = self.shelves.lookback(series)
        for span in stretches:
            stored = self.reader.features(series, span, own=self.shelves.own)
            for before in (lookback, 2 * lookback + 7):
                rows = self.reader.candles(series, span, before=before).select(COLUMNS)
                found = computed(self.reader, self.shelves, series, rows).filter(pl.col("timestamp") >= span.start)
                current = found.filter(self._current(stored))
                check.differing(
                    current, _in_order(stored, found).filter(self._current(stored)), f"from {before} before"
                )
        return check

    def _current(self, stored: pl.DataFrame) -> pl.Series:
        """Rows computed under the present definitions; the others wait to be computed again, and prove nothing."""
        return stored["feature_version"] == self.shelves.version

    def _without_look_ahead(self, series: Series, stretches: list[TimeRange]) -> Check:
        """Values up to a candle are the same when nothing after it is known."""
        check = Check("the future changes nothing", series)
        for span in stretches:
            rows = self.reader.candles(series, span, before=self.shelves.lookback(series)).select(COLUMNS)
            whole = computed(self.reader, self.shelves, series, rows)
            cut = rows.height - rows.filter(pl.col("timestamp") >= span.start).height // 2
            found = computed(self.reader, self.shelves, series, rows.head(cut))
            check.differing(found, whole.head(cut), "cut off")
        return check

    def _as_of(self, series: Series, stretches: list[TimeRange]) -> Check:
        """Now is what is stored; then is what is stored with the corrections since taken back."""
        check = Check("as known at a moment", series)
        now = self.clock()
        for span in stretches:
            stored = self.reader.features(series, span, own=self.shelves.own)
            known = enriched(self.reader, self.shelves, series, span, as_of=now)
            current = self._current(stored)
            check.differing(known.drop(_WRITTEN).filter(current), stored.drop(_WRITTEN).filter(current), "now")
            made = stored.filter(pl.col("validation_notes").str.contains(SPLIT_WITHIN, literal=True))["timestamp"]
            versions = self.reader.versions(series, span)
            moments = versions["known_from"].unique().sort()
            for moment in moments.sample(min(self.samples, moments.len()), seed=self.seed):
                then = self.reader.candles(series, span, as_of=moment).select("timestamp", *_SAID)
                undone = self._undone(series, span, stored, moment)
                # A week that is made of its days is not what its source said.
                said = ~undone["timestamp"].is_in(made.implode())
                check.differing(
                    then.filter(~then["timestamp"].is_in(made.implode())), undone.filter(said), f"at {moment}"
                )
        return check

    def _undone(self, series: Series, span: TimeRange, stored: pl.DataFrame, moment: datetime) -> pl.DataFrame:
        """The stored candles as they were by what the audit of corrections says, newest correction first."""
        rows = {row["timestamp"]: row for row in stored.iter_rows(named=True) if row["created_at"] <= moment}
        for correction in self.reader.corrections(series, span, moment):
            if correction["timestamp"] in rows and correction["field_corrected"] in _SAID:
                rows[correction["timestamp"]][correction["field_corrected"]] = correction["old_value"]
        columns = {name: [row[name] for row in rows.values()] for name in ("timestamp", *_SAID)}
        return pl.DataFrame(
            [
                pl.Series(name, [None if value is None else str(value) for value in values]).cast(CANDLES.schema[name])
                if name != "timestamp"
                else pl.Series(name, values, CANDLES.schema[name])
                for name, values in columns.items()
            ]
        ).sort("timestamp")

    def _coverage(self, series: Series, opens: pl.Series) -> Check:
        """Every expected candle is in one state, and as many are present as are stored."""
        check = Check("coverage adds up", series)
        now = self.clock()
        span = covered_span(self.database, series)
        if span is None:
            if opens.len():
                check.failures.append(f"{opens.len()} candles are stored, the ledger is empty")
            return check
        counts = coverage(self.database, series, span, now)
        expected = len(grid(series.asset_class, series.timeframe, span).closed_by(now))
        check.cases = expected
        states = counts.present + counts.no_trade + counts.missing + counts.unrecoverable
        if not states == counts.expected == expected:
            check.failures.append(
                f"the calendar expects {expected}, the ledger {counts.expected}, its states are {states}"
            )
        stored = opens.filter(opens >= span.start).len()
        if counts.present != stored:
            check.failures.append(f"{stored} candles are stored, the ledger says {counts.present}")
        return check

    def _ripple(self, series: Series, stretches: list[TimeRange]) -> Check:
        """A correction reaches exactly the rows it should, with the values of a computation from scratch."""
        check = Check("a correction reaches what it should", series)
        lookback = self.shelves.lookback(series)
        for span in stretches:
            rows = self.reader.candles(series, span, before=lookback, after=2 * lookback).select(COLUMNS)
            place = rows.filter(pl.col("timestamp") < span.start).height
            changed = rows[place : place + 1].with_columns(close=pl.col("high"), volume=pl.col("volume") * 3)
            after = pl.concat([rows[:place], changed, rows[place + 1 :]])
            scratch = computed(self.reader, self.shelves, series, after)[place:]
            parts = list(Ripple(self.reader, self.shelves, series, changed, changed["timestamp"].clear()))
            touched = pl.concat([part for each in parts for part in (each.own, each.later)]).sort("timestamp")
            check.differing(touched, scratch.head(touched.height), "reached rows")
            beyond = scratch[touched.height :]
            before = computed(self.reader, self.shelves, series, rows)[place + touched.height :]
            check.differing(before, beyond, "rows beyond")
        return check


def _in_order(stored: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    return stored.select(pl.col(name).cast(dtype) for name, dtype in found.schema.items())


# What market_data_v2 keeps of what a source said.
_SAID = tuple(name for name in COMPARED if name != "taker_buy_quote_volume")
_EVER = TimeRange(datetime.fromisoformat("1900-01-01T00:00:00Z"), datetime.fromisoformat("9999-01-01T00:00:00Z"))
