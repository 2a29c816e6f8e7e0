"""Yahoo's recorded answers: charts with their events, option chains, earnings, news, refusals."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from conformance_tally import Tally, decoded, files, inner, moment

from market_data.model.errors import MarketDataError
from market_data.providers.yahoo.companies import parse_earnings, parse_news, parse_options
from market_data.providers.yahoo.dialect import classify
from market_data.providers.yahoo.parse import parse_chart
from market_data.transport.payload import load_json
from market_data.transport.senders import Response

NOW = datetime(2025, 3, 1, tzinfo=UTC)
PRICES = ("open", "high", "low", "close", "volume")
# What the documents say each status is; anything else would be a surprise.
REFUSALS = {400: "UnsupportedRequest", 401: "BadCredentials", 404: "UnknownInstrument", 422: "UnsupportedRequest",
            429: "RateLimited"}  # fmt: skip
# Where the source has no volatility it puts 1e-5.
LOWEST_VOLATILITY = Decimal("0.0001")


def canonical(name: str) -> str:
    """A class of shares as everybody else writes it."""
    return re.sub(r"^([A-Z]+)-([A-Z])$", r"\1.\2", name)


def tallies(folder: Path) -> list[Tally]:
    """Every recorded answer that one of our parsers reads."""
    kinds = ("charts", "dividends in charts", "splits in charts", "option chains", "earnings", "news", "refusals")
    tally = {what: Tally(what) for what in kinds}
    for path in files(folder, "*.json"):
        text = path.read_text()
        recorded = decoded(text)
        if "bodyJson" not in recorded.get("response", {}):
            continue
        body, status = inner(text, "bodyJson").encode(), int(recorded["response"]["status"])
        route = urlsplit(recorded["request"]["url"]).path
        if status != 200:
            _refused(tally["refusals"], path.name, body, status)
        elif "/finance/chart/" in route:
            _chart(tally, path.name, body)
        elif "/finance/options/" in route:
            _options(tally["option chains"], path.name, body)
        elif "earningsHistory" in path.name:
            _earnings(tally["earnings"], path, body)
        elif "/finance/search" in route:
            _news(tally["news"], path.name, body)
    return list(tally.values())


def _refused(tally: Tally, where: str, body: bytes, status: int) -> None:
    tally.files += 1
    response = Response(url="", status=status, headers={}, body=body, elapsed_ms=0, fetched_at=NOW)
    error: MarketDataError | None = classify(response)
    said = next(iter(decoded(body).values()))
    if status == 400 and "Data doesn't exist" in str(said):
        tally.say(where, error, None)
    else:
        tally.say(where, type(error).__name__, REFUSALS[status])


def _chart(tally: dict[str, Tally], where: str, body: bytes) -> None:
    chart = parse_chart(body)
    result = decoded(body)["chart"]["result"][0]
    assert chart is not None
    quote, times = result["indicators"]["quote"][0], result.get("timestamp", [])
    whole = [at for at in range(len(times)) if all(quote[name][at] is not None for name in PRICES)]
    rows = [{"timestamp": moment(times[at], 1)} | {name: quote[name][at] for name in PRICES} for at in whole]
    tally["charts"].compare(where, chart.rows, rows)
    meta, events = result["meta"], result.get("events", {})
    for name, value in (("symbol", chart.symbol), ("currency", chart.currency)):
        tally["charts"].say(f"{where}: {name}", value, meta[name])
    adjusted = next(iter(result["indicators"].get("adjclose", ())), {}).get("adjclose") or []
    both = [at for at in range(len(adjusted)) if adjusted[at] is not None and quote["close"][at] is not None]
    tally["charts"].compare(f"{where}: adjclose", chart.adjusted, [{"adjusted": adjusted[at]} for at in both])
    if paid := list(events.get("dividends", {}).values()):
        found = [{"moment": one.moment, "amount": one.amount} for one in chart.payments]
        tally["dividends in charts"].compare(
            where, found, [{"moment": moment(one["date"], 1), "amount": one["amount"]} for one in paid]
        )
    if split := list(events.get("splits", {}).values()):
        names = ("numerator", "denominator")
        found = [{"moment": one.moment} | {name: getattr(one, name) for name in names} for one in chart.splits]
        tally["splits in charts"].compare(
            where, found, [{"moment": moment(one["date"], 1)} | {name: one[name] for name in names} for one in split]
        )


def _options(tally: Tally, where: str, body: bytes) -> None:
    recorded = decoded(body)["optionChain"]["result"]
    if not recorded:
        return
    rows, expirations = parse_options(load_json(body), NOW)
    expected = []
    for chain in recorded[0]["options"]:
        for kind, side in (("call", "calls"), ("put", "puts")):
            expected += [_contract(row, kind, recorded[0]["quote"]) for row in chain[side]]
    tally.compare(where, rows.frame, expected)
    tally.say(f"{where}: expirations", [int(at) for at in expirations], recorded[0]["expirationDates"])


def _contract(row: dict[str, Any], kind: str, quote: dict[str, Any]) -> dict[str, Any]:
    volatility = Decimal(row["impliedVolatility"])
    return {
        "contract": row["contractSymbol"],
        "option_type": kind,
        "strike": row["strike"],
        "expiration": moment(row["expiration"], 1).date(),
        "bid": row.get("bid"),
        # Nobody offers for nothing.
        "ask": row.get("ask") or None,
        "last": row.get("lastPrice"),
        "volume": row.get("volume"),
        "open_interest": row.get("openInterest"),
        "underlying_price": quote.get("regularMarketPrice"),
        "iv": volatility if volatility > LOWEST_VOLATILITY else None,
    }


def _earnings(tally: Tally, path: Path, body: bytes) -> None:
    result = load_json(body)["quoteSummary"]["result"][0]
    # Asked for together by us, recorded one by one.
    for module in ("earnings", "calendarEvents"):
        other = path.with_name(path.name.replace("earningsHistory", module))
        if other.exists():
            result |= load_json(inner(other.read_text(), "bodyJson").encode())["quoteSummary"]["result"][0]
    frame = parse_earnings({"quoteSummary": {"result": [result], "error": None}}).frame
    history = [row for row in decoded(body)["quoteSummary"]["result"][0]["earningsHistory"]["history"]
               if _raw(row.get("quarter"))]  # fmt: skip
    expected = []
    for row in history:
        ended = moment(_raw(row["quarter"]), 1).date()
        names = {"eps_actual": "epsActual", "eps_estimate": "epsEstimate", "eps_surprise": "epsDifference"}
        expected.append({"period_end": ended, "fiscal_year": ended.year, "fiscal_quarter": (ended.month + 2) // 3}
                        | {ours: _raw(row.get(theirs)) for ours, theirs in names.items()})  # fmt: skip
    tally.compare(path.name, frame.head(len(history)), expected)


def _raw(value: Any) -> Any:
    return value.get("raw") if isinstance(value, dict) else value


def _news(tally: Tally, where: str, body: bytes) -> None:
    news = decoded(body).get("news", [])
    for symbol in sorted({symbol for row in news for symbol in row.get("relatedTickers", [])}):
        about = [row for row in news if symbol in row.get("relatedTickers", [])]
        frame = parse_news(load_json(body), symbol).frame
        expected = [
            {"news_id": row["uuid"], "published_at": moment(row["providerPublishTime"], 1), "title": row["title"],
             "url": row["link"], "publisher": row["publisher"],
         "symbols": [canonical(name) for name in row["relatedTickers"]]}
            for row in about
        ]  # fmt: skip
        tally.compare(f"{where}: {symbol}", frame, expected)
