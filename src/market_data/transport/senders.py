"""Senders: one GET each, streamed under a size and a time limit; failures become our errors."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, cast

import httpx

from market_data.model.errors import ConnectionLost, MalformedPayload

USER_AGENT = "market-data-platform/0.1"
GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
INFLATE_STEP_BYTES = 2**20
# libcurl's CURL_WRITEFUNC_ERROR: ends the transfer.
WRITE_REFUSED = 0xFFFFFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A GET; `max_bytes` bounds the unpacked body, `timeout_seconds` everything from connecting to the last byte."""

    url: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    timeout_seconds: float
    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A complete answer; header names in lower case."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    elapsed_ms: float
    fetched_at: datetime

    @property
    def server_time(self) -> datetime | None:
        """The source's clock, to the second, from its Date header; None when it sent none."""
        try:
            return parsedate_to_datetime(self.headers["date"]).astimezone(UTC)
        except (KeyError, ValueError):
            return None

    @property
    def retry_after(self) -> float | None:
        """Seconds the source asks to wait; None when it does not say."""
        text = self.headers.get("retry-after", "").strip()
        if text.isdigit():
            return float(text)
        try:
            return max(0.0, (parsedate_to_datetime(text) - self.fetched_at).total_seconds())
        except (ValueError, TypeError):
            return None

    def excerpt(self, length: int = 200) -> str:
        """The start of the body as printable text on one line, for messages."""
        text = " ".join(self.body[: 4 * length].decode("utf-8", "replace").split())
        return text[:length] or "(empty body)"


class Sender(Protocol):
    """Sends one request."""

    async def send(self, request: Request) -> Response:
        """The answer, complete, whatever its status.

        Raises:
            ConnectionLost: no answer, or it stopped.
            MalformedPayload: it is longer than allowed or wrongly packed.
        """
        ...

    async def aclose(self) -> None:
        """Closes its connections."""
        ...


class HttpxSender:
    """The usual sender; opens its connections when first used, and again after `aclose`. `transport` is for tests."""

    def __init__(self, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._transport = transport
        self._client: httpx.AsyncClient | None = None

    async def send(self, request: Request) -> Response:
        """See `Sender`."""
        began = time.perf_counter()
        try:
            async with (
                asyncio.timeout(request.timeout_seconds),
                self._opened().stream(
                    "GET", request.url, params=request.params or None, headers=request.headers
                ) as answer,
            ):
                encoding = answer.headers.get("content-encoding", "identity")
                # The stream as it comes: httpx would unpack each chunk whole.
                stream = cast(httpx.AsyncByteStream, answer.stream)
                body = await _read(aiter(stream), encoding, request)
                return _response(request, answer.status_code, answer.headers, body, began)
        except TimeoutError:
            raise ConnectionLost(f"{_host(request)}: no complete answer in {request.timeout_seconds:g} s") from None
        except httpx.HTTPError as error:
            raise ConnectionLost(f"{_host(request)}: {type(error).__name__}: {error}") from error

    async def aclose(self) -> None:
        """Closes its connections; a later request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                transport=self._transport,
                follow_redirects=False,
                limits=httpx.Limits(max_connections=32, max_keepalive_connections=16),
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip"},
                # The total limit is ours; httpx would count each read anew.
                timeout=None,  # noqa: S113
            )
        return self._client


class BrowserSender:
    """Sends with a browser's TLS fingerprint, for sources that refuse others."""

    def __init__(self) -> None:
        self._session: Any = None

    async def send(self, request: Request) -> Response:
        """See `Sender`."""
        # Imported here: only one source needs it, and loading libcurl takes time.
        from curl_cffi.requests import AsyncSession
        from curl_cffi.requests.exceptions import RequestException, Timeout

        if self._session is None:
            # No User-Agent of our own: it must match the fingerprint.
            self._session = AsyncSession(impersonate="chrome", allow_redirects=False)
        began = time.perf_counter()
        bounded = _Bounded(request.max_bytes)
        try:
            # Not its streaming: giving up half way would wait for the rest.
            async with asyncio.timeout(request.timeout_seconds):
                answer = await self._session.get(
                    request.url,
                    params=dict(request.params) or None,
                    headers=dict(request.headers),
                    timeout=request.timeout_seconds,
                    content_callback=bounded.take,
                )
        except (TimeoutError, Timeout):
            raise ConnectionLost(f"{_host(request)}: no complete answer in {request.timeout_seconds:g} s") from None
        except RequestException as error:
            if bounded.overflown:
                raise MalformedPayload(
                    f"{_host(request)} sent more than the {request.max_bytes} bytes allowed"
                ) from None
            raise ConnectionLost(f"{_host(request)}: {type(error).__name__}: {error}") from error
        return _response(request, answer.status_code, answer.headers, bounded.body, began)

    async def aclose(self) -> None:
        """Closes its connections; a later request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class _Bounded:
    """Collects the pieces libcurl hands over, unpacked, until they are too many."""

    def __init__(self, max_bytes: int) -> None:
        self._room = max_bytes
        self._parts: list[bytes] = []
        self.overflown = False

    def take(self, part: bytes) -> int:
        self._room -= len(part)
        if self._room < 0:
            self.overflown = True
            return WRITE_REFUSED
        self._parts.append(part)
        return len(part)

    @property
    def body(self) -> bytes:
        return b"".join(self._parts)


async def _read(chunks: AsyncIterator[bytes], encoding: str, request: Request) -> bytes:
    if encoding not in ("identity", "gzip", "deflate", ""):
        raise MalformedPayload(f"{_host(request)} packed its answer as {encoding!r}, which we did not ask for")
    inflater = zlib.decompressobj(GZIP_OR_ZLIB) if encoding in ("gzip", "deflate") else None
    parts: list[bytes] = []
    size = 0
    async for chunk in chunks:
        for part in (chunk,) if inflater is None else _inflate(inflater, chunk, request):
            size += len(part)
            if size > request.max_bytes:
                raise MalformedPayload(f"{_host(request)} sent more than the {request.max_bytes} bytes allowed")
            parts.append(part)
    if inflater is not None and size and not inflater.eof:
        raise ConnectionLost(f"{_host(request)}: the packed answer stopped after {size} bytes")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _inflate(inflater: Any, chunk: bytes, request: Request) -> Any:
    # In bounded steps, so that a small packed chunk cannot fill the memory before the size is looked at.
    try:
        while chunk:
            yield inflater.decompress(chunk, INFLATE_STEP_BYTES)
            chunk = inflater.unconsumed_tail
    except zlib.error as error:
        raise MalformedPayload(f"{_host(request)}: the answer cannot be unpacked: {error}") from None


def _response(request: Request, status: int, headers: Any, body: bytes, began: float) -> Response:
    return Response(
        url=request.url,
        status=status,
        headers={str(name).lower(): str(value) for name, value in headers.items()},
        body=body,
        elapsed_ms=(time.perf_counter() - began) * 1000,
        fetched_at=datetime.now(UTC),
    )


def _host(request: Request) -> str:
    # Never the query: it may hold a key.
    return httpx.URL(request.url).host
