"""Histories: recorded where they are recorded, the same however they are asked for, exact at every level."""

from datetime import UTC, date, datetime
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data.sandbox.block import DAY, HOUR, MINUTE, Block, aggregated, joined
from market_data.sandbox.coins import CoinHistory
from market_data.sandbox.marketplace import Marketplace
from market_data.sandbox.stocks import StockHistory, millis

# Both sides of the end of the recording of BTC, 2019-10-17 10:00.
SEAM = int(datetime(2019, 10, 17, 10, tzinfo=UTC).timestamp()) * 1000


def same(one: Block, other: Block) -> bool:
    return bool((one.time == other.time).all() and (one.values == other.values).all())


@pytest.fixture(scope="module")
def btc(market: Marketplace) -> CoinHistory:
    return market.coin("BTC")


def test_recorded_hours_are_the_recording(btc: CoinHistory) -> None:
    # Read by hand off the collector's file: 2019-10-17 09-AM, 8051 8056.83 8021.23 8035.88, 61.25 BTC, 492394.56 USD.
    hour = btc.hours(SEAM - HOUR, SEAM)
    assert hour.values[:4, 0].tolist() == [805100, 805683, 802123, 803588]
    assert hour.volume.tolist() == [6_125_000]
    assert hour.quote.tolist() == [492_394_560_0000]


def test_the_model_continues_from_the_last_recorded_price(btc: CoinHistory) -> None:
    around = btc.hours(SEAM - HOUR, SEAM + HOUR)
    assert around.values[0, 1] == around.values[3, 0]


@pytest.mark.parametrize("middle", [SEAM, millis(date(2018, 3, 1)), millis(date(2026, 2, 3))])
def test_minutes_make_the_hours_and_hours_the_days(btc: CoinHistory, middle: int) -> None:
    start, end = middle // DAY * DAY - 3 * DAY, middle // DAY * DAY + 4 * DAY
    minutes, hours, days = btc.minutes(start, end), btc.hours(start, end), btc.days(start, end)
    assert (len(minutes), len(hours), len(days)) == (7 * 1440, 7 * 24, 7)
    assert same(aggregated(minutes, minutes.time // HOUR * HOUR), hours)
    assert same(aggregated(hours, hours.time // DAY * DAY), days)


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 20_000), min_size=1, max_size=6),
    order=st.randoms(use_true_random=False),
    symbol=st.sampled_from(["BTC", "ETH", "PEPE"]),
)
def test_pieces_in_any_order_are_the_whole(cuts: list[int], order: object, symbol: str) -> None:
    start = millis(date(2024, 2, 25)) + 7 * MINUTE
    edges = [start + cut * MINUTE for cut in sorted({0, 20_000, *cuts})]
    whole = Marketplace(3).coin(symbol).minutes(edges[0], edges[-1])
    market = Marketplace(3)
    ranges = list(pairwise(edges))
    order.shuffle(ranges)  # type: ignore[attr-defined]
    pieces = {at: market.coin(symbol).minutes(at, to) for at, to in ranges}
    assert same(joined([pieces[at] for at in sorted(pieces)]), whole)


def test_another_seed_is_another_history() -> None:
    day = millis(date(2024, 2, 25))
    one, other = (Marketplace(seed).coin("ETH").hours(day, day + DAY) for seed in (1, 2))
    assert not (one.values == other.values).all()


def test_seconds_make_the_minute(btc: CoinHistory) -> None:
    seconds = btc.seconds(SEAM)
    assert same(aggregated(seconds, seconds.time // MINUTE * MINUTE), btc.minutes(SEAM, SEAM + MINUTE))


def test_every_model_stays_within_reason(market: Marketplace) -> None:
    now = market.now()
    for symbol in market.coins:
        days = market.coin(symbol).days(0, now)
        close = days.values[3].astype(float)
        assert close.max() / close.min() < 500
        assert (days.volume > 0).all()
        assert (np.diff(days.time) == DAY).all()
    for symbol in market.stocks:
        days = market.stock(symbol).days(0, now)
        assert (days.values[2] > 0).all()


@pytest.fixture(scope="module")
def ko(market: Marketplace) -> StockHistory:
    return market.stock("KO")


def test_recorded_days_are_raw(ko: StockHistory) -> None:
    # Before its split of 2012-08-13 Coca-Cola traded near 79 dollars, after it near 39; dividends were 51 cents.
    before, after = ko.days(millis(date(2012, 8, 10)), millis(date(2012, 8, 14))).values[3].tolist()
    assert (before, after) == (787_900, 393_000)
    assert [(fact.day, str(fact.amount)) for fact in ko.dividends[:3]] == [
        (date(2012, 3, 13), "0.51"), (date(2012, 6, 13), "0.51"), (date(2012, 9, 12), "0.255"),
    ]  # fmt: skip
    assert [(fact.day, fact.of, fact.into) for fact in ko.splits] == [(date(2012, 8, 13), 1, 2)]


def test_minutes_make_the_session_on_half_days_and_across_dst(ko: StockHistory) -> None:
    # 2012-11-23 closed at 13:00 New York; clocks went back on 2012-11-04.
    start, end = millis(date(2012, 11, 1)), millis(date(2012, 11, 27))
    minutes, days = ko.minutes(start, end), ko.days(start, end)
    session = ko.opens[np.searchsorted(ko.opens, minutes.time, side="right") - 1]
    assert same(aggregated(minutes, session), days)
    counts = dict(zip(days.time.tolist(), np.unique(session, return_counts=True)[1].tolist(), strict=True))
    assert counts[millis(date(2012, 11, 23)) + 14 * HOUR + 30 * MINUTE] == 210
    assert counts[millis(date(2012, 11, 2)) + 13 * HOUR + 30 * MINUTE] == 390
    assert counts[millis(date(2012, 11, 5)) + 14 * HOUR + 30 * MINUTE] == 390
    assert millis(date(2012, 11, 22)) not in [at // DAY * DAY for at in counts]


def test_extended_minutes_surround_the_session(ko: StockHistory) -> None:
    day = millis(date(2024, 7, 1))
    extended = ko.extended(day, day + DAY)
    regular = ko.minutes(day, day + DAY)
    opened = day + 13 * HOUR + 30 * MINUTE
    assert extended.time[0] >= day + 8 * HOUR
    assert extended.time[0] < opened
    assert day + 20 * HOUR <= extended.time[-1] < day + 24 * HOUR
    assert same(extended.between(opened, day + 20 * HOUR), regular)


def test_dividends_go_on_quarterly(ko: StockHistory) -> None:
    modelled = [fact.day for fact in ko.dividends if not fact.recorded]
    assert [day.month for day in modelled[:4]] == [2, 5, 8, 11]
    assert {day.year for day in modelled} == set(range(2015, 2027))


def test_explain_names_what_is_recorded(market: Marketplace) -> None:
    told = {entry.symbol: entry for entry in market.explain()}
    assert told["BTC"].recorded == "hours 2017-07-01 11:00 to 2019-10-17 09:59 UTC"
    assert told["ETH"].recorded is None
    assert told["KO"].recorded == "days 2012-01-03 to 2014-12-31, 12 dividends, 1 splits"
    assert len([entry for entry in told.values() if entry.asset_class == "crypto"]) > 51


def test_what_was_asked_first_does_not_matter() -> None:
    # The model is laid out as far as it is asked for; how far must not show.
    day = millis(date(2021, 5, 5))
    early = Marketplace(4).coin("SOL").hours(day, day + DAY)
    later = Marketplace(4).coin("SOL")
    later.days(0, millis(date(2035, 1, 1)))
    assert same(later.hours(day, day + DAY), early)
