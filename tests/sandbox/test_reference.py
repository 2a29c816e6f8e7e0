"""Trades, corporate actions, earnings, news and options of Massive and Yahoo: consistent, shaped as the real ones."""

import math
from typing import Any
from urllib.parse import urlsplit

import pytest

from .conftest import Ask

KEY = {"authorization": "Bearer some-key"}
NOW = 1_795_199_415_000


def listed(ask: Ask, path: str, **headers: str) -> list[dict[str, Any]]:
    """Results over all pages."""
    found = []
    while path:
        response = ask(path, **(headers or KEY))
        assert response.status_code == 200, response.text
        found += response.json()["results"]
        parts = urlsplit(response.json().get("next_url", ""))
        path = f"{parts.path}?{parts.query}" if parts.path else ""
    return found


def test_dividends_as_declared_and_adjusted(ask: Ask) -> None:
    # 51 cents a quarter before Coca-Cola's split of 2012-08-13, 25.5 after it.
    rows = listed(ask, "/stocks/v1/dividends?ticker=KO&limit=5&ex_dividend_date.lt=2013-01-01")
    assert [(row["ex_dividend_date"], row["cash_amount"], row["split_adjusted_cash_amount"]) for row in rows] == [
        ("2012-03-13", 0.51, 0.255), ("2012-06-13", 0.51, 0.255), ("2012-09-12", 0.255, 0.255),
        ("2012-11-28", 0.255, 0.255),
    ]  # fmt: skip
    old = listed(ask, "/v3/reference/dividends?ticker=KO&order=asc&ex_dividend_date.lte=2012-06-13")
    assert [row["cash_amount"] for row in old] == [0.51, 0.51]


def test_splits(ask: Ask) -> None:
    rows = listed(ask, "/stocks/v1/splits?ticker.any_of=KO,AAPL")
    found = [(row["ticker"], row["execution_date"], row["split_from"], row["split_to"]) for row in rows]
    assert found == [("AAPL", "2000-06-21", 1, 2), ("AAPL", "2005-02-28", 1, 2), ("KO", "2012-08-13", 1, 2)]
    assert listed(ask, "/v3/reference/splits?ticker=IBM") == []


def test_stock_trades_make_the_minute(ask: Ask) -> None:
    # 2026-11-18 15:00 UTC, ten in the morning in New York.
    minute = 1_795_014_000_000
    path = f"/v3/trades/KO?order=asc&limit=50&timestamp.gte={minute}000000&timestamp.lt={minute + 60_000}000000"
    trades = listed(ask, path)
    bar = ask(f"/v2/aggs/ticker/KO/range/1/minute/{minute}/{minute}", **KEY).json()["results"][0]
    assert len(trades) == bar["n"]
    assert sum(trade["size"] for trade in trades) == bar["v"]
    prices = [trade["price"] for trade in trades]
    assert (prices[0], max(prices), min(prices), prices[-1]) == (bar["o"], bar["h"], bar["l"], bar["c"])
    stamps = [trade["sip_timestamp"] for trade in trades]
    assert stamps == sorted(set(stamps))


def test_trades_come_newest_first_by_default(ask: Ask) -> None:
    first = ask("/v3/trades/X:ETHUSD?limit=3", **KEY).json()
    stamps = [trade["participant_timestamp"] for trade in first["results"]]
    assert stamps == sorted(stamps, reverse=True)
    assert stamps[0] < NOW * 1_000_000
    assert {trade["conditions"][0] for trade in first["results"]} <= {1, 2}
    parts = urlsplit(first["next_url"])
    second = ask(f"{parts.path}?{parts.query}", **KEY).json()["results"]
    six = ask("/v3/trades/X:ETHUSD?limit=6", **KEY).json()["results"]
    assert first["results"] + second == six


def test_quotes_are_not_crossed(ask: Ask) -> None:
    quotes = ask("/v3/quotes/AAPL?limit=200", **KEY).json()["results"]
    assert len(quotes) == 200
    assert all(quote["bid_price"] < quote["ask_price"] for quote in quotes)


@pytest.mark.parametrize("path", ["/v3/trades/KO", "/v3/quotes/KO", "/v3/snapshot/options/KO", "/benzinga/v1/earnings"])
def test_a_free_plan_is_not_entitled(ask: Ask, path: str) -> None:
    response = ask(path, authorization="Bearer basic")
    assert (response.status_code, response.json()["status"]) == (403, "NOT_AUTHORIZED")
    assert "error" not in response.json()


def test_earnings_agree_between_the_sources(ask: Ask) -> None:
    reported = [row for row in listed(ask, "/benzinga/v1/earnings?ticker=IBM") if "actual_eps" in row]
    crumb, cookie = yahoo_crumb(ask)
    path = f"/v10/finance/quoteSummary/IBM?modules=earningsHistory,calendarEvents&crumb={crumb}"
    summary = ask(path, cookie=cookie).json()["quoteSummary"]["result"][0]
    history = summary["earningsHistory"]["history"]
    newest = sorted(reported, key=lambda row: row["date"])[-4:]
    assert [row["epsActual"]["raw"] for row in history] == [row["actual_eps"] for row in newest]
    assert [row["period"] for row in history] == ["-4q", "-3q", "-2q", "-1q"]
    assert summary["calendarEvents"]["earnings"]["earningsDate"][0] > NOW // 1000
    assert all(row["date"] <= "2026-11-20" for row in reported)


def yahoo_crumb(ask: Ask) -> tuple[str, str]:
    """A crumb and the cookie it belongs to."""
    cookie = ask("/fc").headers["set-cookie"].split(";")[0]
    return ask("/v1/test/getcrumb", cookie=cookie).text, cookie


def test_private_endpoints_need_cookie_and_crumb(ask: Ask) -> None:
    crumb, cookie = yahoo_crumb(ask)
    path = "/v7/finance/options/AAPL"
    for query, headers in (("", {}), (f"?crumb={crumb}", {}), ("?crumb=x", {"cookie": cookie})):
        response = ask(path + query, **headers)
        assert response.status_code == 401
        assert response.json()["finance"]["error"]["description"] == "Invalid Crumb"
    assert ask("/v1/test/getcrumb").status_code == 429
    missing = ask(f"/v10/finance/quoteSummary/SPY?modules=earningsHistory&crumb={crumb}", cookie=cookie)
    assert missing.status_code == 404


def test_news_newest_first_and_in_range(ask: Ask) -> None:
    rows = listed(
        ask, "/v2/reference/news?ticker=MSFT&published_utc.gte=2024-01-01&published_utc.lt=2024-12-01&limit=50"
    )
    times = [row["published_utc"] for row in rows]
    assert times == sorted(times, reverse=True)
    assert "2024-01-01" <= times[-1] < times[0] < "2024-12-01"
    # Opinions are absent on old articles.
    assert {("insights" in row) for row in rows} == {True, False}
    assert len({row["id"] for row in rows}) == len(rows) > 50


def test_chain_of_both_sources(ask: Ask) -> None:
    rows = listed(ask, "/v3/snapshot/options/AAPL?limit=250")
    contracts = listed(ask, "/v3/reference/options/contracts?underlying_ticker=AAPL&limit=1000")
    assert [row["details"]["ticker"] for row in rows] == [row["ticker"] for row in contracts]
    crumb, cookie = yahoo_crumb(ask)
    chain = ask(f"/v7/finance/options/AAPL?crumb={crumb}", cookie=cookie).json()["optionChain"]["result"][0]
    first = [row for row in rows if row["details"]["expiration_date"] == "2026-11-20"]
    theirs = chain["options"][0]["calls"] + chain["options"][0]["puts"]
    assert [row["details"]["ticker"].removeprefix("O:") for row in first] == [one["contractSymbol"] for one in theirs]
    assert {bool(row["greeks"]) for row in rows} == {True, False}
    assert any("implied_volatility" not in row for row in rows)


def test_prices_obey_put_call_parity(ask: Ask) -> None:
    # Without dividends call - put = spot - strike × exp(-rate × time), whatever the volatility: 4 % a year here. Calls
    # and puts of one strike share their volatility, so the middles obey it to the rounding of their spreads.
    rows = listed(ask, "/v3/snapshot/options/AAPL?limit=250&expiration_date=2027-06-18")
    spot = rows[0]["underlying_asset"]["price"]
    sides: dict[tuple[str, float], float] = {}
    for row in rows:
        details = row["details"]
        sides[details["contract_type"], details["strike_price"]] = row["last_quote"]["midpoint"]
    years = (1_813_352_400_000 - NOW) / (365.25 * 86_400_000)
    for kind, strike in sides:
        if kind == "call":
            forward = spot - strike * math.exp(-0.04 * years)
            assert sides["call", strike] - sides["put", strike] == pytest.approx(forward, abs=0.03)
