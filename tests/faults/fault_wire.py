"""A source on loopback, over a real socket: it answers as an honest one does, except where a fault is put."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

Honest = Callable[[httpx.Request], httpx.Response]
# What is sent instead: an answer, its bytes on the wire, or something done to the connection.
Act = Callable[[httpx.Request, httpx.Response], "httpx.Response | bytes | Wire"]
Wire = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """Done to the requests that match; `times` counts per address, None is always."""

    matches: Callable[[httpx.Request], bool]
    act: Act
    times: int | None = None


@dataclass
class Loopback:
    """Answers on loopback; `asked` are the addresses it was asked for, in order."""

    honest: Honest
    faults: Sequence[Fault]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    _tries: Counter[tuple[int, str]] = field(default_factory=Counter)
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Loopback]:
        """Listens until the block ends; connections that hang are cut then."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = [tuple(line.split(": ", 1)) for line in head[1:] if line]
            request = httpx.Request("GET", self.url + head[0].split(" ")[1], headers=headers)
            await self._answer(request, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client hung up, as some faults make it do
        finally:
            self._open.discard(task)
            writer.close()

    async def _answer(self, request: httpx.Request, writer: asyncio.StreamWriter) -> None:
        self.asked.append(str(request.url))
        answer: httpx.Response | bytes | Wire = self.honest(request)
        for number, fault in enumerate(self.faults):
            if fault.matches(request):
                self._tries[number, str(request.url)] += 1
                if fault.times is None or self._tries[number, str(request.url)] <= fault.times:
                    assert isinstance(answer, httpx.Response)
                    answer = fault.act(request, answer)
                    break
        if isinstance(answer, httpx.Response):
            answer = wired(answer)
        if isinstance(answer, bytes):
            writer.write(answer)
        else:
            await answer(writer)


def wired(response: httpx.Response, *, length: int | None = None, **headers: str) -> bytes:
    """An answer as bytes; `length` is the one it claims."""
    kept = {
        name: value
        for name, value in response.headers.items()
        if name not in ("content-length", "content-encoding", "transfer-encoding")
    }
    claimed = len(response.content) if length is None else length
    named = {**kept, "content-length": str(claimed), "connection": "close", **headers}
    head = [f"HTTP/1.1 {response.status_code} X", *(f"{name}: {value}" for name, value in named.items()), "", ""]
    return "\r\n".join(head).encode() + response.content


class VirtualTime:
    """Seconds that pass when somebody sleeps: retries and pauses cost nothing, their sum is known."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps = 0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Let that much time pass."""
        self.now += seconds
        self.sleeps += 1
        await asyncio.sleep(0)

    @property
    def passed(self) -> float:
        """Seconds slept so far."""
        return self.now - 1000.0
