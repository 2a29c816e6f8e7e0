"""Binance candles: from the archive for long ranges, from REST for the rest, compared where both have them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import structlog

from market_data.model.contract import Listing
from market_data.model.dataset import CANDLES
from market_data.model.errors import MalformedPayload, MarketDataError, Where
from market_data.model.instrument import AssetClass
from market_data.model.provider import Page
from market_data.model.rows import Rows, joined
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange, from_micros
from market_data.providers.binance import archive
from market_data.providers.binance.checks import doubtful, of_length, settled, unconfirmed, with_note
from market_data.providers.binance.client import MILLISECOND, Client, millis
from market_data.providers.binance.markets import Market
from market_data.providers.binance.parse import STRICT_FIELDS, TIMES, parse_klines
from market_data.transport.ordered import fetch_ordered
from market_data.transport.senders import Response

# Ranges that end longer ago than this are closed whatever our clock's error.
CLOCK_DOUBT = timedelta(hours=1)
# Weight of a 1500-row page is 10, of a 499-row page 2 (a fifth for a third): large pages while they use at most half
# of a minute's 2400, small ones for long ranges and while much of it is used: there the weight and not the round
# trip is what we wait for.
MOST_LARGE_PAGES = 120
CONCURRENCY = 4
FILES_AT_ONCE = 2
REST, ARCHIVE_SOURCE = "rest", "archive"
TRADED, PREMIUM = "klines", "premiumIndexKlines"
NOTE_DIFFERED = "archive_differed_from_rest"
NOTE_CHECKSUM = "archive_checksum_failed"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Window:
    """What one klines request asks for: at most `limit` candles."""

    span: TimeRange
    limit: int


@dataclass(frozen=True, slots=True)
class Candles:
    """Candles of one listing and timeframe; rows that end after `closed_by` are still open.

    `kind` is what they are candles of: TRADED or PREMIUM, the premium index, which has them on futures only, in
    the same shape and places.
    """

    client: Client
    market: Market
    listing: Listing
    timeframe: Timeframe
    closed_by: datetime
    now: datetime
    kind: str = TRADED

    async def fetch(self, span: TimeRange) -> AsyncIterator[Page]:
        """Closed candles that open in `span`, oldest page first."""
        count = len(grid(AssetClass.CRYPTO, self.timeframe, span))
        files = archive.pieces(span, self.now)
        settings = self.client.settings
        if settings.use_archive and count >= settings.archive_from_candles and files:
            seam = files[-1].span.end
            async for page in self._from_archive(files, seam):
                yield page
            if seam >= span.end:
                return
            span = TimeRange(seam, span.end)
        async for page in self.from_rest(span):
            yield page

    async def from_rest(self, span: TimeRange) -> AsyncIterator[Page]:
        """The same, from REST alone."""
        windows = _windows(span, self.timeframe, self.market, lambda: self.client.has_plenty(self.market))
        async for page in fetch_ordered(windows, self._ask, concurrency=CONCURRENCY):
            if page.holds_something:
                yield page

    async def from_files(self, span: TimeRange) -> AsyncIterator[Page]:
        """The same, from the archive alone; days whose files are not there are left out.

        Raises:
            MalformedPayload: when a file is not what its checksum says, or not candles.
        """
        for piece in archive.pieces(span, self.now):
            page = await self._file(piece)
            whole = page is not None or not piece.monthly
            for found in [page] if whole else [await self._file(day) for day in piece.days()]:
                if found is not None and found.holds_something:
                    yield found

    async def by_the_other_door(self, span: TimeRange, error: MarketDataError) -> AsyncIterator[Page]:
        """Candles of the archive where REST failed with `error`, which is raised unless they are all there can be.

        What was settled or delisted is in the list still, but REST knows it no more: what the archive has of it is all.
        """
        until = min(span.end, self.listing.valid_to or span.end)
        reached, gave = span.start, False
        for piece in archive.pieces(span, self.now):
            try:
                page = await self._file(piece)
                found = [page] if page is not None or not piece.monthly else [await self._file(d) for d in piece.days()]
            except MarketDataError as failure:
                if failure.where is not Where.SOURCE:
                    raise
                raise error from failure
            if any(each is None for each in found) and piece.span.start < until and not error.answered:
                break
            for each in found:
                if each is not None and each.holds_something:
                    yield each
                    gave = True
            reached = piece.span.end
        if not (gave if error.answered else reached >= until):
            raise error

    async def _ask(self, window: Window) -> Page:
        """The candles of a window; a page that ends before it does is asked on from its last row, until none come."""
        answers, begin = list[Rows](), window.span.start
        while True:
            response = await self.client.get(
                self.market,
                f"/{self.kind}",
                symbol=self.listing.raw_symbol,
                interval=self.timeframe.value,
                startTime=millis(begin),
                # Inclusive at the source.
                endTime=millis(window.span.end) - 1,
                limit=window.limit,
            )
            rows = parse_klines(response.body)
            if (sent := rows.frame.height + rows.rejected.height) > window.limit:
                raise MalformedPayload(f"binance sent {sent} klines where at most {window.limit} were asked for")
            answers.append(rows)
            following = begin if rows.frame.is_empty() else rows.frame["timestamp"][-1] + self.timeframe.duration
            if not begin < following < window.span.end:
                whole = joined(answers, rows.frame.clear())
                return self._page(self._kept(whole, window.span), self.market.source, response)
            begin = following

    def _kept(self, rows: Rows, span: TimeRange) -> Rows:
        """Closed rows of the span, in order; a row repeated exactly once, one that differs left for the rules."""
        checked = of_length(rows, self.timeframe)
        inside = pl.col("timestamp").is_between(span.start, span.end, closed="left")
        ends = pl.max_horizontal(pl.col("timestamp") + self.timeframe.duration, pl.col("close_time") + MILLISECOND)
        kept = checked.frame.filter(inside & (ends <= self.closed_by)).drop("close_time")
        rejected = checked.rejected
        steps = np.diff(kept["timestamp"].cast(pl.Int64).to_numpy())
        if (steps > 0).all():
            return Rows(kept, rejected)
        return Rows(kept.unique(maintain_order=True).sort("timestamp", maintain_order=True), rejected)

    async def _from_archive(self, files: list[archive.Piece], seam: datetime) -> AsyncIterator[Page]:
        """The files' candles; the last ones, which REST has too, as REST gives them where the two differ."""
        last: Page | None = None
        try:
            async for found in fetch_ordered(files, self._piece, concurrency=FILES_AT_ONCE):
                for page in found:
                    if last is not None:
                        yield last
                    last = page
        except MarketDataError:
            # It came whole; only what follows it did not.
            if last is not None:
                yield last
            raise
        if last is None:
            return
        if last.frame.is_empty():
            yield last
            return
        overlap = TimeRange(max(last.frame["timestamp"][0], seam - self._overlap), seam)
        try:
            again = [page.frame async for page in self.from_rest(overlap)]
        except MarketDataError as error:
            if error.where is not Where.SOURCE:
                raise
            # Of a contract that was settled REST tells nothing any more; what the archive has stands.
            log.warning("archive not compared with REST", symbol=self.listing.raw_symbol, error=str(error))
            again = []
        yield replace(last, frame=settled(last.frame, pl.concat([CANDLES.empty(), *again]), NOTE_DIFFERED))

    @property
    def _overlap(self) -> timedelta:
        return self.market.page_limits[-1] * self.timeframe.duration

    async def _piece(self, piece: archive.Piece) -> list[Page]:
        """A file's candles; where there is no file, those of its days' files; where there is none either, REST's."""
        note: str | None = None
        try:
            found = await self._file(piece)
            if found is not None:
                return [await self._confirmed(found)] if found.holds_something else []
        except MarketDataError as error:
            # Rejected, tried again, reported; the same candles can be had elsewhere.
            if error.where is not Where.SOURCE:
                raise
            log.warning("archive file refused", path=self._path(piece), error=str(error))
            if not error.contained:
                return [page async for page in self.from_rest(piece.span)]
            note = NOTE_CHECKSUM
        if piece.monthly:
            return [page for day in piece.days() for page in await self._piece(day)]
        pages = [page async for page in self.from_rest(piece.span)]
        said = "notes" if note is None else with_note(note)
        return [replace(page, frame=page.frame.with_columns(said)) for page in pages]

    async def _file(self, piece: archive.Piece) -> Page | None:
        """The candles of one file; None where there is none."""
        found = await archive.download(self.client, self._path(piece))
        if found is None:
            return None
        csv, response = found
        rows = parse_file(csv)
        # A file holds days that were not asked for; what is wrong with them is told when they are.
        inside = pl.col("timestamp").is_between(piece.span.start, piece.span.end, closed="left").fill_null(value=True)
        kept = self._kept(Rows(rows.frame, rows.rejected.filter(inside)), piece.span)
        return self._page(kept, f"{self.listing.provider}:{ARCHIVE_SOURCE}", response)

    def _page(self, rows: Rows, source: str, response: Response) -> Page:
        return replace(self.client.page(rows, source, response), contract=self.listing.contract)

    async def _confirmed(self, page: Page) -> Page:
        """A file's candles; what is doubtful among them as REST has it, or noted where REST cannot be asked."""
        # The premium index has no volume: nothing can be told from its being nought.
        spans = doubtful(page.frame, self.timeframe, self._overlap) if self.kind == TRADED else []
        if not spans:
            return page
        try:
            again = [rest.frame for span in spans async for rest in self.from_rest(span)]
        except MarketDataError as error:
            log.warning("archive not held against rest", symbol=self.listing.raw_symbol, error=str(error))
            return replace(page, frame=unconfirmed(page.frame, spans))
        return replace(page, frame=settled(page.frame, pl.concat([CANDLES.empty(), *again]), NOTE_DIFFERED))

    def _path(self, piece: archive.Piece) -> str:
        raw_symbol, interval = self.listing.raw_symbol, self.timeframe.value
        folder = f"{self.market.archive}/{piece.period}/{self.kind}/{raw_symbol}/{interval}"
        return f"{folder}/{raw_symbol}-{interval}-{piece.label}.zip"


async def candles(
    client: Client,
    market: Market,
    listing: Listing,
    timeframe: Timeframe,
    span: TimeRange,
    now: datetime,
    kind: str = TRADED,
    only: str | None = None,
) -> AsyncIterator[Page]:
    """Closed candles of a listing that open in `span`, oldest page first; see `Candles` for `kind`.

    Args:
        only: ``rest`` or ``archive`` to take them from there alone.
    """
    end = min(span.end, now)
    closed_by = now if end < now - CLOCK_DOUBT else min(now, await client.server_time(market))
    asked = Candles(client, market, listing, timeframe, closed_by, now, kind)
    fetch = {None: asked.fetch, REST: asked.from_rest, ARCHIVE_SOURCE: asked.from_files}[only]
    reached = span.start
    try:
        first = await _first_candle(client, market, listing, timeframe, span.start, kind)
        if first is None or first >= end:
            return
        async for page in fetch(TimeRange(first, end)):
            yield page
            if page.frame.height:
                reached = page.frame["timestamp"][-1] + timeframe.duration
    except MarketDataError as error:
        # What may pass is tried again at the same door first: the rows' source is not to change with every hiccup.
        if only is not None or error.again or error.where is not Where.SOURCE or not client.settings.use_archive:
            raise
        async for page in asked.by_the_other_door(TimeRange(reached, end), error):
            yield page


def parse_file(csv: bytes) -> Rows:
    """Candles of a klines file in the CANDLES schema plus `close_time`.

    Raises:
        MalformedPayload: when not one line of many is a candle.
    """
    fields = STRICT_FIELDS | dict.fromkeys(TIMES, archive.MOMENT)
    return archive.read_lines(csv, fields, "open_time").with_frame(_of_file)


def _of_file(rows: pl.DataFrame) -> pl.DataFrame:
    # Microsecond files end a candle at .999999: with a millisecond added it would not be closed at its end.
    close = pl.col("close_time").dt.truncate("1ms")
    return CANDLES.conform(rows.rename({"open_time": "timestamp"})).with_columns(rows.select(close).to_series())


async def _first_candle(
    client: Client, market: Market, listing: Listing, timeframe: Timeframe, start: datetime, kind: str
) -> datetime | None:
    """Where to begin: the source is asked for its first row, since its list's dates have been late and early."""
    if listing.valid_from is not None and listing.valid_from + timeframe.duration <= start:
        return start
    response = await client.get(
        market, f"/{kind}", symbol=listing.raw_symbol, interval=timeframe.value, startTime=millis(start), limit=1
    )
    first = parse_klines(response.body)
    times = pl.concat([first.frame["timestamp"], first.rejected["timestamp"]]).drop_nulls()
    return max(start, times[0]) if len(times) else start if first.rejected.height else None


def _windows(span: TimeRange, timeframe: Timeframe, market: Market, has_plenty: Callable[[], bool]) -> Iterator[Window]:
    """Consecutive pieces of `span`, each of at most one page of candles; a large one while there is plenty."""
    opens = grid(AssetClass.CRYPTO, timeframe, span).opens
    large, small = market.page_limits[0], market.page_limits[-1]
    few, first = len(opens) <= large * MOST_LARGE_PAGES, 0
    while first < len(opens):
        limit = large if few and has_plenty() else small
        end = from_micros(opens[first + limit]) if first + limit < len(opens) else span.end
        # From the first open on: a start between two candles would have the page begin one earlier, and lose its last.
        yield Window(TimeRange(from_micros(opens[first]), end), limit)
        first += limit
