"""Breaker: stops asking a source that keeps failing, and asks again after a rest.

Ours rather than a library's: the state must be readable for health and metrics without side effects, permanent errors
must leave it alone, one probe at a time may pass after the rest, and tests must own the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum

from market_data.model.errors import MalformedPayload, MarketDataError, PermanentError, ProviderUnavailable


class BreakerState(StrEnum):
    """Closed lets requests through, open refuses them, half_open lets one through to find out."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Opens after `failures` calls in a row failed, rests `seconds`, closes after one success."""

    def __init__(
        self, name: str, *, failures: int = 3, seconds: float = 300.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._threshold = failures
        self._rest = seconds
        self._clock = clock
        self._opened: float | None = None
        self._probing = False
        self._last: MarketDataError | None = None
        self.failures = 0

    @property
    def state(self) -> BreakerState:
        """What it would do now; reading changes nothing."""
        if self._opened is None:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._clock() >= self._opened + self._rest else BreakerState.OPEN

    @property
    def rests_for(self) -> float:
        """Seconds until it asks again; 0 unless open."""
        return 0.0 if self._opened is None else max(0.0, self._opened + self._rest - self._clock())

    def check(self) -> None:
        """Passes, or refuses; to be followed by `succeeded`, `failed` or `cancelled`.

        Raises:
            ProviderUnavailable: while the source rests or another task is finding out.
        """
        if self.state is BreakerState.CLOSED:
            return
        if self.state is BreakerState.OPEN or self._probing:
            raise ProviderUnavailable(
                f"{self._name} is left alone for {self.rests_for:.0f} s more after {self.failures} failures in a row; "
                f"the last: {self._last}"
            )
        self._probing = True

    def succeeded(self) -> None:
        """The source answered as it should."""
        self._opened, self._probing, self.failures = None, False, 0

    def cancelled(self) -> None:
        """The call ended without a verdict on the source."""
        self._probing = False

    def failed(self, error: MarketDataError) -> None:
        """The call failed for good. A permanent error is an answer: it says nothing against the source."""
        if isinstance(error, PermanentError):
            if isinstance(error, MalformedPayload):
                self.cancelled()
            else:
                self.succeeded()
            return
        self.failures += 1
        self._last = error
        if self._probing or self.failures >= self._threshold:
            self._opened = self._clock()
        self._probing = False
