"""What of the environment reaches HTTP clients: proxies, named, never for loopback; certificates; no passwords."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from market_data.client import MarketData
from market_data.model.errors import ConfigError, ConnectionLost
from market_data.model.provider import ProviderSettings
from market_data.transport.channel import Dialect
from market_data.transport.http import Http
from market_data.transport.surroundings import PROXIES, Proxy, Surroundings

PLAIN = Dialect(classify=lambda _: None)
BROWSER = Dialect(classify=lambda _: None, browser=True)
both = pytest.mark.parametrize("dialect", [PLAIN, BROWSER], ids=["httpx", "browser"])
SET = {"HTTP_PROXY": "http://user:hidden@proxy.example:3128", "ALL_PROXY": "other.example:99"}
OTHER = Proxy("http://other.example:99", "ALL_PROXY (other.example:99)")


@pytest.fixture(autouse=True)
def _nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@asynccontextmanager
async def answering(heads: list[str]) -> AsyncIterator[str]:
    """A server that keeps what it was asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def get(url: str, dialect: Dialect) -> bytes:
    http = Http("there", ProviderSettings(max_retries=0, timeout_seconds=20))
    try:
        return (await http.channel().get(url, dialect)).body
    finally:
        await http.aclose()


@both
async def test_loopback_is_never_asked_by_way_of_a_proxy(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    heads: list[str] = []
    async with answering(heads) as address:
        assert await get(f"http://{address}/x", dialect) == b"[]"
    assert heads[0].startswith("GET /x ")


@both
async def test_others_are_and_the_error_names_the_proxy(dialect: Dialect, monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[str] = []
    async with answering(heads) as address:
        monkeypatch.setenv("http_proxy", f"http://user:hidden@{address}")
        assert await get("http://nowhere.invalid/x", dialect) == b"[]"
    assert "nowhere.invalid/x" in heads[0].splitlines()[0] or heads[0].startswith("CONNECT nowhere.invalid")
    with pytest.raises(
        ConnectionLost, match=rf"nowhere.invalid by way of the proxy of HTTP_PROXY \({address}\)"
    ) as lost:
        await get("http://nowhere.invalid/x", dialect)
    assert "hidden" not in str(lost.value)
    monkeypatch.setenv("NO_PROXY", "example.org,.invalid")
    with pytest.raises(ConnectionLost) as lost:
        await get("http://nowhere.invalid/x", dialect)
    assert "proxy" not in str(lost.value)


async def test_passwords_of_netrc_are_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hidden\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for dialect in (PLAIN, BROWSER):
        heads: list[str] = []
        async with answering(heads) as address:
            await get(f"http://{address}/", dialect)
        assert "authorization" not in heads[0].lower()


@pytest.mark.parametrize(
    ("said", "url", "proxy"),
    [
        (SET, "http://a.example/", Proxy(SET["HTTP_PROXY"], "HTTP_PROXY (proxy.example:3128)")),
        (SET, "https://a.example/", OTHER),
        (SET | {"HTTPS_PROXY": "https://p"}, "https://a.example/", Proxy("https://p", "HTTPS_PROXY (p)")),
        (SET, "http://localhost:1/", None),
        (SET, "http://[::1]:1/", None),
        (SET, "http://127.9.9.9/", None),
        (SET, "http://db.localhost/", None),
        (SET | {"NO_PROXY": "*"}, "http://a.example/", None),
        (SET | {"NO_PROXY": "b.example, .a.example"}, "http://x.a.example/", None),
        (SET | {"no_proxy": "10.0.0.0/8"}, "http://10.1.2.3/", None),
        (SET | {"NO_PROXY": "xa.example"}, "https://a.example/", OTHER),
        ({}, "https://a.example/", None),
    ],
)  # fmt: skip
def test_which_proxy(said: dict[str, str], url: str, proxy: Proxy | None) -> None:
    assert Surroundings.read(said).proxy_for(url) == proxy


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("socks5h://127.0.0.1:9", "SOCKS proxy"),
        ("ftp://p:1", "write http://host:port"),
        ("http://p:port", "no address"),
    ],
)
async def test_a_proxy_that_cannot_be_used_is_a_wrong_setting(
    address: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", address)
    with pytest.raises(ConfigError, match=f"ALL_PROXY.*{fault}"):
        await get("https://a.example/", PLAIN)


@both
@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR"])
async def test_certificates_that_are_not_there_are_a_wrong_setting(
    name: str, dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "/nowhere/certs")
    with pytest.raises(ConfigError, match=f"{name} names '/nowhere/certs'"):
        await get("https://127.0.0.1:1/", dialect)


def test_certificates_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "certs").write_text("no certificate")
    with pytest.raises(ConfigError, match="which holds no certificates"):
        Surroundings.read({"SSL_CERT_FILE": str(tmp_path / "certs")}).tls()


def test_the_client_goes_to_loopback_directly_and_names_the_proxy_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("market_data.client.transport.ATTEMPTS", 1)
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with MarketData("http://127.0.0.1:9") as client, pytest.raises(ConnectionLost, match="No answer from 127.0.0.1:9 "):
        client.status("BTC")
    with MarketData("http://a.example") as client, pytest.raises(ConnectionLost, match=r"proxy of ALL_PROXY \(127"):
        client.status("BTC")
