"""Binance's pages are shorter than asked for, one file of many is broken, one of two doors is shut: nothing is lost."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from market_data.model.dataset import FUNDING_RATES, LONG_SHORT_RATIOS, OPEN_INTEREST, TRADES, Dataset
from market_data.model.errors import MalformedPayload, ProviderUnavailable, UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Page
from market_data.model.timeframe import Timeframe
from market_data.providers.binance import Binance, BinanceSettings
from market_data.transport.http import Http
from market_data.transport.senders import HttpxSender

_spec = importlib.util.spec_from_file_location("fake_binance_pages", Path(__file__).with_name("fake.py"))
assert _spec is not None
assert _spec.loader is not None
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)

BTC = Instrument("BTC", AssetClass.CRYPTO)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
METRICS = "create_time,symbol,sum_open_interest,sum_open_interest_value,a,b,c,d\n"


class Short(fake.Source):  # type: ignore[misc,name-defined]  # loaded from a file
    """Gives at most so many rows a page, by the end of the path; a negative number the newest of them."""

    def __init__(self, caps: Mapping[str, int]) -> None:
        super().__init__()
        self.caps = caps

    def __call__(self, request: httpx.Request) -> httpx.Response:
        response = super().__call__(request)
        cap = self.caps.get(request.url.path.rsplit("/", 1)[1])
        if cap is None or response.status_code != 200:
            return response
        rows = json.loads(response.content)
        return self.answer(rows[:cap] if cap > 0 else rows[cap:])


class Shut(fake.Source):  # type: ignore[misc,name-defined]  # loaded from a file
    """Answers an error under some paths."""

    def __init__(self, paths: str, refusal: httpx.Response) -> None:
        super().__init__()
        self.paths, self.refusal = paths, refusal

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = super().__call__(request)
        path = request.url.path
        shut = path.endswith(self.paths) or path.startswith(self.paths)
        return self.refusal if shut else answer


def provider(source: Any, **settings: Any) -> Binance:
    configured = BinanceSettings(requests_per_minute=10**6, max_retries=0, breaker_failures=10**6, **settings)
    return Binance(configured, Http("binance", configured, sender=HttpxSender(httpx.MockTransport(source))))


async def taken(pages: AsyncIterator[Page]) -> tuple[pl.DataFrame, Exception | None]:
    """All rows that were handed on, and the error after them."""
    frames: list[pl.DataFrame] = []
    try:
        async for page in pages:
            frames += [page.frame]
    except Exception as error:
        return pl.concat(frames) if frames else pl.DataFrame(), error
    return pl.concat(frames) if frames else pl.DataFrame(), None


def facts(source: Any, dataset: Dataset, start: datetime, end: datetime) -> tuple[pl.DataFrame, Exception | None]:
    asked = provider(source)
    if dataset is TRADES:
        return asyncio.run(taken(asked.fetch_trades(BTC, start, end, now=fake.NOW)))
    return asyncio.run(taken(asked.fetch(dataset, BTC, start, end, now=fake.NOW)))


def hours(source: Any, start: datetime, end: datetime, **settings: Any) -> tuple[pl.DataFrame, Exception | None]:
    asked = provider(source, **settings)
    return asyncio.run(taken(asked.fetch_candles(BTC, Timeframe.H1, start, end, now=fake.NOW)))


NOON = datetime(2025, 3, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("dataset", "path", "cap", "start", "end", "rows"),
    [
        # A rate every eight hours; 200 of 600 was all that came.
        (FUNDING_RATES, "fundingRate", 200, NOON - 200 * DAY, NOON, 600),
        # A trade every two seconds.
        (TRADES, "aggTrades", 200, NOON, NOON + timedelta(seconds=6000), 3000),
        (OPEN_INTEREST, "openInterestHist", 100, NOON - 5 * DAY, NOON, 1440),
        # The oldest left out rather than the newest.
        (OPEN_INTEREST, "openInterestHist", -100, NOON - 5 * DAY, NOON, 1440),
        (LONG_SHORT_RATIOS, "globalLongShortAccountRatio", 50, NOON - DAY, NOON, 3 * 288),
    ],
)
def test_a_short_page_is_not_the_end(
    dataset: Dataset, path: str, cap: int, start: datetime, end: datetime, rows: int
) -> None:
    short, error = facts(Short({path: cap}), dataset, start, end)
    whole, _ = facts(fake.Source(), dataset, start, end)
    assert error is None
    assert short.height == rows
    assert short.sort(dataset.key).equals(whole.sort(dataset.key))


@pytest.mark.parametrize("cap", [1, 7, 100])
def test_short_pages_of_candles(cap: int) -> None:
    start = fake.NOW.replace(minute=0, second=0) - 40 * HOUR
    found, error = hours(Short({"klines": cap}), start, fake.NOW)
    assert error is None
    # The one that opened at the full hour is still open.
    assert found["timestamp"].to_list() == [start + n * HOUR for n in range(40)]


def metrics(source: Any, day: datetime) -> None:
    lines = (
        f"{day + n * timedelta(minutes=5):%Y-%m-%d %H:%M:%S},BTCUSDT,{n}.5,{n}.25,1,1,1,1\n" for n in range(1, 289)
    )
    label = f"{day:%Y-%m-%d}"
    source.add_file(f"futures/um/daily/metrics/BTCUSDT/BTCUSDT-metrics-{label}.zip", METRICS + "".join(lines))


def test_one_bad_file_costs_that_day_and_is_named() -> None:
    source, first = fake.Source(), datetime(2024, 6, 1, tzinfo=UTC)
    days = [first + n * DAY for n in range(5)]
    for day in days:
        metrics(source, day)
    source.checksums["/data/futures/um/daily/metrics/BTCUSDT/BTCUSDT-metrics-2024-06-03.zip"] = "0" * 64
    found, error = facts(source, OPEN_INTEREST, first, first + 5 * DAY)
    assert isinstance(error, MalformedPayload)
    assert str(error).startswith("the archive's files of 2024-06-03 cannot be read: ")
    noons = set(found.filter(pl.col("timestamp").dt.time() == datetime(2024, 1, 1, 12, tzinfo=UTC).time())["timestamp"])
    assert noons == {day + 12 * HOUR for day in days} - {datetime(2024, 6, 3, 12, tzinfo=UTC)}


def filed(source: Any, first: datetime, days: int) -> Any:
    """Days of hourly candles in the archive."""
    for day in (first + n * DAY for n in range(days)):
        second = int(day.timestamp())
        rows = (fake.kline(moment, 3600) for moment in range(second, second + 86_400, 3600))
        csv = "".join(",".join(map(str, row)) + "\n" for row in rows)
        label = f"{day:%Y-%m-%d}"
        source.add_file(f"futures/um/daily/klines/BTCUSDT/1h/BTCUSDT-1h-{label}.zip", csv)
    return source


SETTLED = fake.error(400, -1122, "Invalid symbol status.")
AWAY = httpx.Response(503, text="Slow down")
FIRST = datetime(2025, 2, 10, tzinfo=UTC)


def test_what_rest_does_not_tell_any_more_the_archive_does() -> None:
    found, error = hours(filed(Shut("/klines", SETTLED), FIRST, 3), FIRST, FIRST + 3 * DAY)
    assert error is None
    assert found["timestamp"].to_list() == [FIRST + n * HOUR for n in range(72)]


def test_what_neither_door_has_is_the_first_ones_error() -> None:
    found, error = hours(filed(Shut("/klines", AWAY), FIRST, 2), FIRST, FIRST + 3 * DAY)
    assert found.is_empty(), "what may pass is tried again at the same door"
    assert isinstance(error, ProviderUnavailable)
    found, error = hours(Shut("/klines", SETTLED), FIRST, FIRST + 3 * DAY)
    assert found.is_empty()
    assert isinstance(error, UnknownInstrument)
    assert "Invalid symbol status" in str(error)


def test_what_the_archive_has_of_a_contract_that_was_settled_is_all_there_is() -> None:
    found, error = hours(filed(Shut("/klines", SETTLED), FIRST, 2), FIRST, FIRST + 3 * DAY)
    assert (found.height, error) == (48, None)


@pytest.mark.parametrize("refusal", [SETTLED, AWAY])
def test_a_long_range_of_the_archive_does_not_need_rest_to_compare_with(refusal: httpx.Response) -> None:
    found, error = hours(filed(Shut("/klines", refusal), FIRST, 3), FIRST, FIRST + 3 * DAY, archive_from_candles=1)
    assert error is None
    assert found.height == 72


def test_an_archive_that_is_away_loses_no_candle_that_rest_has() -> None:
    found, error = hours(Shut("/data/", AWAY), FIRST, FIRST + 3 * DAY, archive_from_candles=1)
    assert error is None
    assert found["timestamp"].to_list() == [FIRST + n * HOUR for n in range(72)]
