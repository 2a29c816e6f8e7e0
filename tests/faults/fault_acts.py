"""What can be done to an answer: to the connection, the status, the body's bytes, the rows."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import httpx
from fault_wire import Act, Wire, wired

HTML = "<html><head><title>Attention Required!</title></head><body>Blocked</body></html>"


def answering(status: int, body: object = b"", **headers: str) -> Act:
    """Another answer: bytes as they are, a text as HTML, anything else as JSON."""
    content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    kind = "text/html" if isinstance(body, str) else "application/json"
    named = {"content-type": kind} | {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request, honest: httpx.Response(status, content=content, headers=named)


def body(change: Callable[[bytes], bytes], **headers: str) -> Act:
    """The honest answer with its bytes changed."""
    return lambda request, honest: httpx.Response(
        honest.status_code, content=change(honest.content), headers={**dict(honest.headers.items()), **headers}
    )


def document(change: Callable[[Any], Any]) -> Act:
    """The honest answer with its JSON changed."""
    return body(lambda content: json.dumps(change(json.loads(content)), separators=(",", ":")).encode())


def typed(kind: str) -> Act:
    """The honest answer under another content type."""
    return lambda request, honest: wired(honest, **{"content-type": kind})


def half(request: httpx.Request, honest: httpx.Response) -> bytes:
    """The connection ends in the middle of the body."""
    whole = wired(honest)
    return whole[: len(whole) - len(honest.content) // 2]


def stall(request: httpx.Request, honest: httpx.Response) -> Wire:
    """Half the body, then silence."""

    async def act(writer: asyncio.StreamWriter) -> None:
        writer.write(half(request, honest))
        await writer.drain()
        await asyncio.Event().wait()

    return act


def silence(request: httpx.Request, honest: httpx.Response) -> Wire:
    """Not a byte of an answer."""

    async def act(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    return act


def reset(request: httpx.Request, honest: httpx.Response) -> Wire:
    """The connection is cut without an answer."""

    async def act(writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    return act


def chunk_cut(request: httpx.Request, honest: httpx.Response) -> bytes:
    """A chunked answer without its last chunk."""
    content = honest.content[: len(honest.content) // 2]
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(content), content)


def not_http(request: httpx.Request, honest: httpx.Response) -> bytes:
    """Somebody else listens there."""
    return b"SSH-2.0-OpenSSH_9.6\r\n"


def bomb(request: httpx.Request, honest: httpx.Response) -> bytes:
    """200 MB in 200 kB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    content = b"".join(packer.compress(bytes(2**20)) for _ in range(200)) + packer.flush()
    return wired(httpx.Response(200, content=content), **{"content-encoding": "gzip"})


def half_packed(request: httpx.Request, honest: httpx.Response) -> bytes:
    """A gzip stream that stops early under a length that is right."""
    content = gzip.compress(honest.content)[:-20]
    return wired(httpx.Response(200, content=content), **{"content-encoding": "gzip"})


def unpackable(request: httpx.Request, honest: httpx.Response) -> bytes:
    """Said to be gzip, is not."""
    return wired(honest, **{"content-encoding": "gzip"})


def endless(request: httpx.Request, honest: httpx.Response) -> Wire:
    """A body that never ends."""

    async def act(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while True:
            writer.write(b"[" * 2**16)
            await writer.drain()

    return act


def changed_rows(change: Callable[[list[Any]], list[Any]], key: str | None = None) -> Act:
    """The honest rows changed: of a list, or of one under `key`."""
    if key is None:
        return document(change)
    return document(lambda answer: answer | {key: change(answer[key])})
