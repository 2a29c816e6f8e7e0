"""The public archive: which file, proved by its checksum, headers and units sniffed, compared with REST."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from market_data.model.errors import MalformedPayload
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.providers.binance import Binance, BinanceSettings, archive
from market_data.providers.binance.client import Client
from market_data.providers.binance.klines import parse_file
from market_data.providers.binance.trades import file_rows
from market_data.transport.http import Http
from market_data.transport.senders import HttpxSender

_spec = importlib.util.spec_from_file_location("fake_binance_archive", Path(__file__).with_name("fake.py"))
assert _spec is not None
assert _spec.loader is not None
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)

BTC = Instrument("BTC", AssetClass.CRYPTO)
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore\n"
)
START, END = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 3, 4, tzinfo=UTC)
HOUR = 3600


def klines_csv(begin: datetime, end: datetime, *, header: bool = True, unit: int = 1) -> str:
    seconds = range(int(begin.timestamp()), int(end.timestamp()), HOUR)
    lines = [",".join(map(str, scaled(fake.kline(second, HOUR), unit))) for second in seconds]
    return (HEADER if header else "") + "\n".join(lines) + "\n"


def scaled(row: list[Any], unit: int) -> list[Any]:
    # In microseconds a candle's last moment is .999999.
    row[0] *= unit
    row[6] = row[6] * unit + (unit - 1)
    return row


def path(period: str, label: str) -> str:
    return f"futures/um/{period}/klines/BTCUSDT/1h/BTCUSDT-1h-{label}.zip"


def filled() -> Any:
    """January and February by month, the first three days of March by day."""
    source = fake.Source()
    source.add_file(path("monthly", "2025-01"), klines_csv(START, datetime(2025, 2, 1, tzinfo=UTC)))
    for day in range(28):
        begin = datetime(2025, 2, 1, tzinfo=UTC) + timedelta(days=day)
        source.add_file(path("daily", f"{begin:%Y-%m-%d}"), klines_csv(begin, begin + timedelta(days=1), header=False))
    for day in (1, 2, 3):
        begin = datetime(2025, 3, day, tzinfo=UTC)
        source.add_file(path("daily", f"{begin:%Y-%m-%d}"), klines_csv(begin, begin + timedelta(days=1)))
    return source


def fetch(source: Any, start: datetime = START, end: datetime = END, **settings: Any) -> list[Any]:
    configured = BinanceSettings(**{"archive_from_candles": 1} | settings)
    provider = Binance(configured, Http("binance", configured, sender=HttpxSender(httpx.MockTransport(source))))

    async def collect() -> list[Any]:
        return [page async for page in provider.fetch_candles(BTC, Timeframe.H1, start, end, now=fake.NOW)]

    return asyncio.run(collect())


def joined(pages: list[Any]) -> pl.DataFrame:
    return pl.concat([page.frame for page in pages])


def test_the_archive_and_rest_give_the_same_candles() -> None:
    end = fake.NOW
    from_archive, from_rest = fetch(filled(), end=end), fetch(fake.Source(), end=end, use_archive=False)
    assert joined(from_archive).equals(joined(from_rest))
    assert [page.source for page in from_archive][:2] == ["binance:archive", "binance:archive"]
    # 2025-03-04 is over for ten hours only: its file cannot be counted on yet.
    assert from_archive[-1].source == "binance"
    assert from_archive[-1].frame["timestamp"][0] == datetime(2025, 3, 4, tzinfo=UTC)


def test_a_month_that_is_not_there_comes_by_day_and_a_day_that_is_not_from_rest() -> None:
    source = filled()
    del source.files["/data/" + path("daily", "2025-02-11")]
    pages = fetch(source)
    assert joined(pages).equals(joined(fetch(fake.Source(), use_archive=False)))
    assert [page.frame["timestamp"][0] for page in pages if page.source == "binance"] == [
        datetime(2025, 2, 11, tzinfo=UTC)
    ]


def test_a_corrupted_file_is_refused_tried_again_and_replaced_by_rest_which_says_so() -> None:
    source = filled()
    name = "/data/" + path("daily", "2025-02-11")
    source.files[name] = source.files[name][:-30] + bytes(30)
    pages = fetch(source)
    (page,) = [page for page in pages if page.source == "binance"]
    assert set(page.frame["notes"]) == {"archive_checksum_failed"}
    assert joined(pages).drop("notes").equals(joined(fetch(fake.Source(), use_archive=False)).drop("notes"))
    asked = [request for request in source.requests if request.url.path == name]
    assert len(asked) == 2


def test_a_wrong_file_with_the_right_checksum_is_refused_too() -> None:
    source = filled()
    source.add_file(path("daily", "2025-02-11"), "a,b,c\n1,2,3\n")
    assert joined(fetch(source)).height == joined(fetch(fake.Source(), use_archive=False)).height


def test_where_the_two_differ_rest_wins_and_says_so() -> None:
    source = filled()
    begin = datetime(2025, 3, 3, tzinfo=UTC)
    csv = klines_csv(begin, begin + timedelta(days=1)).splitlines()
    csv[5] = csv[5].replace(".500,", ".501,", 1)
    source.add_file(path("daily", "2025-03-03"), "\n".join(csv))
    frame = joined(fetch(source))
    differing = frame.filter(pl.col("notes").is_not_null())
    assert differing["timestamp"].to_list() == [datetime(2025, 3, 3, 4, tzinfo=UTC)]
    assert differing["notes"].to_list() == ["archive_differed_from_rest"]
    assert frame.drop("notes").equals(joined(fetch(fake.Source(), use_archive=False)).drop("notes"))


@pytest.mark.parametrize(("header", "unit"), [(True, 1), (False, 1), (False, 1000)])
def test_headers_and_units_are_told_from_the_values(header: bool, unit: int) -> None:
    frame = parse_file(klines_csv(START, START + timedelta(hours=3), header=header, unit=unit).encode()).frame
    assert frame["timestamp"].to_list() == [START + timedelta(hours=number) for number in range(3)]
    assert frame["close_time"][0] == START + timedelta(minutes=59, seconds=59, milliseconds=999)
    assert frame["close"][0] == Decimal("101.00000001") + int(START.timestamp()) // 60 % 1000


def test_both_units_in_one_file() -> None:
    first = klines_csv(START - timedelta(hours=1), START, header=False)
    frame = parse_file((first + klines_csv(START, START + timedelta(hours=1), header=False, unit=1000)).encode()).frame
    assert frame["timestamp"].to_list() == [START - timedelta(hours=1), START]


@pytest.mark.parametrize("csv", [b"x,y\n1,2\n", b"a,b\n" * 3, b"1,2,3\n" * 10])
def test_a_file_that_is_not_one(csv: bytes) -> None:
    with pytest.raises(MalformedPayload):
        parse_file(csv)


def test_a_line_that_is_no_candle_costs_itself() -> None:
    bad = [
        "1735693200000,1,1,1,1,,1735696799999,1,1,1,1,0",
        "1735693200000,one,1,1,1,1,1735696799999,1,1,1,1,0",
        "1735693200000,1,1,1,0.0000000000000000001,1,1735696799999,1,1,1,1,0",
        "99999999999999999,1,1,1,1,1,1735696799999,1,1,1,1,0",
        "1,2,3",
    ]
    good = klines_csv(START, START + timedelta(hours=9), header=True)
    rows = parse_file((good + "\n".join(bad) + "\n").encode())
    assert rows.frame.height == 9
    assert rows.rejected["rule"].to_list() == [
        "value_missing: volume", "value_unreadable: open", "value_too_fine: close", "value_unreadable: open_time",
        "value_missing: low",
    ]  # fmt: skip
    assert json.loads(rows.rejected["payload"][1]) == bad[1]


def test_a_file_of_another_interval_is_not_the_one_asked_for() -> None:
    source = filled()
    begin = datetime(2025, 2, 11, tzinfo=UTC)
    minutes = [fake.kline(int(begin.timestamp()) + 60 * number, 60) for number in range(1440)]
    source.add_file(path("daily", "2025-02-11"), HEADER + "".join(",".join(map(str, row)) + "\n" for row in minutes))
    pages = fetch(source)
    (page,) = [page for page in pages if page.source == "binance"]
    assert set(page.frame["notes"]) == {"archive_checksum_failed"}
    assert joined(pages).drop("notes").equals(joined(fetch(fake.Source(), use_archive=False)).drop("notes"))


TRADE_HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
TRADE = f"7,100.5,0.25,1,2,{int(START.timestamp()) * 1000},true\n"
DAY = TimeRange(START, START + timedelta(days=1))


@pytest.mark.parametrize("header", ["", TRADE_HEADER])
def test_trades_with_and_without_a_header(header: str) -> None:
    (rows,) = file_rows((header + TRADE).encode(), DAY)
    frame = rows.frame
    assert frame.select("timestamp", "trade_id", "price", "size", "aggressor_side").row(0) == (
        START, "7", Decimal("100.5"), Decimal("0.25"), "sell",
    )  # fmt: skip


@pytest.mark.parametrize(
    "header",
    [
        "agg_trade_id,quantity,price,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n",
        "id,price,qty,quote_qty,time,is_buyer_maker\n",
        "one,two,three,four,five,six,seven\n",
    ],
)
def test_trades_under_a_foreign_header_are_refused(header: str) -> None:
    with pytest.raises(MalformedPayload, match="a file of the archive has"):
        list(file_rows((header + TRADE).encode(), DAY))


def test_an_empty_file() -> None:
    assert parse_file(b"").frame.height == 0
    assert parse_file(HEADER.encode()).frame.height == 0


def test_which_files_hold_a_range() -> None:
    span = TimeRange(datetime(2024, 12, 30, tzinfo=UTC), datetime(2025, 3, 5, 10, tzinfo=UTC))
    found = archive.pieces(span, fake.NOW)
    # Two days of December, January as a month; February's month file appears on 2025-03-09 at the latest.
    assert [piece.label for piece in found[:3]] == ["2024-12-30", "2024-12-31", "2025-01"]
    assert [piece.label for piece in found[3:]] == [
        *(f"2025-02-{day:02}" for day in range(1, 29)),
        "2025-03-01",
        "2025-03-02",
        "2025-03-03",
    ]


async def test_a_zip_that_unpacks_too_far_or_is_none() -> None:
    source = fake.Source()
    source.add_file("spot/x.zip", "1" * 10**6)
    source.files["/data/spot/y.zip"] = b"not a zip"
    source.checksums["/data/spot/y.zip"] = hashlib.sha256(b"not a zip").hexdigest()
    settings = BinanceSettings(max_response_bytes=10**5)
    http = Http("binance", settings, sender=HttpxSender(httpx.MockTransport(source)))
    client = Client(settings, http)
    with pytest.raises(MalformedPayload, match="more than the 100000 bytes"):
        await archive.download(client, "spot/x.zip")
    with pytest.raises(MalformedPayload, match="not a zip"):
        await archive.download(client, "spot/y.zip")
    assert await archive.download(client, "spot/z.zip") is None


def test_two_rows_of_one_moment_in_a_file_are_held_against_the_exchange() -> None:
    source = filled()
    first, twice = klines_csv(START, START + timedelta(days=31), header=True), START + timedelta(days=3, hours=5)
    bad = first + klines_csv(twice, twice + timedelta(hours=1), header=False).replace("0000001", "0000002")
    source.add_file(path("monthly", f"{START:%Y-%m}"), bad)
    frame = joined(fetch(source))
    (row,) = frame.filter(pl.col("timestamp") == twice).to_dicts()
    assert row["notes"] == "archive_contradicted_itself"
    assert row["close"] == joined(fetch(fake.Source(), use_archive=False)).filter(timestamp=twice)["close"][0]


def test_an_hour_without_a_trade_is_held_against_the_exchange() -> None:
    """The file says that nothing was traded, the exchange that much was."""
    source = filled()
    lines = klines_csv(START, START + timedelta(days=31), header=True).splitlines()
    flat = lines[40].split(",")
    flat[2] = flat[3] = flat[4] = flat[1]
    flat[5] = flat[7] = flat[8] = flat[9] = flat[10] = "0"
    lines[40] = ",".join(flat)
    source.add_file(path("monthly", f"{START:%Y-%m}"), "\n".join(lines) + "\n")
    frame, moment = joined(fetch(source)), datetime.fromtimestamp(int(flat[0]) / 1000, UTC)
    honest = joined(fetch(fake.Source(), use_archive=False))
    assert frame.filter(timestamp=moment)["notes"].to_list() == ["archive_differed_from_rest"]
    assert frame.drop("notes").equals(honest.drop("notes"))
