"""Reading a source's pages ahead of whoever takes them; however the source ends, the taker learns of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Final, TypeVar

import structlog

from market_data.model.errors import ConnectionLost, MarketDataError
from market_data.model.provider import Page
from market_data.model.rows import none_rejected
from market_data.pipeline.fetch.failing import as_ours

log = structlog.get_logger()
T = TypeVar("T")

# Fetched pages waiting to be stored; enough to overlap the two, few enough to bound memory.
PAGES_AHEAD: Final = 4
# How long a reader that was told to stop is waited for.
STOPPED_WITHIN_SECONDS: Final = 5.0


async def read_pages(
    pages: AsyncIterator[Page],
    take: Callable[[Page], Awaitable[None]],
    *,
    most_rows: int | None,
    silence_seconds: float,
    **about: object,
) -> MarketDataError | None:
    """Hand all rows of `pages` to `take`, in order, reading a few pages ahead.

    Args:
        most_rows: longer pages are handed on in parts; None: as they came.
        silence_seconds: how long the source may take for a page, waiting for its limits included.
        about: what is being read, for the log.

    Returns:
        Why the source stopped before its end; None when it came to it. What `take` raises is raised.
    """
    queue: asyncio.Queue[Page | MarketDataError | None] = asyncio.Queue(PAGES_AHEAD)

    async def read() -> None:
        end: MarketDataError | None = None
        try:
            async for page in pages:
                for part in _parts(page, most_rows or page.frame.height):
                    await queue.put(part)
        except BaseException as error:  # also what is no Exception: else the taker would wait for ever
            end = as_ours(error, **about)
        await queue.put(end)

    # No task group: it would wait for ever for a reader that does not let itself be cancelled.
    reading = asyncio.create_task(read())
    try:
        while True:
            try:
                async with asyncio.timeout(silence_seconds):
                    item = await queue.get()
            except TimeoutError:
                return ConnectionLost(f"gave nothing for {silence_seconds:.0f} s")
            if not isinstance(item, Page):
                return item
            await take(item)
    finally:
        await _stopped(reading, pages)


def _parts(page: Page, most_rows: int) -> Iterator[Page]:
    """The page in pages of at most so many rows; what was rejected comes with the first."""
    yield replace(page, frame=page.frame.head(most_rows))
    for start in range(most_rows, page.frame.height, most_rows or 1):
        yield replace(page, frame=page.frame.slice(start, most_rows), rejected=none_rejected())


async def _stopped(reading: asyncio.Task[None], pages: AsyncIterator[Page]) -> None:
    reading.cancel()
    await asyncio.wait({reading}, timeout=STOPPED_WITHIN_SECONDS)
    if not reading.done():
        log.error("reader_does_not_stop", reader=repr(reading))
    elif isinstance(pages, AsyncGenerator):
        try:
            await pages.aclose()
        except BaseException as error:  # its own clearing up failed: nothing of it is awaited any more
            as_ours(error)


async def committed(work: Callable[[], T]) -> T:
    """The result of work in a thread; who is cancelled meanwhile waits for it, so that all know what was committed."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        if not working.done():
            await asyncio.wait({working})
            if not working.cancelled():
                working.exception()
        raise
