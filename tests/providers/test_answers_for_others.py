"""An answer about another symbol, interval or adjustment than was asked for is malformed, whoever sends it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from market_data.model.dataset import DIVIDENDS, EARNINGS, FUNDING_RATES, OPEN_INTEREST, OPTIONS, SPLITS, Dataset
from market_data.model.errors import MalformedPayload
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.provider import Page, Provider
from market_data.model.timeframe import Timeframe
from market_data.providers.binance import Binance, BinanceSettings
from market_data.providers.polygon import Polygon, PolygonSettings
from market_data.providers.yahoo import Yahoo, YahooSettings
from market_data.transport.http import Http
from market_data.transport.senders import HttpxSender

KO, BTC = Instrument("KO", AssetClass.STOCK), Instrument("BTC", AssetClass.CRYPTO)
START, END = datetime(2026, 3, 2, tzinfo=UTC), datetime(2026, 3, 7, tzinfo=UTC)
NOW = datetime(2026, 3, 10, tzinfo=UTC)
TICKER = {"ticker": "KO", "market": "stocks", "type": "CS", "active": True, "primary_exchange": "XNYS"}
Answers = dict[str, Any]


def millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def bars(step: timedelta, count: int, start: datetime = START) -> list[dict[str, Any]]:
    return [{"t": millis(start + n * step), "o": 1, "h": 2, "l": 1, "c": 2, "v": 10} for n in range(count)]


def opened(kind: type[Provider], settings: Any, answers: Answers) -> Provider:
    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        found = next((body for part, body in answers.items() if part in path), {"status": "OK", "results": []})
        return httpx.Response(200, content=json.dumps(found).encode())

    return kind(settings, Http(kind.name, settings, sender=HttpxSender(httpx.MockTransport(answer))))


def massive(answers: Answers) -> Provider:
    listed = {"status": "OK", "results": [TICKER]}
    return opened(Polygon, PolygonSettings(api_key="k" * 32, max_retries=0), answers | {"/reference/tickers": listed})  # type: ignore[arg-type]


def candles(provider: Provider, instrument: Instrument, timeframe: Timeframe) -> list[Page]:
    async def collect() -> list[Page]:
        return [page async for page in provider.fetch_candles(instrument, timeframe, START, END, now=NOW)]

    return asyncio.run(collect())


def facts(provider: Provider, dataset: Dataset, instrument: Instrument, end: datetime = END) -> list[Page]:
    async def collect() -> list[Page]:
        return [page async for page in provider.fetch(dataset, instrument, START, end, now=NOW)]

    return asyncio.run(collect())


@pytest.mark.parametrize(
    ("said", "word"), [({"ticker": "EVIL"}, "EVIL"), ({"ticker": "KO", "adjusted": True}, "adjusted")]
)
def test_massive_candles_of_somebody_else(said: Answers, word: str) -> None:
    provider = massive({"/v2/aggs": {"status": "OK", "results": bars(timedelta(days=1), 4)} | said})
    with pytest.raises(MalformedPayload, match=word):
        candles(provider, KO, Timeframe.D1)


def test_massive_candles_that_are_finer_than_asked_for() -> None:
    minutes = bars(timedelta(minutes=1), 300, START.replace(hour=15))
    provider = massive({"/v2/aggs": {"status": "OK", "results": minutes, "ticker": "KO", "adjusted": False}})
    with pytest.raises(MalformedPayload, match="finer"):
        candles(provider, KO, Timeframe.M5)


@pytest.mark.parametrize(
    ("dataset", "part", "row"),
    [
        (DIVIDENDS, "dividends", {"ex_dividend_date": "2026-03-03", "cash_amount": 9, "currency": "USD"}),
        (SPLITS, "splits", {"execution_date": "2026-03-03", "split_from": 1, "split_to": 2}),
        (EARNINGS, "earnings", {"fiscal_year": 2026, "fiscal_period": "Q1", "date": "2026-03-03"}),
    ],
)
def test_massive_facts_of_somebody_else(dataset: Dataset, part: str, row: Answers) -> None:
    provider = massive({part: {"status": "OK", "results": [row | {"ticker": "EVIL"}]}})
    with pytest.raises(MalformedPayload, match="EVIL"):
        facts(provider, dataset, KO)


def test_massive_options_of_somebody_else() -> None:
    details = {
        "ticker": "O:EVIL260619C00050000",
        "contract_type": "call",
        "expiration_date": "2026-06-19",
        "strike_price": 5,
    }
    row = {"details": details, "underlying_asset": {"ticker": "EVIL"}}
    provider = massive({"/snapshot/options": {"status": "OK", "results": [row]}})
    with pytest.raises(MalformedPayload, match="EVIL"):
        facts(provider, OPTIONS, KO, NOW)


@pytest.mark.parametrize(
    ("dataset", "part", "row"),
    [
        (FUNDING_RATES, "fundingRate", {"fundingTime": millis(START), "fundingRate": "0.0001"}),
        (OPEN_INTEREST, "openInterestHist", {"timestamp": millis(START), "sumOpenInterest": "5"}),
    ],
)
def test_binance_facts_of_somebody_else(dataset: Dataset, part: str, row: Answers) -> None:
    listed = {
        "symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT", "marginAsset": "USDT",
        "contractType": "PERPETUAL", "onboardDate": millis(START) - 10**9, "deliveryDate": 4133404800000,
    }  # fmt: skip
    answers = {"exchangeInfo": {"rateLimits": [], "symbols": [listed]}, part: [row | {"symbol": "ETHUSDT"}]}
    provider = opened(Binance, BinanceSettings(max_retries=0, use_archive=False), answers)
    with pytest.raises(MalformedPayload, match="ETHUSDT"):
        facts(provider, dataset, BTC)


@pytest.mark.parametrize(("meta", "word"), [({"symbol": "EVIL"}, "EVIL"), ({"dataGranularity": "1h"}, "1h")])
def test_yahoo_charts_of_something_else(meta: Answers, word: str) -> None:
    said = {
        "symbol": "KO", "currency": "USD", "exchangeTimezoneName": "America/New_York", "dataGranularity": "1d",
    } | meta  # fmt: skip
    quote = {name: [1] for name in ("open", "high", "low", "close", "volume")}
    times = [int(datetime(2026, 3, 3, 14, 30, tzinfo=UTC).timestamp())]
    result = {"meta": said, "timestamp": times, "indicators": {"quote": [quote], "adjclose": [{"adjclose": [1]}]}}
    answers = {
        "/search": {"quotes": [{"symbol": "KO", "quoteType": "EQUITY", "exchange": "NYQ"}], "news": []},
        "/chart": {"chart": {"result": [result], "error": None}},
    }
    provider = opened(Yahoo, YahooSettings(max_retries=0, rest_url="http://127.0.0.1"), answers)
    with pytest.raises(MalformedPayload, match=word):
        candles(provider, KO, Timeframe.D1)
