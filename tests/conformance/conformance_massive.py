"""Massive's (Polygon's) recorded answers: the examples of its own specification and the mocks of its own client."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from conformance_tally import Tally, decoded, files, inner, moment

from market_data.model.errors import MalformedPayload
from market_data.providers.polygon.companies import parse_dividends, parse_news, parse_splits
from market_data.providers.polygon.lists import parse_contracts, parse_instruments, parse_options
from market_data.providers.polygon.parse import parse_aggregates, parse_answer
from market_data.providers.polygon.ticks import parse_quotes, parse_trades

NOW = datetime(2026, 7, 9, tzinfo=UTC)
NANO = 1_000_000_000
BARS = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v", "vwap": "vw", "trade_count": "n"}
CASH = {"CD": "cash", "recurring": "cash", "SC": "special", "special": "special", "LT": "long_term_gain",
        "ST": "short_term_gain"}  # fmt: skip
Row = dict[str, Any]


def canonical(ticker: str) -> str:
    """A coin without its market."""
    return re.sub(r"^X:(.*)USD$", r"\1", ticker)


def tallies(folder: Path) -> list[Tally]:
    """Every recorded answer that one of our parsers reads."""
    tally: dict[str, Tally] = {}
    for path in files(folder, "examples/*.json", "test_rest/mocks/**/*.json"):
        text = path.read_text()
        recorded = decoded(text)
        if "example" in recorded:
            route, body = str(recorded["path"]), inner(text, "example")
        else:
            route, body = f"/{path.relative_to(folder / 'test_rest/mocks')}", text
        for pattern, (what, check) in ROUTES.items():
            if re.match(pattern, route) and isinstance(decoded(body).get("results"), list):
                check(tally.setdefault(what, Tally(what)), route, body)
                break
    return list(tally.values())


def _results(body: str) -> tuple[list[Any], list[Row]]:
    answer = parse_answer(body.encode())
    recorded = decoded(body)
    if recorded.get("next_url"):
        assert answer.next_path is not None
        assert recorded["next_url"].endswith(answer.next_path)
    return answer.results, recorded["results"]


def _bars(tally: Tally, where: str, body: str) -> None:
    ours, recorded = _results(body)
    if any("v" not in row for row in recorded):
        # Bars of an index have no volume: nothing that we serve, and never taken for candles.
        lacking = parse_aggregates(ours).rejected["rule"].to_list().count("value_missing: v")
        tally.say(f"{where}: rejected", lacking, sum("v" not in row for row in recorded))
        return
    expected = [
        {"timestamp": moment(row["t"])} | {name: row.get(key) for name, key in BARS.items()} for row in recorded
    ]
    tally.compare(where, parse_aggregates(ours).frame, expected)


def _trades(tally: Tally, where: str, body: str) -> None:
    ours, recorded = _results(body)
    if any("id" not in row for row in recorded):
        # Those of options, which we do not serve, have no numbers.
        lacking = parse_trades(ours, crypto=False).rejected["rule"].to_list().count("value_missing: id")
        tally.say(f"{where}: rejected", lacking, sum("id" not in row for row in recorded))
        return
    crypto = "crypto" in where or "/X" in where
    sides = {1: "sell", 2: "buy"}
    expected = []
    for row in recorded:
        side = [sides[code] for code in row.get("conditions", []) if crypto and code in sides]
        expected.append({
            "timestamp": moment(row.get("sip_timestamp", row["participant_timestamp"]), NANO),
            "trade_id": f"{row['exchange']}-{row['id']}", "price": row["price"], "venue": str(row["exchange"]),
            "size": row.get("decimal_size", row["size"]), "aggressor_side": side[0] if side else None,
        })  # fmt: skip
    tally.compare(where, parse_trades(ours, crypto=crypto).frame, expected)


def _quotes(tally: Tally, where: str, body: str) -> None:
    ours, recorded = _results(body)
    if any("sequence_number" not in row for row in recorded):
        # Currency pairs, which we do not serve, have no numbers.
        tally.say(f"{where}: refused", _refused(parse_quotes, ours), "MalformedPayload")
        return
    expected = [
        {"timestamp": moment(row["sip_timestamp"], NANO), "sequence": row["sequence_number"]}
        | {f"{side}_{name}": row.get(f"{side}_{name}") if row.get(f"{side}_price") else None
           for side in ("bid", "ask") for name in ("price", "size")}
        for row in recorded
    ]  # fmt: skip
    tally.compare(where, parse_quotes(ours).frame, expected)


def _refused(parse: Callable[[list[Any]], object], results: list[Any]) -> str:
    try:
        parse(results)
    except MalformedPayload as error:
        return type(error).__name__
    return "taken"


def _dividends(tally: Tally, where: str, body: str) -> None:
    ours, recorded = _results(body)
    expected = [
        {"ex_date": date.fromisoformat(row["ex_dividend_date"]), "amount": Decimal(row["cash_amount"]),
         "dividend_type": CASH.get(str(row.get("distribution_type") or row.get("dividend_type")), "cash")}
        | {name: row.get(name) for name in ("currency", "frequency")}
        | {name: date.fromisoformat(row[name]) if row.get(name) else None
           for name in ("declaration_date", "record_date", "pay_date")}
        for row in recorded
    ]  # fmt: skip
    tally.compare(where, parse_dividends(ours).frame, expected)


def _splits(tally: Tally, where: str, body: str) -> None:
    ours, recorded = _results(body)
    expected = [
        {"execution_date": date.fromisoformat(row["execution_date"]), "split_from": row["split_from"],
         "split_to": row["split_to"]}
        for row in recorded
    ]  # fmt: skip
    tally.compare(where, parse_splits(ours).frame, expected)


def _news(tally: Tally, where: str, body: str) -> None:
    ours, recorded = _results(body)
    expected = [
        {"news_id": row["id"], "published_at": datetime.fromisoformat(row["published_utc"]), "title": row["title"],
         "summary": row.get("description"), "url": row["article_url"], "author": row.get("author"),
         "publisher": row["publisher"]["name"], "symbols": [canonical(ticker) for ticker in row["tickers"]],
         "keywords": row.get("keywords", [])}
        for row in recorded
    ]  # fmt: skip
    tally.compare(where, parse_news(ours, recorded[0]["tickers"][0] if recorded else "").frame, expected)


def _chain(tally: Tally, where: str, body: str) -> None:
    ours, recorded = _results(body)
    expected = []
    for row in recorded:
        details, quoted, greeks = row["details"], row.get("last_quote", {}), row.get("greeks", {})
        expected.append({
            "contract": details["ticker"].removeprefix("O:"), "option_type": details["contract_type"],
            "exercise_style": details["exercise_style"], "strike": details["strike_price"],
            "expiration": date.fromisoformat(details["expiration_date"]), "open_interest": row.get("open_interest"),
            "iv": row.get("implied_volatility"), "bid": quoted.get("bid"), "ask": quoted.get("ask"),
            "volume": row.get("day", {}).get("volume"), "last": row.get("last_trade", {}).get("price"),
        } | {name: greeks.get(name) for name in ("delta", "gamma", "theta", "vega")})  # fmt: skip
    tally.compare(where, parse_options(ours, NOW).frame, expected)


def _contracts(tally: Tally, where: str, body: str) -> None:
    ours, recorded = _results(body)
    expected = [
        {
            "contract": row["ticker"].removeprefix("O:"), "option_type": row["contract_type"],
            "exercise_style": row["exercise_style"], "strike": row["strike_price"],
            "expiration": date.fromisoformat(row["expiration_date"]), "iv": None,
        }
        for row in recorded
    ]  # fmt: skip
    tally.compare(where, parse_contracts(ours, NOW).frame, expected)


def _tickers(tally: Tally, where: str, body: str) -> None:
    ours, recorded = _results(body)
    frame = parse_instruments(ours).frame
    served = set(frame["raw_symbol"])
    expected = [
        {"raw_symbol": row["ticker"], "name": row.get("name"), "venue": row.get("primary_exchange"),
         "status": "trading" if row.get("active") else "delisted"}
        for row in recorded
        if row["ticker"] in served
    ]  # fmt: skip
    tally.compare(where, frame, expected)
    stocks = {row["ticker"] for row in recorded if row.get("market") == "stocks" and row.get("type") in ("CS", "ETF")}
    tally.say(f"{where}: stocks and funds left out", stocks - served, set())


ROUTES: dict[str, tuple[str, Callable[[Tally, str, str], None]]] = {
    r"/v2/aggs/": ("bars", _bars),
    r"/v3/trades/": ("trades", _trades),
    r"/v3/quotes/": ("quotes", _quotes),
    r"/(v3/reference|stocks/v1)/dividends": ("dividends", _dividends),
    r"/(v3/reference|stocks/v1)/splits": ("splits", _splits),
    r"/v2/reference/news": ("news", _news),
    r"/v3/snapshot/options/[^/]*$": ("option chains", _chain),
    r"/v3/reference/options/contracts($|&|\.json)": ("option contracts", _contracts),
    r"/v3/reference/tickers($|&|\.json)": ("tickers", _tickers),
}
