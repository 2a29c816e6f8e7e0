"""The /metrics route: what the database tells and this process's requests, in Prometheus' text format."""

from __future__ import annotations

import time
from typing import Final

from fastapi import APIRouter, Request
from prometheus_client import Counter, Histogram, generate_latest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from market_data.api.problems import described
from market_data.api.served import Served
from market_data.monitoring.collector import process_registry
from market_data.monitoring.declared import METRICS

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

router = APIRouter(tags=["operations"])


@router.get("/metrics", response_class=Response, responses={
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format"},
    **described(),
})  # fmt: skip
def metrics(request: Request) -> Response:
    """Metrics for Prometheus."""
    counted: Metrics = request.app.state.metrics
    return Response(generate_latest(counted.registry), media_type=CONTENT_TYPE)


class Metrics:
    """The registry of one server, and what is counted of its requests."""

    def __init__(self, served: Served) -> None:
        self.registry = process_registry(served.observer, served.active_streams)
        requests, seconds = METRICS["http_requests"], METRICS["http_request_seconds"]
        self.requests = Counter(requests.name, requests.help, requests.labels, registry=self.registry)
        self.seconds = Histogram(seconds.name, seconds.help, seconds.labels, buckets=BUCKETS, registry=self.registry)


class Counted:
    """Counts and times requests by route; what leads nowhere counts as one route."""

    METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS"})

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  # ASGI
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), "500"

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            method = scope["method"] if scope["method"] in self.METHODS else "other"
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(method, route, status).inc()
            self._metrics.seconds.labels(method, route).observe(time.perf_counter() - begun)
