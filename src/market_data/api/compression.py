"""Compressed responses: zstd or gzip by Accept-Encoding, piece by piece, so that streams stay streams."""

from __future__ import annotations

import zlib
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Shorter bodies are not worth it.
LEAST_BYTES: Final = 1_000
GZIP_LEVEL: Final = 4
# They are compressed already.
COMPRESSED: Final = ("application/vnd.apache.parquet",)


class Compression:
    """Compresses what is long enough, the way the asker can read it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102  # ASGI
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        encoding = chosen(Headers(scope=scope).get("accept-encoding", ""))
        await self._app(scope, receive, _Compressed(send, encoding) if encoding else send)


def chosen(header: str) -> str | None:
    """zstd, else gzip, where an Accept-Encoding header takes it."""
    taken = {}
    for part in header.split(","):
        name, _, parameters = part.strip().lower().partition(";")
        taken[name.strip()] = parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return next((name for name in ("zstd", "gzip") if taken.get(name)), None)


class _Compressed:
    """A `send` that compresses the body; the start waits for the first piece, which tells whether it is worth it."""

    def __init__(self, send: Send, encoding: str) -> None:
        self._send = send
        self._encoding = encoding
        self._start: Message | None = None
        self._stream: _Zstd | _Gzip | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._start is not None:
            headers = MutableHeaders(scope=self._start)
            plain = headers.get("content-type", "").startswith(COMPRESSED) or "content-encoding" in headers
            if not plain and (more or len(body) >= LEAST_BYTES):
                self._stream = _Zstd() if self._encoding == "zstd" else _Gzip()
                headers["Content-Encoding"] = self._encoding
                headers.add_vary_header("Accept-Encoding")
                del headers["Content-Length"]
            start, self._start = self._start, None
            if self._stream is not None and not more:
                body = self._stream.feed(body) + self._stream.end()
                MutableHeaders(scope=start)["Content-Length"] = str(len(body))
                self._stream = None
            await self._send(start)
        if self._stream is not None:
            body = self._stream.feed(body) if more else self._stream.feed(body) + self._stream.end()
        await self._send({**message, "body": body})


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.compressobj(GZIP_LEVEL, wbits=31)

    def feed(self, piece: bytes) -> bytes:
        return self._stream.compress(piece) + self._stream.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._stream.flush()


class _Zstd:
    """By Arrow's codec, which is here already."""

    def __init__(self) -> None:
        import pyarrow as pa

        self._sink: Any = _Collected()
        self._stream: Any = pa.CompressedOutputStream(pa.PythonFile(self._sink, mode="w"), "zstd")

    def feed(self, piece: bytes) -> bytes:
        self._stream.write(piece)
        self._stream.flush()
        return self._sink.drained()  # type: ignore[no-any-return]

    def end(self) -> bytes:
        self._stream.close()
        return self._sink.drained()  # type: ignore[no-any-return]


class _Collected:
    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self.closed = True

    def drained(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)
