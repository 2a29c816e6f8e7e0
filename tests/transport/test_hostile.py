"""Whatever the bytes of a source: only our errors, nothing unprintable in them, memory within its multiple."""

from __future__ import annotations

import asyncio
import json
import random
import tracemalloc
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from market_data.bootstrap.shelves import open_providers
from market_data.client import MarketData
from market_data.config import load_settings
from market_data.model.errors import ConfigError, MalformedPayload, MarketDataError, ProviderUnavailable, UsageError
from market_data.model.provider import ProviderSettings
from market_data.model.text import cleaned
from market_data.transport.channel import Dialect
from market_data.transport.http import JSON_BYTES, Http
from market_data.transport.payload import load_json
from market_data.transport.senders import HttpxSender, Response

# Empty objects cost most for their bytes; candles as sources send them take 6 to 9 times.
MOST_TIMES = 26
DATES = ["²", "٣", "99999999999999999999999999", "-1", "1e9", "Wed, 21 Oct 0000 07:28:00 GMT", "nan", "\x00", "\ud800",
         "Wed, 99 Oct 2015 07:28:00 GMT", "Mon, 01 Jan 0001 00:00:00 +2359", "Fri, 31 Dec 9999 23:59:59 -2359", "()",
         ",", "Wed, 21 Oct 2015 07:28:00 -0000", "Wed, 21 Oct 20156789 07:28:00 GMT"]  # fmt: skip


def response(body: bytes = b"", status: int = 429, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(
        url="http://x/", status=status, headers=named, body=body, elapsed_ms=1, fetched_at=datetime.now(UTC)
    )


@pytest.mark.parametrize("text", DATES, ids=ascii)
def test_no_header_raises(text: str) -> None:
    told = response(retry_after=text, date=text, location=text, used=text)
    assert told.retry_after is None or told.retry_after >= 0
    assert told.server_time is None or told.server_time.tzinfo
    assert isinstance(told.redirected_to, str)
    assert told.header_number("used") is None or told.header_number("used") > 0


def mutated(seed: int, body: bytes) -> bytes:
    """A body with a few bytes changed, cut, doubled or made of something else."""
    chosen, changed = random.Random(seed), bytearray(body)
    for _ in range(chosen.randint(1, 4)):
        at = chosen.randrange(len(changed) + 1)
        odd = chosen.choice([b"\x00", b"\xff", b"\\ud800", b"\\u0000", b"\\u001b[31m", b"1e999", b"9" * 400, b"NaN",
                             b"Infinity", b"[" * 2000, b"{}", b'"', b"null", b"\xed\xa0\x80", b"\xc2\x9b"])  # fmt: skip
        changed[at : at + chosen.choice([0, 1, len(odd)])] = odd
    return bytes(changed)


@pytest.mark.parametrize("provider", ["binance", "polygon", "yahoo"])
async def test_no_refusal_raises_anything_but_our_errors(provider: str) -> None:
    from market_data.providers.binance.dialect import dialect as binance
    from market_data.providers.polygon.dialect import MASSIVE
    from market_data.providers.yahoo.dialect import dialect as yahoo

    spoken = {"binance": binance(lambda: 2400.0), "polygon": MASSIVE, "yahoo": yahoo(browser=False)}[provider]
    body = {
        "binance": b'{"code":-1003,"msg":"Way too many requests; IP(192.0.2.1) banned until 1700000000000. Please"}',
        "polygon": b'{"status":"ERROR","request_id":"1","error":"You\'ve exceeded the maximum requests per minute"}',
        "yahoo": b'{"chart":{"result":null,"error":{"code":"Not Found","description":"No data found"}}}',
    }[provider]
    statuses = (200, 302, 400, 403, 404, 418, 429, 451, 500, 503)
    numbers = iter(range(300))

    def answer(_: httpx.Request) -> httpx.Response:
        number = next(numbers)
        headers = {"Retry-After": DATES[number % len(DATES)].encode("utf-8", "replace"), "Location": b"http://[",
                   "Date": b"Mon, 01 Jan 0001 00:00:00 +2359", "X-MBX-USED-WEIGHT-1M": "²".encode()}  # fmt: skip
        return httpx.Response(statuses[number % len(statuses)], headers=headers, content=mutated(number, body))

    said = []
    for _ in range(300):
        settings = ProviderSettings(max_retries=0, requests_per_minute=10**6)
        channel = Http(provider, settings, sender=HttpxSender(httpx.MockTransport(answer))).channel()
        try:
            await channel.get("http://x/", spoken)
        except MarketDataError as error:
            said.append(str(error))
    assert len(said) > 200
    assert not [text for text in said if not text.isprintable() or len(text) > 300]


async def test_a_classifier_that_stumbles_is_a_malformed_answer() -> None:
    def classify(_: Response) -> MarketDataError | None:
        raise ZeroDivisionError("hidden")

    sender = HttpxSender(httpx.MockTransport(lambda _: httpx.Response(500, content=b"\x1b[31mred\x00")))
    channel = Http("there", ProviderSettings(max_retries=0), sender=sender).channel()
    with pytest.raises(MalformedPayload, match=r"^there answered 500 in a way that cannot be read: \[31mred$"):
        await channel.get("http://x/", Dialect(classify=classify))


async def test_a_message_of_twenty_megabytes_is_cut() -> None:
    def classify(response: Response) -> MarketDataError | None:
        return ProviderUnavailable(response.body.decode())

    sender = HttpxSender(httpx.MockTransport(lambda _: httpx.Response(500, content=b"\x1b]0;x\x07a" * 10**6)))
    channel = Http("there", ProviderSettings(max_retries=0), sender=sender).channel()
    with pytest.raises(ProviderUnavailable) as caught:
        await channel.get("http://x/", Dialect(classify=classify))
    assert len(str(caught.value)) <= 300
    assert str(caught.value).isprintable()


def test_texts_are_cleaned_at_the_door() -> None:
    body = rb'{"a":"x\u001b[31m\u0000y\ud800z\u009b\n","b":["\ud83d\ude00","~2J"],"\ud800k":"fine"}'
    odd = "\ufffd"
    assert load_json(body.replace(b"~", b"\xc2\x9b")) == {
        "a": f"x{odd}[31m{odd}y{odd}z{odd}\n", "b": ["\U0001f600", f"{odd}2J"], f"{odd}k": "fine",
    }  # fmt: skip
    assert cleaned("a\x1b[2J\x00\ud800\u202eb\r\nc") == "a[2Jb c"


def shapes() -> dict[str, Any]:
    """Bodies that cost much for their size, and what sources send."""
    rows = [[1499040000000 + n, f"{n / 7:.8f}", f"{n / 3:.8f}", "0.8", "12.5", 1499644799999, "0"] for n in range(4000)]
    bars = [
        {"v": n, "vw": n / 7, "o": n / 3, "c": 12.5, "h": 13.5, "l": 11.5, "t": 1626912000000 + n} for n in range(4000)
    ]
    return {
        "klines": rows, "bars": {"results": bars}, "empty objects": [{}] * 90_000, "empty lists": [[]] * 90_000,
        "small objects": [{"a": n} for n in range(30_000)], "short numbers": [10 + n % 90 for n in range(100_000)],
        "wide text": ["é" * 3 + "\U0001f600"] * 20_000,
    }  # fmt: skip


@pytest.mark.parametrize("name", shapes())
def test_reading_takes_at_most_its_multiple_of_memory(name: str) -> None:
    body = json.dumps(shapes()[name], separators=(",", ":"), ensure_ascii=False).encode()
    tracemalloc.start()
    try:
        kept = load_json(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept
    assert peak <= (10 if name in ("klines", "bars") else MOST_TIMES) * len(body)


async def test_an_answer_is_held_once() -> None:
    body = b"[" + b"1," * (4 * 2**20) + b"1]"

    class Parts(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            for at in range(0, len(body), 2**16):
                yield body[at : at + 2**16]

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Parts())

    channel = Http("there", ProviderSettings(), sender=HttpxSender(httpx.MockTransport(answer))).channel()
    tracemalloc.start()
    try:
        told = await channel.get("http://x/", Dialect(classify=lambda _: None))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert told.body == body
    # The buffer grows by an eighth at a time and is copied when it does.
    assert peak < 2.5 * len(body)


async def test_json_beyond_what_any_page_needs_is_refused() -> None:
    sent = 0

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            nonlocal sent
            while True:
                sent += 2**20
                yield b" " * 2**20

    sender = HttpxSender(httpx.MockTransport(lambda _: httpx.Response(200, stream=Endless())))
    channel = Http("there", ProviderSettings(max_retries=0), sender=sender).channel()
    with pytest.raises(MalformedPayload, match=f"more than the {JSON_BYTES} bytes"):
        await channel.get("http://x/", Dialect(classify=lambda _: None))
    assert sent <= JSON_BYTES + 2**20


@pytest.mark.parametrize(
    ("key", "fault"),
    [("hidden\nX-Evil: 1", "line break"), ("'hidden'", "quotes"), ('"hidden', "quotes"), ("hidd\u00e9n", "ASCII"),
     ("hid den", "blank"), ("hidden\x00", "control")],
)  # fmt: skip
def test_a_key_is_checked_where_it_is_read(key: str, fault: str) -> None:
    settings = load_settings(environ={"POLYGON_API_KEY": key})
    with pytest.raises(ConfigError, match=f"providers.polygon.api_key.*POLYGON_API_KEY.*{fault}") as caught:
        open_providers(settings)
    assert "hidd" not in str(caught.value)
    with pytest.raises(UsageError, match=fault):
        MarketData(key=key)


@pytest.mark.parametrize("browser", [False, True])
@pytest.mark.parametrize("value", ["hidden\nx", "hidd\u00e9n"])
async def test_a_header_a_library_refuses_is_not_quoted(value: str, browser: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    http = Http("there", ProviderSettings(max_retries=0, timeout_seconds=10))
    dialect = Dialect(classify=lambda _: None, browser=browser)
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(MarketDataError) as caught:
            await http.channel().get(f"http://127.0.0.1:{port}/", dialect, headers={"Authorization": value})
    await http.aclose()
    assert "hidd" not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert caught.value.__context__ is None or caught.value.__suppress_context__
