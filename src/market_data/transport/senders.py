"""Senders: one GET each, streamed under a size and a time limit; failures become our errors."""

from __future__ import annotations

import asyncio
import io
import json
import time
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol, cast

import httpx

from market_data.model.errors import ConnectionLost, MalformedPayload
from market_data.model.text import cleaned
from market_data.transport.surroundings import Proxy, Surroundings

USER_AGENT = "market-data-platform/0.1"
GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
INFLATE_STEP_BYTES = 2**20
# More digits than any moment or span has; a float takes them.
LONGEST_NUMBER = 18
SECRET_LETTERS = 6
LONGEST_REFUSAL = 2**16
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
    """A complete answer; header names in lower case. Whatever a source sent, reading it raises nothing."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    elapsed_ms: float
    fetched_at: datetime

    @property
    def server_time(self) -> datetime | None:
        """The source's clock, to the second, from its Date header; None when it sent none."""
        return _moment(self.headers.get("date", ""))

    @property
    def retry_after(self) -> float | None:
        """Seconds the source asks to wait; None when it does not say."""
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit():
            return float(text[:LONGEST_NUMBER])
        moment = _moment(text)
        return None if moment is None else max(0.0, (moment - self.fetched_at).total_seconds())

    @property
    def redirected_to(self) -> str:
        """The host a redirect names; empty when it names none."""
        try:
            return httpx.URL(self.headers.get("location", "")).host
        except (httpx.InvalidURL, UnicodeError):
            return ""

    def header_number(self, name: str) -> float | None:
        """The number a header holds, of digits and one point; None for anything else."""
        text = self.headers.get(name, "").strip()
        return float(text[:LONGEST_NUMBER]) if text.isascii() and text.replace(".", "", 1).isdigit() else None

    @property
    def refusal(self) -> Any:
        """What the body of a refusal says, decoded; None when that is no JSON, or longer than any refusal."""
        try:
            return json.loads(self.body) if len(self.body) <= LONGEST_REFUSAL else None
        except (ValueError, RecursionError):
            return None

    def excerpt(self, length: int = 200) -> str:
        """The start of the body as printable text on one line, for messages."""
        return cleaned(self.body[: 8 * length].decode("utf-8", "replace"), length) or "(empty body)"


def _moment(text: str) -> datetime | None:
    """The moment a header names; None for whatever is none."""
    try:
        named = parsedate_to_datetime(text)
        return (named if named.tzinfo else named.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


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
        self._surroundings = Surroundings.read()
        # By proxy, for a source's hosts may be reached by different ones.
        self._clients: dict[Proxy | None, httpx.AsyncClient] = {}

    async def send(self, request: Request) -> Response:
        """See `Sender`."""
        began = time.perf_counter()
        proxy = None if self._transport else self._surroundings.proxy_for(request.url)
        client = self._opened(proxy)
        try:
            async with (
                asyncio.timeout(request.timeout_seconds),
                client.stream("GET", request.url, params=request.params or None, headers=request.headers) as answer,
            ):
                encoding = answer.headers.get("content-encoding", "identity")
                # The stream as it comes: httpx would unpack each chunk whole.
                stream = cast(httpx.AsyncByteStream, answer.stream)
                body = await _read(aiter(stream), encoding, request)
                return _response(request, answer.status_code, answer.headers, body, began)
        except TimeoutError:
            raise _late(request, proxy) from None
        except httpx.LocalProtocolError:
            # Its words quote the header, which may hold a key.
            raise MalformedPayload(f"{_host(request)} cannot be asked: a header of ours is none") from None
        except httpx.HTTPError as error:
            raise _lost(request, proxy, error) from None

    async def aclose(self) -> None:
        """Closes its connections; a later request opens new ones."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    def _opened(self, proxy: Proxy | None) -> httpx.AsyncClient:
        if proxy not in self._clients:
            self._clients[proxy] = httpx.AsyncClient(
                transport=self._transport,
                proxy=None if proxy is None else proxy.address,
                verify=False if self._transport else self._surroundings.tls(),  # a test's has no TLS
                trust_env=False,
                follow_redirects=False,
                limits=httpx.Limits(max_connections=32, max_keepalive_connections=16),
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip"},
                # The total limit is ours; httpx would count each read anew.
                timeout=None,  # noqa: S113
            )
        return self._clients[proxy]


class BrowserSender:
    """Sends with a browser's TLS fingerprint, for sources that refuse others."""

    def __init__(self) -> None:
        self._surroundings = Surroundings.read()
        self._session: Any = None

    async def send(self, request: Request) -> Response:
        """See `Sender`."""
        # Imported here: only one source needs it, and loading libcurl takes time.
        from curl_cffi.requests.exceptions import RequestException, Timeout

        proxy, session = self._surroundings.proxy_for(request.url), self._opened()
        began = time.perf_counter()
        bounded = _Bounded(request.max_bytes)
        try:
            # Not its streaming: giving up half way would wait for the rest.
            async with asyncio.timeout(request.timeout_seconds):
                answer = await session.get(
                    request.url,
                    params=dict(request.params) or None,
                    headers=dict(request.headers),
                    # Empty is none: libcurl would look into the environment itself.
                    proxies={"all": "" if proxy is None else proxy.address},
                    timeout=request.timeout_seconds,
                    content_callback=bounded.take,
                )
        except (TimeoutError, Timeout):
            raise _late(request, proxy) from None
        except RequestException as error:
            if bounded.overflown:
                raise MalformedPayload(
                    f"{_host(request)} sent more than the {request.max_bytes} bytes allowed"
                ) from None
            raise _lost(request, proxy, error) from None
        return _response(request, answer.status_code, answer.headers, bounded.body, began)

    async def aclose(self) -> None:
        """Closes its connections; a later request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _opened(self) -> Any:
        from curl_cffi import CurlOpt
        from curl_cffi.requests import AsyncSession

        if self._session is None:
            named = self._surroundings.authorities
            folder = named is not None and named[0] == "SSL_CERT_DIR"
            path: Any = True if named is None else named[1]
            # No User-Agent of our own: it must match the fingerprint.
            self._session = AsyncSession(
                impersonate="chrome",
                allow_redirects=False,
                trust_env=False,
                verify=True if folder else path,
                curl_options={CurlOpt.NOPROXY: ""} | ({CurlOpt.CAPATH: path} if folder else {}),
            )
        return self._session


class _Bounded:
    """Collects the pieces libcurl hands over, unpacked, until they are too many."""

    def __init__(self, max_bytes: int) -> None:
        self._room = max_bytes
        self._parts = io.BytesIO()
        self.overflown = False

    def take(self, part: bytes) -> int:
        self._room -= len(part)
        if self._room < 0:
            self.overflown = True
            return WRITE_REFUSED
        return self._parts.write(part)

    @property
    def body(self) -> bytes:
        return self._parts.getvalue()


async def _read(chunks: AsyncIterator[bytes], encoding: str, request: Request) -> bytes:
    if encoding not in ("identity", "gzip", "deflate", ""):
        raise MalformedPayload(f"{_host(request)} packed its answer as {encoding!r}, which we did not ask for")
    inflater = zlib.decompressobj(GZIP_OR_ZLIB) if encoding in ("gzip", "deflate") else None
    # Unlike a list of parts it gives the whole without a second copy.
    parts, size = io.BytesIO(), 0
    async for chunk in chunks:
        for part in (chunk,) if inflater is None else _inflate(inflater, chunk, request):
            size += len(part)
            if size > request.max_bytes:
                raise MalformedPayload(f"{_host(request)} sent more than the {request.max_bytes} bytes allowed")
            parts.write(part)
    if inflater is not None and size and not inflater.eof:
        raise ConnectionLost(f"{_host(request)}: the packed answer stopped after {size} bytes")
    return parts.getvalue()


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


def _late(request: Request, proxy: Proxy | None) -> ConnectionLost:
    return ConnectionLost(f"{_host(request)}{_way(proxy)}: no complete answer in {request.timeout_seconds:g} s")


def _lost(request: Request, proxy: Proxy | None, error: Exception) -> ConnectionLost:
    said = str(error)
    for secret in (*request.headers.values(), *request.params.values()):
        # Short ones are numbers and names.
        said = said.replace(secret, "…") if len(secret) >= SECRET_LETTERS else said
    return ConnectionLost(f"{_host(request)}{_way(proxy)}: {type(error).__name__}: {said}")


def _way(proxy: Proxy | None) -> str:
    return "" if proxy is None else f" by way of the proxy of {proxy.name}"


def _host(request: Request) -> str:
    # Never the query: it may hold a key.
    return httpx.URL(request.url).host
