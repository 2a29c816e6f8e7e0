"""ccxt: digits as sent, our transport, its errors as ours."""

from __future__ import annotations

import asyncio
import importlib.util
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from market_data.model.dataset import DIVIDENDS, FUNDING_RATES
from market_data.model.errors import ConfigError, RateLimited, UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import Timeframe
from market_data.providers.ccxt import Ccxt
from market_data.providers.ccxt.exchange import CcxtSettings
from market_data.transport.http import Http
from market_data.transport.senders import HttpxSender

pytest.importorskip("ccxt", reason="the optional library ccxt is not installed")

_spec = importlib.util.spec_from_file_location("fake_ccxt_tests", Path(__file__).with_name("fake.py"))
assert _spec is not None
assert _spec.loader is not None
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)

BTC = Instrument("BTC", AssetClass.CRYPTO)


def build(source: Any, **settings: Any) -> Ccxt:
    configured = CcxtSettings(**{"exchange": "bitstamp", "requests_per_minute": 6000, "max_retries": 0} | settings)
    return Ccxt(configured, Http("ccxt", configured, sender=HttpxSender(httpx.MockTransport(source))))


def fetch(provider: Ccxt, *what: Any) -> Any:
    async def collect() -> Any:
        return [page async for page in provider.fetch_candles(*what, now=fake.NOW)]

    return asyncio.run(collect())


def test_digits_are_those_that_were_sent() -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    (page,) = fetch(build(fake.Source()), BTC, Timeframe.M1, start, start + timedelta(minutes=1))
    assert page.source == "ccxt:bitstamp"
    number = int(start.timestamp()) // 60 % 1000
    assert page.frame.select("open", "close", "volume").row(0) == (
        number + Decimal("100.10"),
        number + Decimal("101.00000001"),
        number + Decimal("0.500"),
    )


def test_weeks_are_made_of_days() -> None:
    """The library's own table has 1w = 259200 s for this exchange, which is three days."""
    source = fake.Source()
    fetch(build(source), BTC, Timeframe.W1, datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 2, 1, tzinfo=UTC))
    assert {request.url.params.get("step") for request in source.requests if "ohlc" in request.url.path} == {"86400"}


def test_another_host_may_stand_in() -> None:
    source = fake.Source()
    asyncio.run(build(source, rest_url="http://127.0.0.1:9").resolve(BTC))
    assert {request.url.host for request in source.requests} == {"127.0.0.1"}


def test_perpetuals_where_the_settings_say_so() -> None:
    listing = asyncio.run(build(fake.Source(), market_type="swap").resolve(BTC))
    assert listing.raw_symbol == "BTC/USD:USD"


def test_retry_after_reaches_us() -> None:
    source = fake.Source()
    source.override = httpx.Response(429, json={"error": "Too many requests"}, headers={"Retry-After": "3"})
    with pytest.raises(RateLimited) as caught:
        fetch(build(source), BTC, Timeframe.H1, datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, tzinfo=UTC))
    assert caught.value.retry_after == 3


def test_trades() -> None:
    async def collect() -> Any:
        pages = build(fake.Source()).fetch_trades(BTC, fake.NOW - timedelta(seconds=30), fake.NOW, now=fake.NOW)
        return [page async for page in pages]

    (page,) = asyncio.run(collect())
    assert page.frame.select("trade_id", "price", "size", "aggressor_side").rows() == [
        ("998", Decimal("100.10"), Decimal("0.005"), "sell"),
        ("999", Decimal("100.10"), Decimal("0.005"), "buy"),
    ]


@pytest.mark.parametrize("dataset", [FUNDING_RATES, DIVIDENDS])
def test_what_the_exchange_lacks_is_said(dataset: Any) -> None:
    async def collect() -> None:
        start = fake.NOW - timedelta(days=1)
        async for _ in build(fake.Source()).fetch(dataset, BTC, start, fake.NOW, now=fake.NOW):
            raise AssertionError

    with pytest.raises(UnsupportedRequest):
        asyncio.run(collect())


def test_without_an_exchange_it_says_what_to_set() -> None:
    provider = build(fake.Source(), exchange=None)
    assert provider.ready is not None
    assert "providers.ccxt.exchange" in provider.ready
    with pytest.raises(ConfigError):
        asyncio.run(provider.resolve(BTC))


def test_an_exchange_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="nosuch"):
        asyncio.run(build(fake.Source(), exchange="nosuch").resolve(BTC))
