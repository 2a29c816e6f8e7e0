"""Gate: whether a channel may be asked at all: bans its source told, and a breaker that rests one that keeps failing.

The breaker is ours rather than a library's: its state is shared between processes and readable without side effects,
permanent errors leave it alone, one probe at a time passes after the rest, and tests own the clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum
from typing import Final

from market_data.model.errors import (
    MalformedPayload,
    MarketDataError,
    PermanentError,
    ProviderUnavailable,
    RateLimited,
    TransientError,
)
from market_data.model.provider import ProviderSettings
from market_data.transport.budget import Time
from market_data.transport.ledger import Key, Ledger, Standing

# Binance bans for three days at most; what is told beyond a week is a slip, and would lock a source out for ever.
LONGEST_BAN_SECONDS: Final = 7 * 86_400.0


class BreakerState(StrEnum):
    """Closed lets requests through, open refuses them, half_open lets one through to find out."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


def breaker_state(standing: Standing) -> BreakerState:
    """What the breaker of a channel that stands so would do."""
    if not standing.opened:
        return BreakerState.CLOSED
    return BreakerState.OPEN if standing.rests_for > 0 else BreakerState.HALF_OPEN


def worst_breaker(standings: Iterable[Standing]) -> BreakerState:
    """Of several channels' breakers the state that is furthest from closed."""
    order = (BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN)
    return max(map(breaker_state, standings), key=order.index, default=BreakerState.CLOSED)


class Refused(Exception):  # no failure: nothing was sent
    """The channel may not be asked; `error` says why. Neither tried again nor held against the source."""

    def __init__(self, error: MarketDataError) -> None:
        super().__init__(str(error))
        self.error = error


class Gate:
    """What this process knows of how a channel stands; learned with every grant, told to all who share the ledger."""

    def __init__(self, key: Key, ledger: Ledger, settings: ProviderSettings, passing: Time) -> None:
        self._key = key
        self._ledger = ledger
        self._settings = settings
        self._time = passing
        self._learned = -math.inf
        self._opened = False
        self._rests_until = -math.inf
        self._fault = ""
        self._banned_until = -math.inf
        self._ban = ""
        self.failures = 0

    @property
    def state(self) -> BreakerState:
        """What the breaker would do now; reading changes nothing."""
        if not self._opened:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._time.clock() >= self._rests_until else BreakerState.OPEN

    @property
    def rests_for(self) -> float:
        """Seconds until the breaker lets somebody find out; 0 unless open."""
        return max(0.0, self._rests_until - self._time.clock()) if self._opened else 0.0

    def learn(self, standing: Standing, at: float) -> None:
        """Take what the ledger said when asked `at`; a ban ends by its time alone."""
        self._ban_from(at, standing.banned_for, standing.ban)
        if at >= self._learned:
            self._learned, self._opened, self._rests_until = at, standing.opened, at + standing.rests_for
            self.failures, self._fault = standing.failures, standing.fault

    async def obey_ban(self) -> bool:
        """Wait for the end of a ban; whether there was one.

        Raises:
            Refused: when it lasts longer than a request may: RateLimited, with the moment it ends.
        """
        left = self._banned_until - self._time.clock()
        if left <= 0:
            return False
        if left > self._settings.deadline_seconds:
            moment = self._time.wall() + timedelta(seconds=left)
            raise Refused(
                RateLimited(
                    f"{self._key.channel} is not asked before {moment:%Y-%m-%d %H:%M:%S} UTC, as it was told: "
                    f"{self._ban}",
                    retry_after=left,
                )
            )
        await self._time.sleep(left)
        return True

    async def enter(self) -> bool:
        """Pass the breaker; whether as the one who finds out, to be followed by `succeeded` or `failed`.

        Raises:
            Refused: while the source rests, or another finds out.
        """
        if self.state is BreakerState.CLOSED:
            return False
        if self.state is BreakerState.HALF_OPEN:
            at = self._time.clock()
            standing = await self._ledger.probe(self._key, self._settings.deadline_seconds)
            if standing is None:
                return True
            self.learn(standing, at)
        if not self._opened:
            return False
        rest = f"is left alone for {left:.0f} s more" if (left := self.rests_for) else "is being tried by another"
        raise Refused(
            ProviderUnavailable(
                f"{self._key.channel} {rest} after {self.failures} failures in a row; the last: {self._fault}"
            )
        )

    async def told_to_wait(self, seconds: float, why: str) -> None:
        """Leave the host alone for so long, in every process."""
        span = min(seconds, LONGEST_BAN_SECONDS)
        self._ban_from(self._time.clock(), span, why)
        await self._ledger.ban(self._key.host, span, why)

    async def succeeded(self, *, probing: bool) -> None:
        """The source answered as it should."""
        if probing or self.failures or self._opened:
            self._learned, self._opened, self.failures = self._time.clock(), False, 0
            await self._ledger.succeeded(self._key)

    async def failed(self, error: MarketDataError, *, probing: bool) -> None:
        """The request failed for good.

        A permanent error is an answer and says nothing against the source; garbage and a ban say nothing for it either.
        """
        told = isinstance(error, RateLimited) and error.retry_after is not None
        if isinstance(error, PermanentError) and not isinstance(error, MalformedPayload):
            await self.succeeded(probing=probing)
        elif told or not isinstance(error, TransientError):
            await self.undecided(probing=probing)
        else:
            at, settings = self._time.clock(), self._settings
            standing = await self._ledger.failed(
                self._key,
                str(error),
                threshold=settings.breaker_failures,
                rest=settings.breaker_seconds,
                probing=probing,
            )
            self.learn(standing, at)

    async def undecided(self, *, probing: bool) -> None:
        """The request ended without a verdict on the source."""
        if probing:
            await self._ledger.release(self._key)

    def _ban_from(self, at: float, seconds: float, why: str) -> None:
        if seconds > 0 and at + seconds > self._banned_until:
            self._banned_until, self._ban = at + seconds, why
