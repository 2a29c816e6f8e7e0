"""What a market route was asked for, read in pieces and answered in the form that was asked for."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final
from urllib.parse import quote

import polars as pl
from pydantic_core import to_json
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from market_data.api.arguments import LATEST
from market_data.api.bodies import WRITERS, Form, json_rows
from market_data.api.cursors import decoded, encoded
from market_data.api.problems import Problem
from market_data.api.served import Served
from market_data.model.instrument import Series
from market_data.model.timeframe import EPOCH, MICROSECOND, TimeRange
from market_data.pipeline.read.adjust import Adjustment
from market_data.pipeline.read.history import enriched
from market_data.storage.facts.reads import FactQuery, fact_page, fact_pages

JSON_ROWS: Final = 1_000
MOST_JSON_ROWS: Final = 10_000
# Rows in memory at a time when many are streamed.
CHUNK_ROWS: Final = 10_000


def adjustment_of(name: str) -> Adjustment:
    """The adjustment of that name; true means splits, as charts have it."""
    return {"true": Adjustment.SPLITS, "false": Adjustment.NONE}.get(name) or Adjustment(name)


def json_limit(limit: int | None) -> int:
    """How many rows a JSON page holds.

    Raises:
        Problem: 422, when more are asked for than one page may hold.
    """
    if limit is not None and limit > MOST_JSON_ROWS:
        raise Problem(
            422,
            "too-many-rows",
            f"limit: {limit} rows are too many for one page of JSON; the most are {MOST_JSON_ROWS}",
            action=f"Follow `next`, or ask for {Form.ARROW.value} by Accept, which is streamed.",
        )
    return limit or JSON_ROWS


def page(lead: dict[str, Any], name: str, rows: pl.DataFrame, headers: dict[str, str]) -> Response:
    """A JSON object: the leading fields, then the rows under `name`."""
    body = b"".join((to_json(lead)[:-1], f',"{name}":'.encode(), *json_rows(rows), b"}"))
    return Response(body, media_type=Form.JSON.value, headers=headers)


def tag_of(content: bytes) -> str:
    """A weak ETag that changes with the content."""
    return f'W/"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'


def known(tag: str, if_none_match: str | None) -> bool:
    """Whether the asker has that version already."""
    return if_none_match is not None and tag in (part.strip() for part in if_none_match.split(","))


def download(
    served: Served, form: Form, frames: Iterator[pl.DataFrame], name: str, headers: dict[str, str]
) -> Response:
    """A streamed body; its first piece is made before the status is sent, so that what fails at once is told.

    Raises:
        Problem: 503, when as many are being sent as memory is meant for.
    """
    if not served.downloads.acquire(blocking=False):
        raise Problem(
            503, "busy", "As many downloads as there is room for are being sent.",
            action="Wait as long as Retry-After says.", headers={"Retry-After": "2"},
        )  # fmt: skip
    pieces = _made_ahead(WRITERS[form](frames))
    try:
        first = next(pieces, b"")
    except BaseException:
        served.downloads.release()
        raise
    disposition = f'attachment; filename="{name}.{form.ending}"'
    return Download(
        itertools.chain([first], pieces),
        served.downloads.release,
        media_type=form.value,
        headers={**headers, "Content-Disposition": disposition},
    )


class Download(StreamingResponse):
    """A streamed body that gives its room back however it ends."""

    def __init__(self, pieces: Iterator[bytes], leave: Callable[[], None], **more: Any) -> None:
        super().__init__(pieces, **more)
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


def _made_ahead(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces, each made while the one before is sent: at most two in memory, all made by one thread."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="market-data-download")
    try:
        coming = thread.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = thread.submit(next, pieces, None)
            yield piece
    finally:
        # Whoever stopped reading does not wait for a piece that is being made.
        thread.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candles:
    """Candles of a series in [start, end), with or without features."""

    IDENTITY: ClassVar[tuple[str, ...]] = ("symbol", "asset_class", "timeframe")

    served: Served
    series: Series
    columns: tuple[str, ...]
    span: TimeRange | None
    oldest_first: bool
    """Whether a limit keeps the oldest rows; else the newest."""
    limit: int | None
    as_of: datetime | None
    adjustment: Adjustment

    def answer(self, form: Form, if_none_match: str | None, query: str) -> Response:
        """The rows in the form asked for, or 304 when the asker has them already."""
        tag = self.tag(form, query)
        headers = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Accept, Accept-Encoding"}
        if known(tag, if_none_match):
            return Response(status_code=304, headers=headers)
        if form is Form.JSON:
            return self._page(headers)
        symbol, _, timeframe = self.series.key
        return download(self.served, form, self.frames(), f"{symbol}-{timeframe}", headers)

    def tag(self, form: Form, query: str) -> str:
        """Changes with all the answer depends on: the series' last change, the features' definitions, the request."""
        moment = self.served.windows.moment(self.series)
        seen: tuple[object, ...] = (moment, self.served.app.shelves.version, self.series.key, self.columns, form, query)
        if self.adjustment is not Adjustment.NONE:
            # What happens to a price tomorrow may be known today.
            known = self.served.windows.actions_known(self.series.instrument)
            seen = (*seen, known, self.served.now().date())
        return tag_of(repr(seen).encode())

    def _page(self, headers: dict[str, str]) -> Response:
        limit = json_limit(self.limit)
        following: datetime | None = None
        span = self.span
        if self.oldest_first:
            bounds = span or TimeRange(EPOCH, LATEST)
            opens = self.served.reader.timestamps(self.series, bounds, limit=limit + 1)
            if opens.len() > limit:
                following = opens[limit]
                span = TimeRange(bounds.start, following)
        rows = self.read(span, limit)
        symbol, asset_class, timeframe = self.series.key
        lead = {
            "symbol": symbol,
            "asset_class": asset_class,
            "timeframe": timeframe,
            "as_of": self.as_of,
            "adjusted": self.adjustment.value,
            "count": rows.height,
            "next": following,
        }
        return page(lead, "candles", rows, headers)

    def frames(self) -> Iterator[pl.DataFrame]:
        """All rows wanted, oldest first, a bounded window at a time; the first frame comes even when it is empty."""
        extent = self._extent()
        if extent is None:
            yield self.read(TimeRange(EPOCH, EPOCH + MICROSECOND), 1)
            return
        left, sent = self.limit if self.oldest_first else None, 0
        # A window this long holds at most so many candles.
        for window in extent.split(self.series.timeframe.duration * CHUNK_ROWS):
            rows = self.read(window)
            if left is not None:
                rows = rows.head(left - sent)
            if rows.height or not sent:
                yield rows
            sent += rows.height
            if left is not None and sent >= left:
                return

    def _extent(self) -> TimeRange | None:
        extent = self.served.windows.extent(self.series, self.span)
        if extent is not None and self.limit is not None and not self.oldest_first:
            first = self.served.windows.nth_from_end(self.series, self.span, self.limit)
            return TimeRange(first, extent.end) if first is not None else extent
        return extent

    def read(self, span: TimeRange | None, limit: int | None = None) -> pl.DataFrame:
        """Rows of [start, end) in order; the newest `limit` of them when given."""
        plain = self.as_of is None and self.adjustment is Adjustment.NONE
        if plain and limit is None and span is not None:
            return self.served.windows.stored(self.series, span, self.columns)
        found = enriched(
            self.served.reader,
            self.served.app.shelves,
            self.series,
            span,
            limit=limit,
            as_of=self.as_of,
            adjustment=self.adjustment,
            now=self.served.now(),
        )
        return found.select(self.columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Facts of an instrument: anything besides its candles."""

    served: Served
    query: FactQuery
    limit: int | None
    cursor: str | None

    def answer(self, form: Form, if_none_match: str | None) -> Response:
        """The rows in the form asked for, or 304 when the asker has that page of JSON already."""
        headers = {"Cache-Control": "private, no-cache", "Vary": "Accept, Accept-Encoding"}
        name = self.query.dataset.name
        instrument = self.query.instrument
        if form is not Form.JSON:
            frames = fact_pages(self.served.database, self.query, CHUNK_ROWS, self.limit)
            return download(self.served, form, frames, f"{quote(instrument.symbol)}-{name}", headers)
        limit = json_limit(self.limit)
        after = None if self.cursor is None else decoded(self.cursor, self.query.dataset.order_types)
        rows = fact_page(self.served.database, self.query, after, limit + 1)
        more, rows = rows.height > limit, rows.head(limit)
        lead = {
            "symbol": instrument.symbol,
            "asset_class": instrument.asset_class.value,
            "as_of": self.query.as_of,
            "count": rows.height,
            "next": encoded(rows.select(self.query.dataset.order).row(-1)) if more else None,
        }
        found = page(lead, name, rows, headers)
        found.headers["ETag"] = tag = tag_of(bytes(found.body))
        return Response(status_code=304, headers={**headers, "ETag": tag}) if known(tag, if_none_match) else found
