"""Binance's request weight: counted per calendar minute, told in a header, refused with 429 and then 418."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.responses import JSONResponse, Response

MINUTE_SECONDS = 60
# How many refusals may be ignored before the address is banned, and for how long.
PATIENCE = 20
BAN_SECONDS = 120


class Weights:
    """Weight used in this window of the wall clock; nothing is counted or refused when ``enforced`` is false."""

    def __init__(
        self,
        limit: int,
        *,
        enforced: bool = True,
        wall: Callable[[], float] = time.time,
        window_seconds: int = MINUTE_SECONDS,
    ) -> None:
        self._window = window_seconds
        self._limit = limit
        self._enforced = enforced
        self._wall = wall
        self._begun = 0
        self._used = 0
        self._refused = 0
        self._banned_until = 0.0

    def headers(self) -> dict[str, str]:
        """The header every response carries."""
        return {"X-MBX-USED-WEIGHT-1M": str(self._used)}

    def spend(self, weight: int) -> Response | None:
        """Count a request; the refusal to send when it goes over the limit, else None."""
        if not self._enforced:
            # Told of a use near the limit a client would wait, as if it were enforced.
            return None
        now = self._wall()
        if now < self._banned_until:
            return self._ban(now)
        if int(now) // self._window != self._begun:
            self._begun, self._used, self._refused = int(now) // self._window, 0, 0
        self._used += weight
        if self._used <= self._limit:
            return None
        self._refused += 1
        if self._refused > PATIENCE:
            self._banned_until = now + BAN_SECONDS
            return self._ban(now)
        wait = self._window - int(now) % self._window
        message = (
            f"Too many requests; current limit of IP(127.0.0.1) is {self._limit} requests per minute. "
            "Please use the websocket for live updates to avoid polling the API."
        )
        return self._refusal(429, message, wait)

    def _ban(self, now: float) -> Response:
        until = int(self._banned_until * 1000)
        message = f"Way too many requests; IP(127.0.0.1) banned until {until}. Please use the websocket for live data."
        return self._refusal(418, message, int(self._banned_until - now) + 1)

    def _refusal(self, status: int, message: str, wait: int) -> Response:
        headers = self.headers() | {"Retry-After": str(wait)}
        return JSONResponse({"code": -1003, "msg": message}, status, headers=headers)
