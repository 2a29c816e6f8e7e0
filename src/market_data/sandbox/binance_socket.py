"""Binance's sockets: raw and combined streams, subscriptions, and the futures' split by path (PROVIDERS §1.6)."""

from __future__ import annotations

import json
import time
from collections import deque
from typing import Any

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from market_data.sandbox.binance import Venue
from market_data.sandbox.binance_streams import Stream, StreamTeller
from market_data.sandbox.feed import Feed
from market_data.sandbox.pump import pump

MOST_STREAMS = 1024
MESSAGES_A_SECOND = {True: 10, False: 5}
POLICY_VIOLATION = 1008


class BinanceSockets:
    """The socket routes of one house, under ``/um`` or ``/spot``."""

    def __init__(self, feed: Feed, venue: Venue, disconnect: float = 0.0) -> None:
        self._feed = feed
        self._venue = venue
        self._disconnect = disconnect
        self._teller = StreamTeller(feed, venue)

    def routes(self) -> list[WebSocketRoute]:
        """Every path answered."""
        return [WebSocketRoute(f"/{self._venue.name}/{{path:path}}", self.serve)]

    async def serve(self, socket: WebSocket) -> None:
        """One connection, from its path's streams to its end."""
        parts = [part for part in socket.path_params["path"].split("/") if part]
        side = parts.pop(0) if parts and parts[0] in ("public", "market") else None
        mode = parts.pop(0) if parts else ""
        await socket.accept()
        if mode not in ("ws", "stream"):
            await socket.close(POLICY_VIOLATION)
            return
        named = parts if mode == "ws" else socket.query_params.get("streams", "").split("/")
        connection = _Connection(self._teller, self._venue, socket, side, combined=mode == "stream")
        # A number as the path's tail names a connection of some clients, not a stream.
        connection.subscribe([name for name in named if name and not name.isdigit()])
        await pump(socket, self._feed.market, connection.send, connection.hear, self._disconnect)


class _Connection:
    """What one client listens to."""

    def __init__(
        self, teller: StreamTeller, venue: Venue, socket: WebSocket, side: str | None, *, combined: bool
    ) -> None:
        self._teller = teller
        self._venue = venue
        self._socket = socket
        self._side = side
        self._combined = combined
        self._streams: dict[str, Stream | None] = {}
        self._heard: deque[float] = deque(maxlen=MESSAGES_A_SECOND[venue.futures] + 1)

    def subscribe(self, names: list[str]) -> None:
        """Listen to streams; a name that does not exist is accepted and stays silent, as at the real one."""
        for name in names:
            self._streams[name] = self._teller.parse(name)

    async def send(self, start: int, end: int) -> None:
        """Tell what the streams have for (start, end]."""
        for name, stream in list(self._streams.items()):
            if stream is None or not self._delivers(stream):
                continue
            for event in self._teller.events(stream, start, end):
                whole = {"stream": name, "data": event} if self._combined else event
                await self._socket.send_text(json.dumps(whole, separators=(",", ":")))

    async def hear(self, text: str) -> None:
        """Obey a request of the client."""
        self._heard.append(time.monotonic())
        if len(self._heard) == self._heard.maxlen and self._heard[-1] - self._heard[0] < 1:
            await self._socket.close(POLICY_VIOLATION, "Too many requests")
            return
        await self._socket.send_text(json.dumps(self._answer(text)))

    def _delivers(self, stream: Stream) -> bool:
        """On the futures' un-routed path market streams are acknowledged and never come."""
        if not self._venue.futures:
            return True
        return stream.public == (self._side != "market")

    def _answer(self, text: str) -> dict[str, Any]:
        try:
            asked = json.loads(text)
            method, number = asked["method"], asked.get("id")
            names = asked.get("params", [])
        except (ValueError, TypeError, KeyError):
            return {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"}
        if method == "SUBSCRIBE":
            if len(self._streams) + len(names) > MOST_STREAMS:
                return {"code": 2, "msg": "Invalid request: too many streams", "id": number}
            self.subscribe(names)
        elif method == "UNSUBSCRIBE":
            for name in names:
                self._streams.pop(name, None)
        elif method == "LIST_SUBSCRIPTIONS":
            return {"result": list(self._streams), "id": number}
        elif method == "SET_PROPERTY" and len(names) == 2 and names[0] == "combined":
            self._combined = bool(names[1])
        elif method == "GET_PROPERTY":
            return {"result": self._combined, "id": number}
        else:
            return {"code": 2, "msg": f"Invalid request: unknown variant `{method}`", "id": number}
        return {"result": None, "id": number}
