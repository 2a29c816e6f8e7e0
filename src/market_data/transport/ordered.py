"""fetch_ordered: several requests under way at once, their answers handed on in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


async def fetch_ordered(
    items: Iterable[Item], fetch: Callable[[Item], Awaitable[Answer]], *, concurrency: int
) -> AsyncIterator[Answer]:
    """Answers of `fetch` in the order of `items`, at most `concurrency` asked for ahead of the reader.

    The first error ends it, once its turn comes: what came before it has been handed on. Whoever stops reading early
    closes the generator, which cancels what is under way.
    """
    under_way: deque[asyncio.Future[Answer]] = deque()
    queue = iter(items)
    try:
        for item in queue:
            under_way.append(asyncio.ensure_future(fetch(item)))
            if len(under_way) >= concurrency:
                yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        for future in under_way:
            future.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
