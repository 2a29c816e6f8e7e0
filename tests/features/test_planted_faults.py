"""Faults planted on purpose: each law and each oracle is seen to catch what it is there for."""

from __future__ import annotations

import statistics
from datetime import timedelta

import numpy as np
import pytest

from market_data.model import proof
from market_data.model.evaluation import evaluate
from market_data.model.feature import Feature, feature
from market_data.model.rolling import FloatArray
from market_data.model.trial import Trial, trial_window
from market_data.model.window import Window

DOC = """A planted fault.

Formula: wrong on purpose.
Null: never.
Source: this test.
"""
WINDOW = trial_window(Trial(seed=7, rows=300))


def declare(function, **arguments) -> Feature:
    function.__doc__ = DOC
    return feature(**({"lookback": 0, "inputs": ("close",), "unit": "price"} | arguments))(function)


def peek(window: Window) -> FloatArray:
    return np.append(window.close[1:], np.nan)


def whole_sample(window: Window) -> FloatArray:
    return window.close - window.close.mean()


def short(window: Window) -> FloatArray:
    return window.mean_of_last(window.close, 20)


def running(window: Window) -> FloatArray:
    total = np.cumsum(window.close)
    out = np.full(len(total), np.nan)
    out[20:] = (total[20:] - total[:-20]) / 20
    return out


def smoothed(window: Window) -> FloatArray:
    out = window.close.copy()
    for row in range(1, len(out)):
        out[row] = out[row - 1] + (out[row] - out[row - 1]) / 14
    return out


def undeclared(window: Window) -> FloatArray:
    return window.close + window.volume


def last_funding(window: Window) -> FloatArray:
    rates = window.observations.take("funding_rates", "rate")
    return np.full(len(window), rates.values["rate"][-1] if len(rates) else np.nan)


def old_funding(window: Window) -> FloatArray:
    rates = window.observations.take("funding_rates", "rate")
    return rates.runs(window.ends - 5 * 86_400_000_000, timedelta(days=1)).of(rates.values["rate"])


@pytest.mark.parametrize(
    ("function", "arguments", "law"),
    [
        (peek, {}, proof.FUTURE),
        (whole_sample, {}, proof.FUTURE),
        (short, {"lookback": 18}, proof.LOOKBACK),
        (running, {"lookback": 20}, proof.START),
        # The popular warm-up of three spans is not enough for an exponential mean to forget its start.
        (smoothed, {"lookback": 42}, proof.LOOKBACK),
        (undeclared, {}, proof.INPUTS),
        (last_funding, {"observations": {"funding_rates": timedelta(days=200)}}, proof.FUTURE),
        (old_funding, {"observations": {"funding_rates": timedelta(days=1)}}, proof.OBSERVATIONS),
    ],
)
def test_prove_names_the_law_and_the_place(function, arguments, law) -> None:
    planted = declare(function, **arguments)
    found = {violation.law: violation for violation in proof.prove([planted], WINDOW, range(5, 300, 13))}
    assert law in found
    assert found[law].feature == function.__name__
    assert found[law].whole != found[law].part
    assert function.__name__ in str(found[law])


def test_trials_find_each_fault_and_say_it_once():
    planted = [declare(peek), declare(short, lookback=18), declare(running, lookback=20)]
    found = [(violation.feature, violation.law) for _, violation in proof.prove_on_trials(planted, count=6)]
    assert {("peek", proof.FUTURE), ("short", proof.LOOKBACK), ("running", proof.START)} <= set(found)
    assert len(found) == len(set(found))


def test_the_same_function_with_the_right_lookback_is_proved() -> None:
    assert proof.prove([declare(short, lookback=19)], WINDOW, range(5, 300, 13)) == []


def test_a_change_of_one_unit_in_the_last_place_is_seen() -> None:
    def last_bit(window: Window) -> FloatArray:
        out = window.mean_of_last(window.close, 20).copy()
        # The value depends on where the window ends, by the smallest step there is.
        out[-1:] = np.nextafter(out[-1:], np.inf)
        return out

    found = proof.prove([declare(last_bit, lookback=19)], WINDOW, [150])
    assert {violation.law for violation in found} == {proof.FUTURE, proof.LOOKBACK}


def test_one_unit_in_the_last_place_breaks_the_exact_oracle() -> None:
    """Means of dyadic prices are exact, so the oracle may demand equality: then one bit is enough to fail."""
    prices = np.round(WINDOW.close * 64) / 64
    window = Window(WINDOW.series, WINDOW.opens, WINDOW.ends, {"close": prices}, WINDOW.observations)
    ours = window.mean_of_last(prices, 16)
    exact = [statistics.fmean(prices[row - 15 : row + 1]) for row in range(15, 300)]
    assert (ours[15:] == exact).all()
    assert not (np.nextafter(ours[15:], np.inf) == exact).any()


def test_a_feature_without_formula_is_refused() -> None:
    def bare(window: Window) -> FloatArray:
        """Says nothing."""
        return window.close

    with pytest.raises(TypeError, match="Formula, Null, Source"):
        feature(lookback=0, inputs=("close",), unit="price")(bare)


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(TypeError, match="shape"):
        evaluate([declare(lambda window: window.close[1:])], WINDOW)
