"""Who may do what: API keys with scopes, limits per key, hosts, body sizes and security headers, before any route."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final
from uuid import UUID

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from market_data.api.problems import Problem, problem_of
from market_data.api.served import Served
from market_data.model.errors import MarketDataError, TransientError
from market_data.storage.work.keys import Key, Scope, any_key, find_key, hashed, key_numbers, number_of

OPEN_PATHS: Final = frozenset({"/healthz"})
READY: Final = "/readyz"
TRIGGER_PATHS: Final = ("/api/v1/enrichment/trigger", "/api/v1/enrichment/jobs/")
READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
# How long it may take until the first key made elsewhere closes the door.
KEYS_SEEN_SECONDS: Final = 1.0
# Wrong tokens remembered, so that trying them again costs no query; a token that is made later is another one.
WRONG_TOKENS: Final = 10_000
# How long a key that nobody knows waits for its answer; so many times a second at most the database is asked for it.
UNKNOWN_WAIT_SECONDS: Final = 0.05
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def scope_needed(method: str, path: str) -> Scope:
    """What a request needs: reading is free to every key, state is changed by trigger and admin only."""
    if method in READING:
        return Scope.READ
    return Scope.TRIGGER if path.startswith(TRIGGER_PATHS) else Scope.ADMIN


class Allowance:
    """Requests one key may still make: refilled steadily, a minute's worth at most."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._left: dict[UUID, tuple[float, float]] = {}

    def take(self, key: UUID) -> float:
        """Take one request; returns 0, or the seconds until there is one again."""
        now = self._clock()
        left, at = self._left.get(key, (self._per_minute, now))
        left = min(self._per_minute, left + (now - at) * self._per_minute / 60)
        if left < 1:
            self._left[key] = (left, now)
            return (1 - left) * 60 / self._per_minute
        self._left[key] = (left - 1, now)
        return 0.0


class KnownKeys:
    """Which keys were ever made: whoever tries others waits for the next of few reads, however many they are.

    A key made a moment ago is known at its first use: an unknown one always waits for a read begun after it came.
    """

    def __init__(self, read: Callable[[], frozenset[UUID]]) -> None:
        self._read = read
        self._known: frozenset[UUID] = frozenset()
        self._next: asyncio.Task[None] | None = None

    async def knows(self, number: UUID) -> bool:
        """Whether a key has that public part."""
        if number not in self._known:
            if self._next is None:
                self._next = asyncio.create_task(self._soon())
            await asyncio.shield(self._next)
        return number in self._known

    async def _soon(self) -> None:
        await asyncio.sleep(UNKNOWN_WAIT_SECONDS)
        # Whoever comes from now on might be too late for this read.
        self._next = None
        self._known = await run_in_threadpool(self._read)


class Gate:
    """Lets requests pass that may; everything else is answered here."""

    def __init__(self, app: ASGIApp, served: Callable[[], Served], *, listens_beyond: bool = False) -> None:
        self._app = app
        self._served = served
        self._beyond = listens_beyond
        self._allowance: Allowance | None = None
        self._wrong: OrderedDict[str, None] = OrderedDict()
        self._keys: KnownKeys | None = None
        self._keys_exist: tuple[float, bool] = (float("-inf"), False)

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:  # noqa: D102  # ASGI
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            await self._check(scope, headers)
        except Problem as problem:
            await _refuse(problem, scope, receive, send)
            return
        except MarketDataError as error:
            await _refuse(problem_of(error), scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        most = self._served().app.settings.api.max_body_bytes
        receive, send = _limited(receive, most), _with_headers(send)
        if scope["method"] == "HEAD":
            scope, receive, send = _without_body(scope, receive, send)
        await self._app(scope, receive, send)

    async def _check(self, scope: Connection, headers: Headers) -> None:
        served, path = self._served(), scope["path"]
        length = headers.get("content-length", "0")
        most = served.app.settings.api.max_body_bytes
        if not length.isdigit() or int(length) > most:
            raise Problem(413, "body-too-long", f"The body is longer than {most} bytes.", action="Send no body.")
        if path in OPEN_PATHS:
            return
        scope.setdefault("state", {})["known"] = True
        method = scope.get("method", "GET")
        asks_ready = path == READY and _token(headers) is None
        if not await self._keys_needed(served, as_known=asks_ready):
            _check_neighbour(scope, headers, served.app.settings.api.hosts, beyond=self._beyond)
            return
        if asks_ready:
            # Whoever routes requests may ask whether it is worth it, and learns nothing else.
            scope["state"]["known"] = False
            return
        key = await self._key(served, headers)
        needed = scope_needed(method, path)
        if not key.allows(needed):
            raise Problem(
                403, "scope-missing", f"This key may not do that: it needs the scope {needed}.",
                action=f"Use a key with it: market-data keys create NAME --scope {needed}",
            )  # fmt: skip
        self._allowance = self._allowance or Allowance(served.app.settings.api.requests_per_minute)
        if wait := self._allowance.take(key.id):
            raise Problem(
                429, "too-many-requests", "This key has made too many requests.",
                action="Wait as long as Retry-After says.", headers={"Retry-After": str(int(wait) + 1)},
            )  # fmt: skip

    async def _keys_needed(self, served: Served, *, as_known: bool) -> bool:
        """Whether this database has keys; `as_known`: without asking it again, however busy it is."""
        wanted = served.app.settings.api.keys
        if wanted != "auto":
            return wanted == "required"
        if self._beyond and not served.app.settings.api.allow_remote_without_keys:
            return True
        seen, exist = self._keys_exist
        if time.monotonic() - seen > KEYS_SEEN_SECONDS and not (as_known and seen != float("-inf")):
            try:
                exist = await run_in_threadpool(any_key, served.database)
            except TransientError:
                if seen == float("-inf"):
                    raise
                # While the database is away no key is made either: what was known holds, and /readyz can tell.
                return exist
            self._keys_exist = (time.monotonic(), exist)
        return exist

    def _known_keys(self, served: Served) -> KnownKeys:
        self._keys = self._keys or KnownKeys(lambda: key_numbers(served.database))
        return self._keys

    async def _key(self, served: Served, headers: Headers) -> Key:
        token = _token(headers)
        if token is None:
            raise _unauthorised("This needs an API key.")
        digest = hashed(token)
        number = number_of(token)
        if digest in self._wrong or number is None or not await self._known_keys(served).knows(number):
            raise _unauthorised("This API key is not valid.")
        key = await run_in_threadpool(find_key, served.database, token, served.now())
        if key is None:
            self._wrong[digest] = None
            if len(self._wrong) > WRONG_TOKENS:
                self._wrong.popitem(last=False)
            raise _unauthorised("This API key is not valid.")
        if not key.usable(served.now()):
            raise _unauthorised("This API key has expired or was revoked.")
        return key


def _token(headers: Headers) -> str | None:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    return headers.get("x-api-key") or None


def _unauthorised(detail: str) -> Problem:
    return Problem(
        401, "key-needed", detail, headers={"WWW-Authenticate": "Bearer"},
        action="Send Authorization: Bearer KEY; keys are made with `market-data keys create NAME`.",
    )  # fmt: skip


def _check_neighbour(scope: Connection, headers: Headers, hosts: tuple[str, ...], *, beyond: bool) -> None:
    """Where no key is needed, a web page of somebody else must not use the reader's browser to get in.

    It could by a name of its own that leads to this machine (so the Host must be known), or by sending a form across
    sites (so the browser must not say that it does).
    """
    name = headers.get("host", "").rsplit(":", 1)[0].strip("[]").lower()
    if not beyond and name not in LOOPBACK_NAMES and name not in hosts:
        raise Problem(
            403, "unknown-host", "The API is not known by this host name.",
            action="Use 127.0.0.1 or localhost, or add the name to the setting api.hosts.",
        )  # fmt: skip
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    foreign = site not in (None, "same-origin", "none") or (
        origin is not None and origin.partition("://")[2] != headers.get("host")
    )
    # A browser opens a WebSocket to any site without asking there first, and hands on what comes.
    reads = scope["type"] == "http" and scope["method"] in READING
    if foreign and not reads:
        raise Problem(403, "cross-site", "A page of another site may not do that.", action="Use an API key.")


def _limited(receive: Receive, most: int) -> Receive:
    """Receive no more than `most` bytes of body."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > most:
                raise Problem(413, "body-too-long", f"The body is longer than {most} bytes.", action="Send no body.")
        return message

    return limited


def _without_body(scope: Connection, receive: Receive, send: Send) -> tuple[Connection, Receive, Send]:
    """HEAD as GET whose body nobody gets; a long one is not made to its end."""
    started = asyncio.Event()

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b""})
            started.set()

    async def receiving() -> Message:
        if not started.is_set():
            return await receive()
        return {"type": "http.disconnect"}

    return {**scope, "method": "GET"}, receiving, sending


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending


async def _refuse(problem: Problem, scope: Connection, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4401 if problem.status == 401 else 4403})
        return
    await problem.response()(scope, receive, _with_headers(send))
