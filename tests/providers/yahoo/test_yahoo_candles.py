"""Yahoo candles: recorded charts as recorded, splits taken back, defects of the source."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import numpy as np
import polars as pl
import pytest

from market_data.model.dataset import CANDLES
from market_data.model.errors import MalformedPayload, UnknownInstrument, UnsupportedRequest
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.session import Grid
from market_data.model.timeframe import Timeframe
from market_data.providers.yahoo import Yahoo, YahooSettings
from market_data.providers.yahoo.parse import Split, find_listing, parse_chart
from market_data.providers.yahoo.repair import at_session_open, in_coins, unadjusted, without_live_row
from market_data.transport.http import Http
from market_data.transport.senders import HttpxSender

RECORDINGS = Path(os.environ.get("MARKET_DATA_RECORDINGS", Path(__file__).parents[3] / "../shared/data"))
FIXTURES = RECORDINGS / "yahoo_finance2_fixtures"
_spec = importlib.util.spec_from_file_location("fake_yahoo_candles", Path(__file__).with_name("fake.py"))
assert _spec is not None
assert _spec.loader is not None
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)

NEW_YORK = ZoneInfo("America/New_York")
AAPL = Instrument("AAPL", AssetClass.STOCK)


def recording(name: str) -> bytes:
    """The body, with the digits of the recording."""
    path = FIXTURES / name
    if not path.exists():
        pytest.skip(f"recording {path} is absent (set MARKET_DATA_RECORDINGS)")
    text = path.read_text()
    # From the text, since decoding and encoding again might change a digit.
    body = text[text.index('"bodyJson"') + len('"bodyJson"') :].split(":", 1)[1].strip()
    decoded, end = json.JSONDecoder().raw_decode(body)
    assert decoded
    return body[:end].encode()


def yahoo(source: Any, **settings: Any) -> Yahoo:
    configured = YahooSettings(requests_per_minute=6000, max_retries=0, **settings)
    return Yahoo(configured, Http("yahoo", configured, sender=HttpxSender(httpx.MockTransport(source))))


def fetch(source: Any, *what: Any) -> pl.DataFrame:
    async def collect() -> list[pl.DataFrame]:
        return [page.frame async for page in yahoo(source).fetch_candles(*what, now=fake.NOW)]

    return pl.concat([CANDLES.empty(), *asyncio.run(collect())])


def chart_recordings() -> list[str]:
    return sorted(path.name for path in FIXTURES.glob("*chart-*.json")) or ["chart-AAPL.json"]


@pytest.mark.parametrize("name", chart_recordings())
def test_recorded_chart_keeps_every_digit(name: str) -> None:
    body = recording(name)
    if b'"result": null' in body or b'"result":null' in body:
        with pytest.raises(MalformedPayload):
            parse_chart(body)
        return
    chart = parse_chart(body)
    assert chart is not None
    result = json.loads(body, parse_float=Decimal)["chart"]["result"][0]
    quote, times = result["indicators"]["quote"][0], result.get("timestamp", [])
    whole = [i for i in range(len(times)) if all(quote[key][i] is not None for key in ("open", "volume", "close"))]
    assert chart.rows["timestamp"].to_list() == [datetime.fromtimestamp(times[i], UTC) for i in whole]
    for column in ("open", "high", "low", "close", "volume"):
        assert chart.rows[column].to_list() == [Decimal(quote[column][i]) for i in whole]


def test_recorded_split_is_taken_back() -> None:
    """NVDA in 2021, split 4:1 in 2021-07 and 10:1 in 2024-06; the source gives prices divided by both.

    The prices that were traded are public: 2021-02-01 opened at 522.13, 2021-07-19 closed at 751.19 (the day before
    the split), and 2021-07-20 opened at 187.30 after it.
    """
    chart = parse_chart(recording("historical-via-chart-NVDA-split-2021-02-01-to-2022-01-31.csv.json"))
    assert chart is not None
    (first,) = chart.splits
    assert (first.moment, first.numerator, first.denominator) == (datetime(2021, 7, 20, 13, 30, tzinfo=UTC), 4, 1)
    later = Split(datetime(2024, 6, 10, 13, 30, tzinfo=UTC), Decimal(10), Decimal(1))
    raw = unadjusted(chart.rows, (first, later), chart.zone, chart.price_hint)
    by_date = {row["timestamp"].date().isoformat(): row for row in raw.iter_rows(named=True)}
    assert by_date["2021-02-01"]["open"] == Decimal("522.13")
    assert by_date["2021-07-19"]["close"] == Decimal("751.19")
    assert by_date["2021-07-20"]["open"] == Decimal("187.30")
    # 217,204,000 shares after both splits are 5,430,100 before them.
    assert by_date["2021-02-01"]["volume"] == 5_430_100
    assert set(raw["notes"]) == {"unadjusted_for_splits"}


def test_a_price_is_rounded_only_where_it_is_proved() -> None:
    def rows(price: str) -> pl.DataFrame:
        value = Decimal(price)
        row = {"timestamp": datetime(2020, 1, 2, 14, 30, tzinfo=UTC), "volume": Decimal(8)}
        return CANDLES.conform(pl.DataFrame([row | dict.fromkeys(("open", "high", "low", "close"), value)]))

    split = Split(datetime(2020, 8, 31, 13, 30, tzinfo=UTC), Decimal(4), Decimal(1))
    # The 32-bit float next to 300.35 / 4.
    assert unadjusted(rows("75.0875015258789"), [split], NEW_YORK, 2)["close"][0] == Decimal("300.35")
    # No price of two decimals divides to this: all digits of the product stay.
    assert unadjusted(rows("75.0879"), [split], NEW_YORK, 2)["close"][0] == Decimal("300.3516")
    # Of a price this high several have the same 32-bit float.
    assert unadjusted(rows("750875.0625"), [split], NEW_YORK, 2)["close"][0] == Decimal("3003500.25")
    assert unadjusted(rows("123456.7890625"), [split], NEW_YORK, 2)["close"][0] == Decimal("493827.15625")
    # One for three: the volume was three times as high before.
    reverse = Split(datetime(2020, 8, 31, 13, 30, tzinfo=UTC), Decimal(1), Decimal(3))
    back = unadjusted(rows("31.5"), [reverse], NEW_YORK, 2)
    assert (back["close"][0], back["volume"][0]) == (Decimal("10.5"), Decimal(24))
    # On the day of the split it is in force.
    same_day = Split(datetime(2020, 1, 2, 14, 30, tzinfo=UTC), Decimal(4), Decimal(1))
    untouched = unadjusted(rows("75.0875015258789"), [same_day], NEW_YORK, 2)
    assert (untouched["close"][0], untouched["notes"][0]) == (Decimal("75.0875015258789"), None)


def test_split_after_the_range_counts() -> None:
    source = fake.Source()
    frame = fetch(source, AAPL, Timeframe.D1, datetime(2025, 1, 6, tzinfo=UTC), datetime(2025, 1, 8, tzinfo=UTC))
    # 14:30 UTC is minute 870 of the fake's prices: 100.5 + 870, doubled; volume 1000 + 2 × 870, halved.
    assert frame["open"].to_list() == [Decimal(1941), Decimal(1941)]
    assert frame["volume"].to_list() == [1370, 1370]
    assert set(frame["notes"]) == {"unadjusted_for_splits"}


def test_intraday_is_unadjusted_too_and_says_when_it_cannot_be() -> None:
    start, end = datetime(2025, 2, 20, 14, tzinfo=UTC), datetime(2025, 2, 20, 16, tzinfo=UTC)
    source = fake.Source()
    frame = fetch(source, AAPL, Timeframe.H1, start, end)
    assert frame["open"].to_list() == [Decimal(1941), Decimal(2061)]

    def without_days(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503) if request.url.params.get("interval") == "1d" else source(request)

    frame = fetch(without_days, AAPL, Timeframe.H1, start, end)
    assert frame["open"].to_list() == [Decimal("970.5"), Decimal("1030.5")]
    assert set(frame["notes"]) == {"later_splits_unknown"}


def test_days_after_the_split_are_as_sent() -> None:
    frame = fetch(fake.Source(), AAPL, Timeframe.D1, datetime(2025, 2, 25, tzinfo=UTC), fake.NOW)
    assert frame["open"].to_list() == [Decimal("970.5")] * 6
    assert frame["notes"].null_count() == 6


def test_beyond_its_reach_names_the_earliest_start() -> None:
    with pytest.raises(UnsupportedRequest, match="2025-02-04T15:20:30Z"):
        fetch(fake.Source(), AAPL, Timeframe.M1, datetime(2025, 2, 1, tzinfo=UTC), fake.NOW)


def test_thirty_minutes_are_made_of_fifteen() -> None:
    source = fake.Source()
    start = datetime(2025, 3, 4, 14, 30, tzinfo=UTC)
    frame = fetch(source, AAPL, Timeframe.M30, start, start + timedelta(minutes=30))
    # Fifteen minutes at 870 and 885 of the fake's prices.
    assert frame.select("open", "high", "low", "close", "volume").row(0) == tuple(
        Decimal(text) for text in ("970.5", "987.25", "969.125", "986.5", "5510")
    )
    assert {request.url.params["interval"] for request in source.requests if "chart" in request.url.path} == {
        "15m",
        "1d",
    }


def test_another_granularity_than_asked_for_is_malformed() -> None:
    source = fake.Source()
    answer = json.loads(
        source.chart("AAPL", httpx.QueryParams(period1=1740000000, period2=1741000000, interval="1h")).content
    )
    source.override = httpx.Response(200, json=answer)
    with pytest.raises(MalformedPayload, match="1h where 1d"):
        fetch(source, AAPL, Timeframe.D1, datetime(2025, 2, 20, tzinfo=UTC), datetime(2025, 2, 22, tzinfo=UTC))


def test_rows_the_source_forgot_to_adjust_stay_as_they_were_traded() -> None:
    source = fake.Source()
    params = httpx.QueryParams(period1=1733000000, period2=1741185000, interval="1d")
    answer = json.loads(source.chart("AAPL", params).content)
    result = answer["chart"]["result"][0]
    quote, split = result["indicators"]["quote"][0], int(fake.SPLIT.timestamp())
    for name in ("open", "high", "low", "close"):
        # Some change from day to day, and twice the price before the split: as if it had not been adjusted for.
        quote[name] = [
            (100.0 + number % 3) * (2 if moment < split else 1) for number, moment in enumerate(result["timestamp"])
        ]
    source.override = httpx.Response(200, json=answer)
    frame = fetch(source, AAPL, Timeframe.D1, datetime(2025, 2, 20, tzinfo=UTC), datetime(2025, 2, 27, tzinfo=UTC))
    assert [int(close) // 100 for close in frame["close"]] == [2, 2, 2, 1, 1]
    assert frame["notes"].to_list() == ["split_not_applied_by_source"] * 3 + [None] * 2


def test_a_foreign_listing_is_refused() -> None:
    source = fake.Source()
    answer = json.loads(
        source.chart("AAPL", httpx.QueryParams(period1=1740000000, period2=1741000000, interval="1d")).content
    )
    answer["chart"]["result"][0]["meta"]["exchangeTimezoneName"] = "Europe/London"
    source.override = httpx.Response(200, json=answer)
    with pytest.raises(UnknownInstrument, match="Europe/London"):
        fetch(source, AAPL, Timeframe.D1, datetime(2025, 2, 20, tzinfo=UTC), datetime(2025, 2, 22, tzinfo=UTC))


def test_duplicate_last_day_and_shifted_stamps() -> None:
    opens = [datetime(2025, 3, day, 14, 30, tzinfo=UTC) for day in (3, 4)]
    micros = np.array([int(moment.timestamp()) * 1_000_000 for moment in opens], dtype=np.int64)
    sessions = Grid(micros, micros + 6 * 3_600_000_000)
    stamps = [
        datetime(2025, 3, 3, 5, tzinfo=UTC),  # New York's midnight
        datetime(2025, 3, 4, 14, 30, tzinfo=UTC),
        datetime(2025, 3, 4, 21, 0, 2, tzinfo=UTC),  # today's row again, after the close
        datetime(2025, 3, 8, 14, 30, tzinfo=UTC),  # a Saturday
    ]
    days = CANDLES.conform(
        pl.DataFrame(
            {"timestamp": stamps} | {name: [1, 2, 3, 4] for name in ("open", "high", "low", "close", "volume")}
        )
    )
    matched = at_session_open(days, sessions, NEW_YORK)
    assert matched["timestamp"].to_list() == [*opens, stamps[3]]
    assert matched["close"].to_list() == [1, 3, 4]
    assert without_live_row(matched, sessions)["close"].to_list() == [1, 3]
    assert without_live_row(matched.head(2), sessions)["close"].to_list() == [1, 3]


def test_dollars_are_not_taken_for_coins() -> None:
    """34,872,900 dollars at a mean of 69,500 are 501.768… coins; no dollars are no coins, and that is known."""
    hours = CANDLES.conform(
        pl.DataFrame(
            {
                "timestamp": [datetime(2025, 3, 3, hour, tzinfo=UTC) for hour in (0, 1)],
                "open": [69_500, 69_600],
                "high": [70_000, 69_600],
                "low": [69_000, 69_600],
                "close": [69_500, 69_600],
                "volume": [34_872_900, 0],
            }
        )
    )
    told = in_coins(hours)
    assert told["quote_volume"].to_list() == [34_872_900, 0]
    assert told["volume"].to_list() == [pytest.approx(Decimal(34_872_900) / 69_500, abs=Decimal("1e-17")), 0]
    assert told["notes"].to_list() == ["base_volume_unknown", None]


@pytest.mark.parametrize(
    ("symbol", "asset_class", "raw"),
    [
        ("PEPE", AssetClass.CRYPTO, "PEPE24478-USD"),
        ("BRK.B", AssetClass.STOCK, "BRK-B"),
        ("AAPU", AssetClass.ETF, "AAPU"),
    ],
)
def test_symbols_come_from_the_search(symbol: str, asset_class: AssetClass, raw: str) -> None:
    listing = asyncio.run(yahoo(fake.Source()).resolve(Instrument(symbol, asset_class)))
    assert listing.raw_symbol == raw


def test_recorded_search() -> None:
    listing = find_listing(AAPL, recording("search-AAPL.json"))
    assert (listing.raw_symbol, listing.venue) == ("AAPL", "NMS")
    with pytest.raises(UnknownInstrument):
        find_listing(Instrument("AAPL", AssetClass.CRYPTO), recording("search-AAPL.json"))


@pytest.mark.parametrize("hole", [None, datetime(2025, 1, 15, 14, 30, tzinfo=UTC)])
def test_a_week_without_its_wednesday_says_so(hole: datetime | None) -> None:
    source = fake.Source()

    def answer(request: httpx.Request) -> httpx.Response:
        response: httpx.Response = source(request)
        if hole is None or not request.url.path.startswith("/v8/"):
            return response
        body = response.json()
        (result,) = body["chart"]["result"]
        place = result["timestamp"].index(int(hole.timestamp()))
        for values in result["indicators"]["quote"][0].values():
            values[place] = None
        return source.answer(body)

    weeks = fetch(answer, AAPL, Timeframe.W1, datetime(2025, 1, 6, tzinfo=UTC), datetime(2025, 1, 25, tzinfo=UTC))
    assert [moment.day for moment in weeks["timestamp"]] == [6, 13, 21]
    assert weeks["notes"].str.contains("parts_unknown").to_list() == [False, hole is not None, False]


@pytest.mark.parametrize("ratio", [2, 3, 4, 5, 7, 10, 15, 20])
def test_prices_that_were_rounded_to_six_decimals_before_the_float_come_back_exactly(ratio: int) -> None:
    """As the source works: divided by the ratio, rounded to six decimals, sent as a 32-bit float."""
    traded = [Decimal(cents) / 100 for cents in range(1_700, 250_000, 163)]
    sent = [str(np.float32(round(float(price) / ratio, 6))) for price in traded]
    rows = CANDLES.conform(
        pl.DataFrame(
            {"timestamp": [datetime(2020, 1, 2, 14, 30, tzinfo=UTC)] * len(sent)}
            | dict.fromkeys(("open", "high", "low", "close", "volume"), sent)
        )
    )
    split = Split(datetime(2020, 8, 31, 13, 30, tzinfo=UTC), Decimal(ratio), Decimal(1))
    given = unadjusted(rows, [split], ZoneInfo("America/New_York"), 2)
    assert given["close"].to_list() == traded
