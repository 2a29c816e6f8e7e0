"""Keeps one socket supplied: what happened since the last look is sent, again and again, until either side leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from market_data.sandbox.marketplace import Marketplace
from market_data.sandbox.noise import seed_of, uniform

LOOK_SECONDS = 0.1
# A clock that runs fast would otherwise ask for hours at once; what lies further back is not sent, as on a slow line.
MOST_BEHIND_MS = 3_600_000
GOING_AWAY = 1001


async def pump(
    socket: WebSocket,
    market: Marketplace,
    send: Callable[[int, int], Awaitable[None]],
    hear: Callable[[str], Awaitable[None]],
    disconnect: float = 0.0,
) -> None:
    """Serve an accepted socket.

    Args:
        socket: accepted.
        market: whose clock counts.
        send: called with (start, end], ms, again and again.
        hear: called with each text that comes in.
        disconnect: chance per look that the server hangs up.
    """
    teller = asyncio.create_task(_tell(socket, market, send, disconnect))
    listener = asyncio.create_task(_listen(socket, hear))
    done, pending = await asyncio.wait({teller, listener}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for task in done:
        with contextlib.suppress(WebSocketDisconnect):
            task.result()


async def _tell(
    socket: WebSocket, market: Marketplace, send: Callable[[int, int], Awaitable[None]], disconnect: float
) -> None:
    last, looks = market.now(), 0
    seed = seed_of(market.seed, "disconnect", id(socket))
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        looks += 1
        if disconnect and float(uniform(seed, np.array([looks], np.int64), 1)[0]) < disconnect:
            await socket.close(GOING_AWAY)
            return
        now = market.now()
        if now > last:
            await send(max(last, now - MOST_BEHIND_MS), now)
            last = now


async def _listen(socket: WebSocket, hear: Callable[[str], Awaitable[None]]) -> None:
    while True:
        await hear(await socket.receive_text())
