"""An id for every request: in all that is logged on its behalf, in the jobs it queues, and in the answer."""

from __future__ import annotations

import re
import time
from typing import Final
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER: Final = "X-Request-ID"
# What somebody in front of us may call a request: nothing that could break a line of a log.
ACCEPTED: Final = re.compile(r"[\w.-]{1,64}", re.ASCII)

log = structlog.get_logger()


class Identified:
    """Takes over the id that a request brings, or makes one; logs the request when it is over, without its address."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  # ASGI
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request = given if ACCEPTED.fullmatch(given) else uuid4().hex
        begun, status = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request
            await send(message)

        with structlog.contextvars.bound_contextvars(request=request):
            try:
                await self._app(scope, receive, sending)
            finally:
                # The route, not the path: addresses may carry secrets.
                route = getattr(scope.get("route"), "path", "none")
                ms = round((time.perf_counter() - begun) * 1000, 1)
                log.info("request", method=scope.get("method", scope["type"]), route=route, status=status, ms=ms)
