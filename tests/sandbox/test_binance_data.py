"""Binance's trades, derivatives data and archive: consistent with its candles, and bounded as PROVIDERS §1 states."""

import csv
import hashlib
import io
import zipfile
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from market_data.sandbox.app import create_app
from market_data.sandbox.marketplace import Marketplace, fixed_clock

from .conftest import Ask, ask_through

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
NOW = 1_795_199_415_000
BROKEN = "2026-06-25"


def asked(ask: Ask, path: str) -> Any:
    response = ask(path)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("symbol", ["LTCUSDT", "YFIUSDT", "1000PEPEUSDT"])
def test_a_minutes_trades_are_its_candle(ask: Ask, symbol: str) -> None:
    start = NOW // MINUTE * MINUTE - 90 * MINUTE
    for minute in range(start, start + 3 * MINUTE, MINUTE):
        query = f"symbol={symbol}&startTime={minute}&endTime={minute + MINUTE - 1}"
        trades = asked(ask, f"/fapi/v1/aggTrades?{query}&limit=1000")
        candle = asked(ask, f"/fapi/v1/klines?{query}&interval=1m")[0]
        assert len(trades) == candle[8] < 1000
        prices = [Decimal(trade["p"]) for trade in trades]
        found = [prices[0], max(prices), min(prices), prices[-1]]
        assert found == [Decimal(price) for price in candle[1:5]]
        assert sum(Decimal(trade["q"]) for trade in trades) == Decimal(candle[5])
        # The taker bought where the buyer was not the maker.
        assert sum(Decimal(trade["q"]) for trade in trades if not trade["m"]) == Decimal(candle[9])
        assert all(minute <= trade["T"] < minute + MINUTE for trade in trades)


def test_trades_page_by_id_without_gap(ask: Ask) -> None:
    first = asked(ask, f"/fapi/v1/aggTrades?symbol=KAVAUSDT&startTime={NOW - 10 * HOUR}&limit=100")
    after = asked(ask, f"/fapi/v1/aggTrades?symbol=KAVAUSDT&fromId={first[-1]['a'] + 1}&limit=100")
    whole = asked(ask, f"/fapi/v1/aggTrades?symbol=KAVAUSDT&fromId={first[0]['a']}&limit=200")
    assert first + after == whole
    assert [trade["a"] for trade in whole] == list(range(whole[0]["a"], whole[0]["a"] + 200))


def test_the_newest_trades_come_last(ask: Ask) -> None:
    trades = asked(ask, "/api/v3/trades?symbol=ETHUSDT&limit=5")
    assert [trade["time"] for trade in trades] == sorted(trade["time"] for trade in trades)
    assert NOW - MINUTE < trades[-1]["time"] < NOW
    assert all(Decimal(one["price"]) * Decimal(one["qty"]) == Decimal(one["quoteQty"]) for one in trades)
    assert set(trades[0]) == {"id", "price", "qty", "quoteQty", "time", "isBuyerMaker", "isBestMatch"}


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"/fapi/v1/aggTrades?symbol=BTCUSDT&startTime={NOW - HOUR}&endTime={NOW}", 400, -1127),
        (f"/fapi/v1/aggTrades?symbol=BTCUSDT&startTime={NOW - 49 * HOUR}", 400, -1130),
        ("/fapi/v1/aggTrades?symbol=BTCUSDT&fromId=5", 400, -1130),
        (f"/fapi/v1/aggTrades?symbol=BTCUSDT&fromId=5&startTime={NOW}", 400, -1128),
        ("/fapi/v1/historicalTrades?symbol=BTCUSDT", 401, -2014),
        ("/fapi/v1/trades?symbol=NOPE", 400, -1121),
        ("/futures/data/openInterestHist?symbol=BTCUSDT&period=1m", 400, -1120),
        (f"/futures/data/openInterestHist?symbol=BTCUSDT&period=5m&startTime={NOW - 31 * DAY}", 400, -1130),
        ("/futures/data/takerlongshortRatio?symbol=BTCUSDT&period=5m&limit=501", 400, -1130),
        ("/fapi/v1/fundingRate?symbol=BTCUSDT&limit=1001", 400, -1130),
    ],
)
def test_refusals(ask: Ask, path: str, status: int, code: int) -> None:
    response = ask(path)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_taker_volumes_are_those_of_the_candles(ask: Ask) -> None:
    start = NOW // HOUR * HOUR - 3 * HOUR
    query = f"symbol=BTCUSDT&startTime={start}&endTime={start + 2 * HOUR}"
    ratios = asked(ask, f"/futures/data/takerlongshortRatio?{query}&period=1h&limit=500")
    candles = asked(ask, f"/fapi/v1/klines?{query}&interval=1h")
    # In November 2026 rows carry the start of their period, as candles do.
    assert [row["timestamp"] for row in ratios] == [row[0] for row in candles]
    for ratio, candle in zip(ratios, candles, strict=True):
        bought, sold = Decimal(candle[9]), Decimal(candle[5]) - Decimal(candle[9])
        assert Decimal(ratio["buyVol"]) == pytest.approx(bought, abs=Decimal("0.0001"))
        assert Decimal(ratio["sellVol"]) == pytest.approx(sold, abs=Decimal("0.0001"))


def test_only_closed_periods_are_served(ask: Ask) -> None:
    rows = asked(ask, "/futures/data/globalLongShortAccountRatio?symbol=BTCUSDT&period=5m")
    assert len(rows) == 30
    assert rows[-1]["timestamp"] == NOW // (5 * MINUTE) * 5 * MINUTE - 5 * MINUTE
    long, short = Decimal(rows[0]["longAccount"]), Decimal(rows[0]["shortAccount"])
    assert long + short == 1
    assert Decimal(rows[0]["longShortRatio"]) == pytest.approx(long / short, rel=Decimal("0.001"))


def test_before_the_break_periods_carry_their_end(market: Marketplace) -> None:
    moment = datetime(2026, 6, 24, 12, 3, tzinfo=UTC)
    ask = ask_through(create_app(Marketplace(market.seed, fixed_clock(moment))))
    rows = asked(ask, "/futures/data/openInterestHist?symbol=BTCUSDT&period=5m&limit=1")
    assert rows[0]["timestamp"] == int(datetime(2026, 6, 24, 12, 0, tzinfo=UTC).timestamp()) * 1000


def test_funding_every_eight_hours_then_four(ask: Ask) -> None:
    start = int(datetime(2023, 12, 31, tzinfo=UTC).timestamp()) * 1000
    rows = asked(ask, f"/fapi/v1/fundingRate?symbol=SOLUSDT&startTime={start}&endTime={start + 2 * DAY - 1}&limit=1000")
    hours = [datetime.fromtimestamp(row["fundingTime"] / 1000, UTC).strftime("%d %H") for row in rows]
    assert hours == ["31 00", "31 08", "31 16", "01 00", "01 04", "01 08", "01 12", "01 16", "01 20"]
    assert all(row["fundingTime"] % HOUR < 20 for row in rows)
    assert all(abs(Decimal(row["fundingRate"])) < Decimal("0.01") for row in rows)
    assert len(asked(ask, "/fapi/v1/fundingRate?symbol=BTCUSDT")) == 100
    assert "SOLUSDT" in [row["symbol"] for row in asked(ask, "/fapi/v1/fundingInfo")]


def test_the_present(ask: Ask) -> None:
    index = asked(ask, "/fapi/v1/premiumIndex?symbol=BTCUSDT")
    assert index["nextFundingTime"] == 1_795_219_200_000
    interest = asked(ask, "/fapi/v1/openInterest?symbol=BTCUSDT")
    history = asked(ask, "/futures/data/openInterestHist?symbol=BTCUSDT&period=5m&limit=1")
    assert Decimal(interest["openInterest"]) == Decimal(history[0]["sumOpenInterest"])


def unzipped(ask: Ask, path: str) -> list[list[str]]:
    """Rows of an archive file whose checksum was found right."""
    response: httpx.Response = ask(f"/data/{path}")
    assert response.status_code == 200
    digest, name = ask(f"/data/{path}.CHECKSUM").text.split()
    assert (digest, name) == (hashlib.sha256(response.content).hexdigest(), path.rpartition("/")[2])
    with zipfile.ZipFile(io.BytesIO(response.content)) as packed:
        assert packed.namelist() == [name.replace(".zip", ".csv")]
        return list(csv.reader(io.StringIO(packed.read(packed.namelist()[0]).decode())))


def test_archive_candles_are_those_of_rest(ask: Ask) -> None:
    rows = unzipped(ask, "futures/um/daily/klines/BTCUSDT/1h/BTCUSDT-1h-2026-11-18.zip")
    assert rows[0][:2] == ["open_time", "open"]
    start = int(datetime(2026, 11, 18, tzinfo=UTC).timestamp()) * 1000
    rest = asked(ask, f"/fapi/v1/klines?symbol=BTCUSDT&interval=1h&startTime={start}&limit=24")
    assert rows[1:] == [[str(cell) for cell in row] for row in rest]


def test_headers_and_time_units_over_the_years(ask: Ask) -> None:
    old = unzipped(ask, "futures/um/monthly/klines/ETHUSDT/1d/ETHUSDT-1d-2022-05.zip")
    assert (len(old), old[0][0]) == (31, "1651363200000")
    spot = unzipped(ask, "spot/daily/klines/ETHUSDT/1h/ETHUSDT-1h-2024-12-31.zip")
    assert spot[0][0] == "1735603200000"
    micros = unzipped(ask, "spot/daily/klines/ETHUSDT/1h/ETHUSDT-1h-2025-01-01.zip")
    assert (micros[0][0], micros[0][6]) == ("1735689600000000", "1735693199999999")


def test_archive_trades(ask: Ask) -> None:
    futures = unzipped(ask, "futures/um/daily/aggTrades/BATUSDT/BATUSDT-aggTrades-2026-11-18.zip")
    assert futures[0][-1] == "is_buyer_maker"
    assert {row[6] for row in futures[1:]} == {"true", "false"}
    candles = unzipped(ask, "futures/um/daily/klines/BATUSDT/1d/BATUSDT-1d-2026-11-18.zip")
    assert sum(Decimal(row[2]) for row in futures[1:]) == Decimal(candles[1][5])
    assert str(len(futures) - 1) == candles[1][8]


def test_metrics_labels_break(ask: Ask) -> None:
    name = "futures/um/daily/metrics/BTCUSDT/BTCUSDT-metrics-"
    before, after = unzipped(ask, f"{name}2026-06-24.zip"), unzipped(ask, f"{name}{BROKEN}.zip")
    assert (before[1][0], before[-1][0], len(before)) == ("2026-06-24 00:05:00", f"{BROKEN} 00:00:00", 289)
    assert (after[1][0], after[-1][0], len(after)) == (f"{BROKEN} 00:00:00", f"{BROKEN} 23:55:00", 289)
    assert before[-1][2] != after[1][2]


def test_funding_file(ask: Ask) -> None:
    rows = unzipped(ask, "futures/um/monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2024-02.zip")
    assert rows[0] == ["calc_time", "funding_interval_hours", "last_funding_rate"]
    assert (len(rows), {row[1] for row in rows[1:]}) == (1 + 29 * 3, {"8"})


@pytest.mark.parametrize(
    "path",
    [
        "futures/um/daily/klines/BTCUSDT/1h/BTCUSDT-1h-2026-11-20.zip",
        "futures/um/monthly/klines/BTCUSDT/1h/BTCUSDT-1h-2026-11.zip",
        "futures/um/daily/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2024-02-01.zip",
        "futures/um/daily/metrics/BTCUSDT/BTCUSDT-metrics-2026-13-01.zip",
        "futures/um/daily/klines/NOPEUSDT/1h/NOPEUSDT-1h-2026-11-18.zip",
        "futures/um/daily/klines/BTCUSDT/1h/ETHUSDT-1h-2026-11-18.zip",
        "futures/um/monthly/klines/PEPEUSDT/1M/PEPEUSDT-1M-2024-01.zip",
        "spot/daily/metrics/BTCUSDT/BTCUSDT-metrics-2026-11-18.zip",
    ],
)
def test_files_that_are_not_there(ask: Ask, path: str) -> None:
    for one in (path, f"{path}.CHECKSUM"):
        response = ask(f"/data/{one}")
        assert response.status_code == 404
        assert "NoSuchKey" in response.text


def test_the_premium_index_has_candles_without_volume_and_the_archive_the_same(ask: Ask) -> None:
    day = 1_763_337_600_000
    query = f"symbol=BTCUSDT&interval=5m&startTime={day}&limit=288"
    found = ask(f"/fapi/v1/premiumIndexKlines?{query}").json()
    assert [row[0] for row in found] == [day + 300_000 * number for number in range(288)]
    for opened, first, high, low, last, volume, closed, *_ in found:
        assert Decimal(low) <= min(Decimal(first), Decimal(last)) <= max(Decimal(first), Decimal(last)) <= Decimal(high)
        assert (volume, closed) == ("0", opened + 299_999)
    path = "futures/um/daily/premiumIndexKlines/BTCUSDT/5m/BTCUSDT-5m-2025-11-17.zip"
    with zipfile.ZipFile(io.BytesIO(ask(f"/data/{path}").content)) as packed:
        lines = packed.read(packed.namelist()[0]).decode().splitlines()
    assert [line.split(",") for line in lines[1:]] == [[str(value) for value in row] for row in found]
    assert ask(f"/data/{path.replace('futures/um', 'spot')}").status_code == 404
    assert ask("/fapi/v1/premiumIndexKlines?symbol=BTCUSDT&interval=7m").json()["code"] == -1120
