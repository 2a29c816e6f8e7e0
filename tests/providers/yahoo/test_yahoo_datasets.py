"""Yahoo's dividends, splits, earnings, options and news: recorded answers as recorded, cookie and crumb."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from market_data.model.dataset import DIVIDENDS, EARNINGS, FUNDING_RATES, OPTIONS, SPLITS, Dataset
from market_data.model.errors import (
    BadCredentials,
    GeoBlocked,
    MalformedPayload,
    ProviderUnavailable,
    RateLimited,
    UnsupportedRequest,
)
from market_data.model.instrument import AssetClass, Instrument
from market_data.providers.yahoo import Yahoo, YahooSettings
from market_data.providers.yahoo.companies import parse_earnings, parse_news, parse_options
from market_data.providers.yahoo.parse import parse_chart
from market_data.transport.http import Http
from market_data.transport.payload import load_json
from market_data.transport.senders import HttpxSender

RECORDINGS = Path(os.environ.get("MARKET_DATA_RECORDINGS", Path(__file__).parents[3] / "../shared/data"))
FIXTURES = RECORDINGS / "yahoo_finance2_fixtures"
_spec = importlib.util.spec_from_file_location("fake_yahoo_datasets", Path(__file__).with_name("fake.py"))
assert _spec is not None
assert _spec.loader is not None
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)

AAPL = Instrument("AAPL", AssetClass.STOCK)
START = datetime(2025, 1, 1, tzinfo=UTC)
SUMMARY, CHAIN = "/v10/finance/quoteSummary/AAPL", "/v7/finance/options/AAPL"


def recording(name: str) -> bytes:
    path = FIXTURES / name
    if not path.exists():
        pytest.skip(f"recording {path} is absent (set MARKET_DATA_RECORDINGS)")
    text = path.read_text()
    body = text[text.index('"bodyJson"') + len('"bodyJson"') :].split(":", 1)[1].strip()
    return body[: json.JSONDecoder().raw_decode(body)[1]].encode()


def fetch(source: Any, dataset: Dataset, start: datetime = START, end: datetime = fake.NOW) -> pl.DataFrame:
    settings = YahooSettings(requests_per_minute=6000, max_retries=0)
    provider = Yahoo(settings, Http("yahoo", settings, sender=HttpxSender(httpx.MockTransport(source))))

    async def collect() -> list[pl.DataFrame]:
        return [page.frame async for page in provider.fetch(dataset, AAPL, start, end, now=fake.NOW)]

    frame = pl.concat([dataset.empty(), *asyncio.run(collect())])
    assert dict(frame.schema) == dict(dataset.schema)
    return frame


def test_dividends_as_declared() -> None:
    source = fake.Source()
    before, after = datetime(2025, 2, 10, 14, 30, tzinfo=UTC), datetime(2025, 3, 3, 14, 30, tzinfo=UTC)
    source.dividends = [(after, 0.125), (before, 0.125), (datetime(2024, 11, 8, 14, 30, tzinfo=UTC), 0.12)]
    # Two for one on 2025-02-25: what was paid before was twice as much a share.
    assert fetch(source, DIVIDENDS).select("ex_date", "amount", "currency", "notes").rows() == [
        (date(2025, 2, 10), Decimal("0.25"), "USD", "unadjusted_for_splits"),
        (date(2025, 3, 3), Decimal("0.125"), "USD", None),
    ]
    # The split after the range counts too.
    frame = fetch(source, DIVIDENDS, datetime(2024, 11, 1, tzinfo=UTC), datetime(2024, 12, 1, tzinfo=UTC))
    assert frame.select("ex_date", "amount").rows() == [(date(2024, 11, 8), Decimal("0.24"))]


def test_recorded_dividends() -> None:
    chart = parse_chart(recording("historical-via-chart-MSFT-dividends-2021-02-01-to-2022-01-31.csv.json"))
    assert chart is not None
    # Microsoft's dividends of 2021, public.
    assert [(payment.moment.date().isoformat(), payment.amount) for payment in chart.payments] == [
        ("2021-02-17", Decimal("0.56")),
        ("2021-05-19", Decimal("0.56")),
        ("2021-08-18", Decimal("0.56")),
        ("2021-11-17", Decimal("0.62")),
    ]


def test_splits() -> None:
    assert fetch(fake.Source(), SPLITS).rows() == [(date(2025, 2, 25), Decimal(1), Decimal(2), None, None)]
    assert fetch(fake.Source(), SPLITS, end=datetime(2025, 2, 1, tzinfo=UTC)).height == 0


def test_recorded_earnings() -> None:
    result = load_json(recording("quoteSummary-earningsHistory-AAPL.json"))["quoteSummary"]["result"][0]
    for name in ("earnings", "calendarEvents"):
        result |= load_json(recording(f"quoteSummary-{name}-AAPL.json"))["quoteSummary"]["result"][0]
    frame = parse_earnings({"quoteSummary": {"result": [result], "error": None}}).frame
    columns = ("fiscal_year", "fiscal_quarter", "period_end", "eps_actual", "eps_estimate", "revenue_actual")
    assert frame.select(columns).rows()[3:] == [
        (2024, 4, date(2024, 12, 31), Decimal("2.4"), Decimal("2.34102"), Decimal(124_300_000_000)),
        (2025, 1, None, None, Decimal("1.60796"), None),
    ]
    assert frame["surprise_pct"][0] == pytest.approx(2.0499999)
    assert frame["report_date"][4] == date(2025, 4, 30)
    assert frame["revenue_estimate"][4] == Decimal(94_076_168_920)
    assert frame["notes"].to_list() == ["calendar_quarter"] * 4 + ["calendar_quarter; projected"]


def summary() -> dict[str, object]:
    quarters = [
        {"quarter": {"raw": int(datetime(2024, month, 30, tzinfo=UTC).timestamp())}, "epsActual": {"raw": eps}}
        for month, eps in ((9, 1.5), (12, 2.5))
    ]
    return {"quoteSummary": {"result": [{"earningsHistory": {"history": quarters}}], "error": None}}


def test_earnings_come_with_cookie_and_crumb() -> None:
    source = fake.Source()
    source.bodies[SUMMARY] = summary()
    frame = fetch(source, EARNINGS, start=datetime(2024, 10, 1, tzinfo=UTC))
    assert frame.select("fiscal_quarter", "eps_actual").rows() == [(4, Decimal("2.5"))]
    assert [request.url.host for request in source.requests].count("fc.yahoo.com") == 1


def test_a_crumb_that_expired_is_renewed_once() -> None:
    source = fake.Source()
    source.bodies[CHAIN] = chain(1)
    renewed: list[str] = []

    def expiring(request: httpx.Request) -> httpx.Response:
        answer = source(request)
        if request.url.path == "/v1/test/getcrumb" and not renewed:
            # It expires as soon as it is given.
            renewed.append(source.crumb)
            source.crumb = "another"
        return answer

    assert fetch(expiring, OPTIONS).height == 2
    always = fake.Source()
    always.bodies[CHAIN] = chain(1)

    def never(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json=fake.INVALID_CRUMB) if request.url.path == CHAIN else always(request)

    with pytest.raises(BadCredentials, match="Invalid Crumb"):
        fetch(never, OPTIONS)


@pytest.mark.parametrize(
    ("crumb", "expected"),
    [
        ("Too Many Requests", RateLimited),
        ("<html>consent</html>", MalformedPayload),
        ('{"finance":{"error":1}}', BadCredentials),
        ("", BadCredentials),
    ],
)
def test_what_is_no_crumb(crumb: str, expected: type[Exception]) -> None:
    source = fake.Source()
    source.crumb = crumb
    with pytest.raises(expected):
        fetch(source, EARNINGS)


CONSENT = "https://guce.yahoo.com/consent?brandType=nonEu&gcrumb=x"


@pytest.mark.parametrize(
    "page",
    [
        httpx.Response(302, headers={"Location": CONSENT}),
        httpx.Response(200, html='<html><form method="post" action="/v2/collectConsent?sessionId=1"></form></html>'),
    ],
)
def test_a_wish_for_consent_is_permanent_and_says_what_to_do(page: httpx.Response) -> None:
    source, asked = fake.Source(), []

    def european(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return page if request.url.path == "/v1/test/getcrumb" else source(request)

    with pytest.raises(GeoBlocked, match=r"consent to cookies.*another source"):
        fetch(european, EARNINGS)
    assert asked.count("/v1/test/getcrumb") == 1, "asking again would not help"
    # Charts need none.
    assert fetch(european, SPLITS).height == 1


def test_any_other_redirect_is_an_outage() -> None:
    def moved(request: httpx.Request) -> httpx.Response:
        return httpx.Response(302, headers={"Location": "https://portal.example/login"})

    with pytest.raises(ProviderUnavailable, match="redirected to portal.example"):
        fetch(moved, SPLITS)


def chain(*days: int) -> dict[str, object]:
    moments = [int(datetime(2025, 3, 20 + day, tzinfo=UTC).timestamp()) for day in days]
    contracts = {
        name: [
            {
                "contractSymbol": f"AAPL25032{days[0]}{kind}00200000",
                "strike": 200,
                "lastPrice": 3.5,
                "bid": 0,
                "ask": 0,
                "expiration": moments[0],
                "impliedVolatility": 1.0000000000000003e-05,
            }
        ]
        for name, kind in (("calls", "C"), ("puts", "P"))
    }
    result = {"expirationDates": moments, "quote": {"regularMarketPrice": 230.5}, "options": [contracts]}
    return {"optionChain": {"result": [result], "error": None}}


def test_options_of_every_expiration() -> None:
    source = fake.Source()

    def by_date(request: httpx.Request) -> httpx.Response:
        asked = request.url.params.get("date")
        later = asked is not None and datetime.fromtimestamp(int(asked), UTC).day == 22
        source.bodies[CHAIN] = chain(2) if later else chain(1, 2)
        return source(request)

    frame = fetch(by_date, OPTIONS)
    assert frame["contract"].to_list() == [
        "AAPL250321C00200000",
        "AAPL250321P00200000",
        "AAPL250322C00200000",
        "AAPL250322P00200000",
    ]
    row = frame.row(1, named=True)
    assert (row["option_type"], row["expiration"], row["underlying_price"]) == (
        "put",
        date(2025, 3, 21),
        Decimal("230.5"),
    )
    # 1e-5 is what the source puts where it has no volatility.
    assert (row["iv"], row["iv_origin"], row["iv_reason"], row["ask"]) == (None, None, "not given by the source", None)
    with pytest.raises(UnsupportedRequest, match="present only"):
        fetch(source, OPTIONS, end=fake.NOW - timedelta(days=3))


@pytest.mark.parametrize("name", ["options-AAPL.json", "options-AMZN.json", "options-AAPL-expire-2022-03-01.json"])
def test_recorded_options(name: str) -> None:
    body = recording(name)
    result = json.loads(body, parse_float=Decimal)["optionChain"]["result"][0]
    rows, expirations = parse_options(load_json(body), fake.NOW)
    frame = rows.frame
    recorded = [row for chain in result["options"] for side in ("calls", "puts") for row in chain[side]]
    assert frame["contract"].to_list() == [row["contractSymbol"] for row in recorded]
    assert frame["strike"].to_list() == [Decimal(row["strike"]) for row in recorded]
    assert frame["bid"].to_list() == [Decimal(row["bid"]) if "bid" in row else None for row in recorded]
    assert [int(moment) for moment in expirations] == result["expirationDates"]
    volatilities = [float(row["impliedVolatility"]) for row in recorded]
    assert frame["iv"].to_list() == [value if value > 1e-4 else None for value in volatilities]


def test_recorded_news() -> None:
    recorded = json.loads(recording("search-AAPL.json"))["news"]
    frame = parse_news(load_json(recording("search-AAPL.json")), "AAPL").frame
    about = [row for row in recorded if "AAPL" in row.get("relatedTickers", [])]
    assert about
    assert frame["news_id"].to_list() == [row["uuid"] for row in about]
    assert frame["published_at"].to_list() == [datetime.fromtimestamp(row["providerPublishTime"], UTC) for row in about]


def test_news_name_instruments_by_our_symbols() -> None:
    article = {
        "uuid": "1",
        "title": "t",
        "providerPublishTime": 1769904000,
        "relatedTickers": ["BTC-USD", "BRK-B", "KO"],
    }
    assert parse_news({"news": [article]}, "BRK-B").frame["symbols"].to_list() == [["BTC", "BRK.B", "KO"]]


def test_other_datasets_are_refused() -> None:
    with pytest.raises(UnsupportedRequest, match="funding_rates"):
        fetch(fake.Source(), FUNDING_RATES)


@pytest.mark.parametrize(
    ("parse", "answer"),
    [
        (parse_earnings, {"quoteSummary": {"result": None}}),
        (parse_earnings, {"quoteSummary": {"result": [{}]}}),
        (lambda answer: parse_options(answer, fake.NOW), {"optionChain": {"result": []}}),
        (lambda answer: parse_options(answer, fake.NOW), {"optionChain": {"result": [{"quote": {}, "options": [{}]}]}}),
        (lambda answer: parse_news(answer, "X"), {"news": None}),
        (lambda answer: parse_news(answer, "X"), []),
    ],
)
def test_answers_that_are_not_what_was_promised(parse: Any, answer: Any) -> None:
    with pytest.raises(MalformedPayload):
        parse(answer)
