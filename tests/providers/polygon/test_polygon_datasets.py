"""Massive's trades, quotes, corporate actions, earnings, news and options: recorded rows as recorded, pages, plans."""

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

from market_data.model.dataset import (
    DIVIDENDS,
    EARNINGS,
    INSTRUMENTS,
    OPEN_INTEREST,
    OPTIONS,
    SPLITS,
    TRADES,
    Dataset,
)
from market_data.model.errors import MalformedPayload, NotEntitled, UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument
from market_data.providers.polygon import Polygon, PolygonSettings
from market_data.providers.polygon.companies import parse_dividends, parse_earnings, parse_news, parse_splits
from market_data.providers.polygon.lists import parse_contracts, parse_instruments, parse_options
from market_data.providers.polygon.parse import parse_answer
from market_data.providers.polygon.statements import parse_statements
from market_data.providers.polygon.ticks import parse_quotes, parse_trades
from market_data.transport.http import Http
from market_data.transport.senders import HttpxSender

RECORDINGS = Path(os.environ.get("MARKET_DATA_RECORDINGS", Path(__file__).parents[3] / "../shared/data"))
_spec = importlib.util.spec_from_file_location("fake_polygon_datasets", Path(__file__).with_name("fake.py"))
assert _spec is not None
assert _spec.loader is not None
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)

AAPL = Instrument("AAPL", AssetClass.STOCK)
BTC = Instrument("BTC", AssetClass.CRYPTO)
START, END = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 3, 1, tzinfo=UTC)
FORBIDDEN = httpx.Response(403, json={"status": "NOT_AUTHORIZED", "message": "You are not entitled to this data."})


def recorded(name: str) -> list[Any]:
    """The results of a recorded body, numbers as texts, through our own envelope."""
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip(f"recording {path} is absent (set MARKET_DATA_RECORDINGS)")
    text = path.read_text()
    body = json.loads(text)
    if "example" in body:
        # The example's own text, so that no digit changes.
        text = text[text.index('"example"') + len('"example"') :].split(":", 1)[1].strip()
        text = text[: json.JSONDecoder().raw_decode(text)[1]]
    return parse_answer(text.encode()).results


def fetch(source: Any, dataset: Dataset, instrument: Instrument = AAPL, **span: datetime) -> pl.DataFrame:
    settings = PolygonSettings(api_key=fake.KEY, requests_per_minute=6000, max_retries=0)
    provider = Polygon(settings, Http("polygon", settings, sender=HttpxSender(httpx.MockTransport(source))))
    start, end = span.get("start", START), span.get("end", END)

    async def collect() -> list[pl.DataFrame]:
        if dataset is TRADES:
            pages = provider.fetch_trades(instrument, start, end, now=fake.NOW)
        else:
            pages = provider.fetch(dataset, instrument, start, end, now=fake.NOW)
        return [page.frame async for page in pages]

    frame = pl.concat([dataset.empty(), *asyncio.run(collect())])
    assert dict(frame.schema) == dict(dataset.schema)
    return frame


def test_recorded_stock_trades() -> None:
    frame = parse_trades(recorded("massive_spec/examples/v3_trades_{stockTicker}.json"), crypto=False).frame
    # Written out from the example by hand; nanoseconds are cut to microseconds.
    assert frame.row(0) == (
        datetime(2018, 2, 2, 9, 0, 0, 16036, tzinfo=UTC),
        "11-1",
        Decimal("171.55"),
        Decimal(100),
        None,
        "11",
        ["12", "41"],
        None,
    )


def test_recorded_crypto_trades_say_who_crossed_the_spread() -> None:
    frame = parse_trades(recorded("massive_spec/examples/v3_trades_{cryptoTicker}.json"), crypto=True).frame
    assert frame["aggressor_side"].to_list() == ["sell", "buy"]
    assert frame["size"].to_list() == [Decimal("1.0434526"), Decimal("0.0058883")]


def test_numbers_of_trades_repeat_between_exchanges() -> None:
    frame = parse_trades(
        recorded("polygon_client_python/test_rest/mocks/v3/trades/AAPL&limit=2.json"), crypto=False
    ).frame
    assert frame["trade_id"].to_list()[:2] == ["11-183276", "12-183276"]


def test_trades_off_the_exchanges_are_numbered_by_their_facility() -> None:
    """Numbers are unique per exchange and facility, says the source; one code stands for all facilities."""
    row = {"exchange": 4, "id": "7", "price": 1, "size": 1, "participant_timestamp": 1_700_000_000_000_000_000}
    frame = parse_trades([row | {"trf_id": 201, "correction": 8}, row | {"trf_id": 202}], crypto=False).frame
    assert frame["trade_id"].to_list() == ["4-201-7", "4-202-7"]
    assert frame["correction"].to_list() == [8, None]


def test_fractions_of_a_share() -> None:
    row = {"id": "1", "exchange": "4", "price": "10", "size": "0", "participant_timestamp": "1", "decimal_size": "0.25"}
    assert parse_trades([row], crypto=False).frame["size"].to_list() == [Decimal("0.25")]


def test_recorded_quotes() -> None:
    frame = parse_quotes(recorded("massive_spec/examples/v3_quotes_{stockTicker}.json")).frame
    assert frame.row(0) == (
        datetime(2018, 2, 2, 9, 0, 0, 65700, tzinfo=UTC),
        2060,
        Decimal("102.7"),
        Decimal(60),
        None,
        None,
    )


def test_trades_page_to_the_end_in_the_range_asked_for() -> None:
    source = fake.Source()
    base = {"exchange": 4, "price": 10.5, "size": 3}
    first, second = ({"id": str(n), "sip_timestamp": 1735732800000000000 + n * 1000, **base} for n in (1, 2))
    for row in (first, second):
        row["participant_timestamp"] = row["sip_timestamp"]
    late = second | {"id": "9", "sip_timestamp": int(END.timestamp()) * 10**9}
    source.lists["/v3/trades/AAPL"] = [[first], [second, late]]
    frame = fetch(source, TRADES)
    assert frame["trade_id"].to_list() == ["4-1", "4-2"]
    request = next(request for request in source.requests if "/v3/trades/" in request.url.path)
    assert request.url.params["timestamp.gte"] == str(int(START.timestamp()) * 10**9)
    assert request.url.params["timestamp.lt"] == str(int(END.timestamp()) * 10**9)
    assert request.url.params["order"] == "asc"
    assert fetch(source, TRADES, start=END, end=END + timedelta(days=1))["trade_id"].to_list() == ["4-9"]


def test_recorded_dividends() -> None:
    results = recorded("polygon_client_python/test_rest/mocks/v3/reference/dividends.json")
    first = parse_dividends(results).frame.row(0, named=True)
    assert (first["ex_date"], first["amount"], first["pay_date"], first["frequency"], first["dividend_type"]) == (
        date(2025, 6, 12),
        Decimal("0.59375"),
        date(2025, 6, 30),
        4,
        "cash",
    )


def test_recorded_splits() -> None:
    frame = parse_splits(recorded("massive_spec/examples/v3_reference_splits.json")).frame
    assert frame.rows() == [
        (date(2020, 8, 31), Decimal(1), Decimal(4), None, None),
        (date(2005, 2, 28), Decimal(1), Decimal(2), None, None),
    ]


def dividend(day: str, amount: float, kind: str = "recurring") -> dict[str, object]:
    return {
        "ticker": "AAPL",
        "ex_dividend_date": day,
        "cash_amount": amount,
        "split_adjusted_cash_amount": amount / 4,
        "currency": "USD",
        "distribution_type": kind,
        "frequency": 4,
    }


def test_dividends_as_declared_from_the_new_endpoint() -> None:
    source = fake.Source()
    source.lists["/stocks/v1/dividends"] = [
        [dividend("2025-01-10", 0.24), dividend("2025-02-10", 1.5, "special")],
        [dividend("2025-02-10", 0.25), dividend("2025-02-10", 0.05)],
    ]
    frame = fetch(source, DIVIDENDS)
    assert frame.select("ex_date", "amount", "dividend_type", "notes").rows() == [
        (date(2025, 1, 10), Decimal("0.24"), "cash", None),
        (date(2025, 2, 10), Decimal("1.5"), "special", None),
        (date(2025, 2, 10), Decimal("0.25"), "cash", None),
        (date(2025, 2, 10), Decimal("0.05"), "cash", None),
    ]
    params = source.requests[-2].url.params
    assert (params["ex_dividend_date.gte"], params["ex_dividend_date.lt"]) == ("2025-01-01", "2025-03-01")


@pytest.mark.parametrize("refusal", [None, FORBIDDEN], ids=["not there", "not in the plan"])
def test_the_old_endpoint_where_the_new_one_is_not_to_be_had(refusal: httpx.Response | None) -> None:
    source = fake.Source()
    if refusal is not None:
        source.lists["/stocks/v1/splits"] = refusal
    row = {"execution_date": "2025-02-03", "split_from": 2, "split_to": 3, "ticker": "AAPL"}
    source.lists["/v3/reference/splits"] = [[row]]
    assert fetch(source, SPLITS).rows() == [(date(2025, 2, 3), Decimal(2), Decimal(3), None, None)]


def test_earnings() -> None:
    common = {"fiscal_year": 2025, "currency": "USD", "date_status": "confirmed"}
    frame = parse_earnings(
        json.loads(
            json.dumps(
                [
                    common | {"fiscal_period": "Q1", "date": "2025-01-30", "time": "16:30:00", "actual_eps": 2.4},
                    common | {"fiscal_period": "Q2", "date": "2025-05-01", "time": "07:00:00", "estimated_eps": 1.61},
                    common | {"fiscal_period": "H1", "date": "2025-05-01"},
                    common | {"fiscal_period": "FY", "date": "2025-11-01", "estimated_revenue": 4.1e11},
                    common | {"fiscal_period": "Q2", "date": "2025-05-02", "time": "12:00:00", "estimated_eps": 1.62},
                ]
            ),
            parse_int=str,
            parse_float=str,
        )
    )
    columns = ("fiscal_quarter", "report_date", "report_time", "eps_actual", "eps_estimate", "revenue_estimate")
    assert frame.frame.select(columns).rows() == [
        (1, date(2025, 1, 30), "after_close", Decimal("2.4"), None, None),
        (0, date(2025, 11, 1), None, None, None, Decimal(410_000_000_000)),
        (2, date(2025, 5, 2), "during_session", None, Decimal("1.62"), None),
    ]


def test_what_the_plan_does_not_include_is_asked_for_once() -> None:
    source = fake.Source()
    source.lists["/benzinga/v1/earnings"] = FORBIDDEN
    source.lists["/stocks/financials/v1/income-statements"] = FORBIDDEN
    settings = PolygonSettings(api_key=fake.KEY, requests_per_minute=6000)
    provider = Polygon(settings, Http("polygon", settings, sender=HttpxSender(httpx.MockTransport(source))))

    async def ask() -> None:
        async for _ in provider.fetch(EARNINGS, AAPL, START, END, now=fake.NOW):
            raise AssertionError

    async def twice() -> None:
        for _ in range(2):
            with pytest.raises(NotEntitled, match="not entitled"):
                await ask()

    asyncio.run(twice())
    for product in ("earnings", "income-statements"):
        assert len([request for request in source.requests if product in request.url.path]) == 1


def statement(timeframe: str, quarter: int, filed: str, **figures: float) -> dict[str, Any]:
    when = {"fiscal_year": 2024, "fiscal_quarter": quarter, "period_end": "2024-12-31", "filing_date": filed}
    return {"tickers": ["AAPL"], "timeframe": timeframe} | when | figures


def test_statements_where_the_plan_has_no_earnings() -> None:
    source = fake.Source()
    source.lists["/benzinga/v1/earnings"] = FORBIDDEN
    source.lists["/stocks/financials/v1/income-statements"] = [
        [
            statement(
                "quarterly",
                4,
                "2025-01-31",
                diluted_earnings_per_share=2.4,
                basic_earnings_per_share=2.41,
                revenue=1.243e11,
            ),
            statement("annual", 4, "2025-02-01", basic_earnings_per_share=6.11, revenue=391035000000),
            statement("trailing_twelve_months", 4, "2025-02-01", basic_earnings_per_share=6.2),
            statement("quarterly", 4, "2025-02-10", basic_earnings_per_share=2.42, revenue=1.244e11),
        ]
    ]
    frame = fetch(source, EARNINGS).unique(maintain_order=True)
    columns = ("fiscal_year", "fiscal_quarter", "report_date", "eps_actual", "revenue_actual", "eps_estimate", "notes")
    assert frame.select(columns).rows() == [
        (2024, 0, date(2025, 2, 1), Decimal("6.11"), Decimal(391_035_000_000), None, notes_of("basic")),
        (2024, 4, date(2025, 2, 10), Decimal("2.42"), Decimal(124_400_000_000), None, notes_of("basic")),
    ]
    asked = [request.url.params for request in source.requests if "income" in request.url.path]
    assert [params["timeframe"] for params in asked] == ["quarterly", "annual"]
    assert {(params["tickers"], params["filing_date.gte"], params["filing_date.lt"]) for params in asked} == {
        ("AAPL", "2025-01-01", "2025-03-01")
    }
    (row,) = parse_statements(
        [statement("quarterly", 1, "2025-05-02", diluted_earnings_per_share=1.65)]
    ).frame.to_dicts()
    assert (row["eps_actual"], row["revenue_actual"], row["notes"]) == (Decimal("1.65"), None, notes_of("diluted"))


def notes_of(kind: str) -> str:
    return f"income_statement; {kind}_eps; report_date_is_filing"


def test_recorded_news() -> None:
    for name in ("massive_spec/examples/v2_reference_news.json",):
        results = recorded(name)
        row = parse_news(results, "UBS").frame.row(0, named=True)
        assert row["news_id"] == "8ec638777ca03b553ae516761c2a22ba2fdd2f37befae3ab6fdab74e9e5193eb"
        assert (row["sentiment"], row["author"], row["keywords"][1]) == ("positive", "Sam Boughedda", "interest rates")
        assert row["published_at"] == datetime.fromisoformat(results[0]["published_utc"])
        assert parse_news(results, "AAPL").frame["sentiment"].to_list() == [None]
    mocks = recorded("polygon_client_python/test_rest/mocks/v2/reference/news&ticker=NFLX.json")
    assert parse_news(mocks, "NFLX").frame["title"].to_list() == [row["title"] for row in mocks]


def test_an_article_has_one_sentiment_or_none_whoever_asks() -> None:
    """It is one row of all the instruments it names: fetched for each in turn, it must not change each time."""

    def judged(asked: str, **words: str) -> list[str | None]:
        insights = [{"ticker": name, "sentiment": word} for name, word in words.items()]
        article = {"id": "1", "title": "t", "published_utc": "2026-02-01T00:00:00Z", "insights": insights}
        return parse_news([article], asked).frame["sentiment"].to_list()

    assert judged("KO", KO="positive", PEP="positive") == judged("PEP", KO="positive", PEP="positive") == ["positive"]
    assert judged("KO", KO="positive", PEP="negative") == judged("PEP", KO="positive", PEP="negative") == [None]
    assert judged("KO", PEP="negative") == judged("KO") == [None]


def test_news_name_instruments_by_our_symbols() -> None:
    article = {"id": "1", "title": "t", "published_utc": "2026-02-01T00:00:00Z", "tickers": ["X:BTCUSD", "BRK.B", "KO"]}
    assert parse_news([article], "X:BTCUSD").frame["symbols"].to_list() == [["BTC", "BRK.B", "KO"]]


def test_recorded_option_chains() -> None:
    moment = datetime(2022, 4, 29, 18, tzinfo=UTC)
    rows = parse_options(recorded("polygon_client_python/test_rest/mocks/v3/snapshot/options/AAPL.json"), moment)
    row = rows.frame.row(0, named=True)
    assert (row["contract"], row["expiration"], row["strike"], row["option_type"]) == (
        "AAPL230616C00150000",
        date(2023, 6, 16),
        Decimal(150),
        "call",
    )
    assert (row["bid"], row["ask"], row["open_interest"], row["underlying_price"]) == (
        Decimal("28.9"),
        Decimal("29.25"),
        Decimal(8133),
        Decimal("159.9606"),
    )
    assert (row["iv"], row["delta"], row["vega"], row["rho"]) == (
        0.3570277203465058,
        0.6436614934293701,
        0.6381159723175714,
        None,
    )
    assert (row["iv_origin"], row["iv_reason"]) == ("source", None)


def test_no_volatility_is_not_zero_volatility() -> None:
    details = {"ticker": "O:X251219C00001000", "contract_type": "call", "expiration_date": "2025-12-19"}
    row = {
        "details": details | {"strike_price": "1"},
        "implied_volatility": "0",
        "last_quote": {"bid": "0", "ask": "0"},
    }
    found = parse_options([row], fake.NOW).frame.row(0, named=True)
    assert (found["iv"], found["iv_origin"], found["iv_reason"]) == (None, None, "not given by the source")
    assert (found["bid"], found["ask"], found["delta"]) == (Decimal(0), None, None)


def test_a_chain_holds_every_listed_contract() -> None:
    """The snapshot lacks one of three: it is there, without values; a snapshot's own row is not written over."""
    rows = [
        {"ticker": f"O:AAPL260619C00{strike}000", "contract_type": "call", "exercise_style": "american",
         "expiration_date": "2026-06-19", "strike_price": strike}
        for strike in (100, 150, 200)
    ]  # fmt: skip
    source = fake.Source()
    source.lists["/v3/snapshot/options/AAPL"] = [
        [{"details": row, "implied_volatility": 0.25, "greeks": {"delta": 0.5}} for row in rows[:2]]
    ]
    source.lists["/v3/reference/options/contracts"] = [rows[:1], rows[1:]]
    chain = fetch(source, OPTIONS, start=fake.NOW - timedelta(hours=1), end=fake.NOW)
    assert chain.select("contract", "iv", "iv_reason").rows() == [
        ("AAPL260619C00100000", 0.25, None),
        ("AAPL260619C00150000", 0.25, None),
        ("AAPL260619C00200000", None, "listed, but not in the snapshot"),
    ]
    asked = [request.url.params.get("underlying_ticker") for request in source.requests]
    assert asked.count("AAPL") == 1


def test_chains_of_the_past_are_not_to_be_had() -> None:
    with pytest.raises(UnsupportedRequest, match="present only"):
        fetch(fake.Source(), OPTIONS)


def test_recorded_instruments() -> None:
    frame = parse_instruments(recorded("massive_spec/examples/v3_reference_tickers.json")).frame
    assert frame.select("raw_symbol", "symbol", "asset_class", "venue", "currency", "status").rows() == [
        ("A", "A", "stock", "XNYS", "USD", "trading")
    ]
    assert fetch(fake.Source(), INSTRUMENTS, BTC)["raw_symbol"].to_list() == ["X:WBTCUSD", "X:BTCUSD"]


def test_other_datasets_are_refused() -> None:
    with pytest.raises(UnsupportedRequest, match="open_interest"):
        fetch(fake.Source(), OPEN_INTEREST, BTC)
    with pytest.raises(UnsupportedRequest, match="dividends"):
        fetch(fake.Source(), DIVIDENDS, BTC)


@pytest.mark.parametrize(
    ("parse", "row"),
    [
        (parse_dividends, {"ex_dividend_date": "soon", "cash_amount": "1"}),
        (parse_dividends, {"ex_dividend_date": "2025-01-01"}),
        (parse_splits, {"execution_date": "2025-01-01", "split_from": "one", "split_to": "2"}),
        (parse_earnings, {"fiscal_period": "Q1"}),
        (parse_statements, {"timeframe": "annual"}),
        (lambda results: parse_news(results, "X"), {"id": "1", "title": "t", "published_utc": "yesterday"}),
        (lambda results: parse_options(results, fake.NOW), {"details": {}}),
        (lambda results: parse_trades(results, crypto=False), {"id": "1"}),
        (parse_quotes, {"bid_price": "1"}),
        (parse_instruments, {"name": "x"}),
        (parse_splits, "not an object"),
    ],
)
def test_rows_that_are_not_what_was_promised_cost_themselves(parse: Any, row: Any) -> None:
    """Alone such a row is rejected, or the answer for one without any row; ten of them are no answer."""
    try:
        assert parse([row]).rejected.height == 1
    except MalformedPayload:
        assert isinstance(row, str) or len(row) == 1
    with pytest.raises(MalformedPayload):
        parse([row] * 10)


BAD_DATE = "0000-00-00"
NANOS = "1700000000000000000"


def contract_of(number: int) -> dict[str, Any]:
    name = f"O:X251219C{1000 * (number + 1):08}"
    return {"ticker": name, "contract_type": "call", "expiration_date": "2025-12-19", "strike_price": str(number + 1)}


NINE_OF_TEN: list[tuple[Any, Any, dict[str, Any]]] = [
    (
        parse_dividends,
        lambda n: {"ex_dividend_date": f"2024-01-{n + 1:02}", "cash_amount": "0.5", "currency": "USD"},
        {"pay_date": BAD_DATE},
    ),
    (
        parse_splits,
        lambda n: {"execution_date": f"2024-01-{n + 1:02}", "split_from": "1", "split_to": "2"},
        {"split_to": "x"},
    ),
    (parse_earnings, lambda n: {"fiscal_year": str(2000 + n), "fiscal_period": "Q1"}, {"fiscal_period": "Q7"}),
    (parse_statements, lambda n: {"timeframe": "annual", "fiscal_year": str(2000 + n)}, {"fiscal_year": "next"}),
    (
        lambda results: parse_news(results, "X"),
        lambda n: {"id": str(n), "title": "t", "published_utc": "2024-01-01T00:00:00Z"},
        {"title": None},
    ),
    (
        lambda results: parse_options(results, fake.NOW),
        lambda n: {"details": contract_of(n), "open_interest": "1"},
        {"details": contract_of(9) | {"strike_price": None}},
    ),
    (lambda results: parse_contracts(results, fake.NOW), contract_of, {"expiration_date": BAD_DATE}),
    (
        lambda results: parse_trades(results, crypto=False),
        lambda n: {"id": str(n), "exchange": "1", "price": "1", "size": "1", "participant_timestamp": NANOS},
        {"price": True},
    ),
    (
        parse_quotes,
        lambda n: {"sequence_number": str(n), "bid_price": "1", "bid_size": "1", "sip_timestamp": NANOS},
        {"sip_timestamp": "9" * 30},
    ),
    (parse_instruments, lambda n: {"ticker": f"A{n}", "market": "stocks", "type": "CS"}, {"ticker": ["A"]}),
]  # fmt: skip


@pytest.mark.parametrize(("parse", "row", "fault"), NINE_OF_TEN)
def test_one_bad_row_of_ten_costs_itself(parse: Any, row: Any, fault: dict[str, Any]) -> None:
    sent = [row(n) for n in range(9)]
    rows = parse([*sent[:4], row(9) | fault, *sent[4:]])
    assert (rows.frame.height, rows.rejected.height) == (9, 1)
    assert rows.frame.equals(parse(sent).frame)
    assert set(json.loads(rows.rejected["payload"][0])) >= set(row(9))
