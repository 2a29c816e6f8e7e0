"""Binance candles: recorded rows as recorded, the two markets, paging, closed rows."""

from __future__ import annotations

import asyncio
import gzip
import importlib.util
import json
import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from market_data.model.errors import GeoBlocked, MalformedPayload, UnknownInstrument
from market_data.model.instrument import AssetClass, Instrument, Kind
from market_data.model.timeframe import Timeframe
from market_data.providers.binance import Binance, BinanceSettings
from market_data.providers.binance.markets import SPOT_MARKET, USD_M, find, parse_contracts, parse_weight_limit
from market_data.providers.binance.parse import parse_klines
from market_data.transport.http import Http
from market_data.transport.senders import HttpxSender

RECORDINGS = Path(os.environ.get("MARKET_DATA_RECORDINGS", Path(__file__).parents[3] / "../shared/data"))
_spec = importlib.util.spec_from_file_location("fake_binance_candles", Path(__file__).with_name("fake.py"))
assert _spec is not None
assert _spec.loader is not None
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)

BTC = Instrument("BTC", AssetClass.CRYPTO)
START, END = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, 2, tzinfo=UTC)


def recording(name: str) -> bytes:
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"recording {path} is absent (set MARKET_DATA_RECORDINGS)")
    return path.read_bytes()


def binance(source: Any, **settings: Any) -> Binance:
    configured = BinanceSettings(**settings)
    return Binance(configured, Http("binance", configured, sender=HttpxSender(httpx.MockTransport(source))))


def fetch(provider: Binance, instrument: Instrument, timeframe: Timeframe, start: datetime, end: datetime) -> Any:
    async def collect() -> Any:
        return [page async for page in provider.fetch_candles(instrument, timeframe, start, end, now=fake.NOW)]

    return asyncio.run(collect())


@pytest.mark.parametrize(
    "name",
    [
        "nautilus/binance_doc_examples/http_futures_market_klines.json",
        "nautilus/binance_rust/klines_response.json",
    ],
)
def test_recorded_row_keeps_every_digit(name: str) -> None:
    body = recording(name)
    row = parse_klines(body).frame.row(0, named=True)
    # The same row is the example of both documents; written out from them by hand.
    assert row["timestamp"] == datetime(2017, 7, 3, tzinfo=UTC)
    assert row["close_time"] == datetime(2017, 7, 9, 23, 59, 59, 999000, tzinfo=UTC)
    assert [row[name] for name in ("open", "high", "low", "close", "volume", "quote_volume")] == [
        Decimal(text)
        for text in ("0.01634790", "0.80000000", "0.01575800", "0.01577100", "148976.11427815", "2434.19055334")
    ]
    assert row["trade_count"] == 308
    assert row["taker_buy_volume"] == Decimal("1756.87402397")
    assert row["taker_buy_quote_volume"] == Decimal("28.46694368")
    compact = json.dumps(json.loads(body), separators=(",", ":")).encode()
    assert parse_klines(compact).frame.equals(parse_klines(body).frame)


def test_recorded_spot_rows() -> None:
    frame = parse_klines(recording("nautilus/binance_doc_examples/http_spot_market_klines.json")).frame
    # Written out from the recording by hand.
    assert frame["timestamp"][0] == datetime(2021, 10, 22, 23, 3, tzinfo=UTC)
    assert frame["low"][1] == Decimal("60707.00000000")
    assert frame["taker_buy_quote_volume"][1] == Decimal("701336.15460230")


def test_compact_and_strict_reading_agree_on_every_digit() -> None:
    rows = [fake.kline(second, 60) for second in range(1735689600, 1735689600 + 60 * 500, 60)]
    rows[7][5] = "12345678901234567890.123456789012345678"
    rows[8][4] = "0.000000000000000001"
    compact, spaced = json.dumps(rows, separators=(",", ":")).encode(), json.dumps(rows, indent=1).encode()
    assert parse_klines(compact).frame.equals(parse_klines(spaced).frame)
    assert parse_klines(compact).frame["volume"][7] == Decimal("12345678901234567890.123456789012345678")
    assert parse_klines(compact).frame["close"][8] == Decimal("0.000000000000000001")


@pytest.mark.parametrize(
    "body",
    [
        b'[[1,"1","1","1","1","1",2,"1",1,"1","1","0"],[2,"1","1","1","1","1",3,"1",1,"1"]]',
        b'[[1,"1","1","1","1","1",2,"1",1,"1","1","0"],["2","1","1","1","1","1",3,"1.5",1.5,"1","1","0"]]',
        b'[[1,"1","1","1","1","-","2","1",1,"1","1","0"]]',
        b'[[1,"1","1","1","1","99999999999999999999999",2,"1",1,"1","1","0"]]',
        b'[[1,"1,1","1","1","1",2,"1",1,"1","1","0"]]',
        b'[[1,"1","1","1","1","1",2,"1",1,"1","1","0"],[2,"1","1","1","1","0.1234567890123456789",3,"1",1,"1","1","0"]]',
    ],
)
def test_a_row_that_is_not_one_is_rejected(body: bytes) -> None:
    rows, sent = parse_klines(body), json.loads(body)
    assert rows.rejected.height == 1
    assert rows.frame.height == len(sent) - 1
    assert json.loads(rows.rejected["payload"][0]) == [
        value if isinstance(value, str) else str(value) for value in sent[-1]
    ]


@pytest.mark.parametrize("body", [b'[1,[["1","1","1","1","1",2,"1",1,"1","1","0"]]]', b"{}", b"[[1,2]]", b'"no"'])
def test_an_answer_that_is_no_list_of_rows_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedPayload):
        parse_klines(body)


def test_recorded_instrument_list() -> None:
    body = recording("nautilus/binance_doc_examples/http_futures_market_exchange_info.json")
    listed = parse_contracts(body, USD_M)
    rows = {row["symbol"]: row for row in json.loads(body)["symbols"]}
    assert [contract.raw_symbol for contract in listed] == list(rows)
    for contract in listed:
        row = rows[contract.raw_symbol]
        assert (contract.base, contract.quote, contract.settlement) == (
            row["baseAsset"], row["quoteAsset"], row["marginAsset"],
        )  # fmt: skip
        assert (contract.kind is Kind.PERPETUAL) == (row["contractType"] in ("PERPETUAL", "")), row
    assert find(BTC, listed, USD_M).raw_symbol == "BTCUSDT"


def test_instrument_list_of_a_recorded_session() -> None:
    name = "cryptofeed/BINANCE_FUTURES.0.gz"
    text = gzip.decompress(recording(name)).decode()
    line = next(line for line in text.splitlines() if "/exchangeInfo -> " in line)
    body = line[line.index("{") :].encode()
    listing = find(BTC, parse_contracts(body, USD_M), USD_M)
    assert (listing.raw_symbol, listing.valid_from) == ("BTCUSDT", datetime(2019, 9, 25, 8, tzinfo=UTC))


def test_a_multiple_is_not_the_coin() -> None:
    source = fake.Source()
    provider = binance(source)
    pepe = asyncio.run(provider.resolve(Instrument("PEPE", AssetClass.CRYPTO)))
    assert (pepe.raw_symbol, pepe.venue) == ("PEPEUSDT", "BINANCE_SPOT")
    thousand = asyncio.run(provider.resolve(Instrument("1000PEPE", AssetClass.CRYPTO)))
    assert (thousand.raw_symbol, thousand.venue) == ("1000PEPEUSDT", "BINANCE_USDM")


def test_a_stock_is_unknown_even_with_the_same_letters() -> None:
    with pytest.raises(UnknownInstrument):
        asyncio.run(binance(fake.Source()).resolve(Instrument("BTC", AssetClass.STOCK)))


def test_spot_where_futures_are_geo_blocked_says_so() -> None:
    source = fake.Source()
    source.blocked = {"fapi.binance.com"}
    pages = fetch(binance(source), BTC, Timeframe.H1, START, END)
    assert {page.source for page in pages} == {"binance:spot"}
    assert sum(page.frame.height for page in pages) == 26
    futures = [request for request in source.requests if request.url.host == "fapi.binance.com"]
    assert len(futures) == 1, "the blocked host is asked once"


def test_blocked_everywhere_is_an_error() -> None:
    source = fake.Source()
    source.blocked = {"fapi.binance.com", "data-api.binance.vision"}
    with pytest.raises(GeoBlocked):
        fetch(binance(source), BTC, Timeframe.H1, START, END)


def test_pages_are_large_for_short_ranges_and_cheap_for_long_ones() -> None:
    source = fake.Source()
    fetch(binance(source), BTC, Timeframe.M1, datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 3, tzinfo=UTC))
    limits = [request.url.params.get("limit") for request in source.requests if "klines" in request.url.path]
    assert limits == ["1500", "1500"]
    # 131 days of minutes are 188,640 rows: 126 large pages would use more than half a minute's weight.
    source = fake.Source()
    long = datetime(2024, 10, 1, tzinfo=UTC), datetime(2025, 2, 9, tzinfo=UTC)
    fetch(binance(source, use_archive=False), BTC, Timeframe.M1, *long)
    limits = [request.url.params.get("limit") for request in source.requests if "klines" in request.url.path]
    assert limits == ["499"] * 379


def test_pages_are_cheap_once_a_fifth_of_the_weight_is_used() -> None:
    source = fake.Source()
    span = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, tzinfo=UTC)
    for used, limit in ((479, "1500"), (480, "499")):
        source.used_weight, source.requests = used, []
        fetch(binance(source), BTC, Timeframe.M1, *span)
        limits = {request.url.params.get("limit") for request in source.requests if "klines" in request.url.path}
        assert limits == {limit}, used


def test_a_page_longer_than_asked_for_is_malformed() -> None:
    source = fake.Source()
    rows = [fake.kline(second, 60) for second in range(0, 60 * 1501, 60)]
    source.override = httpx.Response(200, content=json.dumps(rows).encode())
    with pytest.raises(MalformedPayload, match="1501"):
        fetch(binance(source), BTC, Timeframe.M1, START, END)


def test_rows_out_of_order_repeated_and_outside_the_range() -> None:
    source = fake.Source()
    first = int(START.timestamp())
    rows = [fake.kline(first + minute * 60, 60) for minute in (2, 0, 1, 1, -1, 5000)]
    source.override = httpx.Response(200, content=json.dumps(rows).encode())
    (page,) = fetch(binance(source), BTC, Timeframe.M1, START, datetime(2025, 1, 1, 1, tzinfo=UTC))
    assert [moment.minute for moment in page.frame["timestamp"]] == [0, 1, 2]


def test_a_row_off_the_grid_is_kept_for_the_rules() -> None:
    source = fake.Source()
    source.override = httpx.Response(200, content=json.dumps([fake.kline(int(START.timestamp()) + 7, 60)]).encode())
    (page,) = fetch(binance(source), BTC, Timeframe.M1, START, datetime(2025, 1, 1, 1, tzinfo=UTC))
    assert page.frame["timestamp"].to_list() == [datetime(2025, 1, 1, 0, 0, 7, tzinfo=UTC)]


def test_the_limit_is_the_one_the_source_states() -> None:
    body = recording("nautilus/binance_doc_examples/http_futures_market_exchange_info.json")
    assert parse_weight_limit(body) == 6000
    assert parse_weight_limit(b'{"rateLimits":[]}') is None
    source = fake.Source()
    (page, *_) = fetch(binance(source), BTC, Timeframe.H1, START, END)
    # The fake says that 40 are used, and nothing of the limit: 2400 is the documented one.
    assert page.quota_remaining == 2360


@pytest.mark.parametrize("answered", [Timeframe.M5, Timeframe.H4])
def test_candles_of_another_interval_than_asked_are_refused(answered: Timeframe) -> None:
    source = fake.Source()
    first, step = int(START.timestamp()), answered.duration // timedelta(seconds=1)
    rows = [fake.kline(first + step * number, step) for number in range(5)]
    source.override = httpx.Response(200, json=rows)
    with pytest.raises(MalformedPayload, match="where 1h was asked for"):
        fetch(binance(source), BTC, Timeframe.H1, START, END)


def test_a_candle_that_an_outage_cut_short_is_taken_with_the_others() -> None:
    source = fake.Source()
    first = int(START.timestamp())
    rows = [fake.kline(first + 3600 * number, 3600) for number in range(3)]
    rows[1][6] -= 1_200_000
    source.override = httpx.Response(200, json=rows)
    (page,) = fetch(binance(source), BTC, Timeframe.H1, START, END)
    assert page.frame.height == 3


def test_a_contract_that_cannot_be_read_costs_itself() -> None:
    good = {"symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT"}
    body = json.dumps({"symbols": [{"symbol": "ODD"}, good, 7]}).encode()
    assert [each.raw_symbol for each in parse_contracts(body, SPOT_MARKET)] == ["BTCUSDT"]
    with pytest.raises(MalformedPayload, match="exchangeInfo"):
        parse_contracts(b'{"symbols": [{"symbol": "ODD"}]}', SPOT_MARKET)
