"""What every provider must satisfy, found by discovery; `tests/providers/<name>/fake.py` is the source's other side."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from market_data import providers
from market_data.model.dataset import CANDLES, INSTRUMENTS
from market_data.model.errors import (
    MalformedPayload,
    MarketDataError,
    PermanentError,
    ProviderUnavailable,
    RateLimited,
    UnknownInstrument,
    UnsupportedRequest,
)
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Provider
from market_data.model.rows import UNREADABLE
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange, to_micros
from market_data.shelf import collect_classes
from market_data.transport.http import Http
from market_data.transport.senders import HttpxSender

FAKES = Path(__file__).parents[1] / "providers"
PROVIDERS = collect_classes(providers, Provider)  # type: ignore[type-abstract]


def load_fake(name: str) -> Any:
    path = FAKES / name / "fake.py"
    assert path.is_file(), f"provider {name} has no {path.relative_to(FAKES.parents[1])}"
    spec = importlib.util.spec_from_file_location(f"fake_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LOADED = {name: load_fake(name) for name in PROVIDERS}


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)


def build(name: str, source: Any, **changes: Any) -> tuple[Provider, Http]:
    settings = PROVIDERS[name].Settings(**{**LOADED[name].SETTINGS, **changes})
    clock = Clock()
    sender = HttpxSender(httpx.MockTransport(source))
    http = Http(name, settings, sender=sender, clock=clock, sleep=clock.sleep, jitter=lambda: 1.0)
    provider = PROVIDERS[name](settings, http)
    if provider.ready is not None:
        pytest.skip(f"{name}: {provider.ready}")
    return provider, http


async def candles(
    provider: Provider, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
) -> pl.DataFrame:
    frames = [CANDLES.empty()]
    async for page in provider.fetch_candles(instrument, timeframe, start, end, now=now):
        assert page.source.split(":")[0] == provider.name
        assert page.fetched_at.tzinfo is not None
        assert dict(page.frame.schema) == dict(CANDLES.schema)
        frames.append(page.frame)
    return pl.concat(frames)


async def rejected_rows(
    provider: Provider, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime, *, now: datetime
) -> list[tuple[str, str]]:
    pages = provider.fetch_candles(instrument, timeframe, start, end, now=now)
    return [row async for page in pages for row in page.rejected.select("rule", "payload").rows()]


async def listed(provider: Provider, fake: Any) -> pl.DataFrame:
    pages = provider.fetch(INSTRUMENTS, fake.KNOWN, fake.LISTED, fake.NOW, now=fake.NOW)
    return pl.concat([INSTRUMENTS.empty(), *[page.frame async for page in pages]])


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


each_provider = pytest.mark.parametrize("name", sorted(PROVIDERS))
each_case = pytest.mark.parametrize(
    ("name", "case"),
    [pytest.param(n, c, id=f"{n}-{c[0].symbol}-{c[1]}") for n in sorted(PROVIDERS) for c in LOADED[n].CASES],
)


def test_providers_are_found() -> None:
    assert {"binance"} <= set(PROVIDERS)


@each_case
def test_candles_are_on_the_grid_closed_in_range_and_complete(name: str, case: Any) -> None:
    instrument, timeframe, start, end = case
    fake = LOADED[name]
    provider, _ = build(name, fake.Source())
    frame = run(candles(provider, instrument, timeframe, start, end, now=fake.NOW))
    times = frame["timestamp"].cast(pl.Int64).to_list()
    expected = grid(instrument.asset_class, timeframe, TimeRange(start, end)).closed_by(fake.NOW).opens.tolist()
    missing = getattr(fake, "missing", lambda *_: set())(instrument, timeframe)
    listed = to_micros(fake.LISTED)
    assert times == [moment for moment in expected if moment >= listed and moment not in missing]
    assert len(times) > 3
    prices = frame.select("open", "high", "low", "close", "volume")
    assert sum(prices.null_count().row(0)) == 0


@each_provider
def test_no_candle_that_is_still_open_by_the_sources_clock(name: str) -> None:
    """Our clock may run ahead of the source's: its word counts."""
    fake = LOADED[name]
    source = fake.Source()
    provider, _ = build(name, source)
    instrument, timeframe, start, _ = fake.CASES[1]
    ahead = fake.NOW + timeframe.duration * 3
    frame = run(candles(provider, instrument, timeframe, start, ahead, now=ahead))
    ends = grid(instrument.asset_class, timeframe, TimeRange(start, ahead)).closed_by(fake.NOW).opens
    assert frame["timestamp"].cast(pl.Int64).to_list() == ends.tolist()


@each_provider
def test_symbol_round_trip(name: str) -> None:
    fake = LOADED[name]
    provider, _ = build(name, fake.Source())
    listing = run(provider.resolve(fake.KNOWN))
    assert (listing.instrument, listing.provider, listing.raw_symbol) == (fake.KNOWN, name, fake.RAW_SYMBOL)
    if provider.capability(INSTRUMENTS, fake.KNOWN, None) is not None:
        # And back: the source's own list names the instrument that its symbol stands for.
        rows = run(listed(provider, fake)).filter(pl.col("raw_symbol") == listing.raw_symbol)
        assert set(rows.select("symbol", "asset_class").rows()) == {(fake.KNOWN.symbol, fake.KNOWN.asset_class.value)}


@each_provider
def test_unknown_instrument(name: str) -> None:
    provider, _ = build(name, LOADED[name].Source())
    with pytest.raises(UnknownInstrument):
        run(provider.resolve(LOADED[name].UNKNOWN))


@each_provider
def test_nothing_there_is_an_empty_answer_not_an_error(name: str) -> None:
    fake = LOADED[name]
    provider, http = build(name, fake.Source())
    assert run(candles(provider, *fake.EMPTY, now=fake.NOW)).height == 0
    assert not any(channel.gate.failures for channel in http.channels.values())


@pytest.mark.parametrize(("name", "number"), [(n, i) for n in sorted(PROVIDERS) for i in range(len(LOADED[n].ERRORS))])
def test_each_refusal_has_its_type(name: str, number: int) -> None:
    fake = LOADED[name]
    source = fake.Source()
    source.override, expected = fake.ERRORS[number]
    provider, _ = build(name, source, max_retries=0)
    with pytest.raises(expected) as caught:
        run(candles(provider, *fake.CASES[0], now=fake.NOW))
    assert type(caught.value) is expected


@pytest.mark.parametrize(("name", "number"), [(n, i) for n in sorted(PROVIDERS) for i in range(len(LOADED[n].GARBAGE))])
def test_garbage_is_malformed_or_rejected_row_by_row_and_never_passed_over(name: str, number: int) -> None:
    fake = LOADED[name]
    source = fake.Source()
    source.override = httpx.Response(200, content=fake.GARBAGE[number])
    provider, _ = build(name, source)
    try:
        rejected = run(rejected_rows(provider, *fake.CASES[0], now=fake.NOW))
    except MalformedPayload:
        return
    assert rejected
    assert all(rule.partition(":")[0] in UNREADABLE and json.loads(payload) for rule, payload in rejected)


class Recorded:
    """Passes requests on and keeps the answers; `altered` takes the place of the one to `url`."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.answers: list[tuple[str, bytes]] = []
        self.url = ""
        self.altered: Callable[[bytes], httpx.Response] | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer: httpx.Response = self.source(request)
        self.answers.append((str(request.url), answer.content))
        if self.altered is not None and str(request.url) == self.url:
            return self.altered(answer.content)
        return answer


@cache
def asked(name: str) -> tuple[str, list[str]]:
    """The address of the page with the most candles of the first case, and all addresses asked for."""
    fake = LOADED[name]
    source = Recorded(fake.Source())
    run(candles(build(name, source)[0], *fake.CASES[0], now=fake.NOW))
    return max(source.answers, key=lambda each: len(each[1]))[0], [url for url, _ in source.answers]


def altered(name: str, answer: Callable[[bytes], httpx.Response]) -> Recorded:
    """A source that is honest but for its longest page."""
    source = Recorded(LOADED[name].Source())
    source.url, source.altered = asked(name)[0], answer
    return source


on_the_network = pytest.mark.parametrize("name", sorted(name for name in PROVIDERS if LOADED[name].ERRORS))


@on_the_network
def test_pages_are_asked_for_to_the_end(name: str) -> None:
    longest, addresses = asked(name)
    folder = httpx.URL(longest).path.rsplit("/", 2)[0]
    pages = [url for url in addresses if httpx.URL(url).path.rsplit("/", 2)[0] == folder]
    assert len(pages) > 1, "the first case is to be longer than a page"


@on_the_network
@pytest.mark.parametrize("kept", [0.999, 0.5, 0.01])
def test_an_honest_body_cut_short_is_malformed(name: str, kept: float) -> None:
    source = altered(name, lambda body: httpx.Response(200, content=body[: int(len(body) * kept)]))
    with pytest.raises(MalformedPayload):
        run(candles(build(name, source)[0], *LOADED[name].CASES[0], now=LOADED[name].NOW))


BARE = {429: RateLimited, 500: ProviderUnavailable, 502: ProviderUnavailable, 503: ProviderUnavailable,
        504: ProviderUnavailable}  # fmt: skip


@on_the_network
@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 451, *BARE])
def test_a_bare_status_is_an_error_of_its_kind_and_never_an_empty_answer(name: str, status: int) -> None:
    """Proxies and balancers answer without the source's own words."""
    source = altered(name, lambda _: httpx.Response(status, html="<html>no</html>"))
    provider, http = build(name, source, max_retries=0)
    with pytest.raises(MarketDataError) as caught:
        run(candles(provider, *LOADED[name].CASES[0], now=LOADED[name].NOW))
    assert isinstance(caught.value, BARE.get(status, (PermanentError, RateLimited)))
    if isinstance(caught.value, PermanentError):
        assert not any(channel.gate.failures for channel in http.channels.values()), (
            "it is an answer, and says nothing against the source"
        )


@each_provider
def test_what_is_not_served_is_said(name: str) -> None:
    provider, _ = build(name, LOADED[name].Source())
    foreign = Instrument("NOSUCH", AssetClass.CRYPTO)
    for capability in provider.capabilities:
        assert provider.capability(capability.dataset, foreign, None) in (None, *provider.capabilities)
    limited = [c for c in provider.capabilities if c.dataset is CANDLES and c.reach]
    for capability in limited:
        timeframe = next(iter(capability.reach))
        early = datetime(2001, 1, 1, tzinfo=UTC)
        with pytest.raises(UnsupportedRequest):
            run(candles(provider, LOADED[name].KNOWN, timeframe, early, LOADED[name].NOW, now=LOADED[name].NOW))
