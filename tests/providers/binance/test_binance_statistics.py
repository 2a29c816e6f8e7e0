"""Binance's statistics and trades: recorded rows as recorded, labels that changed meaning, paging."""

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
import structlog

from market_data.model.dataset import (
    DIVIDENDS,
    FUNDING_RATES,
    INSTRUMENTS,
    LONG_SHORT_RATIOS,
    OPEN_INTEREST,
    PREMIUM_INDEX,
    SPOT_FLOW,
    TAKER_VOLUMES,
    TRADES,
    Dataset,
)
from market_data.model.errors import GeoBlocked, MalformedPayload, UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument
from market_data.providers.binance import Binance, BinanceSettings
from market_data.providers.binance.statistics import (
    SERIES,
    parse_funding,
    parse_metrics,
    parse_present,
    parse_series,
)
from market_data.providers.binance.trades import parse_aggregate_trades, parse_trades
from market_data.transport.http import Http
from market_data.transport.senders import HttpxSender

RECORDINGS = Path(os.environ.get("MARKET_DATA_RECORDINGS", Path(__file__).parents[3] / "../shared/data"))
_spec = importlib.util.spec_from_file_location("fake_binance_statistics", Path(__file__).with_name("fake.py"))
assert _spec is not None
assert _spec.loader is not None
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)

BTC = Instrument("BTC", AssetClass.CRYPTO)
FIVE, DAY = timedelta(minutes=5), timedelta(days=1)
METRICS_HEADER = (
    "create_time,symbol,sum_open_interest,sum_open_interest_value,count_toptrader_long_short_ratio,"
    "sum_toptrader_long_short_ratio,count_long_short_ratio,sum_taker_long_short_vol_ratio\n"
)


def recording(name: str) -> bytes:
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"recording {path} is absent (set MARKET_DATA_RECORDINGS)")
    return path.read_bytes()


def provider(source: Any, **settings: Any) -> Binance:
    configured = BinanceSettings(requests_per_minute=10**6, max_retries=0, **settings)
    return Binance(configured, Http("binance", configured, sender=HttpxSender(httpx.MockTransport(source))))


def fetch(source: Any, dataset: Dataset, start: datetime, end: datetime, *, now: datetime = fake.NOW) -> Any:
    async def collect() -> Any:
        asked = provider(source)
        if dataset is TRADES:
            pages = asked.fetch_trades(BTC, start, end, now=now)
        else:
            pages = asked.fetch(dataset, BTC, start, end, now=now)
        return [page async for page in pages]

    return asyncio.run(collect())


def joined(pages: Any, dataset: Dataset) -> pl.DataFrame:
    frame = pl.concat([dataset.empty(), *(page.frame for page in pages)])
    assert dict(frame.schema) == dict(dataset.schema)
    assert not frame.select(dataset.key).is_duplicated().any()
    return frame


def label_of(value: Decimal) -> int:
    return int(value)


def test_open_interest_is_stamped_with_the_end_of_its_five_minutes() -> None:
    start, end = datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 3, 4, tzinfo=UTC)
    frame = joined(fetch(fake.Source(), OPEN_INTEREST, start, end), OPEN_INTEREST)
    assert frame["timestamp"].to_list() == [start + FIVE * number for number in range(3 * 288)]
    # The value tells its label: the start, five minutes earlier.
    first = int((start - FIVE).timestamp()) // 300 % 100_000
    assert frame["value"][0] == Decimal(first) + Decimal("0.25")
    assert frame["known_at"].equals(frame["timestamp"], check_names=False)


def test_labels_that_are_ends_are_noticed() -> None:
    source = fake.Source()
    source.labels_are_starts = False
    start = fake.NOW - timedelta(days=2)
    frame = joined(fetch(source, OPEN_INTEREST, start, fake.NOW), OPEN_INTEREST)
    # The last but one, before what it is now.
    assert frame["timestamp"][-2] == datetime(2025, 3, 5, 10, 30, tzinfo=UTC)
    last = int(frame["timestamp"][-2].timestamp()) // 300 % 100_000
    assert frame["value"][-2] == Decimal(last) + Decimal("0.25")


def test_nothing_is_known_before_its_five_minutes_are_over() -> None:
    frame = joined(fetch(fake.Source(), OPEN_INTEREST, fake.NOW - FIVE * 4, fake.NOW + FIVE), OPEN_INTEREST)
    assert frame["timestamp"].max() <= fake.NOW


def test_asked_for_up_to_the_present_open_interest_ends_with_what_it_is_now() -> None:
    start = fake.NOW - timedelta(hours=1)
    frame = joined(fetch(fake.Source(), OPEN_INTEREST, start, fake.NOW), OPEN_INTEREST)
    moment = fake.NOW - timedelta(milliseconds=4321)
    assert frame.row(-1) == (moment, moment, Decimal("777.125"), None)
    assert frame["timestamp"].is_sorted()
    past = joined(fetch(fake.Source(), OPEN_INTEREST, start, fake.NOW - FIVE), OPEN_INTEREST)
    assert Decimal("777.125") not in past["value"].to_list()


@pytest.mark.parametrize("body", [b"[]", b"{}", b"7"])
def test_what_is_no_open_interest(body: bytes) -> None:
    with pytest.raises(MalformedPayload):
        parse_present(body)


@pytest.mark.parametrize("body", [b'{"openInterest":"many","time":1}', b'{"openInterest":"1"}'])
def test_open_interest_that_cannot_be_read_is_rejected(body: bytes) -> None:
    rows = parse_present(body)
    assert (rows.frame.height, rows.rejected.height) == (0, 1)


def test_long_short_ratios_of_three_kinds() -> None:
    start, end = datetime(2025, 3, 4, tzinfo=UTC), datetime(2025, 3, 4, 1, tzinfo=UTC)
    frame = joined(fetch(fake.Source(), LONG_SHORT_RATIOS, start, end), LONG_SHORT_RATIOS)
    assert frame.group_by("kind").len().sort("kind").rows() == [
        ("global_accounts", 12),
        ("top_accounts", 12),
        ("top_positions", 12),
    ]
    assert set(frame["long_account"]) == {Decimal("0.6")}


def metrics_day(day: datetime, first: int, last: int) -> str:
    lines = []
    for number in range(first, last):
        label = day + FIVE * number
        lines.append(f"{label:%Y-%m-%d %H:%M:%S},BTCUSDT,{number}.5,{number * 10},1.1,1.2,1.3,1.4")
    return METRICS_HEADER + "\n".join(lines) + "\n"


def metrics_path(day: datetime) -> str:
    return f"futures/um/daily/metrics/BTCUSDT/BTCUSDT-metrics-{day:%Y-%m-%d}.zip"


def test_metrics_on_both_sides_of_the_break_are_one_series() -> None:
    """Rows labelled 00:05 to 24:00 until 2026-06-24, 00:00 to 23:55 from 2026-06-25 on: 576 ends in a row."""
    source = fake.Source()
    before, after = datetime(2026, 6, 24, tzinfo=UTC), datetime(2026, 6, 25, tzinfo=UTC)
    source.add_file(metrics_path(before), metrics_day(before, 1, 289))
    source.add_file(metrics_path(after), metrics_day(after, 0, 288))
    now = datetime(2026, 11, 21, tzinfo=UTC)
    source.now = now
    start = before + FIVE
    frame = joined(fetch(source, OPEN_INTEREST, start, after + timedelta(days=1, minutes=5), now=now), OPEN_INTEREST)
    assert frame["timestamp"].to_list() == [start + FIVE * number for number in range(576)]
    # The old file's n-th five minutes, then the new one's.
    assert [label_of(value) for value in frame["value"]] == [*range(1, 289), *range(288)]
    ratios = joined(fetch(source, LONG_SHORT_RATIOS, start, before + FIVE * 2, now=now), LONG_SHORT_RATIOS)
    assert dict(ratios.select("kind", "ratio").rows()) == {
        "global_accounts": Decimal("1.3"),
        "top_accounts": Decimal("1.1"),
        "top_positions": Decimal("1.2"),
    }


def test_a_day_without_a_metrics_file_is_said() -> None:
    source, day = fake.Source(), datetime(2024, 6, 3, tzinfo=UTC)
    source.add_file(metrics_path(day), metrics_day(day, 1, 289))
    source.add_file(metrics_path(day + 2 * DAY), metrics_day(day + 2 * DAY, 1, 289))
    with structlog.testing.capture_logs() as said:
        frame = joined(fetch(source, OPEN_INTEREST, day + FIVE, day + 3 * DAY), OPEN_INTEREST)
    assert frame.height == 2 * 288 - 1
    assert [(line["event"], line["day"]) for line in said] == [("no metrics in the archive", "2024-06-04")]


def test_metrics_a_second_late_and_with_empty_cells() -> None:
    csv = METRICS_HEADER + "2024-01-01 00:05:01,BTCUSDT,,,1.1,,1.3,\n2024-01-01 00:10:00,BTCUSDT,5.5,55,,,,\n"
    day = datetime(2024, 1, 1, tzinfo=UTC)
    interest, everybody, *_ = (parse_metrics(csv.encode(), series, day).frame for series in SERIES)
    assert interest.select("timestamp", "value").rows() == [(day + 2 * FIVE, Decimal("5.5"))]
    assert everybody.select("timestamp", "ratio").rows() == [(day + FIVE, Decimal("1.3"))]
    bad = parse_metrics((csv + "yesterday,BTCUSDT,1,1,1,1,1,1\n").encode(), SERIES[0], day)
    assert bad.rejected["rule"].to_list() == ["value_unreadable: create_time"]
    assert bad.frame.equals(interest)


def test_recorded_metrics() -> None:
    csv = recording("binance_vision_rows/um_metrics_BTCUSDT_2rows.csv")
    frame = parse_metrics(csv, SERIES[0], datetime(2024, 1, 1, tzinfo=UTC)).frame
    assert frame.select("timestamp", "value", "value_quote").row(1) == (
        datetime(2024, 1, 1, 0, 5, tzinfo=UTC),
        Decimal("73839.811"),
        Decimal("3133154733.161327"),
    )


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0, "open_interest_historical"),
        (1, "global_long_short_account_ratio"),
        (2, "top_long_short_account_ratio"),
        (3, "top_long_short_position_ratio"),
    ],
)
def test_recorded_statistics(number: int, name: str) -> None:
    body = recording(f"nautilus/binance_doc_examples/http_futures_market_{name}.json")
    rows, frame = json.loads(body), parse_series(body, SERIES[number]).frame
    for theirs, ours in SERIES[number].fields.items():
        assert frame[ours].to_list() == [Decimal(row[theirs]) for row in rows]
    assert [int(moment.timestamp() * 1000) for moment in frame["timestamp"]] == [int(row["timestamp"]) for row in rows]


def test_funding_pages_to_the_end() -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC)
    pages = fetch(fake.Source(), FUNDING_RATES, start, fake.NOW)
    frame = joined(pages, FUNDING_RATES)
    # Every eight hours since the listing, three milliseconds late.
    assert [page.frame.height for page in pages] == [1000, 289]
    assert frame["timestamp"][0] == datetime(2024, 1, 1, 0, 0, 0, 3000, tzinfo=UTC)
    assert frame["mark_price"].null_count() == 152 * 3
    assert set(frame["rate_type"]) == {"Regular"}
    assert frame["known_at"].equals(frame["timestamp"], check_names=False)


def test_recorded_funding() -> None:
    frame = parse_funding(recording("nautilus/binance_doc_examples/http_futures_market_funding_rate.json")).frame
    assert frame.select("timestamp", "rate").row(0) == (datetime(2019, 10, 9, 8, tzinfo=UTC), Decimal("-0.0375"))


def test_two_rates_of_two_types_at_one_time() -> None:
    body = json.dumps(
        [
            {"symbol": "X", "fundingTime": 1735689600000, "fundingRate": "0.0001", "markPrice": "1", "rateType": kind}
            for kind in ("Regular", "Special")
        ]
    )
    assert parse_funding(body.encode()).frame["rate_type"].to_list() == ["Regular", "Special"]


def test_taker_volumes_and_spot_flow() -> None:
    start, end = datetime(2025, 3, 4, tzinfo=UTC), datetime(2025, 3, 4, 0, 10, tzinfo=UTC)
    frame = joined(fetch(fake.Source(), TAKER_VOLUMES, start, end), TAKER_VOLUMES)
    assert frame["timestamp"].to_list() == [start, start + FIVE]
    # Of the fake's five minutes that begin at 23:55: volume n.500, of which takers bought n.125.
    number = int((start - FIVE).timestamp()) // 60 % 1000
    assert frame.select("period", "buy_volume", "sell_volume").row(0) == (
        "5m",
        number + Decimal("0.125"),
        Decimal("0.375"),
    )
    source = fake.Source()
    flow = joined(fetch(source, SPOT_FLOW, start, end), SPOT_FLOW)
    assert flow.select("buy_quote", "sell_quote").row(0) == (
        number * 50 + Decimal("0.5"),
        number * 50 - Decimal("0.25"),
    )
    assert {request.url.host for request in source.requests} == {"data-api.binance.vision"}


def test_the_premium_index_is_the_close_of_its_five_minutes_and_may_be_negative() -> None:
    start, end = datetime(2025, 2, 26, tzinfo=UTC), datetime(2025, 3, 4, tzinfo=UTC)
    source = fake.Source()
    frame = joined(fetch(source, PREMIUM_INDEX, start, end), PREMIUM_INDEX)
    ends = [start + FIVE * number for number in range(6 * 288)]
    assert frame["timestamp"].to_list() == ends
    assert frame["known_at"].to_list() == ends
    assert frame["value"].to_list() == [Decimal(fake.premium(int((end - FIVE).timestamp()))) for end in ends]
    assert frame["value"].min() < 0 < frame["value"].max()  # type: ignore[operator]
    assert set(frame["period"]) == {"5m"}
    asked = {request.url.path for request in source.requests if "remium" in request.url.path}
    assert asked == {"/fapi/v1/premiumIndexKlines"}


def test_the_premium_index_of_long_ranges_comes_from_the_archive() -> None:
    source, day = fake.Source(), datetime(2024, 6, 3, tzinfo=UTC)
    lines = (fake.premium_kline(int(day.timestamp()) + 300 * number) for number in range(288))
    name = f"BTCUSDT/5m/BTCUSDT-5m-{day:%Y-%m-%d}.zip"
    source.add_file(
        f"futures/um/daily/premiumIndexKlines/{name}", "".join(",".join(map(str, row)) + "\n" for row in lines)
    )
    asked = provider(source, archive_from_candles=288).fetch(
        PREMIUM_INDEX, BTC, day + FIVE, day + DAY + FIVE, now=fake.NOW
    )

    async def collect() -> Any:
        return [page async for page in asked]

    (page,) = asyncio.run(collect())
    assert (page.source, page.frame.height) == ("binance:archive", 288)
    assert page.frame["value"][-1] == Decimal(fake.premium(int((day + DAY - FIVE).timestamp())))


def test_statistics_have_no_substitute_on_the_spot_market() -> None:
    source = fake.Source()
    source.blocked = {"fapi.binance.com"}
    with pytest.raises(GeoBlocked):
        fetch(source, OPEN_INTEREST, fake.NOW - timedelta(hours=1), fake.NOW)


def test_instruments_of_both_markets() -> None:
    frame = joined(fetch(fake.Source(), INSTRUMENTS, fake.LISTED, fake.NOW), INSTRUMENTS)
    rows = {(row["symbol"], row["venue"]): row for row in frame.iter_rows(named=True)}
    assert rows["BTC", "BINANCE_USDM"]["raw_symbol"] == "BTCUSDT"
    assert rows["BTC", "BINANCE_USDM"]["valid_from"] == fake.LISTED
    assert rows["PEPE", "BINANCE_SPOT"]["raw_symbol"] == "PEPEUSDT"
    assert ("PEPE", "BINANCE_USDM") not in rows


def test_other_datasets_are_refused() -> None:
    with pytest.raises(UnsupportedRequest, match="dividends"):
        fetch(fake.Source(), DIVIDENDS, fake.LISTED, fake.NOW)


def test_trades_page_by_time_then_by_number() -> None:
    source = fake.Source()
    start, end = fake.NOW - timedelta(hours=2), fake.NOW - timedelta(minutes=3)
    frame = joined(fetch(source, TRADES, start, end), TRADES)
    assert frame["timestamp"][0] == start
    assert frame["timestamp"][-1] == end - timedelta(seconds=2)
    assert frame.height == 117 * 60 // 2
    numbers = frame["trade_id"].cast(pl.Int64)
    assert (numbers.diff().drop_nulls() == 1).all()
    assert frame["aggressor_side"].to_list() == ["sell" if number % 3 == 0 else "buy" for number in numbers]
    asked = [request.url.params for request in source.requests if "aggTrades" in request.url.path]
    assert ["fromId" in params for params in asked] == [False, True, True, True]


def test_a_page_of_trades_that_is_not_full_is_not_the_end() -> None:
    """A server may give fewer rows than it was asked for (ccxt#26384, #26414)."""
    source = fake.Source()
    source.most_trades = 200
    start, end = fake.NOW - timedelta(hours=2), fake.NOW - timedelta(minutes=3)
    numbers = joined(fetch(source, TRADES, start, end), TRADES)["trade_id"].cast(pl.Int64)
    assert (numbers.len(), set(numbers.diff().drop_nulls())) == (117 * 60 // 2, {1})


def test_a_day_that_the_archive_lacks_is_told_and_costs_itself() -> None:
    source = fake.Source()
    first = datetime(2025, 2, 25, tzinfo=UTC)
    for day in (first, first + 2 * DAY):
        line = f"{int(day.timestamp())},100.10,0.5,1,2,{int(day.timestamp()) * 1000},true\n"
        source.add_file(f"futures/um/daily/aggTrades/BTCUSDT/BTCUSDT-aggTrades-{day:%Y-%m-%d}.zip", line)
    got: list[datetime] = []

    async def collect() -> None:
        async for page in provider(source).fetch_trades(BTC, first - DAY, first + 3 * DAY, now=fake.NOW):
            got.extend(page.frame["timestamp"])

    with pytest.raises(MalformedPayload, match="has no trades of BTCUSDT of 2025-02-26$"):
        asyncio.run(collect())
    assert got == [first, first + 2 * DAY]


def test_older_trades_come_from_the_archive() -> None:
    source = fake.Source()
    day = datetime(2025, 3, 1, tzinfo=UTC)
    numbers = range(int(day.timestamp()) // 2, int(day.timestamp()) // 2 + 43200)
    lines = (
        f"{n},{100 + n % 50}.10,0.{n % 1000:03},{n * 2},{n * 2 + 1},{n * 2000},{str(n % 3 == 0).lower()}"
        for n in numbers
    )
    header = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
    source.add_file(
        "futures/um/daily/aggTrades/BTCUSDT/BTCUSDT-aggTrades-2025-03-01.zip", header + "\n".join(lines) + "\n"
    )
    pages = fetch(source, TRADES, day + timedelta(hours=1), day + timedelta(hours=2))
    frame = joined(pages, TRADES)
    assert {page.source for page in pages} == {"binance:archive"}
    expected = parse_aggregate_trades(json.dumps([fake.trade(n) for n in numbers[1800:3600]]).encode()).frame
    assert frame["trade_id"].cast(pl.Int64).equals(expected["a"], check_names=False)
    assert frame["price"].equals(expected["p"], check_names=False)
    assert frame["size"].equals(expected["q"], check_names=False)
    assert frame["timestamp"][0] == day + timedelta(hours=1)
    assert frame["aggressor_side"][0] == ("sell" if numbers[1800] % 3 == 0 else "buy")


@pytest.mark.parametrize("name", ["futures", "spot"])
def test_recorded_aggregate_trades(name: str) -> None:
    body = recording(f"nautilus/binance_doc_examples/http_{name}_market_agg_trades.json")
    recorded = json.loads(body)
    compact = json.dumps(recorded, separators=(",", ":")).encode()
    for frame in (parse_aggregate_trades(body).frame, parse_aggregate_trades(compact).frame):
        assert frame["a"].to_list() == [row["a"] for row in recorded]
        assert frame["p"].to_list() == [Decimal(row["p"]) for row in recorded]
        assert frame["q"].to_list() == [Decimal(row["q"]) for row in recorded]
        assert frame["m"].to_list() == [row["m"] for row in recorded]


@pytest.mark.parametrize("name", ["http_futures_market_trades", "http_spot_market_trades"])
def test_recorded_trades(name: str) -> None:
    body = recording(f"nautilus/binance_doc_examples/{name}.json")
    frame = parse_trades(body).frame
    assert frame["trade_id"].to_list() == [str(row["id"]) for row in json.loads(body)]
    assert frame["size"].to_list() == [Decimal(row["qty"]) for row in json.loads(body)]


@pytest.mark.parametrize(
    "body",
    [
        b'{"code":-1,"msg":"no"}',
        b"[1]",
        b'[{"a":1,"p":"1","q":"1","f":1,"l":1,"T":1,"m":true},',
    ],
)
def test_an_answer_without_trades_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedPayload):
        parse_aggregate_trades(body)


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        ('{"a":1,"p":"x","q":"1","f":1,"l":1,"T":1,"m":true}', "value_unreadable: p"),
        ('{"a":1,"p":"1","q":"1","f":1,"l":1,"T":1,"m":"true"}', "value_unreadable: m"),
        ('{"a":1,"p":"1","q":"1","f":1,"l":1,"T":1}', "value_missing: m"),
        ('{"a":1,"p":"1","q":"1","f":1,"l":1,"T":9999999999999999,"m":true}', "value_unreadable: T"),
        ('{"a":1,"p":"0.1234567890123456789","q":"1","f":1,"l":1,"T":1,"m":true}', "value_too_fine: p"),
        ('{"a":1,"p":"1"}', "value_missing: q"),
    ],
)
def test_a_trade_that_is_not_one_costs_itself(bad: str, rule: str) -> None:
    good = '{"a":1,"p":"1","q":"1","f":1,"l":1,"T":1,"m":true}'
    rows = parse_aggregate_trades(f"[{good},{bad},{good}]".encode())
    assert rows.frame["p"].to_list() == [Decimal(1)] * 2
    assert rows.rejected["rule"].to_list() == [rule]
