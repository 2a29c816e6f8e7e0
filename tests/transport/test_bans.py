"""What is to be left alone is left alone, and nothing else: by host, by class of endpoint, until the moment told."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from market_data.model.errors import MarketDataError, ProviderUnavailable, RateLimited
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import ProviderSettings
from market_data.providers.binance.client import Client
from market_data.providers.binance.dialect import classify
from market_data.providers.binance.markets import SPOT_MARKET, USD_M
from market_data.providers.binance.settings import BinanceSettings
from market_data.providers.polygon.dialect import MASSIVE
from market_data.providers.yahoo import Yahoo, YahooSettings
from market_data.providers.yahoo.dialect import classify as yahoo_classify
from market_data.transport.budget import patiently
from market_data.transport.channel import Dialect
from market_data.transport.gate import LONGEST_BAN_SECONDS, BreakerState
from market_data.transport.http import Http
from market_data.transport.senders import HttpxSender, Response

Source = Callable[[httpx.Request], httpx.Response]
NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
UNTIL = "Way too many requests; IP(192.0.2.1) banned until {}. Please use the websocket for live updates to avoid bans."
SAYING = '{{"code":-1003,"msg":"' + UNTIL + '"}}'


def fake(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"honest_{name}", Path(__file__).parents[1] / "providers" / name / "fake.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)

    def wall(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)


def opened(
    name: str, settings: ProviderSettings, source: Callable[[httpx.Request], httpx.Response]
) -> tuple[Http, Clock]:
    clock = Clock()
    sender = HttpxSender(httpx.MockTransport(source))
    return Http(
        name, settings, sender=sender, clock=clock, sleep=clock.sleep, jitter=lambda: 1.0, wall=clock.wall
    ), clock


class Binance:
    """Answers by what is asked for, and counts it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, httpx.Response] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        found = [answer for part, answer in self.answers.items() if part in request.url.path]
        return httpx.Response(found[0].status_code, headers=found[0].headers, content=found[0].content) if found else (
            httpx.Response(200, json=[]))  # fmt: skip

    def client(self, **settings: Any) -> tuple[Client, Http, Clock]:
        http, clock = opened("binance", own := BinanceSettings(**{"max_retries": 0} | settings), self)
        return Client(own, http), http, clock


def banned(seconds: int) -> httpx.Response:
    return httpx.Response(418, headers={"Retry-After": str(seconds)}, json={"code": -1003, "msg": "banned"})


async def test_banned_for_an_hour_one_request_in_that_hour() -> None:
    source = Binance()
    source.answers["/fapi"] = banned(3600)
    client, _, clock = source.client()
    with pytest.raises(RateLimited):
        await client.get(USD_M, "/klines")
    said = "is not asked before 2026-11-27 13:00:00 UTC, as it was told: .*418: banned"
    while clock.seconds < 3420:
        clock.seconds += 60
        with pytest.raises(RateLimited, match=said) as told:
            await client.get(USD_M, "/klines")
        assert told.value.retry_after == 3600 - clock.seconds
    assert len(source.asked) == 1
    # What is left is no longer than a request may take: it waits, and asks when the hour is over.
    source.answers.clear()
    clock.seconds += 60
    await client.get(USD_M, "/klines")
    assert (len(source.asked), clock.seconds) == (2, 3600)


async def test_a_ban_is_of_the_address_a_breaker_of_the_endpoints() -> None:
    source = Binance()
    source.answers["/fapi/v1/klines"] = banned(3600)
    client, http, _ = source.client()
    with pytest.raises(RateLimited):
        await client.get(USD_M, "/klines")
    for asking in (client.get_funding("/fundingRate"), client.get_statistics("/openInterestHist")):
        with pytest.raises(RateLimited, match="not asked before"):
            await asking
    await client.get(SPOT_MARKET, "/klines")
    await client.get_file("spot/x.zip")
    assert source.asked == ["/fapi/v1/klines", "/api/v3/klines", "/data/spot/x.zip"]
    assert {channel.gate.state for channel in http.channels.values()} == {BreakerState.CLOSED}


@pytest.mark.parametrize(("part", "channel"), [
    ("/data/x", "binance:archive"), ("/futures/data", "binance:statistics"), ("/api/v3", "binance:spot"),
])  # fmt: skip
async def test_an_outage_opens_no_breaker_but_its_own(part: str, channel: str) -> None:
    source = Binance()
    source.answers[part] = httpx.Response(503)
    client, http, _ = source.client()
    asking = {
        "binance": lambda: client.get(USD_M, "/klines"),
        "binance:spot": lambda: client.get(SPOT_MARKET, "/klines"),
        "binance:funding": lambda: client.get_funding("/fundingRate"),
        "binance:statistics": lambda: client.get_statistics("/openInterestHist"),
        "binance:archive": lambda: client.get_file("x.zip"),
    }
    assert asking.keys() == http.channels.keys()
    for _ in range(4):
        with pytest.raises(ProviderUnavailable):
            await asking[channel]()
    assert sum(part in path for path in source.asked) == 3
    for name, ask in asking.items():
        if name != channel:
            await ask()
    assert [name for name, one in http.channels.items() if one.gate.state is BreakerState.OPEN] == [channel]


async def test_the_weight_of_one_market_says_nothing_of_the_other() -> None:
    source = Binance()
    source.answers["/api/v3"] = httpx.Response(200, headers={"X-MBX-USED-WEIGHT-1M": "5900"}, json=[])
    source.answers["/fapi"] = httpx.Response(200, headers={"X-MBX-USED-WEIGHT-1M": "10"}, json=[])
    client, _, clock = source.client()
    await client.get(SPOT_MARKET, "/klines")
    assert client.has_plenty(USD_M), "nobody has told of it"
    await client.get(USD_M, "/klines")
    await client.get(USD_M, "/klines")
    assert (client.has_plenty(USD_M), client.has_plenty(SPOT_MARKET), clock.seconds) == (True, False, 0)
    await client.get(SPOT_MARKET, "/klines")
    assert clock.seconds == 15, "its own requests wait for its own window"


def told(status: int, body: str, seconds: int, **headers: str) -> Response:
    """Binance's answer whose text names a moment so many seconds after its clock's noon."""
    until = int((NOON + timedelta(seconds=seconds)).timestamp() * 1000)
    named = {name.replace("_", "-"): value for name, value in headers.items()} | {
        "date": format_datetime(NOON, usegmt=True)
    }
    content = body.format(until).encode()
    # Our clock is a minute ahead of the source's.
    return Response(
        url="", status=status, headers=named, body=content, elapsed_ms=1, fetched_at=NOON + timedelta(minutes=1)
    )


@pytest.mark.parametrize(
    ("answer", "waits"),
    [
        (told(418, SAYING, 600), 600),
        (told(429, SAYING, 600, retry_after="30"), 600),
        (told(418, SAYING, 600, retry_after="900"), 900),
        (told(400, SAYING, 600), 600),
        (told(200, SAYING, 600), 600),
        (told(418, SAYING, -600), 0),
        (told(418, '{{"code":-1003,"msg":"banned"}}', 0), 120),
        (told(429, '{{"code":-1003,"msg":"Too many requests"}}', 0), None),
        (told(429, "", 0, retry_after=format_datetime(NOON + timedelta(minutes=3), usegmt=True)), 120),
    ],
)
def test_how_long_binance_wants_to_be_left_alone(answer: Response, waits: float | None) -> None:
    error = classify(answer)
    assert isinstance(error, RateLimited)
    assert error.retry_after == waits


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (MASSIVE.classify, b'{"status":"ERROR","error":"You\'ve exceeded the maximum requests per minute"}'),
        (yahoo_classify, b'{"finance":{"result":null,"error":{"code":"Too Many Requests","description":"No"}}}'),
        (yahoo_classify, b"Too Many Requests\r\n"),
    ],
)  # fmt: skip
def test_a_refusal_sent_as_a_success(read: Callable[[Response], MarketDataError | None], body: bytes) -> None:
    answer = Response(url="", status=200, headers={"retry-after": "7"}, body=body, elapsed_ms=1, fetched_at=NOON)
    error = read(answer)
    assert isinstance(error, RateLimited)
    assert error.retry_after == 7


async def test_a_ban_beyond_reason_does_not_lock_a_source_out_for_ever() -> None:
    source = Binance()
    source.answers["/fapi"] = banned(10**15)
    client, _, clock = source.client()
    with pytest.raises(RateLimited):
        await client.get(USD_M, "/klines")
    clock.seconds = LONGEST_BAN_SECONDS
    source.answers.clear()
    await client.get(USD_M, "/klines")


async def test_a_short_ban_is_waited_for_by_everybody_and_costs_no_try() -> None:
    source = Binance()
    source.answers["/fapi"] = banned(50)
    client, _, clock = source.client(max_retries=0)
    with pytest.raises(RateLimited):
        await client.get(USD_M, "/klines")
    source.answers.clear()
    await asyncio.gather(*(client.get(USD_M, "/klines") for _ in range(3)))
    assert (clock.seconds >= 50, len(source.asked)) == (True, 4)


async def test_a_slow_search_keeps_nobody_from_what_is_known() -> None:
    honest, released = fake("yahoo"), asyncio.Event()
    answers = honest.Source()

    class Slow(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if request.url.params.get("q") == "SLOW":
                await released.wait()
            found: httpx.Response = answers(request)
            return found

    settings = YahooSettings(requests_per_minute=6000)
    yahoo = Yahoo(settings, Http("yahoo", settings, sender=HttpxSender(Slow())))
    known = await yahoo.resolve(honest.KNOWN)
    slow = asyncio.create_task(yahoo.resolve(Instrument("SLOW", AssetClass.STOCK)))
    await asyncio.sleep(0.01)
    async with asyncio.timeout(20):
        assert await yahoo.resolve(honest.KNOWN) == known
        assert (await yahoo.resolve(honest.COIN)).instrument == honest.COIN
        start, end = datetime(2025, 2, 11, tzinfo=UTC), datetime(2025, 2, 12, tzinfo=UTC)
        pages = [
            page async for page in yahoo.fetch_candles(honest.KNOWN, honest.CASES[3][1], start, end, now=honest.NOW)
        ]
    assert pages
    assert not slow.done()
    slow.cancel()


async def test_what_can_wait_leaves_room_for_what_cannot() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200)

    http, clock = opened("there", ProviderSettings(requests_per_minute=10), answer)
    channel, plain = http.channel(), Dialect(classify=lambda _: None)
    with patiently():
        for _ in range(8):
            await channel.get("http://x/", plain)
        waiting = asyncio.create_task(channel.get("http://x/", plain))
    await channel.get("http://x/", plain)
    await channel.get("http://x/", plain)
    assert clock.seconds == 0, "a fifth is always there"
    await waiting
    assert clock.seconds == 60


async def test_backfills_keep_to_their_own_pace() -> None:
    clock = Clock()
    sender = HttpxSender(httpx.MockTransport(lambda _: httpx.Response(200)))
    settings = ProviderSettings(requests_per_minute=1200)
    http = Http("there", settings, sender=sender, patient_per_minute=50, clock=clock, sleep=clock.sleep)
    first, second, plain = http.channel(), http.channel("other", budget=""), Dialect(classify=lambda _: None)
    with patiently():
        for _ in range(75):
            await first.get("http://x/", plain)
            await second.get("http://x/", plain)
    # 150 requests at 50 a minute: the last of them two minutes after the first.
    assert clock.seconds == 120
