"""Http: one source's HTTP: the channels its provider declares, and the connections they share."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from market_data.model.provider import ProviderSettings
from market_data.transport.budget import PATIENT_SHARE, Budget, Sleep, Time
from market_data.transport.channel import Budgets, Channel
from market_data.transport.gate import Gate
from market_data.transport.ledger import Clock, Key, Ledger, LocalLedger, Rate
from market_data.transport.senders import BrowserSender, HttpxSender, Request, Response, Sender

# JSON grows to many times its size when it is read: no page of rows comes near this.
JSON_BYTES: Final = 16 * 2**20
MINUTE: Final = 60.0


class Http:
    """Opens the channels of one source.

    Args:
        name: the source, for messages.
        settings: limits, deadlines and retries.
        ledger: what is known in common with other processes; None for one of this process alone.
        patient_per_minute: most requests a minute and channel for work that can wait; None: its share of the rate.
        sender: replaces both senders; the seam for tests.
        clock: monotonic seconds.
        sleep: how to wait.
        jitter: a factor around 1 for each wait between tries.
        wall: the time of day, for messages.
    """

    def __init__(
        self,
        name: str,
        settings: ProviderSettings,
        *,
        ledger: Ledger | None = None,
        patient_per_minute: float | None = None,
        sender: Sender | None = None,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.5),
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.name = name
        self.settings = settings
        self.channels: dict[str, Channel] = {}
        self._ledger = ledger or LocalLedger(clock)
        self._patient_per_minute = patient_per_minute
        self._plain = sender or HttpxSender()
        self._browser = sender or BrowserSender()
        self._time = Time(clock=clock, sleep=sleep, jitter=jitter, wall=wall)
        self._budgets: dict[str, Budget] = {}

    def channel(
        self,
        part: str = "",
        *,
        rate: Rate | None = None,
        budget: str | None = None,
        host: str | None = None,
        most_bytes: int = JSON_BYTES,
    ) -> Channel:
        """The channel of a class of endpoints, to be declared once.

        Args:
            part: its name within the source; empty for the usual one.
            rate: its limit; None for the one in the settings.
            budget: the part it shares its limit with; None for none.
            host: the part whose bans are its own too; None for none.
            most_bytes: longest answer read, unpacked; never more than the settings allow.
        """
        key = Key(
            channel=self._full(part),
            budget=self._full(part if budget is None else budget),
            host=self._full(part if host is None else host),
        )
        allowed = rate or Rate(*self.settings.requests_per_window)
        slow_key = replace(key, budget=f"{key.budget} patient")
        self.channels[key.channel] = Channel(
            key,
            self.settings,
            Gate(key, self._ledger, self.settings, self._time),
            Budgets(
                live=self._budget(key, allowed),
                slow=self._budget(slow_key, self._patient(allowed)),
                slow_key=slow_key,
            ),
            self._send,
            most_bytes=most_bytes,
            passing=self._time,
        )
        return self.channels[key.channel]

    async def aclose(self) -> None:
        """Close all connections; a later request opens new ones."""
        await self._plain.aclose()
        if self._browser is not self._plain:
            await self._browser.aclose()

    def _full(self, part: str) -> str:
        return f"{self.name}:{part}" if part else self.name

    def _budget(self, key: Key, rate: Rate) -> Budget:
        return self._budgets.setdefault(key.budget, Budget(rate, self._ledger, self._time))

    def _patient(self, rate: Rate) -> Rate:
        room = rate.below(PATIENT_SHARE)
        if self._patient_per_minute is None or room.requests / room.seconds <= self._patient_per_minute / MINUTE:
            return room
        return Rate(self._patient_per_minute, MINUTE)

    async def _send(self, request: Request, browser: bool) -> Response:
        return await (self._browser if browser else self._plain).send(request)
