"""Adjusted views against LEAN's factor files, Yahoo's adjusted closes and arithmetic by hand."""

from __future__ import annotations

import gzip
from bisect import bisect_right
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
from history_desk import Desk

from market_data.model.actions import ActionState, Payment, Split
from market_data.model.dataset import DIVIDENDS, SPLITS, Dataset
from market_data.model.errors import UsageError
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.read.adjust import Adjustment
from market_data.pipeline.read.factors import (
    Closes,
    DividendRule,
    Rates,
    cumulated,
    payment_effects,
    split_effects,
)
from market_data.pipeline.read.history import enriched
from market_data.storage.facts.actions import Answer, note_answer
from market_data.storage.facts.append import Provenance, append
from market_data.storage.server.database import Database

AAPL_DAYS = Series(Instrument("AAPL", AssetClass.STOCK), Timeframe.D1)
KNOWN = datetime(2000, 1, 1, tzinfo=UTC)
NOBODY = Rates({})
Happened = tuple[list[Split], list[Payment]]


def split(day: date, to: object, of: object = 1) -> Split:
    return Split(date=day, split_from=Decimal(str(of)), split_to=Decimal(str(to)), state=ActionState.UNCONFIRMED)


def paid(day: date, amount: object, currency: str | None = None) -> Payment:
    state = ActionState.UNCONFIRMED
    return Payment(date=day, amount=Decimal(str(amount)), currency=currency, kind="cash", state=state)


def factors(
    dates: list[date],
    happened: Happened,
    closes: pl.DataFrame,
    rule: DividendRule | None = DividendRule.PREVIOUS_CLOSE,
    rates: Rates = NOBODY,
) -> list[tuple[float | None, float]]:
    """Per date the factor of prices and that of volumes; without a rule those of splits alone."""
    splits, payments = happened
    known = Closes(closes["date"].to_list(), [Decimal(str(close)) for close in closes["close"]])
    effects = split_effects(splits)
    if rule is not None:
        effects += payment_effects(payments, splits, known, rates, rule, "USD")
    found = cumulated(effects)
    prices, shares = [*found.price, 1.0], [*found.shares, 1.0]
    places = [bisect_right(found.dates, day) for day in dates]
    return [(prices[place], shares[place]) for place in places]


def recorded(folder: Path, symbol: str) -> tuple[pl.DataFrame, Happened]:
    """Raw closes and what happened, 2012 to 2014."""
    with gzip.open(folder / "pypi" / "zipline_reloaded_sdist" / f"{symbol}.csv.gz") as file:
        rows = pl.read_csv(file.read(), try_parse_dates=True)
    dividends = rows.filter(pl.col("dividend") != 0).select("date", "dividend").rows()
    splits = rows.filter(pl.col("split") != 1).select("date", "split").rows()
    happened = [split(day, ratio) for day, ratio in splits], [paid(day, amount) for day, amount in dividends]
    return rows.select("date", "close"), happened


def test_dividends_as_lean_has_them(recordings: Path) -> None:
    closes, happened = recorded(recordings, "IBM")
    dates = closes["date"].to_list()
    found = dict(zip(dates, (price for price, _ in factors(dates, happened, closes)), strict=True))
    lines = (recordings / "lean/Data/equity/usa/factor_files/ibm.csv").read_text().split()
    theirs = {date.fromisoformat(day): float(f) for day, f, *_ in (line.split(",") for line in lines)}
    # A row of theirs holds up to its day; the recording ends in 2014, so the last one within it is the unit.
    days = [day for day in theirs if closes["date"][0] <= day < closes["date"][-1]]
    unit = theirs[min(day for day in theirs if day >= closes["date"][-1])]
    assert len(days) == 12
    for day in days:
        assert found[day] == pytest.approx(theirs[day] / unit, abs=2e-5)


@pytest.mark.parametrize("symbol", ["IBM", "MSFT"])
def test_adjusted_closes_as_yahoo_has_them(recordings: Path, symbol: str) -> None:
    closes, happened = recorded(recordings, symbol)
    ours = [price for price, _ in factors(closes["date"].to_list(), happened, closes)]
    with gzip.open(recordings / "pypi/bokeh_sampledata/stocks.csv.gz") as file:
        yahoo = pl.read_csv(file.read(), try_parse_dates=True).filter(pl.col("Ticker") == symbol)
    both = (
        closes.with_columns(factor=pl.Series(ours))
        .join(yahoo, left_on="date", right_on="Date")
        .with_columns(theirs=pl.col("Adj Close") / pl.col("Close"))
    )
    assert both.height > 280
    ratio = both["factor"] / both["theirs"]
    # Yahoo's factors of that time are themselves off by up to 3 in 10,000 a dividend (LEAN's agree with ours to 2e-5).
    assert ratio.max() / ratio.min() == pytest.approx(1, abs=5e-4)  # type: ignore[operator]
    # Without the dividends the two would drift apart.
    assert both["theirs"].max() / both["theirs"].min() > 1.02  # type: ignore[operator]


def test_a_split_as_recorded(recordings: Path) -> None:
    closes, happened = recorded(recordings, "KO")
    days = [date(2012, 8, 10), date(2012, 8, 13)]
    assert factors(days, happened, closes, rule=None) == [(0.5, 2.0), (1.0, 1.0)]


def test_both_rules_by_hand() -> None:
    days = [date(2024, 5, 9), date(2024, 5, 10), date(2024, 5, 13)]
    closes = pl.DataFrame({"date": days, "close": [100, 98, 99]})
    happened = [split(date(2024, 5, 13), 4)], [paid(date(2024, 5, 10), 2), paid(date(2024, 5, 13), "0.5")]
    # The second amount is per new share: the close before, 98, is 24.5 in new shares.
    second = 1 - Fraction(1, 2) / (98 * Fraction(1, 4))
    expected = [second / 4 * (1 - Fraction(2, 100)), second / 4, Fraction(1)]
    assert factors(days, happened, closes) == [(float(expected[0]), 4.0), (float(expected[1]), 4.0), (1.0, 1.0)]
    second = Fraction(99) / (99 + Fraction(1, 2))
    expected = [second / 4 * Fraction(98, 100), second / 4, Fraction(1)]
    found = factors(days, happened, closes, DividendRule.EX_DATE_CLOSE)
    assert [price for price, _ in found] == [float(each) for each in expected]


def test_the_last_close_before_counts_whatever_halt_lies_between() -> None:
    closes = pl.DataFrame({"date": [date(2024, 5, 3), date(2024, 5, 20)], "close": [100, 99]})
    found = factors([date(2024, 5, 3)], ([], [paid(date(2024, 5, 17), 2)]), closes)
    assert found == [(0.98, 1.0)]
    # A split during the halt: two per old share are one per new one.
    halved = [split(date(2024, 5, 10), 2)]
    assert factors([date(2024, 5, 3)], (halved, [paid(date(2024, 5, 17), 1)]), closes) == [(0.49, 2.0)]


def test_a_payment_that_is_not_below_the_price_is_none_to_adjust_for() -> None:
    closes = pl.DataFrame({"date": [date(2024, 5, 9), date(2024, 5, 10)], "close": [25, 25]})
    for amount in ("25", "830"):
        found = factors([date(2024, 5, 9), date(2024, 5, 10)], ([], [paid(date(2024, 5, 10), amount)]), closes)
        assert found == [(None, 1.0), (1.0, 1.0)]


def test_another_currency_is_converted_by_the_rate_of_its_day_or_the_price_is_not_known() -> None:
    closes = pl.DataFrame({"date": [date(2024, 5, 9), date(2024, 5, 10)], "close": [25, 25]})
    won = [paid(date(2024, 5, 10), 830, "KRW")]
    assert factors([date(2024, 5, 9)], ([], won), closes) == [(None, 1.0)]
    rates = Rates({"KRW": ([date(2024, 5, 9)], [Decimal("0.0007")])})
    expected = 1 - Fraction("0.581") / 25
    assert factors([date(2024, 5, 9)], ([], won), closes, rates=rates) == [(float(expected), 1.0)]
    old = Rates({"KRW": ([date(2024, 5, 3)], [Decimal("0.0007")])})
    assert factors([date(2024, 5, 9)], ([], won), closes, rates=old) == [(None, 1.0)]


def store(database: Database, dataset: Dataset, rows: list[dict[str, Any]], known: datetime) -> None:
    frame = dataset.conform(pl.DataFrame(rows, infer_schema_length=None))
    with database.transaction() as connection:
        append(
            connection,
            database,
            dataset,
            AAPL_DAYS.instrument,
            frame,
            Provenance(source="yahoo", now=known, run_id=uuid4()),
        )
        asked = TimeRange(datetime(2024, 4, 1, tzinfo=UTC), datetime(2024, 9, 1, tzinfo=UTC))
        for each in (SPLITS, DIVIDENDS):
            answer = Answer(source="yahoo", asked=asked, complete=None, at=known)
            note_answer(connection, each, AAPL_DAYS.instrument, answer)


@pytest.fixture
def apple(database: Database, new_desk: Callable[..., Desk]) -> Desk:
    """Twenty days of closes 100, 101, … in May 2024, with a 4-for-1 split on the 15th and 1.00 paid on the 8th."""
    desk = new_desk(database, AAPL_DAYS)
    desk.now = datetime(2024, 6, 1, tzinfo=UTC)
    opens = [datetime(2024, 5, day, 13, 30, tzinfo=UTC) for day in (1, 2, 3, 6, 7, 8, 9, 10, 13, 14, 15, 16, 17)]
    rows = []
    for number, moment in enumerate(opens):
        close = Decimal(100 + number) / (4 if moment.day >= 15 else 1)
        rows.append(
            {"timestamp": moment, "open": close, "high": close + 1, "low": close - 1, "close": close, "volume": "800"}
        )
    desk.offer(rows, "yahoo")
    amount = {"ex_date": date(2024, 5, 8), "amount": Decimal(1), "dividend_type": "cash"}
    store(database, DIVIDENDS, [amount], datetime(2024, 6, 2, tzinfo=UTC))
    split = {"execution_date": date(2024, 5, 15), "split_from": Decimal(1), "split_to": Decimal(4)}
    store(database, SPLITS, [split], datetime(2024, 6, 3, tzinfo=UTC))
    return desk


def view(desk: Desk, adjustment: Adjustment, as_of: datetime | None = None) -> pl.DataFrame:
    return enriched(
        desk.reader,
        desk.shelves,
        desk.series,
        as_of=as_of,
        adjustment=adjustment,
        now=datetime(2024, 7, 1, tzinfo=UTC),
    )


def test_views_of_a_stored_series(apple: Desk) -> None:
    raw, splits, total = (view(apple, each) for each in list(Adjustment)[:3])
    assert raw.equals(apple.present())
    assert splits["close"].to_list() == [Decimal(100 + i) / 4 for i in range(13)]
    assert splits["volume"].to_list() == [Decimal(3200)] * 10 + [Decimal(800)] * 3
    paid = 1 - 1 / 104
    for i in range(13):
        expected = (100 + i) / 4 * (paid if i < 5 else 1)
        assert float(total["close"][i]) == pytest.approx(expected, abs=1e-11)
    # Features follow from the adjusted prices: no fall of 75 % on the day of the split.
    assert raw["return_1d"][10] == pytest.approx((27.5 / 109 - 1) * 100)
    assert splits["return_1d"][10] == pytest.approx((110 / 109 - 1) * 100)
    assert total["return_1d"][5] == pytest.approx((105 / (104 * paid) - 1) * 100)
    assert raw["close"][10:].equals(splits["close"][10:])


def test_only_what_was_known_then(apple: Desk) -> None:
    before_both, after_dividend = datetime(2024, 6, 1, 12, tzinfo=UTC), datetime(2024, 6, 2, 12, tzinfo=UTC)
    assert view(apple, Adjustment.TOTAL, before_both)["close"].equals(apple.present()["close"])
    known = view(apple, Adjustment.TOTAL, after_dividend)["close"].to_list()
    assert float(known[0]) == pytest.approx(100 * (1 - 1 / 104), abs=1e-11)
    assert known[5:10] == [Decimal(105 + i) for i in range(5)]
    later = datetime(2024, 6, 5, tzinfo=UTC)
    announced = {"execution_date": date(2024, 9, 2), "split_from": Decimal(1), "split_to": Decimal(10)}
    store(apple.database, SPLITS, [announced], datetime(2024, 6, 4, tzinfo=UTC))
    # Announced, not in effect.
    assert view(apple, Adjustment.SPLITS, later)["close"][0] == Decimal(25)


def test_an_amended_dividend_counts_from_when_it_was_amended(apple: Desk) -> None:
    amended = {"ex_date": date(2024, 5, 8), "amount": Decimal(2), "dividend_type": "cash"}
    store(apple.database, DIVIDENDS, [amended], datetime(2024, 6, 10, tzinfo=UTC))
    then, now = (view(apple, Adjustment.TOTAL, datetime(2024, 6, day, tzinfo=UTC))["close"][0] for day in (9, 11))
    assert float(then) == pytest.approx(25 * (1 - 1 / 104), abs=1e-11)
    assert float(now) == pytest.approx(25 * (1 - 2 / 104), abs=1e-11)


def weekly(desk: Desk, new_desk: Callable[..., Desk]) -> Desk:
    """The weeks of the days of the fixture, as a source would give them: raw, the third one across the split."""
    weeks = new_desk(desk.database, Series(AAPL_DAYS.instrument, Timeframe.W1))
    weeks.now = desk.now
    values = {"high": 120, "low": 20, "open": 100, "close": 110, "volume": 5}
    opens = [datetime(2024, 5, day, 13, 30, tzinfo=UTC) for day in (6, 13)]
    weeks.offer([{"timestamp": moment, **values} for moment in opens], "yahoo")
    return weeks


def test_a_week_within_which_something_happened_is_made_of_its_adjusted_days(
    apple: Desk, new_desk: Callable[..., Desk]
) -> None:
    weeks = weekly(apple, new_desk)
    found = view(weeks, Adjustment.SPLITS)
    # The days of the second week: 108 and 109 before the split, 27.5, 27.75 and 28 after it.
    assert found["open"].to_list() == [Decimal(25), Decimal(27)]
    assert found["high"].to_list() == [Decimal(30), Decimal(29)]
    assert found["low"].to_list() == [Decimal(5), Decimal("26.5")]
    assert found["close"].to_list() == [Decimal("27.5"), Decimal(28)]
    assert found["volume"].to_list() == [Decimal(20), Decimal(2 * 3200 + 3 * 800)]
    # The dividend of the 8th lies within the first week: its first two days are worth 1 - 1 / 104 of themselves.
    total = view(weeks, Adjustment.TOTAL)
    assert float(total["open"][0]) == pytest.approx(103 / 4 * (1 - 1 / 104), rel=1e-12)
    assert total["close"][0] == Decimal(107) / 4


def test_a_week_without_all_its_days_is_not_known_and_says_so(apple: Desk, new_desk: Callable[..., Desk]) -> None:
    weeks = weekly(apple, new_desk)
    apple.database.rows("DELETE FROM candles WHERE timeframe = '1d' AND timestamp::date = '2024-05-16'")
    found = view(weeks, Adjustment.SPLITS)
    assert found["close"].to_list() == [Decimal("27.5"), None]
    assert "not all its days are known" in found["validation_notes"][1]


def test_prices_that_nobody_was_asked_about_are_not_called_adjusted(database: Database, new_desk) -> None:
    desk = new_desk(database, AAPL_DAYS)
    desk.now = datetime(2024, 6, 1, tzinfo=UTC)
    price = dict.fromkeys(("open", "high", "low", "close"), 100)
    desk.offer([{"timestamp": datetime(2012, 5, 1, 13, 30, tzinfo=UTC), **price, "volume": 1}], "yahoo")
    with pytest.raises(UsageError, match=r"market-data backfill splits --symbol AAPL --asset-class stock --days 4445"):
        view(desk, Adjustment.SPLITS)


def test_why_a_price_is_not_known_is_told(apple: Desk) -> None:
    won = {"ex_date": date(2024, 5, 9), "amount": Decimal(830), "dividend_type": "cash", "currency": "KRW"}
    store(apple.database, DIVIDENDS, [won], datetime(2024, 6, 10, tzinfo=UTC))
    found = view(apple, Adjustment.TOTAL)
    assert found["close"].to_list()[:6] == [None] * 6
    assert "adjustment_unknown: no rate of KRW for the dividend of 2024-05-09" in found["validation_notes"][0]
    assert found["close"][6] is not None


def test_crypto_has_no_actions(desk: Desk) -> None:
    desk.offer([desk.candle(0)])
    assert view(desk, Adjustment.TOTAL, desk.now)["close"].to_list() == [Decimal(100)]
    with pytest.raises(UsageError, match="Valid: none, splits, total"):
        Adjustment.parse("full")
    assert Adjustment.parse("total") is Adjustment.TOTAL
