"""Who may do what: keys, scopes, limits, hosts, headers; nothing secret gets out."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from market_data.api import security
from market_data.api.app import create_api
from market_data.api.listening import check_address
from market_data.api.security import Allowance
from market_data.model.errors import ConfigError
from market_data.storage.work.keys import Scope, create_key, listed_keys, revoke_key

Opening = Callable[..., AbstractContextManager[Any]]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def routes() -> list[tuple[str, str]]:
    """Every method and path of the document, with something in the place of parameters."""
    document = create_api().openapi()
    return [
        (method.upper(), path.replace("{symbol}", "BTC").replace("{timeframe}", "1h").replace("{job_id}", "0" * 32))
        for path, methods in document["paths"].items()
        for method in methods
    ] + [("GET", "/api/v1/openapi.json"), ("GET", "/nowhere"), ("POST", "/api/v1/nowhere")]


@pytest.fixture
def locked(database_url: str, clock: Any, opening: Opening) -> Iterator[tuple[Any, Any]]:
    """An API that needs keys."""
    with opening(database_url, clock, api__keys="required") as found:
        yield found


def test_no_route_works_without_a_key(locked: tuple[Any, Any]) -> None:
    _, asking = locked
    assert len(routes()) > 30
    for method, path in routes():
        answer = asking.request(method, path)
        if path == "/healthz":
            assert answer.status_code == 200
        elif path == "/readyz":
            assert (answer.status_code, answer.content) == (200, b""), "whether, and nothing else"
        else:
            assert (answer.status_code, answer.json()["type"]) == (401, "urn:market-data:problem:key-needed"), path
            assert answer.headers["www-authenticate"] == "Bearer"


def test_no_route_works_with_a_wrong_key(locked: tuple[Any, Any], clock: Any) -> None:
    served, asking = locked
    token = create_key(served.app.database, "reader", [Scope.READ], clock())
    for wrong in (
        "x",
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        token[:-1],
        token + "A",
        f"mdk_{'0' * 32}_{'a' * 43}",
    ):
        for method, path in routes():
            if path != "/healthz":
                assert asking.request(method, path, headers=bearer(wrong)).status_code == 401


def test_a_key_may_do_what_its_scopes_say(locked: tuple[Any, Any], clock: Any) -> None:
    served, asking = locked
    tokens = {scope: create_key(served.app.database, scope.value, [scope], clock()) for scope in Scope}
    trigger, pause, read = "/api/v1/enrichment/trigger?symbol=AAPL", "/api/v1/enrichment/pause", "/api/v1/providers"

    def may(scope: Scope) -> list[int]:
        headers = bearer(tokens[scope])
        return [asking.get(read, headers=headers).status_code] + [
            asking.post(path, headers=headers).status_code for path in (trigger, pause)
        ]

    assert may(Scope.READ) == [200, 403, 403]
    assert may(Scope.TRIGGER) == [200, 202, 403]
    assert may(Scope.ADMIN) == [200, 202, 200]
    for method, path in routes():
        if method != "GET":
            assert asking.request(method, path, headers=bearer(tokens[Scope.READ])).status_code == 403
    assert asking.get(read, headers={"X-API-Key": tokens[Scope.READ]}).status_code == 200


def test_a_revoked_and_an_expired_key_stop_at_once(locked: tuple[Any, Any], clock: Any) -> None:
    served, asking = locked
    database = served.app.database
    revoked = create_key(database, "revoked", [Scope.READ], clock())
    expiring = create_key(database, "expiring", [Scope.READ], clock(), expires_at=clock() + timedelta(hours=1))
    assert asking.get("/readyz", headers=bearer(revoked)).status_code == 200
    assert asking.get("/readyz", headers=bearer(expiring)).status_code == 200
    revoke_key(database, "revoked", clock())
    assert asking.get("/readyz", headers=bearer(revoked)).status_code == 401
    clock.now += timedelta(hours=1)
    assert asking.get("/readyz", headers=bearer(expiring)).status_code == 401
    used = {row["name"]: row["last_used_at"] for row in listed_keys(database)}
    assert used == {"revoked": clock() - timedelta(hours=1), "expiring": clock() - timedelta(hours=1)}


def test_many_wrong_keys_share_few_reads_and_a_new_key_is_known_at_its_first_use(
    locked: tuple[Any, Any], clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, _ = locked
    read = security.key_numbers
    reads: list[object] = []

    def counted(database: Any) -> frozenset[UUID]:
        reads.append(database)
        return read(database)

    monkeypatch.setattr(security, "key_numbers", counted)

    async def attacked() -> tuple[list[int], int]:
        transport = httpx.ASGITransport(create_api(served))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:

            async def ask(token: str) -> int:
                answer = await client.get("/api/v1/providers", headers=bearer(token))
                return answer.status_code

            wrong = [f"mdk_{uuid4().hex}_{'x' * 43}" for _ in range(60)]
            asked = [asyncio.create_task(ask(token)) for token in wrong]
            token = await asyncio.to_thread(create_key, served.app.database, "new", [Scope.READ], clock())
            right = await ask(token)
            return await asyncio.gather(*asked), right

    refused, right = asyncio.run(attacked())
    assert (set(refused), right) == ({401}, 200)
    assert 1 <= len(reads) <= 10


def test_the_first_key_closes_the_door(database_url: str, clock: Any, opening: Opening, monkeypatch: Any) -> None:
    monkeypatch.setattr("market_data.api.security.KEYS_SEEN_SECONDS", 0.0)
    with opening(database_url, clock) as (served, asking):
        assert asking.get("/readyz").status_code == 200
        token = create_key(served.app.database, "first", [Scope.READ], clock())
        assert asking.get("/api/v1/providers").status_code == 401
        assert asking.get("/readyz", headers=bearer(token)).status_code == 200
        revoke_key(served.app.database, "first", clock())
        assert asking.get("/api/v1/providers").status_code == 401


def test_only_hashes_are_stored(locked: tuple[Any, Any], clock: Any) -> None:
    served, _ = locked
    token = create_key(served.app.database, "one", [Scope.READ], clock())
    stored = str(served.app.database.rows("SELECT * FROM api_keys"))
    assert token not in stored
    assert token.split("_", 2)[2] not in stored


def test_too_many_requests_are_refused_per_key(database_url: str, clock: Any, opening: Opening) -> None:
    with opening(database_url, clock, api__keys="required", api__requests_per_minute=3) as (served, asking):
        one = bearer(create_key(served.app.database, "one", [Scope.READ], clock()))
        other = bearer(create_key(served.app.database, "other", [Scope.READ], clock()))
        assert [asking.get("/readyz", headers=one).status_code for _ in range(4)] == [200, 200, 200, 429]
        refused = asking.get("/readyz", headers=one)
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert asking.get("/readyz", headers=other).status_code == 200


def test_an_allowance_refills() -> None:
    from uuid import UUID

    time = 0.0
    allowance = Allowance(60, lambda: time)
    assert [allowance.take(UUID(int=1)) for _ in range(60)] == [0.0] * 60
    assert allowance.take(UUID(int=1)) == 1.0
    time = 2.0
    assert [allowance.take(UUID(int=1)) for _ in range(3)] == [0.0, 0.0, 1.0]


def test_a_long_body_is_refused(asking: Any) -> None:
    answer = asking.post("/api/v1/enrichment/trigger?symbol=AAPL", content=b"x" * 70_000)
    assert (answer.status_code, answer.json()["title"]) == (413, "Content Too Large")


def test_pages_of_others_cannot_use_the_readers_browser(asking: Any) -> None:
    assert asking.get("/readyz", headers={"Host": "rebound.example"}).status_code == 403
    trigger = "/api/v1/enrichment/pause"
    assert asking.post(trigger, headers={"Origin": "https://evil.example"}).status_code == 403
    assert asking.post(trigger, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert asking.post(trigger, headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200


def test_headers_forbid_what_nobody_needs(asking: Any) -> None:
    answer = asking.get("/api/v1/providers", headers={"Origin": "https://evil.example"})
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["cache-control"] == "no-store"
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_listening_beyond_this_machine_needs_keys(database_url: str, clock: Any, opening: Opening) -> None:
    def allowed(host: str, **settings: Any) -> bool:
        with opening(database_url, clock, **settings) as (served, _):
            try:
                check_address(served.app, host)
            except ConfigError:
                return False
            return True

    assert [allowed(host) for host in ("127.0.0.1", "::1", "0.0.0.0", "192.168.1.5")] == [True, True, False, False]
    assert allowed("0.0.0.0", api__allow_remote_without_keys=True)
    with opening(database_url, clock) as (served, _):
        create_key(served.app.database, "one", [Scope.READ], clock(), expires_at=clock() + timedelta(hours=1))
    assert allowed("0.0.0.0")
    assert not allowed("0.0.0.0", api__keys="off")
    clock.now += timedelta(hours=1)
    # The only key has expired.
    assert not allowed("0.0.0.0")


def test_beyond_this_machine_a_key_is_always_needed(database_url: str, clock: Any, opening: Opening) -> None:
    with opening(database_url, clock, listens_beyond=True) as (_, asking):
        assert asking.get("/api/v1/providers").status_code == 401


def test_no_secret_gets_into_logs_errors_or_metrics(
    locked: tuple[Any, Any], clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    served, asking = locked
    caplog.set_level(logging.DEBUG)
    token = create_key(served.app.database, "reader", [Scope.READ], clock())
    said = [asking.request(method, path, headers=bearer(token)).text for method, path in routes()]
    said += [asking.get("/readyz", headers=bearer(token[:-2])).text, asking.get("/metrics", headers=bearer(token)).text]
    secret = token.split("_", 2)[2][:-2]
    assert secret not in caplog.text + "".join(said)


def test_a_connection_that_dawdles_is_closed(
    filled: Any, reaching: Callable[[Any], AbstractContextManager[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("market_data.api.connections.HEAD_SECONDS", 2.0)
    head = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    with reaching(filled) as url:
        place = ("127.0.0.1", int(url.rpartition(":")[2]))
        with socket.create_connection(place, 10) as silent, socket.create_connection(place, 10) as slow:
            slow.sendall(head)
            assert (silent.recv(100), slow.recv(100)) == (b"", b"")
        # The second request of a connection has no more time than the first.
        with socket.create_connection(place, 10) as again:
            again.sendall(head + b"\r\n")
            said = b""
            while b"alive" not in said:
                said += again.recv(10_000)
            again.sendall(head)
            assert again.recv(100) == b""


def test_a_head_without_end_is_refused(filled: Any, reaching: Callable[[Any], AbstractContextManager[str]]) -> None:
    with reaching(filled) as url, socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 10) as asker:
        asker.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 200_000)
        assert asker.recv(100).startswith(b"HTTP/1.1 400")


def test_a_query_that_takes_too_long_is_given_up(
    database_url: str, clock: Any, opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    from market_data.storage.work.tallies import Tallies

    with opening(database_url, clock, api__query_seconds=0.2) as (served, asking):
        monkeypatch.setattr(Tallies, "backfills", lambda _: served.database.rows("SELECT pg_sleep(60)"))
        answer = asking.get("/api/v1/enrichment/metrics")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "pg_sleep" not in answer.text
