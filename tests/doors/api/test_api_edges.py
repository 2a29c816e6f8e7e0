"""Who floods, stalls, or comes from elsewhere costs nobody else anything."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI, WebSocket
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from starlette.responses import StreamingResponse

from market_data.api import connections
from market_data.api.app import create_api
from market_data.api.listening import bound, in_background
from market_data.api.served import Served


@contextmanager
def listening(api: FastAPI) -> Iterator[tuple[str, int]]:
    with bound("127.0.0.1", 0) as found, in_background(api, found):
        yield "127.0.0.1", found.getsockname()[1]


def endless(api: FastAPI) -> FastAPI:
    """One more route, whose answer has no end."""

    def pieces() -> Iterator[bytes]:
        while True:
            yield b"x" * 65_536

    @api.get("/endless")
    def endless() -> StreamingResponse:
        return StreamingResponse(pieces())

    return api


def opened(where: tuple[str, int], sent: bytes = b"") -> socket.socket:
    found = socket.create_connection(where, 5)
    found.sendall(sent)
    return found


def status_of(where: tuple[str, int], path: str) -> int:
    with httpx.Client(base_url=f"http://{where[0]}:{where[1]}", timeout=5) as client:
        return client.get(path).status_code


def until(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not happens():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


def test_idle_connections_lock_nobody_out(filled: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_OF_ONE_PEER", 20)
    with ExitStack() as stack, listening(create_api(filled)) as where:
        crowd = [stack.enter_context(opened(where)) for _ in range(60)]
        assert status_of(where, "/healthz") == 200
        assert status_of(where, "/api/v1/providers") == 200
        # Those that waited longest were closed.
        assert crowd[0].recv(1) == b""


def test_where_all_are_busy_probes_are_answered_and_others_told_to_come_again(
    filled: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST_OF_ONE_PEER", 5)
    with ExitStack() as stack, listening(endless(create_api(filled))) as where:
        for _ in range(5):
            busy = stack.enter_context(opened(where, b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            assert busy.recv(12) == b"HTTP/1.1 200"
        assert (status_of(where, "/healthz"), status_of(where, "/readyz")) == (200, 200)
        assert status_of(where, "/api/v1/providers") == 503


def test_a_reader_that_stalls_is_cut_off(filled: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.2)
    with (
        listening(endless(create_api(filled))) as where,
        opened(where, b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n") as stalled,
    ):
        time.sleep(0.8)  # it reads nothing all that time
        end = time.monotonic() + 3
        with suppress(ConnectionResetError):
            while stalled.recv(1 << 20):
                assert time.monotonic() < end, "it goes on for ever"


def test_a_stalled_reader_does_not_delay_the_end(filled: Served) -> None:
    with ExitStack() as stack:
        with listening(endless(create_api(filled))) as where:
            for _ in range(3):
                stalled = stack.enter_context(opened(where, b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n"))
                assert stalled.recv(12) == b"HTTP/1.1 200"
            time.sleep(0.2)  # their buffers are full by then
            began = time.monotonic()
        assert time.monotonic() - began < 4


def test_downloads_are_as_many_as_there_is_memory_for(
    database_url: str, clock: Any, filling: Callable[..., None],
    opening: Callable[..., AbstractContextManager[tuple[Served, Any]]],
) -> None:  # fmt: skip
    path, arrow = "/api/v1/market/candles/BTC/1h", {"Accept": "application/vnd.apache.arrow.stream"}
    with opening(database_url, clock) as (served, asking):
        filling(served.app)
        taken = 0
        while served.downloads.acquire(blocking=False):
            taken += 1
        full = asking.get(path, headers=arrow)
        assert (full.status_code, full.headers["retry-after"]) == (503, "2")
        served.downloads.release()
        for _ in range(3):
            assert asking.get(path, headers=arrow).status_code == 200, "each gives its room back"
        assert taken > 3


@pytest.mark.parametrize(
    ("origin", "accepted"),
    [("http://evil.example", False), ("null", False), ("http://127.0.0.1:{port}", True), (None, True)],
)
def test_a_websocket_from_a_foreign_page_is_refused(filled: Served, origin: str | None, accepted: bool) -> None:
    api = create_api(filled)

    @api.websocket("/socket")
    async def greet(connection: WebSocket) -> None:
        await connection.accept()
        await connection.close()

    with listening(api) as where:
        lines = [
            "GET /socket HTTP/1.1", f"Host: 127.0.0.1:{where[1]}", "Connection: Upgrade", "Upgrade: websocket",
            "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {base64.b64encode(b'0' * 16).decode()}",
            *([f"Origin: {origin.format(port=where[1])}"] if origin else []), "", "",
        ]  # fmt: skip
        with opened(where, "\r\n".join(lines).encode()) as asking:
            assert asking.recv(12) == (b"HTTP/1.1 101" if accepted else b"HTTP/1.1 403")


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_a_cursor_with_half_a_character_is_refused(asking: Any, text: str) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps([text, "stock"]).encode()).decode()
    answer = asking.get("/api/v1/instruments", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (422, "wrong-cursor")


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/api/v1/providers", "/api/v1/market/candles/BTC/1h"]
)
def test_head_is_get_without_its_body(asking: Any, path: str) -> None:
    head, got = asking.request("HEAD", path), asking.get(path)
    assert (head.status_code, head.content, head.headers["content-type"]) == (200, b"", got.headers["content-type"])


def test_while_postgres_is_away_it_is_told_in_seconds_and_afterwards_at_once(
    database_url: str, clock: Any, opening: Callable[..., AbstractContextManager[tuple[Served, Any]]]
) -> None:
    name = conninfo_to_dict(database_url)["dbname"]
    away = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with (
        psycopg.connect(make_conninfo(database_url, dbname="postgres"), autocommit=True) as admin,
        opening(database_url, clock) as (_, asking),
    ):
        assert asking.get("/readyz").status_code == 200
        admin.execute(away.format(sql.Identifier(str(name)), sql.SQL("false")))
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        for path in ("/api/v1/enrichment/status/BTC", "/api/v1/instruments", "/readyz"):
            began = time.monotonic()
            assert asking.get(path).status_code == 503
            assert time.monotonic() - began < 8, path
        admin.execute(away.format(sql.Identifier(str(name)), sql.SQL("true")))
        began = time.monotonic()
        assert asking.get("/readyz").status_code == 200
        assert time.monotonic() - began < 2
