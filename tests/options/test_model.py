"""Prices, greeks and implied volatilities against published tables, another library's figures and QuantLib."""

from __future__ import annotations

import csv
import json
import math
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from market_data.model.implied import implied_volatility
from market_data.model.normal import cdf, density
from market_data.model.options import Contracts, greeks, price

DAYS = 365.0
# What is allowed between QuantLib and us, in our units and for a spot of 100: rounding, of theta in differences.
AGAINST_QUANTLIB = {"price": 1e-11, "delta": 1e-13, "gamma": 1e-13, "theta": 1e-12, "vega": 1e-12, "rho": 1e-12}


def test_the_normal_distribution_is_that_of_the_c_library() -> None:
    at = np.linspace(-20.0, 20.0, 5001)
    exact = np.array([0.5 * math.erfc(-each / math.sqrt(2.0)) for each in at])
    np.testing.assert_allclose(cdf(at), exact, rtol=1e-13, atol=0)
    np.testing.assert_allclose(density(np.array([0.0, 1.0])), [0.3989422804014327, 0.24197072451914337], rtol=1e-15)


def test_haugs_tables(recordings: Path) -> None:
    compared, worst = 0, dict[str, float]()
    for row in csv.DictReader((recordings / "quantlib_haug" / "haug_greeks.csv").read_text().splitlines()):
        figures = [float(row[name]) for name in ("spot", "strike", "t", "r", "q")]
        contract = Contracts.of(row["type"] == "call", *figures)
        volatility = np.array([float(row["vol"])])
        found = greeks(contract, volatility)
        ours = {
            "value": price(contract, volatility),
            "delta": found.delta,
            "gamma": found.gamma,
            # Their units: per 1.00, and theta per year or per day.
            "vega": found.vega * 100,
            "rho": found.rho * 100,
            "theta": found.theta * DAYS,
            "theta_per_day": found.theta,
        }
        if row["greek"] in ours:
            assert ours[row["greek"]][0] == pytest.approx(float(row["value"]), abs=5.1e-5), row
            compared += 1
            worst[row["greek"]] = max(worst.get(row["greek"], 0.0), abs(ours[row["greek"]][0] - float(row["value"])))
    print("Haug, printed to 4 digits:", {name: f"{value:.1e}" for name, value in worst.items()})
    assert compared == 25


def test_vollibs_figures(recordings: Path) -> None:
    table = json.loads((recordings / "vollib" / "test_data.json").read_text())
    columns = {name: np.array([row[i] for row in table["data"]]) for i, name in enumerate(table["columns"])}
    worst = dict.fromkeys(("value", "D", "G", "T", "V", "R"), 0.0)
    for letter, call in (("C", True), ("P", False)):
        contracts = Contracts.of(call, columns["S"], columns["K"], columns["t"], columns["R"])
        found = greeks(contracts, columns["v"])
        ours = {
            "D": found.delta,
            "G": found.gamma,
            "T": found.theta * DAYS,
            "V": found.vega * 100,
            "R": found.rho * 100,
        }
        for greek, values in ours.items():
            np.testing.assert_allclose(values, columns[letter + greek], atol=1e-6, err_msg=letter + greek)
            worst[greek] = max(worst[greek], np.abs(values - columns[letter + greek]).max())
        worth = columns["bs_call" if call else "bs_put"]
        np.testing.assert_allclose(price(contracts, columns["v"]), worth, atol=1e-6)
        worst["value"] = max(worst["value"], np.abs(price(contracts, columns["v"]) - worth).max())
    print("vollib, off by at most:", {name: f"{value:.1e}" for name, value in worst.items()})


def test_quantlib_agrees() -> None:
    ql = pytest.importorskip("QuantLib", reason="QuantLib is not installed: pip install QuantLib")
    random = np.random.default_rng(20)
    n = 300
    spot, strike = np.full(n, 100.0), np.round(100 * np.exp(random.uniform(-1, 1, n)), 2)
    days = random.choice([1, 2, 7, 30, 91, 365, 1095], n)
    rate, dividends = random.uniform(-0.01, 0.1, n), random.uniform(0, 0.06, n)
    volatility, call = np.exp(random.uniform(np.log(0.05), np.log(2), n)), random.random(n) < 0.5
    contracts = Contracts.of(call, spot, strike, days / DAYS, rate, dividends)
    found = greeks(contracts, volatility)
    worst = dict.fromkeys(AGAINST_QUANTLIB, 0.0)
    for i in range(n):
        kind = ql.Option.Call if call[i] else ql.Option.Put
        # Arithmetic without dates: QuantLib's own time steps would round.
        discount = math.exp(-rate[i] * days[i] / DAYS)
        forward = spot[i] * math.exp((rate[i] - dividends[i]) * days[i] / DAYS)
        total = volatility[i] * math.sqrt(days[i] / DAYS)
        model = ql.BlackCalculator(ql.PlainVanillaPayoff(kind, float(strike[i])), forward, total, discount)
        years = days[i] / DAYS
        theirs = {
            "price": model.value(),
            "delta": model.delta(spot[i]),
            "gamma": model.gamma(spot[i]),
            "theta": model.theta(spot[i], years) / DAYS,
            "vega": model.vega(years) / 100,
            "rho": model.rho(years) / 100,
        }
        ours = {"price": price(contracts, volatility)[i]} | {
            name: getattr(found, name)[i] for name in ("delta", "gamma", "theta", "vega", "rho")
        }
        for name, value in theirs.items():
            worst[name] = max(worst[name], abs(ours[name] - value))
    print("QuantLib, off by at most:", {name: f"{value:.1e}" for name, value in worst.items()})
    assert {name: value for name, value in worst.items() if value > AGAINST_QUANTLIB[name]} == {}


def generated(n: int = 100_000) -> tuple[Contracts, np.ndarray]:
    """Options a day to three years from expiry, far in and out of the money, of volatilities from 3 % to 300 %."""
    random = np.random.default_rng(7)
    strike = 100 * np.exp(random.uniform(-1.5, 1.5, n))
    years = np.exp(random.uniform(np.log(1 / DAYS), np.log(3), n))
    years[: n // 20] = 1 / DAYS
    contracts = Contracts.of(
        random.random(n) < 0.5, 100.0, strike, years, random.uniform(-0.01, 0.1, n), random.uniform(0, 0.06, n)
    )
    return contracts, np.exp(random.uniform(np.log(0.03), np.log(3), n))


def test_price_to_volatility_and_back() -> None:
    contracts, volatility = generated()
    worth = price(contracts, volatility)
    implied = implied_volatility(contracts, worth)
    told = worth - contracts.intrinsic > 1e-8
    # Where the price says anything beyond the intrinsic value there is a volatility, and it gives the price again.
    assert not np.isnan(implied[told]).any()
    solved = ~np.isnan(implied)
    again = price(contracts[solved], implied[solved])
    print(f"{solved.sum():,} of {len(worth):,} back at their price to {np.abs(again - worth[solved]).max():.1e}")
    np.testing.assert_allclose(again, worth[solved], rtol=0, atol=2e-13)
    # Out of the money the price has all digits of the volatility; in the money its own rounding hides some.
    outside = told & (contracts.intrinsic == 0)
    assert outside.sum() > 20_000
    np.testing.assert_allclose(implied[outside], volatility[outside], rtol=2e-13)
    vega = greeks(contracts[told], volatility[told]).vega * 100
    assert (np.abs(implied - volatility)[told] <= 4e-14 * (1 + worth[told]) / vega + 2e-13 * volatility[told]).all()


@settings(max_examples=200, deadline=timedelta(seconds=2), derandomize=True)
@given(
    call=st.booleans(),
    moneyness=st.floats(-3, 3),
    days=st.floats(0.05, 2000),
    volatility=st.floats(0.005, 5),
    rate=st.floats(-0.05, 0.2),
    dividends=st.floats(0, 0.2),
)
def test_any_option_comes_back(
    call: bool, moneyness: float, days: float, volatility: float, rate: float, dividends: float
) -> None:
    contract = Contracts.of(call, 50.0, 50.0 * math.exp(moneyness), days / DAYS, rate, dividends)
    worth = price(contract, np.array([volatility]))
    implied = implied_volatility(contract, worth)
    if np.isnan(implied[0]):
        over, under = worth[0] - contract.intrinsic[0], contract.ceiling[0] - worth[0]
        assert min(over, under) <= 1e-13 * max(worth[0], 1)
    else:
        assert price(contract, implied)[0] == pytest.approx(worth[0], abs=1e-12 * max(1.0, worth[0]))


def test_what_no_volatility_explains_has_none() -> None:
    # Call worth less than 100 − 90 exp(−0.05), call worth more than the stock, a put over its strike, nothing, expired.
    contracts = Contracts.of(
        [True, True, False, True, True], 100.0, [90.0, 90.0, 90.0, 90.0, 90.0], [1.0, 1.0, 1.0, 1.0, 0.0], 0.05
    )
    assert np.isnan(implied_volatility(contracts, np.array([14.0, 100.5, 91.0, np.nan, 12.0]))).all()


def test_puts_and_calls_are_in_parity() -> None:
    contracts, volatility = generated(2000)
    calls = Contracts.of(True, *(getattr(contracts, name) for name in PRICED))
    puts = Contracts.of(False, *(getattr(contracts, name) for name in PRICED))
    forward = calls.discounted_spot - calls.discounted_strike
    np.testing.assert_allclose(price(calls, volatility) - price(puts, volatility), forward, atol=3e-13)


PRICED = ("spot", "strike", "years", "rate", "dividend_yield")
