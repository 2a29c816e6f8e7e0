"""One connection of the HTTP interface: how long it is waited for, and how many there may be, of one peer and all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, cast

from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection
from uvicorn.protocols.http.h11_impl import H11Protocol

from market_data.api.problems import Problem

# Time for a request's head: its first line and its headers.
HEAD_SECONDS: Final = 10.0
# Whoever takes nothing of an answer for so long is cut off: what waits for him is held in memory.
STALLED_SECONDS: Final = 30.0
# The same once the server is told to end.
STALLED_AT_END_SECONDS: Final = 1.0
# More connections than these are made room for by closing idle ones.
MOST_AT_ONCE: Final = 512
MOST_OF_ONE_PEER: Final = 256
# Where none is idle, so many more are let in, for probes alone.
SPARE: Final = 32
PROBES: Final = frozenset({"/healthz", "/readyz"})


class Impatient(H11Protocol):
    """HTTP that waits for nobody for ever, and lets no peer keep the others out.

    It closes a connection whose request does not come to the end of its head in time, and one that stopped reading.
    A peer that comes with more connections than it may have loses those that have been idle longest. Where all of them
    are busy, the new one is answered when it is a probe, and told to come again when not.
    """

    _overdue: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _ending = False

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.arrival = self.loop.time()

    @property
    def idle(self) -> bool:
        """Whether no request is being answered on it."""
        # There is no cycle before the first request.
        return bool(getattr(self.cycle, "response_complete", True))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Make room, and begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()
        host = self.client[0] if self.client else None
        # In the order they came, which a set does not keep.
        everybody = sorted(cast("set[Any]", self.connections), key=lambda each: getattr(each, "arrival", 0.0))
        of_peer = [each for each in everybody if each.client and each.client[0] == host]
        if len(of_peer) > MOST_OF_ONE_PEER:
            self._make_room(of_peer, MOST_OF_ONE_PEER)
        elif len(everybody) > MOST_AT_ONCE:
            self._make_room(everybody, MOST_AT_ONCE)

    def data_received(self, data: bytes) -> None:
        """Go on waiting, or end it when the head is complete."""
        super().data_received(data)
        if self.idle:
            self._wait()
        else:
            self._overdue = _ended(self._overdue)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody to wait for any more."""
        self._overdue, self._stalled = _ended(self._overdue), _ended(self._stalled)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The peer takes nothing more for now."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """It goes on."""
        self._stalled = _ended(self._stalled)
        super().resume_writing()

    def shutdown(self) -> None:
        """End after the answer under way, unless nobody takes it."""
        self._ending = True
        super().shutdown()
        if self.flow.write_paused:
            self._stalled = _ended(self._stalled)
            self._wait_for_reader()

    def _wait(self) -> None:
        if self._overdue is None:
            self._overdue = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _wait_for_reader(self) -> None:
        if self._stalled is None:
            seconds = STALLED_AT_END_SECONDS if self._ending else STALLED_SECONDS
            self._stalled = self.loop.call_later(seconds, self.transport.abort)

    def _make_room(self, rivals: Iterable[Any], most: int) -> None:
        others = [each for each in rivals if each is not self and not each.transport.is_closing()]
        if len(others) < most:
            return
        oldest = next((each for each in others if getattr(each, "idle", False)), None)
        if oldest is not None:
            oldest.transport.close()
        elif len(others) < most + SPARE:
            self.app = cast("Any", probes_only(cast("ASGIApp", self.app)))
        else:
            self.transport.close()


def probes_only(app: ASGIApp) -> ASGIApp:
    """The application for a connection too many: whether it is well is told, all else is for later."""

    async def answering(scope: Connection, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in PROBES:
            await app(scope, receive, send)
            return
        problem = Problem(
            503, "busy", "Too many requests are being answered.", action="Wait as long as Retry-After says.",
            headers={"Retry-After": "2", "Connection": "close"},
        )  # fmt: skip
        await problem.response()(scope, receive, send)

    return answering


def _ended(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    if timer is not None:
        timer.cancel()
    return None
