"""Yahoo's wire: charts, live rows, events, reach and errors as PROVIDERS §3 states them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from market_data.sandbox.app import create_app
from market_data.sandbox.marketplace import Marketplace, fixed_clock

from .conftest import Ask, ask_through

CHART = "/v8/finance/chart/"
NOW = 1_795_199_415
# New York's session of the tests' day: 2026-11-20, 14:30 to 21:00 UTC.
OPENED = 1_795_185_000
AROUND_SPLIT = "interval=1d&period1=1344556800&period2=1344902400"


def chart(ask: Ask, path: str) -> dict[str, Any]:
    response = ask(CHART + path)
    assert response.status_code == 200, response.text
    body = response.json()["chart"]
    assert body["error"] is None
    return body["result"][0]


def test_split_adjusted_prices_in_single_precision(ask: Ask) -> None:
    # The recording gives these days adjusted: 39.395 and 39.299999, which is how single precision spells them.
    result = chart(ask, f"KO?{AROUND_SPLIT}")
    assert result["timestamp"] == [1_344_605_400, 1_344_864_600]
    quote = result["indicators"]["quote"][0]
    assert quote["close"] == [39.39500045776367, 39.29999923706055]
    assert quote["volume"] == [40_577_600, 8_898_200]
    assert "events" not in result


def test_a_split_is_an_event_and_hides_dividends_when_asked_alone(ask: Ask) -> None:
    year = "KO?interval=1d&period1=1325376000&period2=1356998400&events="
    both = chart(ask, year + "div%2Csplits")["events"]
    assert list(both["splits"].values()) == [
        {"date": 1_344_864_600, "numerator": 2.0, "denominator": 1.0, "splitRatio": "2:1"}
    ]
    # 51 cents before the split are 25.5 of today's shares.
    assert [round(one["amount"], 4) for one in both["dividends"].values()] == [0.255, 0.255, 0.255, 0.255]
    assert "dividends" not in chart(ask, year + "splits")["events"]


def test_adjusted_close_takes_dividends_off(ask: Ask) -> None:
    # IBM paid 1.10 on 2014-11-06 after a close of 161.82 the day before: the factor between them is 1 - 1.10/161.82.
    result = chart(ask, "IBM?interval=1d&period1=1415145600&period2=1415318400")
    before, after = result["indicators"]["quote"][0]["close"]
    adjusted = result["indicators"]["adjclose"][0]["adjclose"]
    assert before == pytest.approx(161.82)
    assert (adjusted[0] / before) / (adjusted[1] / after) == pytest.approx(1 - 1.10 / 161.82, rel=1e-6)


def test_a_week_across_the_split_is_in_one_scale(ask: Ask) -> None:
    weeks = chart(ask, "KO?interval=1wk&period1=1344225600&period2=1345200000")
    assert weeks["timestamp"] == [1_344_225_600, 1_344_830_400]
    # 80.01 on Monday 2012-08-06 before the split, if anything, would be twice this.
    assert all(35 < price < 45 for price in weeks["indicators"]["quote"][0]["open"])


def test_todays_daily_row_is_stamped_with_its_last_price(ask: Ask) -> None:
    result = chart(ask, "KO?interval=1d&range=5d")
    assert result["timestamp"][-1] == NOW
    assert result["meta"]["regularMarketTime"] == NOW
    assert result["indicators"]["quote"][0]["close"][-1] == result["meta"]["regularMarketPrice"]


def test_intraday_ends_in_a_live_row_and_starts_at_the_open(ask: Ask) -> None:
    result = chart(ask, "KO?interval=30m&range=1d")
    assert result["timestamp"][:2] == [OPENED, OPENED + 1800]
    assert result["timestamp"][-1] == NOW
    quote = result["indicators"]["quote"][0]
    assert quote["volume"][-1] == 0
    assert quote["open"][-1] == quote["close"][-1] == quote["close"][-2]
    assert "adjclose" not in result["indicators"]


def test_sixty_minutes_are_answered_as_an_hour(ask: Ask) -> None:
    assert chart(ask, "KO?interval=60m&range=5d")["meta"]["dataGranularity"] == "1h"


def test_after_the_close_the_live_row_is_the_close(market: Marketplace) -> None:
    evening = Marketplace(market.seed, fixed_clock(datetime(2026, 11, 21, 3, tzinfo=UTC)))
    result = chart(ask_through(create_app(evening)), "KO?interval=1h&range=1d")
    assert result["timestamp"][-2:] == [OPENED + 6 * 3600, OPENED + 23_400]
    assert result["indicators"]["quote"][0]["volume"][-1] == 0


def test_session_opens_follow_daylight_saving(ask: Ask) -> None:
    # Clocks went forward on 2014-03-09: the open moves from 14:30 to 13:30 UTC.
    stamps = chart(ask, "KO?interval=1d&period1=1394150400&period2=1394496000")["timestamp"]
    assert stamps == [1_394_202_600, 1_394_458_200]


def test_a_coins_volume_is_in_dollars(ask: Ask) -> None:
    result = chart(ask, "BTC-USD?interval=1d&period1=1498953600&period2=1499040000")
    # 2017-07-02: 24 recorded hours; their USD column sums to 22,391,220.25.
    assert result["timestamp"] == [1_498_953_600]
    assert result["indicators"]["quote"][0]["volume"][0] == pytest.approx(22_391_220, abs=50_000)
    assert result["meta"]["instrumentType"] == "CRYPTOCURRENCY"


def test_no_candles_is_a_result_without_timestamps(ask: Ask) -> None:
    result = chart(ask, "KO?interval=1d&period1=0&period2=1000")
    assert "timestamp" not in result
    assert result["indicators"]["quote"] == [{}]


@pytest.mark.parametrize(
    ("path", "status", "code", "words"),
    [
        ("NOPE?interval=1d", 404, "Not Found", "No data found, symbol may be delisted"),
        ("KO?interval=7m", 400, "Bad Request", "Invalid input - interval=7m is not supported. Valid intervals: ["),
        ("KO?interval=1d&range=9z", 400, "Bad Request", "range=9z is not supported"),
        ("KO?interval=1d&period1=2&period2=1", 400, "Bad Request", "start date cannot be after end date"),
        ("KO?interval=1d&period1=x", 400, "Bad Request", "epoch seconds"),
        ("KO?interval=1m&range=9d", 422, "Unprocessable Entity", "Only 8 days worth of 1m granularity data"),
        (f"KO?interval=1m&period1={NOW - 31 * 86400}&period2={NOW - 30 * 86400}", 422, "Unprocessable Entity",
         "must be within the last 30 days."),
        ("KO?interval=30m&range=61d", 422, "Unprocessable Entity", "must be within the last 60 days."),
        ("KO?interval=1h&range=731d", 422, "Unprocessable Entity", "must be within the last 730 days."),
    ],
)  # fmt: skip
def test_errors(ask: Ask, path: str, status: int, code: str, words: str) -> None:
    response = ask(CHART + path)
    assert response.status_code == status
    error = response.json()["chart"]["error"]
    assert error["code"] == code
    assert words in error["description"]


def test_without_a_user_agent_nothing_is_served(ask: Ask) -> None:
    response = ask(f"{CHART}KO?interval=1d", user_agent="")
    assert (response.status_code, response.text) == (429, "Edge: Too Many Requests")


def test_search(ask: Ask) -> None:
    assert [quote["symbol"] for quote in ask("/v1/finance/search?q=pepe").json()["quotes"]] == ["PEPE24478-USD"]
    best = ask("/v1/finance/search?q=BRK-B").json()["quotes"][0]
    assert (best["symbol"], best["quoteType"]) == ("BRK-B", "EQUITY")
    assert ask("/v1/finance/search?q=zzzz").json()["quotes"] == []
