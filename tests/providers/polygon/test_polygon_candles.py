"""Massive candles: recorded bodies as recorded, pages, keys, delays, what a session holds."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from market_data.model.dataset import CANDLES
from market_data.model.errors import BadCredentials, MalformedPayload
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Page
from market_data.model.timeframe import Timeframe
from market_data.providers.polygon import Polygon, PolygonSettings
from market_data.providers.polygon.parse import find_listing, parse_aggregates, parse_answer
from market_data.transport.http import Http
from market_data.transport.senders import HttpxSender

RECORDINGS = Path(os.environ.get("MARKET_DATA_RECORDINGS", Path(__file__).parents[3] / "../shared/data"))
_spec = importlib.util.spec_from_file_location("fake_polygon_candles", Path(__file__).with_name("fake.py"))
assert _spec is not None
assert _spec.loader is not None
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)

AAPL = Instrument("AAPL", AssetClass.STOCK)
BTC = Instrument("BTC", AssetClass.CRYPTO)
# 2024-11-29: a half day, 09:30 to 13:00 in New York.
HALF_DAY = datetime(2024, 11, 29, tzinfo=UTC), datetime(2024, 11, 30, tzinfo=UTC)


def polygon(source: Any, **settings: Any) -> Polygon:
    configured = PolygonSettings(**{"api_key": fake.KEY, "requests_per_minute": 6000} | settings)
    return Polygon(configured, Http("polygon", configured, sender=HttpxSender(httpx.MockTransport(source))))


def fetch(source: Any, *what: Any) -> pl.DataFrame:
    async def collect() -> list[pl.DataFrame]:
        return [page.frame async for page in polygon(source).fetch_candles(*what, now=fake.NOW)]

    return pl.concat([CANDLES.empty(), *asyncio.run(collect())])


def recorded_aggregates() -> list[Path]:
    examples = (RECORDINGS / "massive_spec/examples").glob("v2_aggs_ticker_*_range_*.json")
    mocks = (RECORDINGS / "polygon_client_python/test_rest/mocks/v2/aggs/ticker").rglob("range/**/*.json")
    return sorted([*examples, *mocks])


def test_recorded_aggregates_keep_every_digit() -> None:
    paths = recorded_aggregates()
    if not paths:
        pytest.skip(f"recordings {RECORDINGS} are absent (set MARKET_DATA_RECORDINGS)")
    rows = 0
    for path in paths:
        recorded = json.loads(path.read_text(), parse_float=Decimal)
        recorded = recorded.get("example", recorded)
        results = recorded["results"]
        body = json.dumps(recorded, default=str).encode()
        if "v" not in results[0]:
            # An index has no volume: nothing we serve.
            unread = parse_aggregates(parse_answer(body).results).rejected
            assert set(unread["rule"]) == {"value_missing: v"}
            continue
        frame = parse_aggregates(parse_answer(body).results).frame
        rows += frame.height
        for column, key in {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v", "vwap": "vw"}.items():
            assert frame[column].to_list() == [None if key not in row else Decimal(row[key]) for row in results]
        assert [int(moment.timestamp() * 1000) for moment in frame["timestamp"]] == [row["t"] for row in results]
    assert rows > 5


def test_numbers_in_scientific_notation_and_fractions() -> None:
    body = b'{"status":"OK","results":[{"t":1735741800000,"o":1e-7,"h":2.5E2,"l":1.0,"c":1,"v":1.3564e8,"vw":0.1}]}'
    row = parse_aggregates(parse_answer(body).results).frame.row(0, named=True)
    assert [row[name] for name in ("open", "high", "volume", "vwap")] == [
        Decimal("0.0000001"),
        250,
        135_640_000,
        Decimal("0.1"),
    ]


def test_recorded_list_of_tickers() -> None:
    path = RECORDINGS / "massive_spec/examples/v3_reference_tickers.json"
    if not path.exists():
        pytest.skip(f"recording {path} is absent (set MARKET_DATA_RECORDINGS)")
    answer = parse_answer(json.dumps(json.loads(path.read_text())["example"]).encode())
    listing = find_listing(Instrument("A", AssetClass.STOCK), answer.results)
    assert (listing.raw_symbol, listing.venue) == ("A", "XNYS")
    assert answer.next_path is not None
    assert answer.next_path.startswith("/v3/reference/tickers?cursor=")


def test_pages_are_asked_for_on_our_own_address_with_the_key() -> None:
    source = fake.Source()
    source.page_rows = 50
    frame = fetch(source, BTC, Timeframe.M5, datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, tzinfo=UTC))
    assert frame.height == 288
    bars = [request for request in source.requests if "/aggs/" in request.url.path]
    assert len(bars) == 6
    assert {request.url.host for request in bars} == {"api.massive.com"}
    assert bars[0].url.params["adjusted"] == "false"
    assert "apiKey" not in str(bars[-1].url)


def test_pages_without_end_are_malformed() -> None:
    source = fake.Source()
    again = "https://api.massive.com/v2/aggs/ticker/AAPL/range/1/day/2024-11-29/2024-11-29?cursor=1"
    source.override = httpx.Response(200, json={"status": "OK", "resultsCount": 0, "next_url": again})
    with pytest.raises(MalformedPayload, match="do not end"):
        fetch(source, AAPL, Timeframe.D1, *HALF_DAY)


def test_hours_of_a_stock_hold_its_session_only() -> None:
    frame = fetch(fake.Source(), AAPL, Timeframe.H1, *HALF_DAY)
    assert [moment.strftime("%H:%M") for moment in frame["timestamp"]] == ["14:30", "15:30", "16:30", "17:30"]
    # Half hours of 315 shares, 30 trades: the last candle has one of them.
    assert frame["volume"].to_list() == [630, 630, 630, 315]
    assert frame["trade_count"].to_list() == [60, 60, 60, 30]
    # Minute 870 opens at 100 + 870/4, minute 900 closes at 101.75 + 900/4.
    assert frame.select("open", "close").row(0) == (Decimal("317.5"), Decimal("326.75"))
    assert frame["notes"].null_count() == 4


def test_days_say_that_their_volume_includes_extended_hours() -> None:
    frame = fetch(fake.Source(), AAPL, Timeframe.D1, *HALF_DAY)
    assert frame["timestamp"].to_list() == [datetime(2024, 11, 29, 14, 30, tzinfo=UTC)]
    assert frame["notes"].to_list() == ["volume_includes_extended_hours"]


def test_delayed_answers_say_so_and_are_cut_where_they_may_be_incomplete() -> None:
    source = fake.Source()
    source.status = "DELAYED"
    start = fake.NOW.replace(minute=0, second=0) - timedelta(hours=1)
    frame = fetch(source, BTC, Timeframe.M5, start, fake.NOW)
    # 15:00:30 less a quarter of an hour: the candle that ends at 14:45 is the last.
    assert frame["timestamp"][-1] == datetime(2025, 3, 5, 14, 40, tzinfo=UTC)
    assert set(frame["notes"]) == {"delayed"}


def test_a_row_off_the_grid_is_kept_for_the_rules_and_extended_hours_are_not() -> None:
    source = fake.Source()
    rows = [fake.bar(datetime(2024, 11, 29, *clock, tzinfo=UTC), 5) for clock in ((9, 0), (14, 33), (14, 30), (18, 0))]
    source.override = httpx.Response(200, json={"status": "OK", "results": [*rows, rows[1]]})
    frame = fetch(source, AAPL, Timeframe.M5, *HALF_DAY)
    assert [moment.strftime("%H:%M") for moment in frame["timestamp"]] == ["14:30", "14:33"]


def test_contradicting_parts_cost_the_candle_they_are_of() -> None:
    source = fake.Source()
    opens = [datetime(2024, 11, 29, 14, 30, tzinfo=UTC) + timedelta(minutes=30 * number) for number in range(7)]
    bars = [fake.bar(moment, 30) for moment in opens]
    twice = bars[2] | {"c": 1}
    source.override = httpx.Response(200, json={"status": "OK", "results": [*bars[:3], twice, *bars[3:]]})

    async def collect() -> list[Page]:
        return [page async for page in polygon(source).fetch_candles(AAPL, Timeframe.H1, *HALF_DAY, now=fake.NOW)]

    (page,) = asyncio.run(collect())
    frame = page.frame
    assert [moment.strftime("%H:%M") for moment in frame["timestamp"]] == ["14:30", "15:30", "16:30", "17:30"]
    # Of the second hour there is the second half, and the candle says that this is not all.
    assert frame["notes"].to_list() == [None, "parts_unknown", None, None]
    assert frame["volume"].to_list() == [630, 315, 630, 315]
    assert page.rejected.select("timestamp", "rule").rows() == [(opens[2], "parts_contradict")] * 2


def test_without_a_key_it_says_what_to_set() -> None:
    provider = polygon(fake.Source(), api_key=None)
    assert provider.ready is not None
    assert "POLYGON_API_KEY" in provider.ready
    with pytest.raises(BadCredentials, match="POLYGON_API_KEY"):
        asyncio.run(provider.resolve(AAPL))
    assert polygon(fake.Source()).ready is None


def test_coins_are_found_by_base_and_quote_currency() -> None:
    assert asyncio.run(polygon(fake.Source()).resolve(BTC)).raw_symbol == "X:BTCUSD"


def test_a_week_without_its_wednesday_says_so() -> None:
    source = fake.Source()
    days = [datetime(2025, 1, number, 5, tzinfo=UTC) for number in (13, 14, 15, 16, 17)]
    week = datetime(2025, 1, 13, tzinfo=UTC), datetime(2025, 1, 18, tzinfo=UTC)
    notes = []
    for given in (days, days[:2] + days[3:]):
        bars = [fake.bar(day, 1440) for day in given]
        source.override = httpx.Response(200, json={"status": "OK", "results": bars})
        notes += fetch(source, AAPL, Timeframe.W1, *week)["notes"].to_list()
    assert notes == ["volume_includes_extended_hours", "volume_includes_extended_hours; parts_unknown"]
