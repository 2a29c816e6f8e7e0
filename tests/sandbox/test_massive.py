"""Massive's wire: aggregates, pages, adjustment, keys and errors as PROVIDERS §2 states them."""

from typing import Any
from urllib.parse import urlsplit

import pytest

from .conftest import Ask

KEY = {"authorization": "Bearer some-key"}
AGGREGATES = "/v2/aggs/ticker/"


def walk(ask: Ask, path: str) -> tuple[list[dict[str, Any]], int]:
    """All results over all pages, following next_url on our own host, and the number of pages."""
    found, pages = [], 0
    while path:
        body = ask(path, **KEY).json()
        found += body.get("results", [])
        pages += 1
        following = body.get("next_url", "")
        if following:
            parts = urlsplit(following)
            assert parts.hostname != "sandbox"
            assert "apiKey" not in following
            path = f"{parts.path}?{parts.query}"
        else:
            path = ""
    return found, pages


def test_split_adjusted_by_default_raw_on_request(ask: Ask) -> None:
    # Source, adjusted for the split of 2012-08-13: 2012-08-10 closed at 39.395, 40,577,600 shares; 08-13 at 39.30.
    path = f"{AGGREGATES}KO/range/1/day/2012-08-10/2012-08-13"
    adjusted, raw = ask(path, **KEY).json(), ask(f"{path}?adjusted=false", **KEY).json()
    assert [bar["c"] for bar in adjusted["results"]] == [39.395, 39.3]
    assert [bar["v"] for bar in adjusted["results"]] == [40_577_600, 8_898_200]
    assert [bar["c"] for bar in raw["results"]] == [78.79, 39.3]
    assert [bar["v"] for bar in raw["results"]] == [20_288_800, 8_898_200]
    # Daily candles are stamped 00:00 New York: 04:00 UTC in summer.
    assert [bar["t"] for bar in raw["results"]] == [1_344_571_200_000, 1_344_830_400_000]
    assert (raw["status"], raw["resultsCount"], raw["adjusted"], adjusted["adjusted"]) == ("OK", 2, False, True)
    assert raw["results"][0]["l"] < raw["results"][0]["vw"] < raw["results"][0]["h"]


def test_winter_days_start_at_five(ask: Ask) -> None:
    bars = ask(f"{AGGREGATES}IBM/range/1/day/2014-01-02/2014-01-02", **KEY).json()["results"]
    assert [bar["t"] for bar in bars] == [1_388_638_800_000]


def test_stock_minutes_include_extended_hours(ask: Ask) -> None:
    bars = ask(f"{AGGREGATES}IBM/range/1/minute/2024-07-01/2024-07-01", **KEY).json()["results"]
    midnight = 1_719_792_000_000
    opened, closed = midnight + 13.5 * 3_600_000, midnight + 20 * 3_600_000
    assert len([bar for bar in bars if opened <= bar["t"] < closed]) == 390
    assert bars[0]["t"] < opened
    assert bars[-1]["t"] >= closed


def test_session_minutes_make_the_day(ask: Ask) -> None:
    minutes = ask(f"{AGGREGATES}IBM/range/1/minute/2024-07-01/2024-07-01", **KEY).json()["results"]
    day = ask(f"{AGGREGATES}IBM/range/1/day/2024-07-01/2024-07-01", **KEY).json()["results"][0]
    opened, closed = 1_719_792_000_000 + 13.5 * 3_600_000, 1_719_792_000_000 + 20 * 3_600_000
    inside = [bar for bar in minutes if opened <= bar["t"] < closed]
    assert sum(bar["v"] for bar in inside) == day["v"]
    assert sum(bar["n"] for bar in inside) == day["n"]
    assert (inside[0]["o"], inside[-1]["c"]) == (day["o"], day["c"])
    assert max(bar["h"] for bar in inside) == day["h"]
    assert min(bar["l"] for bar in inside) == day["l"]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_limit_counts_base_candles_and_pages_lose_nothing(ask: Ask, order: str) -> None:
    path = f"{AGGREGATES}X:BTCUSD/range/1/hour/2025-01-01/2025-01-31?sort={order}"
    paged, pages = walk(ask, f"{path}&limit=7000")
    whole, one = walk(ask, f"{path}&limit=50000")
    # 31 days of minutes are 44,640: seven pages of at most 7000 (whole hours), one of 50,000.
    assert (pages, one) == (7, 1)
    assert paged == whole
    stamps = [bar["t"] for bar in whole]
    assert sorted(stamps, reverse=order == "desc") == stamps
    assert len(stamps) == 31 * 24


def test_limit_smaller_than_one_candle(ask: Ask) -> None:
    response = ask(f"{AGGREGATES}X:BTCUSD/range/1/hour/2025-01-01/2025-01-31?limit=59", **KEY)
    assert response.status_code == 400
    assert response.json()["error"].startswith("The parameter 'limit'")


@pytest.mark.parametrize("path", ["ZZZZ/range/1/day/2024-01-01/2024-02-01", "KO/range/1/day/2012-08-11/2012-08-12"])
def test_nothing_found_has_no_results_key(ask: Ask, path: str) -> None:
    response = ask(AGGREGATES + path, **KEY)
    assert response.status_code == 200
    assert "results" not in response.json()
    assert (response.json()["resultsCount"], response.json()["status"]) == (0, "OK")


@pytest.mark.parametrize(
    ("headers", "query", "status", "error"),
    [
        ({}, "", 401, "API Key was not provided"),
        ({"authorization": "Bearer bad"}, "", 401, "Unknown API Key"),
        ({}, "?apiKey=bad", 401, "Unknown API Key"),
        ({}, "?apiKey=good", 200, None),
        ({"authorization": "Bearer good"}, "", 200, None),
    ],
)
def test_keys(ask: Ask, headers: dict[str, str], query: str, status: int, error: str | None) -> None:
    response = ask(f"{AGGREGATES}KO/range/1/day/2012-08-09/2012-08-14{query}", **headers)
    assert response.status_code == status
    assert response.json().get("error") == error
    assert response.json()["status"] == ("OK" if status == 200 else "ERROR")


@pytest.mark.parametrize(
    "path",
    [
        "KO/range/1/fortnight/2012-08-09/2012-08-14",
        "KO/range/0/day/2012-08-09/2012-08-14",
        "KO/range/1/day/2012-08-09/later",
        "KO/range/1/day/2012-08-14/2012-08-09",
        "KO/range/1/day/2012-08-09/2012-08-14?limit=50001",
        "KO/range/1/day/2012-08-09/2012-08-14?sort=up",
        "KO/range/1/day/2012-08-09/2012-08-14?cursor=!",
    ],
)
def test_wrong_requests(ask: Ask, path: str) -> None:
    response = ask(AGGREGATES + path, **KEY)
    assert response.status_code == 400
    assert response.json()["status"] == "ERROR"
    assert response.json()["error"]


def test_instruments(ask: Ask) -> None:
    found, pages = walk(ask, "/v3/reference/tickers?market=stocks&limit=5")
    assert pages == 3
    assert {"AAPL", "MSFT", "KO", "IBM", "BRK.B", "SPY"} <= {entry["ticker"] for entry in found}
    coin = ask("/v3/reference/tickers/X:BTCUSD", **KEY).json()["results"]
    assert (coin["market"], coin["base_currency_symbol"]) == ("crypto", "BTC")
    missing = ask("/v3/reference/tickers/NOPE", **KEY)
    assert (missing.status_code, missing.json()["status"]) == (404, "NOT_FOUND")
    assert "message" in missing.json()
