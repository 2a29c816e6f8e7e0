"""Budget: at most so many requests in any window, for all who share the ledger; first come, first served."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from market_data.transport.ledger import Clock, Key, Ledger, Rate, Standing

Sleep = Callable[[float], Awaitable[None]]
Learn = Callable[[Standing, float], None]

# Above this share of a source's own limit we wait for its next window; other programs may share the address.
CAREFUL_SHARE: Final = 0.9
# What work that can wait may use of a budget: the rest is always there for live work.
PATIENT_SHARE: Final = 0.8
# A busy process asks the ledger for a fiftieth of the window's requests at once.
BATCHES: Final = 50
SHORTEST_WAIT: Final = 0.01

_patient: ContextVar[bool] = ContextVar("patient", default=False)


@contextmanager
def patiently(can_wait: bool = True) -> Iterator[None]:
    """What is asked for inside can wait, as a backfill can: it keeps to its own, slower pace, live work finds room."""
    before = _patient.set(can_wait)
    try:
        yield
    finally:
        _patient.reset(before)


def can_wait() -> bool:
    """Whether what is asked for now can wait."""
    return _patient.get()


@dataclass(frozen=True, slots=True, kw_only=True)
class Time:
    """How time passes: `clock` in monotonic seconds, `wall` for messages, `jitter` a factor around 1."""

    clock: Clock = time.monotonic
    sleep: Sleep = asyncio.sleep
    wall: Callable[[], datetime] = lambda: datetime.now(UTC)
    jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.5)


class Budget:
    """Requests of one rate, taken from the ledger in small batches and handed out one by one."""

    def __init__(self, rate: Rate, ledger: Ledger, passing: Time) -> None:
        self._rate = rate
        self._ledger = ledger
        self._time = passing
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._left = 0
        self._batch = 1
        self._lease_until = -math.inf
        self._paused_until = -math.inf

    async def acquire(self, key: Key, learn: Learn) -> None:
        """Wait until one more request may be sent.

        Args:
            key: whose it is.
            learn: told how the channel stands, whenever the ledger was asked.
        """
        self._waiting += 1
        try:
            async with self._turn:
                while not await self._granted(key, learn):
                    pass
        finally:
            self._waiting -= 1

    def pause(self, seconds: float) -> None:
        """Let nobody of this process through for the next `seconds`."""
        self._paused_until = max(self._paused_until, self._time.clock() + seconds)

    def observe(self, used: float, allowed: float, window_seconds: float = 60.0) -> None:
        """Take the source's word on what is used of its limit; pause when that is nearly all."""
        if used >= CAREFUL_SHARE * allowed:
            self.pause(window_seconds / 4)

    async def _granted(self, key: Key, learn: Learn) -> bool:
        now = self._time.clock()
        if now < self._paused_until:
            await self._time.sleep(self._paused_until - now)
            return False
        if self._left and now < self._lease_until:
            self._left -= 1
            return True
        grant = await self._ledger.take(key, self._rate, self._wanted(now))
        learn(grant.standing, now)
        if not grant.requests:
            await self._time.sleep(max(grant.wait_for, SHORTEST_WAIT))
            return False
        self._left, self._lease_until = grant.requests - 1, now + grant.lease_for
        return True

    def _wanted(self, now: float) -> int:
        """More at once for who used up the last lease in time, fewer for who let requests lapse."""
        most = max(1, self._rate.most // BATCHES)
        if self._left:
            self._batch = max(1, self._batch // 2)
        elif now < self._lease_until:
            self._batch = min(2 * self._batch, most)
        return min(max(self._batch, self._waiting), most)
