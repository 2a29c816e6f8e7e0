"""Faults on demand: which requests fail, and how; the same ones for the same seed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from market_data.model.errors import UsageError
from market_data.sandbox.noise import seed_of, uniform

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

FAULTS = {
    "429": "told to wait a second",
    "418": "banned for two minutes",
    "451": "refused for the location",
    "5xx": "an error page of the source",
    "drop": "the connection closes without an answer",
    "stall": "the answer comes late",
    "truncate": "the connection closes in the middle of the body",
    "garbage": "status 200 with a body that is not what was promised",
    "disconnect": "a socket is closed, by this chance every tenth of a second",
}
STALL_SECONDS = 30.0
OUTAGE = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
GEO_BLOCKED = {
    "code": 0,
    "msg": "Service unavailable from a restricted location according to 'b. Eligibility' in "
    "https://www.binance.com/en/terms. Please contact customer service if you believe you received this message in "
    "error.",
}
BANNED = {"code": -1003, "msg": "Way too many requests; IP(127.0.0.1) banned."}
TOO_MANY = {"code": -1003, "msg": "Too many requests; current limit of IP(127.0.0.1) is 2400 requests per minute."}
MASSIVE_TOO_MANY = {
    "status": "ERROR",
    "request_id": "0",
    "error": "You've exceeded the maximum requests per minute, please wait or upgrade your subscription to continue.",
}


def parse_faults(text: str) -> dict[str, float]:
    """Shares by fault out of ``429:0.1,drop:0.01``; empty text is no fault.

    Raises:
        UsageError: naming the valid faults, or the share that is not one.
    """
    shares: dict[str, float] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, share = entry.partition(":")
        if name not in FAULTS:
            raise UsageError(f"Unknown fault {name!r}. Valid: {', '.join(FAULTS)}; for example 429:0.1,drop:0.01")
        try:
            shares[name] = float(share)
        except ValueError:
            raise UsageError(f"Fault {name!r} needs a share from 0 to 1, like {name}:0.1; got {share!r}") from None
        if not 0 <= shares[name] <= 1:
            raise UsageError(f"The share of fault {name!r} must lie from 0 to 1; got {share}")
    if sum(shares.values()) > 1:
        raise UsageError(f"The shares of all faults together exceed 1: {text}")
    return shares


@dataclass(slots=True)
class FaultyDoor:
    """An ASGI application in front of another, which answers a share of the requests with a fault."""

    inner: Application
    shares: dict[str, float]
    seed: int
    stall_seconds: float = STALL_SECONDS
    _count: int = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass the request on, or not."""
        fault = self._draw() if scope["type"] == "http" else None
        if fault is None:
            await self.inner(scope, receive, send)
        elif fault == "stall":
            await asyncio.sleep(self.stall_seconds)
            await self.inner(scope, receive, send)
        elif fault == "drop":
            _hang_up(receive)
        elif fault in ("truncate", "garbage"):
            await self.inner(scope, receive, _spoiler(fault, receive, send))
        else:
            await _answer(fault, scope["path"], send)

    def _draw(self) -> str | None:
        self._count += 1
        drawn = float(uniform(seed_of(self.seed, "faults"), np.array([self._count], np.int64), 31)[0])
        for name, share in self.shares.items():
            if name == "disconnect":
                continue
            drawn -= share
            if drawn < 0:
                return name
        return None


def _hang_up(receive: Receive) -> None:
    """Close the connection under the request, as a cable would.

    Raises:
        ConnectionResetError: when the application runs inside its caller and there is no connection.
    """
    # uvicorn hands out a method of the request's cycle, which knows the transport; ASGI has no word for hanging up.
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        raise ConnectionResetError("dropped by the sandbox")
    transport.abort()


def _spoiler(fault: str, receive: Receive, send: Send) -> Send:
    """A ``send`` that cuts the body in half, or writes nonsense into its middle."""

    async def spoiled(message: Message) -> None:
        body = message.get("body", b"")
        if message["type"] != "http.response.body" or not body:
            await send(message)
            return
        half = len(body) // 2
        if fault == "garbage":
            junk = b"\x00<html>\xff"[: len(body) - half]
            await send({**message, "body": body[:half] + junk + body[half + len(junk) :]})
            return
        await send({**message, "body": body[:half], "more_body": True})
        await asyncio.sleep(0)
        _hang_up(receive)

    return spoiled


async def _answer(fault: str, path: str, send: Send) -> None:
    status, body, headers = _refusal(fault, path)
    head = [(b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


def _refusal(fault: str, path: str) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Status, body and headers as the source of that path would send them."""
    json_type = (b"content-type", b"application/json")
    page = (b"content-type", b"text/html")
    binance = path.startswith(("/fapi", "/api", "/futures"))
    if fault == "5xx":
        return 502, OUTAGE, [page]
    if fault == "451":
        return 451, json.dumps(GEO_BLOCKED).encode(), [json_type]
    if not binance:
        yahoo = "/finance/" in path
        body = b"Edge: Too Many Requests" if yahoo else json.dumps(MASSIVE_TOO_MANY).encode()
        return 429, body, [page if yahoo else json_type]
    if fault == "418":
        return 418, json.dumps(BANNED).encode(), [json_type, (b"retry-after", b"120")]
    return 429, json.dumps(TOO_MANY).encode(), [json_type, (b"retry-after", b"1")]
