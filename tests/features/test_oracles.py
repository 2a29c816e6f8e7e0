"""Values against other people's: TA-Lib, the tables of Skender and StockCharts, exact rational arithmetic.

Their conventions differ from ours where said: their standard deviation divides by n, their ATR is Wilder's. So the
deviation kernel is compared after scaling, true ranges directly, and our ATR with the plain mean of their true ranges.
"""

from __future__ import annotations

import csv
import json
import math
import os
import statistics
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import market_data.features
from market_data.model.evaluation import evaluate
from market_data.model.feature import Feature
from market_data.model.rolling import Doublings, log_ratio
from market_data.model.trial import Trial, trial_window
from market_data.model.window import Window
from market_data.shelf import collect

FEATURES = collect(market_data.features, Feature)
RECORDINGS = Path(os.environ.get("MARKET_DATA_RECORDINGS", Path(__file__).parents[3] / "shared" / "data"))


def recording(*parts: str) -> Path:
    path = RECORDINGS.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"recording {path} is absent; set MARKET_DATA_RECORDINGS")
    return path


def windowed(columns: dict[str, np.ndarray]) -> Window:
    rows = len(columns["close"])
    made_up = trial_window(Trial(seed=0, rows=rows))
    return Window(made_up.series, made_up.opens, made_up.ends, columns, made_up.observations)


def computed(window: Window, name: str) -> np.ndarray:
    return evaluate([FEATURES[name]], window)[name].to_numpy()


def close_to(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> None:
    assert (np.isnan(ours) == np.isnan(theirs)).all()
    assert np.nanmax(np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1e-300)) < tolerance


@pytest.mark.parametrize("seed", range(3))
class TestAgainstTaLib:
    @pytest.fixture
    def window(self, seed):
        return trial_window(Trial(seed=seed, rows=2000))

    def test_moving_averages_and_volume(self, window):
        talib = pytest.importorskip("talib")
        close_to(computed(window, "sma_20"), talib.SMA(window.close, 20), 1e-12)
        close_to(computed(window, "sma_50"), talib.SMA(window.close, 50), 1e-12)
        close_to(computed(window, "rolling_volume_20"), talib.SMA(window.volume, 20), 1e-11)

    def test_atr(self, window):
        talib = pytest.importorskip("talib")
        ranges = talib.TRANGE(window.high, window.low, window.close)
        close_to(computed(window, "atr"), np.r_[np.nan, talib.SMA(ranges[1:], 14)], 1e-12)

    @pytest.mark.parametrize("count", [20, 50])
    def test_volatility(self, window, count):
        talib = pytest.importorskip("talib")
        returns = np.diff(np.log(window.close))
        theirs = talib.STDDEV(returns, count, 1.0) * math.sqrt(count / (count - 1)) * 100
        close_to(computed(window, f"volatility_{count}"), np.r_[np.nan, theirs], 1e-9)


class TestAgainstSkender:
    @pytest.fixture
    def window(self):
        rows = list(csv.DictReader(recording("skender", "quotes", "default.csv").read_text("utf-8-sig").splitlines()))
        return windowed(
            {name: np.array([float(row[name]) for row in rows]) for name in ("open", "high", "low", "close")}
        )

    def table(self, indicator: str, field: str) -> np.ndarray:
        rows = json.loads(recording("skender", "results", f"{indicator}.standard.json").read_text())
        return np.array([math.nan if row[field] is None else row[field] for row in rows])

    def test_moving_average(self, window):
        close_to(computed(window, "sma_20"), self.table("sma", "sma"), 1e-13)

    def test_true_range(self, window):
        close_to(window.true_range, self.table("tr", "tr"), 1e-12)

    def test_atr_is_the_mean_of_their_true_ranges_and_wilders_first(self, window):
        ranges, ours = self.table("tr", "tr"), computed(window, "atr")
        means = [statistics.fmean(ranges[row - 13 : row + 1]) for row in range(14, len(ranges))]
        close_to(ours[14:], np.array(means), 1e-12)
        # Wilder's smoothing starts from the plain mean of the first 14, so there the two agree.
        assert ours[14] == pytest.approx(self.table("atr", "atr")[14], rel=1e-12)

    def test_standard_deviation(self, window):
        ours = window.deviation_of_last(window.close, 14) * math.sqrt(13 / 14)
        close_to(ours, self.table("stdev", "stdDev"), 1e-11)


class TestAgainstStockCharts:
    def table(self, name: str) -> dict[str, np.ndarray]:
        rows = list(csv.DictReader(recording("bukosabino_ta", name).read_text("utf-8-sig").splitlines()))
        return {
            column: np.array([float(row[column]) if row[column] else math.nan for row in rows])
            for column in rows[0]
            if column not in ("Date", "CrossUp", "CrossDown")
        }

    def test_bollinger_middle_and_deviation(self):
        table = self.table("cs-bbands.csv")
        window = windowed({"close": table["Close"]})
        close_to(computed(window, "sma_20"), table["MiddleBand"], 1e-6)
        deviation = window.deviation_of_last(window.close, 20) * math.sqrt(19 / 20)
        close_to(deviation, table["20-day Standard Deviation"], 1e-6)

    def test_true_range(self):
        table = self.table("cs-atr.csv")
        window = windowed({name.lower(): table[name] for name in ("High", "Low", "Close")})
        # They count the first candle's high - low; we say a candle without predecessor has none.
        close_to(window.true_range[1:], table["TR"][1:], 1e-12)
        # The first mean that leaves their first range out: rows 1 to 14.
        assert computed(window, "atr")[14] == pytest.approx(statistics.fmean(table["TR"][1:15]), rel=1e-12)


class TestAgainstExactArithmetic:
    """fractions and statistics work without rounding; what differs is ours."""

    def test_sums_and_deviations_of_every_length(self):
        values = np.random.default_rng(3).normal(1e4, 1, 200)
        doublings = Doublings(values)
        for rows in range(2, 130):
            last = [Fraction(value) for value in values[200 - rows :]]
            assert doublings.sum_of_last(rows)[-1] == pytest.approx(float(sum(last)), rel=1e-15)
            # Around a mean 10,000 times the deviation, where sums of squares would lose eight digits.
            exact = math.sqrt(statistics.variance(last))
            assert doublings.deviation_of_last(rows)[-1] == pytest.approx(exact, rel=3e-12)

    def test_volatility_to_the_last_digits(self):
        window = trial_window(Trial(seed=5, rows=80, step=1e-4))
        logs = [
            Fraction(math.log(Fraction(b) / Fraction(a))) for a, b in zip(window.close, window.close[1:], strict=False)
        ]
        for row in range(50, 80):
            exact = math.sqrt(statistics.variance(logs[row - 50 : row])) * 100
            assert computed(window, "volatility_50")[row] == pytest.approx(exact, rel=1e-11)

    @pytest.mark.parametrize("step", [1e-12, 1e-6, 0.01, 0.3, 5.0, 100.0])
    def test_logarithm_of_a_ratio(self, step):
        random = np.random.default_rng(11)
        earlier = np.exp(random.normal(0, 30, 3000))
        later = earlier * np.exp(random.normal(0, step, 3000))
        ours = log_ratio(later, earlier)
        for mine, top, bottom in zip(ours, later, earlier, strict=True):
            difference = (Fraction(top) - Fraction(bottom)) / Fraction(bottom)
            # log1p of the exactly rounded relative difference where it is small, else log of the rounded ratio.
            exact = math.log1p(difference) if abs(difference) < 0.1 else math.log(Fraction(top) / Fraction(bottom))
            assert mine == pytest.approx(exact, rel=1e-15, abs=0)

    def test_logarithm_where_there_is_none(self):
        odd = np.array([0.0, -1.0, np.nan, np.inf, 1e301, -0.0])
        with np.errstate(all="ignore"):
            assert np.isnan(log_ratio(odd, np.ones(6))).all()
            assert np.isnan(log_ratio(np.ones(6), odd)).all()
        assert log_ratio(np.array([1e-12, 1e12, 5e-324]), np.array([1e-12, 1e12, 5e-324])).tolist() == [0, 0, 0]
        assert log_ratio(np.array([1e12]), np.array([1e-12]))[0] == pytest.approx(24 * math.log(10), rel=1e-15)
