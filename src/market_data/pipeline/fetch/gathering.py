"""Gathering pages of candles into batches worth a transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import polars as pl

from market_data.model.instrument import Series
from market_data.model.provider import Page
from market_data.model.timeframe import MICROSECOND, TimeRange
from market_data.pipeline.write.ingest import Batch


class Gathering:
    """Takes pages of a series, and has them stored when there are enough; see `asking.Taker`.

    A batch reaches from where the last one ended to where the next page begins: what lies between is known to be
    missing. What was read before a failure is stored too, and the next source goes on behind it.

    Args:
        span: what is asked for.
        left: whether candles are expected from a moment on.
    """

    goes_on = True

    def __init__(
        self,
        series: Series,
        span: TimeRange,
        batch_rows: int,
        store: Callable[[Batch], Awaitable[None]],
        left: Callable[[datetime], bool],
    ) -> None:
        self.reached = span.start
        self._series, self._span, self._batch_rows = series, span, batch_rows
        self._store, self._left = store, left
        self._waiting: list[Page] = []
        self._gave = False

    def begin(self) -> None:
        """See `asking.Taker`."""
        self._gave = False

    async def take(self, page: Page) -> None:
        """See `asking.Taker`."""
        if not page.holds_something:
            return
        full = sum(waited.frame.height for waited in self._waiting) >= self._batch_rows
        last = self._waiting[-1] if self._waiting else page
        other = (page.source, page.contract) != (last.source, last.contract)
        if self._waiting and page.frame.height and (full or other):
            await self._flush(rows_span([page], self.reached).start)
        self._waiting.append(page)

    async def end(self, *, through: bool) -> None:
        """See `asking.Taker`."""
        if self._waiting:
            await self._flush(self._span.end if through else rows_span(self._waiting, self.reached).end)

    async def enough(self) -> bool:
        """A source that gave rows had what there is; without any, it was enough where nothing is left to ask for."""
        return self._gave or not self._left(self.reached)

    async def _flush(self, until: datetime) -> None:
        self._gave = True
        pages, self._waiting = self._waiting, []
        batch = batch_of(self._series, pages, TimeRange(self.reached, until))
        await self._store(batch)
        self.reached = until


def batch_of(series: Series, pages: list[Page], span: TimeRange) -> Batch:
    """Pages of one source as a batch."""
    newest = pages[-1]
    slowest = max(page.fetched_at - page.requested_at for page in pages)
    return Batch(
        series=series,
        frame=pl.concat([page.frame for page in pages]),
        unread=pl.concat([page.rejected for page in pages]),
        source=newest.source,
        fetched_at=newest.fetched_at,
        # Every page is judged against when it was asked for; none of the batch as fresher than its slowest.
        requested_at=newest.fetched_at - slowest,
        span=span,
        response_ms=sum(page.response_ms for page in pages) / len(pages),
        quota_remaining=newest.quota_remaining,
        contract=newest.contract,
    )


def rows_span(pages: Sequence[Page], asked: datetime) -> TimeRange:
    """From the first row of pages to their last; where all were rejected the moment asked for stands for them."""
    times = pl.concat([page.frame["timestamp"] for page in pages])
    first, last = times.min() or asked, times.max() or asked
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    return TimeRange(first, last + MICROSECOND)
