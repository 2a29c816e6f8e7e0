"""Reconciliation: compares the stored candles of a series with those of another source, and records what differs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID, uuid4

import polars as pl

from market_data.model.dataset import CANDLES, EXACT
from market_data.model.errors import UnsupportedRequest, UsageError
from market_data.model.instrument import Series
from market_data.model.provider import Page, Provider
from market_data.model.timeframe import MICROSECOND, TimeRange
from market_data.pipeline.fetch.asking import Question, Sources, ask
from market_data.pipeline.fetch.gathering import rows_span
from market_data.pipeline.fetch.runs import recorded
from market_data.pipeline.write.normalise import normalise
from market_data.pipeline.write.tolerance import TOLERANCES, relative_difference, tolerance
from market_data.storage.series.due import lock_instrument, note_due
from market_data.storage.series.present import lock_series, next_moment, note_moment
from market_data.storage.series.reader import Reader
from market_data.storage.server.database import Database
from market_data.storage.work import audit

WORST: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldDifferences:
    """One field over all candles that both sources have and give it for.

    Attributes:
        compared: candles.
        equal: of those, equal to the last digit.
        within: different, but within the tolerance.
        beyond: different beyond it; these are recorded.
        worst: the largest relative difference.
    """

    field: str
    tolerance: Decimal
    compared: int
    equal: int
    within: int
    beyond: int
    worst: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What comparing two sources showed.

    Attributes:
        only_stored: candles the other source does not have.
        only_other: candles we do not have.
        worst: the largest disagreements: timestamp, field, source_a, value_a, source_b, value_b, relative.
    """

    series: Series
    span: TimeRange
    against: str
    both: int
    only_stored: int
    only_other: int
    fields: tuple[FieldDifferences, ...]
    worst: tuple[dict[str, Any], ...]

    @property
    def beyond(self) -> int:
        """Disagreements over all fields."""
        return sum(field.beyond for field in self.fields)


async def reconcile(
    sources: Sources, provider: Provider, source: str, series: Series, span: TimeRange, run_id: UUID | None = None
) -> Reconciliation:
    """Fetch a span from another source, compare, and record the disagreements.

    The other source's candles are not stored: the report and the table `disagreements` are all that remains. What is
    compared is the newest version of each stored candle by sources other than it.

    Args:
        source: as `Page.source` names it: a provider, or one of its markets or channels (``binance:archive``).

    Raises:
        UnsupportedRequest: when the provider has no such source or no candles of the series.
        MarketDataError: when the source fails.
    """
    if provider.capability(CANDLES, series.instrument, series.timeframe) is None:
        raise UnsupportedRequest(f"{provider.name} serves no {series} candles")
    run_id, now = run_id or uuid4(), sources.clock()
    instrument, timeframe = series.instrument, series.timeframe
    question = Question(dataset=CANDLES, instrument=instrument, timeframe=timeframe, span=span, now=now, run_id=run_id)

    def pages(asked: Provider, start: datetime) -> AsyncIterator[Page]:
        return asked.fetch_candles_from(source, instrument, timeframe, start, span.end, now=now)

    async with recorded(sources, "reconcile", instrument, run_id, timeframe=timeframe):
        taker = _Comparing(span.start)
        answer = await ask(sources, question, taker, [provider], pages)
        if answer.error is not None:
            raise answer.error
        if answer.skipped:
            raise UnsupportedRequest("; ".join(answer.skipped))
        # A provider may have had to use another of its markets: what is recorded is who really answered.
        answered = taker.pages[0].source if taker.pages else source
        other = pl.concat([CANDLES.empty(), *(page.frame for page in taker.pages)])
        return await asyncio.to_thread(compare_stored, sources.database, answered, series, span, other, now)


class _Comparing:
    """Keeps the pages of a source, and stores none; see `asking.Taker`."""

    goes_on = True

    def __init__(self, start: datetime) -> None:
        self.reached = start
        self.pages: list[Page] = []

    def begin(self) -> None:
        pass

    async def take(self, page: Page) -> None:
        if page.frame.height:
            self.pages.append(page)
            self.reached = rows_span([page], self.reached).end

    async def end(self, *, through: bool) -> None:
        pass

    async def enough(self) -> bool:
        return True


def compare(stored: pl.DataFrame, other: pl.DataFrame, source: str) -> tuple[pl.DataFrame, list[FieldDifferences]]:
    """Disagreements and counts per field.

    Args:
        stored: CANDLES' columns and `source`, unique timestamps.
        other: CANDLES' columns, unique timestamps, all from `source`.

    Returns:
        Disagreements (timestamp, field, source_a, value_a, source_b, value_b, relative) and one count per field.
    """
    pairs = stored.join(other, on="timestamp", how="inner", suffix="_other", maintain_order="left")
    found, counts = [], []
    for field in TOLERANCES:
        mine, theirs = pl.col(field).cast(EXACT), pl.col(f"{field}_other").cast(EXACT)
        given = pairs.select(
            "timestamp",
            field=pl.lit(field),
            source_a="source",
            value_a=mine,
            source_b=pl.lit(source),
            value_b=theirs,
            relative=relative_difference(mine, theirs),
        ).drop_nulls(["value_a", "value_b"])
        allowed = {a: float(tolerance(field, a, source)) for a in given["source_a"].unique()}
        limits = pl.Series("limit", [allowed[a] for a in given["source_a"]], pl.Float64)
        beyond = given.filter(given["relative"] > limits)
        equal = int((given["value_a"] == given["value_b"]).sum())
        counts.append(
            FieldDifferences(
                field=field,
                tolerance=Decimal(str(max(allowed.values(), default=0.0))),
                compared=given.height,
                equal=equal,
                within=given.height - equal - beyond.height,
                beyond=beyond.height,
                worst=given["relative"].max(),  # type: ignore[arg-type]  # the column holds doubles
            )
        )
        found.append(beyond)
    return pl.concat(found), counts


def provider_of(source: str, providers: Sequence[Provider]) -> Provider:
    """The provider that a source belongs to.

    Raises:
        UsageError: naming the providers there are.
    """
    for provider in providers:
        if provider.name == source.partition(":")[0]:
            return provider
    raise UsageError(f"Unknown source {source!r}. Providers: {', '.join(p.name for p in providers)}")


def compare_stored(
    database: Database, source: str, series: Series, span: TimeRange, other: pl.DataFrame, now: datetime
) -> Reconciliation:
    """Compare candles of a source with the stored ones of others, and put what differs on record."""
    theirs = normalise(series, other).filter("first_of_timestamp")
    # Of the facts, so that a source's own earlier rows never vouch for it.
    facts = Reader(database).newest_facts(series, span).filter(pl.col("source") != source)
    stored = facts.sort("timestamp", "chosen", "known_from").unique("timestamp", keep="last", maintain_order=True)
    differing, counts = compare(stored, theirs, source)
    if not differing.is_empty():
        _record(database, series, differing, now)
    both = stored.join(theirs, on="timestamp", how="semi").height
    return Reconciliation(
        series=series,
        span=span,
        against=source,
        both=both,
        only_stored=stored.height - both,
        only_other=theirs.height - both,
        fields=tuple(counts),
        worst=tuple(differing.sort("relative", descending=True).head(WORST).to_dicts()),
    )


def _record(database: Database, series: Series, differing: pl.DataFrame, now: datetime) -> None:
    """Put disagreements on record; the scores of those candles and of what looks back at them are then due."""
    first, last = differing["timestamp"].min(), differing["timestamp"].max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    with database.transaction() as connection:
        lock_instrument(connection, series.instrument, exclusive=True)
        lock_series(connection, series)
        moment = next_moment(connection, series, now)
        audit.record_disagreements(connection, series, differing.drop("relative"), moment)
        note_due(connection, series.instrument, TimeRange(first, last + MICROSECOND), "sources reconciled", moment)
        note_moment(connection, series, moment)
