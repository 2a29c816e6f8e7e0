"""Retries, breaker, rate limits: on a clock that only moves when somebody sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from market_data.model.errors import (
    ConfigError,
    MalformedPayload,
    MarketDataError,
    NotEntitled,
    ProviderUnavailable,
    RateLimited,
    UnknownInstrument,
)
from market_data.model.provider import ProviderSettings
from market_data.transport.budget import Budget, Time
from market_data.transport.channel import Channel, Dialect
from market_data.transport.gate import BreakerState, Gate, Refused
from market_data.transport.http import Http
from market_data.transport.ledger import Key, LocalLedger, Rate
from market_data.transport.ordered import fetch_ordered
from market_data.transport.senders import Request, Response

URL = "http://there.example/"


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)


class Scripted:
    """Answers with statuses in turn, the last for ever."""

    def __init__(self, *statuses: int, headers: dict[str, str] | None = None) -> None:
        self.statuses = list(statuses)
        self.headers = headers or {}
        self.sent = 0

    async def send(self, request: Request) -> Response:
        self.sent += 1
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return Response(
            url=request.url, status=status, headers=self.headers, body=b"", elapsed_ms=1, fetched_at=datetime.now(UTC)
        )

    async def aclose(self) -> None:
        pass


def classify(response: Response) -> MarketDataError | None:
    if response.status == 429:
        return RateLimited("slow down", retry_after=response.retry_after)
    kinds = {503: ProviderUnavailable, 404: UnknownInstrument, 403: NotEntitled, 299: MalformedPayload}
    return kinds[response.status](str(response.status)) if response.status in kinds else None


def used_weight(response: Response) -> tuple[float, float] | None:
    return (float(response.headers["used"]), 100.0) if "used" in response.headers else None


DIALECT = Dialect(classify=classify, quota=used_weight)


def build(source: Scripted, **settings: Any) -> tuple[Channel, Clock]:
    clock = Clock()
    configured = ProviderSettings(**{"requests_per_minute": 60_000} | settings)
    http = Http("there", configured, sender=source, clock=clock, sleep=clock.sleep, jitter=lambda: 1.0)
    return http.channel(), clock


async def test_transient_errors_are_tried_again_two_four_eight_seconds_apart() -> None:
    source = Scripted(503, 503, 503, 200)
    channel, clock = build(source)
    assert (await channel.get(URL, DIALECT)).status == 200
    assert (source.sent, clock.slept) == (4, [2.0, 4.0, 8.0])


async def test_and_then_given_up() -> None:
    source = Scripted(503)
    channel, _ = build(source)
    with pytest.raises(ProviderUnavailable):
        await channel.get(URL, DIALECT)
    assert source.sent == 4


@pytest.mark.parametrize("status", [404, 403, 299])
async def test_permanent_errors_are_not(status: int) -> None:
    source = Scripted(status)
    channel, clock = build(source)
    with pytest.raises(MarketDataError):
        await channel.get(URL, DIALECT)
    assert (source.sent, clock.slept) == (1, [])
    assert channel.gate.failures == 0


async def test_retry_after_is_obeyed() -> None:
    channel, clock = build(Scripted(429, 200, headers={"retry-after": "30"}))
    await channel.get(URL, DIALECT)
    assert clock.seconds == 30


async def test_everybody_waits_when_one_is_told_to() -> None:
    source = Scripted(429, 200, headers={"retry-after": "30"})
    channel, clock = build(source)
    await asyncio.gather(channel.get(URL, DIALECT), channel.get(URL, DIALECT))
    assert clock.seconds >= 30


async def test_a_ban_longer_than_the_deadline_is_not_waited_for() -> None:
    source = Scripted(429, headers={"retry-after": "259200"})
    channel, clock = build(source)
    with pytest.raises(RateLimited) as caught:
        await channel.get(URL, DIALECT)
    assert caught.value.retry_after == 259200
    assert (source.sent, clock.slept) == (1, [])


async def test_no_try_begins_after_the_deadline() -> None:
    source = Scripted(503)
    channel, clock = build(source, deadline_seconds=5, max_retries=10)
    with pytest.raises(ProviderUnavailable):
        await channel.get(URL, DIALECT)
    assert (source.sent, clock.slept) == (2, [2.0])


async def test_the_breaker_opens_after_three_failed_requests_and_closes_after_one_success() -> None:
    source = Scripted(*[503] * 4, 200)
    channel, clock = build(source, max_retries=0)
    for _ in range(3):
        with pytest.raises(ProviderUnavailable, match="503"):
            await channel.get(URL, DIALECT)
    assert channel.gate.state is BreakerState.OPEN
    with pytest.raises(ProviderUnavailable, match="300 s more after 3 failures"):
        await channel.get(URL, DIALECT)
    assert source.sent == 3, "an open breaker sends nothing"
    clock.seconds += 300
    assert channel.gate.state is BreakerState.HALF_OPEN
    with pytest.raises(ProviderUnavailable, match="503"):
        await channel.get(URL, DIALECT)
    assert channel.gate.state is BreakerState.OPEN, "one failure of the probe opens it again"
    clock.seconds += 300
    await channel.get(URL, DIALECT)
    assert (channel.gate.state, channel.gate.failures) == (BreakerState.CLOSED, 0)


def gate(**settings: Any) -> tuple[Gate, Clock]:
    clock = Clock()
    key = Key("there", "there", "there")
    return Gate(key, LocalLedger(clock), ProviderSettings(**settings), Time(clock=clock, sleep=clock.sleep)), clock


async def test_one_probe_at_a_time() -> None:
    breaker, clock = gate(breaker_failures=1, breaker_seconds=10)
    assert not await breaker.enter()
    await breaker.failed(ProviderUnavailable("down"), probing=False)
    assert breaker.rests_for == 10
    clock.seconds = 10
    assert await breaker.enter()
    with pytest.raises(Refused, match="tried by another"):
        await breaker.enter()
    await breaker.undecided(probing=True)
    assert await breaker.enter()
    clock.seconds += 120
    assert await breaker.enter(), "who found out never came back"


async def test_a_permanent_error_counts_as_an_answer_but_garbage_as_none() -> None:
    breaker, _ = gate()
    await breaker.failed(ProviderUnavailable("1"), probing=False)
    await breaker.failed(ProviderUnavailable("2"), probing=False)
    await breaker.failed(MalformedPayload("garbage"), probing=False)
    assert breaker.failures == 2
    await breaker.failed(UnknownInstrument("no such"), probing=False)
    assert breaker.failures == 0


async def test_a_cancelled_request_leaves_no_trace() -> None:
    class Hanging(Scripted):
        async def send(self, request: Request) -> Response:
            await asyncio.Event().wait()
            raise AssertionError

    channel, _ = build(Hanging(200))
    task = asyncio.ensure_future(channel.get(URL, DIALECT))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert channel.gate.failures == 0


async def test_at_most_so_many_in_any_window() -> None:
    clock = Clock()
    budget, key = Budget(Rate(5, 60), LocalLedger(clock), Time(clock=clock, sleep=clock.sleep)), Key("a", "a", "a")
    granted: list[float] = []

    async def ask() -> None:
        await budget.acquire(key, lambda *_: None)
        granted.append(clock())

    await asyncio.gather(*(ask() for _ in range(23)))
    assert len(granted) == 23
    assert all(granted[i + 5] - granted[i] >= 60 for i in range(18))
    assert granted[-1] == 240


async def test_half_a_request_a_minute() -> None:
    clock = Clock()
    budget, key = Budget(Rate(0.5, 60), LocalLedger(clock), Time(clock=clock, sleep=clock.sleep)), Key("a", "a", "a")
    await budget.acquire(key, lambda *_: None)
    await budget.acquire(key, lambda *_: None)
    assert clock.seconds == 120


async def test_the_sources_own_count_slows_us_down() -> None:
    channel, clock = build(Scripted(200, headers={"used": "89"}))
    await channel.get(URL, DIALECT)
    await channel.get(URL, DIALECT)
    assert (clock.seconds, channel.quota_remaining) == (0, 11)
    channel, clock = build(Scripted(200, headers={"used": "90"}))
    await channel.get(URL, DIALECT)
    await channel.get(URL, DIALECT)
    assert clock.seconds == 15


async def test_ordered_answers_few_ahead() -> None:
    under_way = 0
    most = 0

    async def fetch(number: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        # Later ones finish first.
        for _ in range(20 - number):
            await asyncio.sleep(0)
        under_way -= 1
        return number

    assert [answer async for answer in fetch_ordered(range(20), fetch, concurrency=4)] == list(range(20))
    assert most == 4


async def test_ordered_answers_hand_on_what_came_before_an_error() -> None:
    async def fetch(number: int) -> int:
        if number == 3:
            raise ProviderUnavailable("down")
        return number

    answers = fetch_ordered(range(9), fetch, concurrency=4)
    assert [await anext(answers) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ProviderUnavailable):
        await anext(answers)


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("7", lambda value: value == 7.0),
        ("Wed, 21 Oct 2065 07:28:00 GMT", lambda value: value > 10**8),
        ("Wed, 21 Oct 2015 07:28:00 GMT", lambda value: value == 0.0),
        ("soon", lambda value: value is None),
        ("", lambda value: value is None),
    ],
)
def test_retry_after_in_seconds_or_as_a_date(text: str, check: Callable[[float | None], bool]) -> None:
    response = Response(
        url=URL, status=429, headers={"retry-after": text}, body=b"", elapsed_ms=1, fetched_at=datetime.now(UTC)
    )
    assert check(response.retry_after)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:70000/x?apiKey=hidden", "port 70000: 1 to 65535"),
        ("http://127.0.0.1:0/", "port 0"),
        ("http://127.0.0.1:port/", "Invalid port"),
        ("fapi.binance.com/x", "http:// or https://"),
        ("ftp://fapi.binance.com", "http:// or https://"),
        ("http:///x", "a host are needed"),
    ],
)
async def test_an_address_that_is_none_is_a_wrong_setting(url: str, said: str) -> None:
    sender = Scripted(200)
    channel = Http("binance", ProviderSettings(), sender=sender).channel()
    with pytest.raises(ConfigError, match=said) as caught:
        await channel.get(url, Dialect(classify=lambda _: None))
    assert "providers.binance" in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert (sender.sent, channel.gate.failures) == (0, 0)
