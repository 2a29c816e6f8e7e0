"""Every feature on figures small enough to work out by hand; the arithmetic stands beside them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import market_data.features
from market_data.model.evaluation import evaluate
from market_data.model.feature import Feature
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe
from market_data.model.window import Window
from market_data.shelf import collect

FEATURES = collect(market_data.features, Feature)
HOUR = timedelta(hours=1)
MIDNIGHT = datetime(2024, 3, 4, tzinfo=UTC)

pytestmark = pytest.mark.filterwarnings("ignore:Series.values returning")


def value(name, rows=(), *, timeframe="1h", asset_class="crypto", opens=None, ends=None, observations=None, **columns):
    """Values of one feature over candles given as columns; opens default to consecutive ones from midnight."""
    series = Series(Instrument("X", AssetClass(asset_class)), Timeframe(timeframe))
    height = max(len(rows), *(len(column) for column in columns.values()), len(opens or ()), 1)
    step = series.timeframe.duration
    opens = opens or [MIDNIGHT + step * row for row in range(height)]
    frame = pl.DataFrame(
        {"timestamp": opens, "end": ends or [moment + step for moment in opens]} | columns,
        schema_overrides={"timestamp": pl.Datetime("us", "UTC"), "end": pl.Datetime("us", "UTC")}
        | dict.fromkeys(columns, pl.Float64),
    )
    return evaluate([FEATURES[name]], Window.of(series, frame, observations))[name].to_list()


def observed(times, delay=timedelta(0), **columns):
    stamps = pl.Series(times, dtype=pl.Datetime("us", "UTC"))
    return pl.DataFrame({"timestamp": stamps, "known_at": stamps + delay} | columns)


class TestReturnOverAnHour:
    def test_of_an_hourly_candle_is_its_own(self):
        # (103 - 100) / 100 = 3 %, (97.5 - 100) / 100 = -2.5 %
        assert value("return_1h", open=[100, 100], close=[103, 97.5]) == [3.0, -2.5]

    def test_of_half_hours_needs_two(self):
        # Second: (110 - 100) / 100. Third: (99 - 105) / 105.
        assert value("return_1h", timeframe="30m", open=[100, 105, 110], close=[105, 110, 99]) == [
            None,
            10.0,
            pytest.approx((99 - 105) / 105 * 100, rel=1e-15),
        ]

    def test_is_null_over_a_gap(self):
        opens = [MIDNIGHT, MIDNIGHT + timedelta(minutes=15), MIDNIGHT + timedelta(minutes=30)]
        opens += [MIDNIGHT + timedelta(minutes=minute) for minute in (60, 75, 90, 105)]
        closes = [100.0] * 6 + [120.0]
        # Only the last four are consecutive: (120 - 100) / 100.
        found = value("return_1h", timeframe="15m", opens=opens, open=[100.0] * 7, close=closes)
        assert found == [None] * 6 + [20.0]

    def test_twelve_five_minutes_and_sixty_minutes(self):
        for timeframe, count in (("5m", 12), ("1m", 60)):
            found = value("return_1h", timeframe=timeframe, open=[50.0] * count, close=[50.0] * (count - 1) + [51.0])
            # (51 - 50) / 50 = 2 %
            assert found == [None] * (count - 1) + [2.0]

    @pytest.mark.parametrize("timeframe", ["4h", "1d", "1w"])
    def test_does_not_exist_above_an_hour(self, timeframe):
        assert value("return_1h", timeframe=timeframe, open=[1.0], close=[2.0]) == [None]

    def test_from_a_price_of_zero_is_null(self):
        assert value("return_1h", open=[0.0], close=[2.0]) == [None]


class TestReturnOverADay:
    def test_of_crypto_days_is_over_the_previous_close(self):
        # 110/100 - 1 = 10 %; 99/110 - 1 = -10 %
        assert value("return_1d", timeframe="1d", close=[100, 110, 99]) == [None, 10.0, -10.0]

    def test_of_crypto_days_over_a_missing_day_is_null(self):
        opens = [MIDNIGHT, MIDNIGHT + timedelta(days=2), MIDNIGHT + timedelta(days=3)]
        assert value("return_1d", timeframe="1d", opens=opens, close=[100, 110, 99]) == [None, None, -10.0]

    def test_of_crypto_hours_is_over_the_close_24_hours_earlier_even_with_a_gap_between(self):
        opens = [MIDNIGHT + HOUR * hour for hour in range(27) if hour != 5]
        closes = [float(hour + 100) for hour in range(27) if hour != 5]
        found = value("return_1d", opens=opens, close=closes)
        # Hour 24 over hour 0: 124/100 - 1; hour 25 over hour 1: 125/101 - 1; hour 26 over hour 2: 126/102 - 1.
        assert found[:23] == [None] * 23
        assert found[23:] == pytest.approx([24.0, 2400 / 101, 2400 / 102], rel=1e-14)

    def test_of_stock_days_steps_over_weekends_and_holidays(self):
        # Good Friday 29 March 2024: Thursday's close is the one before Monday's. Open 13:30 UTC in summer time.
        opens = [datetime(2024, 3, 27, 13, 30, tzinfo=UTC), datetime(2024, 3, 28, 13, 30, tzinfo=UTC)]
        opens += [datetime(2024, 4, 1, 13, 30, tzinfo=UTC), datetime(2024, 4, 3, 13, 30, tzinfo=UTC)]
        found = value("return_1d", timeframe="1d", asset_class="stock", opens=opens, close=[200, 210, 189, 100])
        # 210/200 - 1 = 5 %; 189/210 - 1 = -10 %; 2 April is missing, so the last has no previous close.
        assert found == [None, 5.0, -10.0, None]

    def test_of_stock_hours_is_over_the_last_candle_of_the_previous_session(self):
        # Clocks change on 10 March 2024: Friday opens at 14:30 UTC, Monday at 13:30. The last hour's candle is short.
        friday = datetime(2024, 3, 8, 14, 30, tzinfo=UTC)
        monday = datetime(2024, 3, 11, 13, 30, tzinfo=UTC)
        opens = [friday + HOUR * 5, friday + HOUR * 6, monday, monday + HOUR]
        found = value("return_1d", asset_class="stock", opens=opens, close=[90, 100, 101, 98])
        # 101/100 - 1 = 1 %; 98/100 - 1 = -2 %
        assert found == [None, None, 1.0, -2.0]

    def test_of_stock_hours_is_null_when_the_previous_session_lacks_its_last_candle(self):
        friday = datetime(2024, 3, 8, 14, 30, tzinfo=UTC)
        opens = [friday + HOUR * 5, datetime(2024, 3, 11, 13, 30, tzinfo=UTC)]
        assert value("return_1d", asset_class="stock", opens=opens, close=[90, 100]) == [None, None]

    def test_after_an_early_close(self):
        # 3 July 2024 closes at 13:00 New York = 17:00 UTC: its last hour's candle opens at 16:30. 4 July is closed.
        opens = [datetime(2024, 7, 3, 16, 30, tzinfo=UTC), datetime(2024, 7, 5, 13, 30, tzinfo=UTC)]
        # 50/40 - 1 = 25 %
        assert value("return_1d", asset_class="etf", opens=opens, close=[40, 50]) == [None, 25.0]

    def test_of_stock_half_hours_is_over_the_one_that_ends_with_the_previous_session(self):
        # The session of Thursday 27 June 2024 is 13:30 to 20:00 UTC: thirteen whole half-hours.
        opens = [datetime(2024, 6, 27, 19, minute, tzinfo=UTC) for minute in (0, 30)]
        opens.append(datetime(2024, 6, 28, 13, 30, tzinfo=UTC))
        found = value("return_1d", timeframe="30m", asset_class="stock", opens=opens, close=[30, 40, 50])
        assert found == [None, None, 25.0]

    def test_of_stocks_before_the_calendar_begins_is_null(self):
        long_ago = [datetime(1960, 6, day, 13, 30, tzinfo=UTC) for day in (1, 2)]
        assert value("return_1d", timeframe="1d", asset_class="stock", opens=long_ago, close=[1, 2]) == [None, None]

    def test_of_a_day_without_session_is_null(self):
        # Thursday 27 June 2024, and a Saturday at the hour of a session's open.
        opens = [datetime(2024, 6, 27, 13, 30, tzinfo=UTC), datetime(2024, 6, 29, 13, 30, tzinfo=UTC)]
        assert value("return_1d", timeframe="1d", asset_class="stock", opens=opens, close=[40, 50]) == [None, None]

    def test_does_not_exist_for_weeks(self):
        assert value("return_1d", timeframe="1w", close=[1.0, 2.0]) == [None, None]


class TestVolatility:
    def test_of_alternating_returns(self):
        # Closes 100, 110, 100, 110 …: returns are +r and -r with r = ln 1.1, ten of each, mean 0.
        # Squares sum to 20 r²; divided by 19 and rooted: r * sqrt(20/19), in percent.
        found = value("volatility_20", close=[100.0, 110.0] * 10 + [100.0])
        assert found[:20] == [None] * 20
        assert found[20] == pytest.approx(100 * math.log(1.1) * math.sqrt(20 / 19), rel=1e-13)

    def test_of_fifty(self):
        # 25 returns of each sign: r * sqrt(50/49).
        found = value("volatility_50", close=[100.0, 110.0] * 25 + [100.0])
        assert found[:50] == [None] * 50
        assert found[50] == pytest.approx(100 * math.log(1.1) * math.sqrt(50 / 49), rel=1e-13)

    def test_of_one_jump(self):
        # 19 returns of 0 and one of ln 2: mean ln2/20, squares 19 (ln2/20)² + (19 ln2/20)² = ln2² * 19/20.
        # Divided by 19: ln2²/20, rooted: ln2/sqrt(20).
        found = value("volatility_20", close=[1.0] * 20 + [2.0])
        assert found[20] == pytest.approx(100 * math.log(2) / math.sqrt(20), rel=1e-14)

    @pytest.mark.parametrize("price", [1e-12, 0.1, 1e12])
    @pytest.mark.parametrize(("name", "rows"), [("volatility_20", 21), ("volatility_50", 51)])
    def test_of_a_flat_price_is_exactly_zero(self, name, rows, price):
        assert value(name, close=[price] * rows)[-1] == 0.0

    def test_is_null_while_a_price_is_absent_or_not_positive(self):
        closes = [100.0, 110.0] * 30
        for odd in (None, 0.0, -5.0):
            found = value("volatility_20", close=[*closes[:30], odd, *closes[31:]])
            # The price is in the returns of rows 30 and 31, those in the windows up to row 50.
            assert [number is None for number in found[29:52]] == [False, *[True] * 21, False]


def test_atr_is_the_mean_of_fourteen_true_ranges():
    # Thirteen candles of range 2 around a close of 100, then a gap up: high 110, low 108, previous close 100.
    # Its true range is max(2, |110 - 100|, |108 - 100|) = 10. The first candle has none.
    high, low, close = [101.0] * 14 + [110.0], [99.0] * 14 + [108.0], [100.0] * 14 + [109.0]
    found = value("atr", high=high, low=low, close=close)
    # (13 * 2 + 10) / 14 = 36/14
    assert found[:14] == [None] * 14
    assert found[14] == pytest.approx(36 / 14, rel=1e-15)
    # A gap down instead: high 92, low 90: max(2, |92 - 100|, |90 - 100|) = 10 as well.
    found = value("atr", high=[*high[:14], 92.0], low=[*low[:14], 90.0], close=close)
    assert found[14] == pytest.approx(36 / 14, rel=1e-15)


def test_moving_averages():
    # Mean of 1..20 is 10.5, of 2..21 11.5; of 1..50 25.5, of 2..51 26.5.
    assert value("sma_20", close=list(range(1, 22))) == [None] * 19 + [10.5, 11.5]
    assert value("sma_50", close=list(range(1, 52))) == [None] * 49 + [25.5, 26.5]


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        # 19 closes of 100 and one of x: mean (1900 + x)/20. Up when x > 1.01 (1900 + x)/20, i.e. x > 101.0532…
        (101.06, "up"),
        (101.05, "neutral"),
        (100.0, "neutral"),
        # Down when x < 0.99 (1900 + x)/20, i.e. x < 98.9479…
        (98.95, "neutral"),
        (98.94, "down"),
    ],
)
def test_trend_direction(last, expected):
    assert value("trend_direction", close=[100.0] * 19 + [last]) == [None] * 19 + [expected]


def test_trend_direction_at_the_edges_is_neutral():
    # Mean (18 * 100 + 99 + 101)/20 = 100: 101 is not more than 1.01 * 100, 99 not less than 0.99 * 100.
    assert value("trend_direction", close=[100.0] * 18 + [99, 101])[-1] == "neutral"
    assert value("trend_direction", close=[100.0] * 18 + [101, 99])[-1] == "neutral"


@pytest.mark.parametrize(
    ("high", "low", "expected"),
    [
        (12, 11, "bullish"),
        (10.5, 9.5, "bullish"),
        (9, 8, "bearish"),
        (9.5, 8.5, "bearish"),
        (12, 8, "range"),
        (10, 9, "range"),
        (12, 9, "range"),
        (None, 11, None),
    ],
)
def test_market_structure_against_the_candle_20_earlier(high, low, expected):
    highs, lows = [10.0] + [50.0] * 19 + [high], [9.0] + [1.0] * 19 + [low]
    assert value("market_structure", high=highs, low=lows) == [None] * 20 + [expected]


def test_rolling_volume_and_spike():
    # 19 volumes of 10 and one of 210: mean 400/20 = 20, spike 210/20 = 10.5.
    volumes = [10.0] * 19 + [210.0]
    assert value("rolling_volume_20", volume=volumes) == [None] * 19 + [20.0]
    assert value("volume_spike_score", volume=volumes) == [None] * 19 + [10.5]
    # Nothing traded at all: the mean is 0, the ratio is not known.
    assert value("rolling_volume_20", volume=[0.0] * 20)[-1] == 0.0
    assert value("volume_spike_score", volume=[0.0] * 20)[-1] is None


def test_delta_and_ratio_of_taker_volume():
    columns = {"taker_buy_volume": [7.5, 0, None], "taker_sell_volume": [2.5, 0, 1]}
    # 7.5 - 2.5 = 5; 7.5/10 = 0.75; nothing traded: difference 0, no ratio.
    assert value("delta", **columns) == [5.0, 0.0, None]
    assert value("buy_sell_ratio", **columns) == [0.75, None, None]
    assert value("delta", asset_class="stock", timeframe="1d", **columns) == [None] * 3
    assert value("delta", close=[1.0]) == [None]


def test_liquidation_intensity():
    # (3 + 1) / 16 = 0.25; without volume unknown; without liquidation data unknown.
    found = value(
        "liquidation_intensity", liquidations_long=[3, 1, None], liquidations_short=[1, 1, 1], volume=[16, 0, 9]
    )
    assert found == [0.25, None, None]


def test_open_interest_change():
    # 220/200 - 1 = 10 %; 110/220 - 1 = -50 %; after a gap unknown; from 0 unknown.
    opens = [MIDNIGHT + HOUR * hour for hour in (0, 1, 2, 4, 5, 6)]
    found = value("open_interest_change", opens=opens, open_interest=[200, 220, 110, 110, 0, 5])
    assert found == [None, 10.0, -50.0, None, -100.0, None]


class TestLongShortRatio:
    def test_is_the_newest_known_at_the_close(self):
        times = [MIDNIGHT + timedelta(minutes=minute) for minute in (30, 60, 61)]
        ratios = observed(times, ratio=[1.5, 2.0, 9.0], kind=["global_accounts"] * 3)
        # The candle 00:00-01:00 may use 00:30 and 01:00, not 01:01; other kinds of accounts are not asked.
        others = observed(times, ratio=[7.0] * 3, kind=["top_accounts"] * 3)
        found = value("long_short_ratio", close=[1, 1], observations={"long_short_ratios": pl.concat([others, ratios])})
        assert found == [2.0, 9.0]

    def test_published_after_the_close_is_not_known_at_it(self):
        ratios = observed([MIDNIGHT + HOUR], timedelta(seconds=1), ratio=[2.0], kind=["global_accounts"])
        assert value("long_short_ratio", close=[1, 1], observations={"long_short_ratios": ratios}) == [None, 2.0]

    def test_is_null_when_older_than_a_day(self):
        ratios = observed([MIDNIGHT], ratio=[2.0], kind=["global_accounts"])
        found = value("long_short_ratio", close=[1.0] * 25, observations={"long_short_ratios": ratios})
        # The 24th candle ends exactly a day later.
        assert found == [2.0] * 24 + [None]

    def test_is_null_without_data(self):
        assert value("long_short_ratio", close=[1.0]) == [None]


class TestFundingRatePercentile:
    def funding(self, rates, step=timedelta(hours=8)):
        # The last one is paid at midnight.
        times = [MIDNIGHT - step * (len(rates) - 1 - place) for place in range(len(rates))]
        return {"funding_rates": observed(times, rate=rates, rate_type=["Regular"] * len(rates))}

    def test_counts_what_is_strictly_below(self):
        # Of 40 rates 30 are below 5, five are equal to it (the current among them) and five above: 30/40.
        rates = [1.0] * 30 + [5.0] * 4 + [9.0] * 5 + [5.0]
        assert value("funding_rate_percentile", close=[1.0], observations=self.funding(rates)) == [75.0]

    def test_needs_thirty(self):
        assert value("funding_rate_percentile", close=[1.0], observations=self.funding([1.0] * 29)) == [None]
        # The current rate is the largest: 29 of 30 are below.
        found = value("funding_rate_percentile", close=[1.0], observations=self.funding([1.0] * 29 + [2.0]))
        assert found == [pytest.approx(29 / 30 * 100, rel=1e-15)]

    def test_forgets_after_ninety_days(self):
        # Daily rates: the 90 newest count. Of those 30 are 1.5, 59 are 3, and the current is 2; older ones are 1.
        rates = [1.0] * 100 + [1.5] * 30 + [3.0] * 59 + [2.0]
        found = value("funding_rate_percentile", close=[1.0], observations=self.funding(rates, timedelta(days=1)))
        assert found == [30 / 90 * 100]

    def test_uses_what_was_known_at_the_close(self):
        # At 01:00 of the day the newest is midnight's; the rate of 08:00 counts from the candle that ends then.
        history = self.funding([1.0] * 30 + [0.0])["funding_rates"]
        later = observed([MIDNIGHT + HOUR * 8], rate=[7.0], rate_type=["Regular"])
        found = value(
            "funding_rate_percentile", close=[1.0] * 8, observations={"funding_rates": pl.concat([history, later])}
        )
        # 0 of 31 are below 0; 31 of 32 are below 7.
        assert found == [0.0] * 7 + [31 / 32 * 100]

    def test_counts_the_first_there_is_and_thirty_are_enough(self):
        history = self.funding([1.0] + [3.0] * 28 + [2.0])["funding_rates"]
        later = observed([MIDNIGHT + HOUR * 8], rate=[7.0], rate_type=["Regular"])
        found = value(
            "funding_rate_percentile", close=[1.0] * 8, observations={"funding_rates": pl.concat([history, later])}
        )
        # Only the first of 30 is below 2; of 31 all but the last are below 7.
        assert found == pytest.approx([1 / 30 * 100] * 7 + [30 / 31 * 100], rel=1e-15)

    def test_a_rate_published_late_counts_from_then_on(self):
        # 40 rates of 1, the newest 2, paid at midnight; the one of 16 hours earlier became known at 02:00 only.
        rates = self.funding([1.0] * 40 + [2.0])["funding_rates"]
        late = pl.col("timestamp") == MIDNIGHT - HOUR * 16
        rates = rates.with_columns(known_at=pl.when(late).then(MIDNIGHT + HOUR * 2).otherwise("known_at"))
        found = value("funding_rate_percentile", close=[1.0] * 3, observations={"funding_rates": rates})
        # At 01:00 39 of 40 known are below, from 02:00 on 40 of 41.
        assert found == pytest.approx([39 / 40 * 100, 40 / 41 * 100, 40 / 41 * 100], rel=1e-15)


class TestExchangeInflow:
    def test_adds_the_periods_of_the_candle(self):
        times = [MIDNIGHT + timedelta(minutes=15) * place for place in range(1, 9)]
        flow = observed(times, period=["15m"] * 8, buy_quote=[10.0, 20, 30, 40, 1, 1, 1, 1], sell_quote=[5.0] * 8)
        # First hour: 100 - 20 = 80; second: 4 - 20 = -16.
        assert value("exchange_inflow", close=[1, 1], observations={"spot_flow": flow}) == [80.0, -16.0]
        # Without one of the four quarters the hour is not known.
        holed = flow.filter(pl.col("timestamp") != times[2])
        assert value("exchange_inflow", close=[1, 1], observations={"spot_flow": holed}) == [None, -16.0]

    def test_adds_two_halves(self):
        halves = [MIDNIGHT + timedelta(minutes=30) * place for place in (1, 2)]
        flow = observed(halves, period=["30m"] * 2, buy_quote=[3.0, 4.0], sell_quote=[1.0, 1.0])
        # (3 - 1) + (4 - 1)
        assert value("exchange_inflow", close=[1], observations={"spot_flow": flow}) == [5.0]

    def test_takes_a_shorter_period_where_the_longer_is_absent(self):
        whole = observed([MIDNIGHT + HOUR], period=["1h"], buy_quote=[4.0], sell_quote=[0.0])
        halves = [MIDNIGHT + timedelta(minutes=30) * place for place in (3, 4)]
        fine = observed(halves, period=["30m"] * 2, buy_quote=[3.0, 4.0], sell_quote=[1.0, 1.0])
        assert value("exchange_inflow", close=[1, 1], observations={"spot_flow": pl.concat([whole, fine])}) == [4, 5]

    def test_prefers_the_longest_period_and_never_counts_twice(self):
        quarters = [MIDNIGHT + timedelta(minutes=15) * place for place in range(1, 5)]
        fine = observed(quarters, period=["15m"] * 4, buy_quote=[1.0] * 4, sell_quote=[0.0] * 4)
        whole = observed([MIDNIGHT + HOUR], period=["1h"], buy_quote=[4.0], sell_quote=[0.0])
        assert value("exchange_inflow", close=[1], observations={"spot_flow": pl.concat([fine, whole])}) == [4.0]

    def test_published_after_the_close_is_not_known_at_it(self):
        flow = observed([MIDNIGHT + HOUR], timedelta(seconds=1), period=["1h"], buy_quote=[4.0], sell_quote=[0.0])
        assert value("exchange_inflow", close=[1], observations={"spot_flow": flow}) == [None]

    def test_a_period_published_late_counts_if_the_hour_was_not_over(self):
        times = [MIDNIGHT + timedelta(minutes=15) * place for place in range(1, 5)]
        flow = observed(times, period=["15m"] * 4, buy_quote=[1.0, 2, 4, 8], sell_quote=[0.0] * 4)
        for minutes, expected in ((50, 15.0), (61, None)):
            late = pl.when(pl.col("timestamp") == times[0]).then(MIDNIGHT + timedelta(minutes=minutes))
            found = flow.with_columns(known_at=late.otherwise("known_at"))
            assert value("exchange_inflow", close=[1], observations={"spot_flow": found}) == [expected]

    def test_of_a_longer_period_than_the_candle_is_null(self):
        flow = observed([MIDNIGHT + HOUR], period=["4h"], buy_quote=[4.0], sell_quote=[0.0])
        assert value("exchange_inflow", close=[1], observations={"spot_flow": flow}) == [None]


def test_windows_count_candles_not_time():
    """A gap does not empty a window of n candles; it only reaches further back."""
    opens = [MIDNIGHT + HOUR * (row if row < 10 else row + 100) for row in range(20)]
    assert value("sma_20", opens=opens, close=list(range(1, 21)))[-1] == 10.5


def test_every_feature_is_worked_out_here():
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in FEATURES if f'"{name}"' not in text] == []
