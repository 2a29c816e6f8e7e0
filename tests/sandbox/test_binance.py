"""Binance's wire: rows, windows, weights and refusals as PROVIDERS §1 states them."""

import json
from decimal import Decimal

import httpx
import pytest

from market_data.sandbox.app import create_app
from market_data.sandbox.binance import FUTURES
from market_data.sandbox.limits import Weights
from market_data.sandbox.marketplace import Marketplace

from .conftest import Ask, ask_through

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
# 2026-11-20 18:30:15 UTC, the present of these tests.
NOW = 1_795_199_415_000
KLINES = "/fapi/v1/klines?symbol=BTCUSDT&interval="


def rows_of(response: httpx.Response) -> list[list[object]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return json.loads(response.content)


def test_a_recorded_hour_as_the_collector_wrote_it(ask: Ask) -> None:
    # File: 2017-07-01 11-AM, 2505.56 2513.38 2495.12 2509.17, 114.6 BTC, 287000.32 USD.
    row = rows_of(ask(f"{KLINES}1h&startTime=1498906800000&limit=1"))[0]
    assert [row[0], row[6]] == [1498906800000, 1498910399999]
    assert row[1:5] == ["2505.56", "2513.38", "2495.12", "2509.17"]
    assert Decimal(row[5]) == Decimal("114.6")
    assert Decimal(row[7]) == Decimal("287000.32")
    assert isinstance(row[8], int)
    assert 0 < Decimal(row[9]) < Decimal(row[5])
    assert 0 < Decimal(row[10]) < Decimal(row[7])
    assert len(row) == 12


def test_recorded_hour_is_the_sum_of_the_minutes_served(ask: Ask) -> None:
    minutes = rows_of(ask(f"{KLINES}1m&startTime=1498906800000&endTime=1498910399999"))
    assert len(minutes) == 60
    assert sum(Decimal(row[5]) for row in minutes) == Decimal("114.6")
    assert sum(Decimal(row[7]) for row in minutes) == Decimal("287000.32")
    assert (minutes[0][1], minutes[-1][4]) == ("2505.56", "2509.17")
    assert max(Decimal(row[2]) for row in minutes) == Decimal("2513.38")
    assert min(Decimal(row[3]) for row in minutes) == Decimal("2495.12")


@pytest.mark.parametrize(
    ("query", "first", "last", "count"),
    [
        ("1h", 1_795_197_600_000 - 499 * HOUR, 1_795_197_600_000, 500),
        ("1h&limit=3", 1_795_197_600_000 - 2 * HOUR, 1_795_197_600_000, 3),
        ("1h&startTime=1500000000001&limit=2", 1_500_001_200_000, 1_500_004_800_000, 2),
        ("1h&endTime=1500001200000&limit=2", 1_499_997_600_000, 1_500_001_200_000, 2),
        ("1h&endTime=1500001199999&limit=2", 1_499_994_000_000, 1_499_997_600_000, 2),
        ("1h&startTime=1500001200000&endTime=1500008399999", 1_500_001_200_000, 1_500_004_800_000, 2),
        ("1w&startTime=1498806800000&endTime=1500000000000", 1_499_040_000_000, 1_499_644_800_000, 2),
        ("1M&limit=2", 1_790_812_800_000, 1_793_491_200_000, 2),
        ("1h&startTime=0&limit=1", 1_498_906_800_000, 1_498_906_800_000, 1),
    ],
)
def test_windows(ask: Ask, query: str, first: int, last: int, count: int) -> None:
    rows = rows_of(ask(KLINES + query))
    assert (rows[0][0], rows[-1][0], len(rows)) == (first, last, count)


def test_nothing_after_the_present(ask: Ask) -> None:
    assert rows_of(ask(f"{KLINES}1h&startTime={NOW + 1}")) == []


def test_the_last_candle_is_still_forming(ask: Ask, market: Marketplace) -> None:
    rows = rows_of(ask(f"{KLINES}1h&limit=2"))
    assert rows[0][6] < NOW < rows[1][6]
    minutes = rows_of(ask(f"{KLINES}1m&startTime={rows[1][0]}"))
    assert len(minutes) == 31
    assert sum(Decimal(row[5]) for row in minutes) == Decimal(rows[1][5])
    assert minutes[-1][4] == rows[1][4]
    assert sum(row[8] for row in minutes) == rows[1][8]


def test_pages_meet_exactly(ask: Ask) -> None:
    start = 1_600_000_020_000
    whole = rows_of(ask(f"{KLINES}1m&startTime={start}&limit=1500"))
    pages = []
    for page in range(15):
        pages += rows_of(ask(f"{KLINES}1m&startTime={start + page * 100 * MINUTE}&limit=100"))
    assert pages == whole


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("symbol=BTCUSDT&interval=7m", -1120),
        ("symbol=BTCUSDT", -1120),
        ("symbol=NOPE&interval=1h", -1121),
        ("interval=1h", -1102),
        ("symbol=BTCUSDT&interval=1h&limit=x", -1100),
        ("symbol=BTCUSDT&interval=1h&startTime=-1", -1100),
        ("symbol=BTCUSDT&interval=1h&limit=1501", -1130),
        ("symbol=BTCUSDT&interval=1h&startTime=2&endTime=1", -1128),
        ("symbol=BTCUSDT&interval=1h&colour=red", -1104),
    ],
)
def test_refusals(ask: Ask, query: str, code: int) -> None:
    response = ask(f"/fapi/v1/klines?{query}")
    assert response.status_code == 400
    assert response.json()["code"] == code
    assert response.json()["msg"]


def test_spot_caps_its_limit_and_spells_bundles_apart(ask: Ask) -> None:
    assert len(rows_of(ask("/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=5000"))) == 1000
    query = "interval=1h&startTime=1700000000000&limit=1"
    spot = rows_of(ask(f"/api/v3/klines?symbol=PEPEUSDT&{query}"))[0]
    bundle = rows_of(ask(f"/fapi/v1/klines?symbol=1000PEPEUSDT&{query}"))[0]
    assert Decimal(bundle[1]) == 1000 * Decimal(spot[1])
    assert 1000 * Decimal(bundle[5]) == Decimal(spot[5])
    assert Decimal(bundle[7]) == Decimal(spot[7])


def test_spot_speaks_microseconds_on_request(ask: Ask) -> None:
    path = "/api/v3/klines?symbol=BTCUSDT&interval=1h&startTime=1700002800000000&limit=1"
    row = rows_of(ask(path, x_mbx_time_unit="MICROSECOND"))[0]
    assert (row[0], row[6]) == (1_700_002_800_000_000, 1_700_006_399_999_999)


@pytest.mark.parametrize(("limit", "weight"), [(99, 1), (100, 2), (499, 2), (500, 5), (1000, 5), (1001, 10)])
def test_candle_weights_of_futures(market: Marketplace, limit: int, weight: int) -> None:
    ask = ask_through(create_app(market))
    assert ask(f"{KLINES}1h&limit={limit}").headers["X-MBX-USED-WEIGHT-1M"] == str(weight)


def test_without_limits_nothing_is_counted_so_that_no_client_waits_for_the_stated_limit(ask: Ask) -> None:
    answers = [ask(f"{KLINES}1h&limit=1500") for _ in range(3)]
    assert {answer.headers["X-MBX-USED-WEIGHT-1M"] for answer in answers} == {"0"}
    assert ask("/fapi/v1/exchangeInfo").json()["rateLimits"][0]["limit"] == 2400


def test_too_much_weight_is_refused_then_banned() -> None:
    clock = iter([60.0 + n for n in range(30)] + [300.0])
    weights = Weights(10, wall=lambda: next(clock))
    assert [weights.spend(5), weights.spend(5)] == [None, None]
    refused = weights.spend(1)
    assert refused is not None
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "58")
    assert json.loads(bytes(refused.body))["code"] == -1003
    answers = [weights.spend(1) for _ in range(27)]
    assert [answer.status_code for answer in answers if answer][-1] == 418
    assert weights.spend(1) is None


def test_instruments(ask: Ask) -> None:
    futures = {entry["symbol"]: entry for entry in ask("/fapi/v1/exchangeInfo").json()["symbols"]}
    assert futures["BTCUSDT"]["contractType"] == "PERPETUAL"
    assert futures["1000PEPEUSDT"]["baseAsset"] == "1000PEPE"
    spot = ask("/api/v3/exchangeInfo?symbol=ETHUSDT").json()
    assert [entry["baseAsset"] for entry in spot["symbols"]] == ["ETH"]
    assert spot["rateLimits"][0]["limit"] == 6000
    assert ask("/api/v3/exchangeInfo?symbol=NOPE").json()["code"] == -1121
    assert ask("/fapi/v1/time").json() == {"serverTime": NOW}
    assert ask("/api/v3/ping").json() == {}


def test_futures_house_is_the_one_with_bundles() -> None:
    assert (FUTURES.most_candles, FUTURES.weight_limit) == (1500, 2400)
