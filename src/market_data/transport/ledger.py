"""Ledger: what all who ask a source know in common: requests granted, bans, breakers."""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `requests` in any `seconds`; a fraction stretches the window instead (0.5 in 60 s is one in 120 s)."""

    requests: float
    seconds: float

    @property
    def most(self) -> int:
        """Whole requests in a window, at least one."""
        return max(1, int(self.requests))

    @property
    def window(self) -> float:
        """Seconds of the window in which `most` are allowed."""
        return self.seconds * self.most / self.requests

    def below(self, share: float) -> Rate:
        """That share of it."""
        return Rate(self.requests * share, self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a channel stands; spans are seconds from the moment it was read.

    Attributes:
        banned_for: how long its source wants to be left alone.
        ban: what the source said.
        failures: requests in a row that failed.
        opened: whether they opened the breaker.
        rests_for: how long nobody asks then; 0 when it is time to find out.
        fault: the last failure.
    """

    banned_for: float = 0.0
    ban: str = ""
    failures: int = 0
    opened: bool = False
    rests_for: float = 0.0
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Requests that may be sent.

    Attributes:
        requests: how many; 0 when there is no room.
        lease_for: seconds within which they must be sent, counted from before they were asked for.
        wait_for: seconds until there is room, when there is none.
        standing: of the channel they are meant for.
    """

    requests: int
    lease_for: float = math.inf
    wait_for: float = 0.0
    standing: Standing


@dataclass(frozen=True, slots=True)
class Key:
    """The names a channel has in the ledger: its own, its budget's, and its host's, which bans are told of."""

    channel: str
    budget: str
    host: str


class Ledger(Protocol):
    """Kept for one process, or for all of an installation; it never raises, what fails it says in the log."""

    async def take(self, key: Key, rate: Rate, wanted: int) -> Grant:
        """Up to `wanted` requests within the budget's rate, and how the channel stands."""
        ...

    async def ban(self, host: str, seconds: float, why: str) -> None:
        """Leave all channels of the host alone for so long."""
        ...

    async def failed(self, key: Key, why: str, *, threshold: int, rest: float, probing: bool) -> Standing:
        """Count a failure; the breaker opens for `rest` seconds at the `threshold`, or when it was a probe."""
        ...

    async def succeeded(self, key: Key) -> None:
        """The breaker closes."""
        ...

    async def probe(self, key: Key, seconds: float) -> Standing | None:
        """None: the caller alone may find out, within so many seconds, whether the source is well again."""
        ...

    async def release(self, key: Key) -> None:
        """The probe ended without a verdict."""
        ...

    async def aclose(self) -> None:
        """Leave it; a later call opens it again."""
        ...


@dataclass(slots=True)
class _Breaker:
    failures: int = 0
    fault: str = ""
    rests_until: float | None = None
    probed_until: float = -math.inf


class LocalLedger:
    """The ledger of one process alone, gone with it. `share` of every rate is granted."""

    def __init__(self, clock: Clock = time.monotonic, share: float = 1.0) -> None:
        self._clock = clock
        self._share = share
        self._granted: defaultdict[str, deque[float]] = defaultdict(deque)
        self._bans: dict[str, tuple[float, str]] = {}
        self._breakers: defaultdict[str, _Breaker] = defaultdict(_Breaker)

    async def take(self, key: Key, rate: Rate, wanted: int) -> Grant:  # one at a time costs nothing
        """See `Ledger`."""
        allowed, now, granted = rate.below(self._share), self._clock(), self._granted[key.budget]
        while granted and granted[0] <= now - allowed.window:
            granted.popleft()
        if len(granted) < allowed.most:
            granted.append(now)
            return Grant(requests=1, standing=self.standing(key))
        return Grant(requests=0, wait_for=granted[0] + allowed.window - now, standing=self.standing(key))

    async def ban(self, host: str, seconds: float, why: str) -> None:
        """See `Ledger`."""
        until = self._clock() + seconds
        if until > self._bans.get(host, (-math.inf, ""))[0]:
            self._bans[host] = (until, why)

    async def failed(self, key: Key, why: str, *, threshold: int, rest: float, probing: bool) -> Standing:
        """See `Ledger`."""
        breaker = self._breakers[key.channel]
        breaker.failures, breaker.fault = breaker.failures + 1, why
        if probing or breaker.failures >= threshold:
            breaker.rests_until, breaker.probed_until = self._clock() + rest, -math.inf
        return self.standing(key)

    async def succeeded(self, key: Key) -> None:
        """See `Ledger`."""
        self._breakers.pop(key.channel, None)

    async def probe(self, key: Key, seconds: float) -> Standing | None:
        """See `Ledger`."""
        breaker, now = self._breakers[key.channel], self._clock()
        if breaker.rests_until is None or now < max(breaker.rests_until, breaker.probed_until):
            return self.standing(key)
        breaker.probed_until = now + seconds
        return None

    async def release(self, key: Key) -> None:
        """See `Ledger`."""
        self._breakers[key.channel].probed_until = -math.inf

    async def aclose(self) -> None:
        """See `Ledger`."""

    def standing(self, key: Key) -> Standing:
        """How a channel stands now."""
        now, breaker = self._clock(), self._breakers[key.channel]
        until, why = self._bans.get(key.host, (-math.inf, ""))
        found = Standing(failures=breaker.failures, fault=breaker.fault)
        if until > now:
            found = replace(found, banned_for=until - now, ban=why)
        if breaker.rests_until is not None:
            found = replace(found, opened=True, rests_for=max(0.0, breaker.rests_until - now))
        return found
