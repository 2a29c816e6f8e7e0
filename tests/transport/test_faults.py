"""What goes wrong between two sockets, against a real one on loopback: each ends in our error, in time, in bounds."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from market_data.model.errors import ConnectionLost, MalformedPayload, ProviderUnavailable
from market_data.model.provider import ProviderSettings
from market_data.transport.channel import Dialect
from market_data.transport.http import Http
from market_data.transport.senders import BrowserSender, HttpxSender, Response

PLAIN = Dialect(classify=lambda _: None)
BROWSER = Dialect(classify=lambda _: None, browser=True)
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client hung up: what some of these tests are about
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def head(*lines: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode()


async def get(url: str, *, dialect: Dialect = PLAIN, **settings: Any) -> Response:
    configured = ProviderSettings(**{"max_retries": 0, "timeout_seconds": 30, "max_response_bytes": 10**6} | settings)
    http = Http("there", configured)
    try:
        return await http.channel().get(url, dialect)
    finally:
        await http.aclose()


both = pytest.mark.parametrize("dialect", [PLAIN, BROWSER], ids=["httpx", "browser"])


@both
async def test_a_complete_answer(dialect: Dialect) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        body = gzip.compress(b'{"a":1}')
        writer.write(head("Content-Encoding: gzip", f"Content-Length: {len(body)}", "Retry-After: 9") + body)

    async with listening(answer) as url:
        response = await get(url, dialect=dialect)
    assert (response.status, response.body, response.retry_after) == (200, b'{"a":1}', 9.0)
    assert response.elapsed_ms > 0


@both
async def test_a_stalled_read_ends_in_time(dialect: Dialect) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head("Content-Length: 100") + b"[[1,")
        await writer.drain()
        await asyncio.Event().wait()

    began = time.monotonic()
    async with listening(answer) as url:
        with pytest.raises(ConnectionLost, match=r"no complete answer in 0\.5 s"):
            await get(url, dialect=dialect, timeout_seconds=0.5)
    assert time.monotonic() - began < 20


async def test_a_trickle_ends_in_time_too() -> None:
    """One byte at a time never times out a single read: the limit is on the whole."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head("Content-Length: 100000"))
        for _ in range(1000):
            writer.write(b"1")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with listening(answer) as url:
        with pytest.raises(ConnectionLost, match="no complete answer"):
            await get(url, timeout_seconds=0.5)


@both
async def test_half_a_body(dialect: Dialect) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head("Content-Length: 100") + b"[[1,2],[3,4]]")

    async with listening(answer) as url:
        with pytest.raises(ConnectionLost):
            await get(url, dialect=dialect)


@both
async def test_half_a_chunked_body(dialect: Dialect) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head("Transfer-Encoding: chunked") + b"5\r\n[[1,2\r\n")

    async with listening(answer) as url:
        with pytest.raises(ConnectionLost):
            await get(url, dialect=dialect)


async def test_half_a_packed_body_whose_length_is_right() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        body = gzip.compress(b"[[1,2],[3,4]]" * 1000)[:-20]
        writer.write(head("Content-Encoding: gzip", f"Content-Length: {len(body)}") + body)

    async with listening(answer) as url:
        with pytest.raises(ConnectionLost, match="stopped"):
            await get(url)


@both
async def test_a_bomb_is_not_unpacked(dialect: Dialect) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(200)) + packer.flush()
    assert len(bomb) < 10**6

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head("Content-Encoding: gzip", f"Content-Length: {len(bomb)}") + bomb)

    async with listening(answer) as url:
        with pytest.raises(MalformedPayload, match="more than the 1000000 bytes"):
            await get(url, dialect=dialect)


@both
async def test_a_body_without_end(dialect: Dialect) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head())
        while True:
            writer.write(bytes(2**16))
            await writer.drain()

    async with listening(answer) as url:
        with pytest.raises(MalformedPayload, match="more than"):
            await get(url, dialect=dialect)


async def test_packed_badly_or_as_never_asked() -> None:
    for encoding in ("gzip", "br"):

        async def answer(writer: asyncio.StreamWriter, encoding: str = encoding) -> None:
            writer.write(head(f"Content-Encoding: {encoding}", "Content-Length: 5") + b"hello")

        async with listening(answer) as url:
            with pytest.raises(MalformedPayload):
                await get(url)


@both
async def test_no_answer_at_all(dialect: Dialect) -> None:
    async def hang_up(writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with listening(hang_up) as url:
        with pytest.raises(ConnectionLost):
            await get(url, dialect=dialect)


@both
async def test_not_http(dialect: Dialect) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")

    async with listening(answer) as url:
        with pytest.raises(ConnectionLost):
            await get(url, dialect=dialect)


@both
async def test_nobody_listens(dialect: Dialect) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConnectionLost):
            await get(f"http://127.0.0.1:{port}", dialect=dialect)


@both
async def test_a_name_that_does_not_exist(dialect: Dialect) -> None:
    with pytest.raises(ConnectionLost):
        await get("http://nothing.invalid/", dialect=dialect)


async def test_a_redirect_is_not_followed() -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/consent\r\nContent-Length: 0\r\n\r\n")

    async with listening(answer) as url:
        with pytest.raises(ProviderUnavailable, match=r"elsewhere\.example"):
            await get(url)


async def test_messages_never_hold_the_query() -> None:
    with pytest.raises(ConnectionLost) as caught:
        await get("http://nothing.invalid/?apiKey=very-secret")
    assert "very-secret" not in str(caught.value)


async def test_senders_close_without_having_sent() -> None:
    await HttpxSender().aclose()
    await BrowserSender().aclose()


@both
async def test_closed_connections_open_again(dialect: Dialect) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head("Content-Length: 2") + b"[]")

    http = Http("there", ProviderSettings())
    channel = http.channel()
    async with listening(answer) as url:
        for _ in range(2):
            assert (await channel.get(url, dialect)).body == b"[]"
            await http.aclose()
