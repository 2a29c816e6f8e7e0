"""RateLimit: how fast one source may be asked, shared by all tasks of a process.

Ours rather than a library's: it must count exactly (at most N in any window, bursts included), be told by the source
how much is used up, be paused by a Retry-After, and run on an injected clock.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]

# Above this share of a source's own limit we wait for its next window; other programs may share the address.
CAREFUL_SHARE = 0.9


class RateLimit:
    """At most `requests` in any `seconds`, first come first served.

    Args:
        requests: how many; a fraction stretches the window instead (0.5 in 60 s is one in 120 s).
        seconds: length of the window.
        clock: monotonic seconds.
        sleep: how to wait.
    """

    def __init__(
        self, requests: float, seconds: float, *, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._capacity = max(1, int(requests))
        self._seconds = seconds * self._capacity / requests
        self._clock = clock
        self._sleep = sleep
        self._granted: deque[float] = deque()
        self._paused_until = float("-inf")
        self._turn = asyncio.Lock()

    async def acquire(self) -> float:
        """Waits until one more request is allowed; returns the seconds waited."""
        began = self._clock()
        async with self._turn:
            while (wait := self._wait(self._clock())) > 0:
                await self._sleep(wait)
            self._granted.append(self._clock())
        return self._clock() - began

    def pause(self, seconds: float) -> None:
        """Lets nobody through for the next `seconds`."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)

    def observe(self, used: float, allowed: float, window_seconds: float = 60.0) -> None:
        """Takes the source's word on what is used of its limit; pauses when that is nearly all."""
        if used >= CAREFUL_SHARE * allowed:
            self.pause(window_seconds / 4)

    def _wait(self, now: float) -> float:
        while self._granted and self._granted[0] <= now - self._seconds:
            self._granted.popleft()
        full = self._granted[0] + self._seconds - now if len(self._granted) >= self._capacity else 0.0
        return max(full, self._paused_until - now)
