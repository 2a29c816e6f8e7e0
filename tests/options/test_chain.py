"""Chains completed with our figures, their risk figures, and what is told of quotes that allow none."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest

from market_data.model import american, options
from market_data.model.chain_risk import Risk, chain_risk
from market_data.model.dataset import OPTIONS
from market_data.model.implied import implied_volatility
from market_data.model.options import Contracts, price
from market_data.pipeline.write.chain import Carry, completed, contracts_of

# 16:00 in New York in winter, a year of 365 days before the close of the day of expiration.
NOON = datetime(2025, 12, 18, 21, tzinfo=UTC)
DAY = date(2026, 12, 18)
GREEKS = ("delta", "gamma", "theta", "vega", "rho")


def quote(call: bool, strike: float, bid: str | None, ask: str | None, **more: Any) -> dict[str, Any]:
    return {
        "timestamp": NOON,
        "contract": f"KO261218{'C' if call else 'P'}{round(strike * 1000):08d}",
        "option_type": "call" if call else "put",
        "exercise_style": "european",
        "expiration": DAY,
        "strike": Decimal(str(strike)),
        "bid": None if bid is None else Decimal(bid),
        "ask": None if ask is None else Decimal(ask),
        "underlying_price": Decimal(100),
    } | more


def chain(*rows: dict[str, Any]) -> pl.DataFrame:
    names = {name for row in rows for name in row}
    return OPTIONS.conform(pl.DataFrame(rows, schema={n: t for n, t in OPTIONS.schema.items() if n in names}))


def test_a_textbook_option() -> None:
    # Hull, Options, Futures and Other Derivatives: spot 42, strike 40, 10 %, 20 %, half a year: call 4.76, put 0.81.
    half = NOON + timedelta(hours=365 * 12)
    shared = {"timestamp": half, "underlying_price": Decimal(42)}
    found = completed(
        chain(quote(True, 40, "4.75", "4.77", **shared), quote(False, 40, "0.80", "0.82", **shared)), Carry(0.10)
    )
    assert found["iv"].to_list() == pytest.approx([0.20, 0.20], abs=2e-3)
    assert found["iv_origin"].to_list() == ["computed", "computed"]
    assert found["iv_reason"].to_list() == [None, None]
    # N(0.7693) = 0.7791 is the delta he gives.
    assert found["delta"].to_list() == pytest.approx([0.7791, -0.2209], abs=2e-3)


def test_time_runs_to_the_close_in_new_york() -> None:
    summer = quote(True, 100, "1", "2", timestamp=datetime(2026, 7, 16, 20, tzinfo=UTC), expiration=date(2026, 7, 17))
    years = contracts_of(chain(quote(True, 100, "1", "2"), summer), Carry(0.0)).years
    assert (years * 365).tolist() == pytest.approx([365, 1], abs=1e-9)


def test_dividends_of_the_past_year_become_a_yield() -> None:
    found = contracts_of(chain(quote(True, 100, "1", "2")), Carry(0.04, 3.0))
    assert found.dividend_yield[0] == pytest.approx(0.0295588, abs=1e-7)


REASONS = [
    ({"bid": None, "ask": None}, "no bid and ask"),
    ({"bid": Decimal(0), "ask": Decimal(0)}, "no bid and ask"),
    ({"bid": Decimal(0)}, "no bid"),
    ({"ask": None}, "no ask"),
    ({"bid": Decimal(30), "ask": Decimal(20)}, "bid above ask"),
    ({"underlying_price": None}, "no underlying price"),
    ({"timestamp": NOON + timedelta(days=365)}, "expired"),
    ({"bid": Decimal("13.7"), "ask": Decimal("13.9")}, "price not above intrinsic value"),
    ({"bid": Decimal(101), "ask": Decimal(103)}, "price not below the highest possible"),
]


@pytest.mark.parametrize("change,reason", REASONS)
@pytest.mark.parametrize("style", ["european", "american", None])
def test_what_allows_no_volatility_says_why(change: dict[str, Any], reason: str, style: str | None) -> None:
    # The call of 90 is worth at least 100 − 90 exp(−0.05) = 14.39 to a European, 10 at once to an American.
    if reason.startswith("price not above") and style != "european":
        change = {"bid": Decimal("9.7"), "ask": Decimal("9.9")}
    row = quote(True, 90, "20", "21", exercise_style=style) | change
    found = completed(chain(row), Carry(0.05)).row(0, named=True)
    assert [found[name] for name in ("iv", *GREEKS, "iv_origin")] == [None] * 7
    assert found["iv_reason"] == reason


def test_without_a_rate_nothing_is_computed() -> None:
    found = completed(chain(quote(True, 90, "20", "21")), Carry(None)).row(0, named=True)
    assert (found["iv"], found["delta"], found["iv_reason"]) == (None, None, "no interest rate is set")


def test_what_the_source_gives_is_kept() -> None:
    own = {"iv": 0.31, "delta": 0.6, "gamma": 0.01, "theta": -0.02, "vega": 0.3, "iv_origin": "source"}
    rows = chain(quote(True, 100, "20", "21", **own), quote(True, 100, "20", "21", iv=0.31, iv_origin="source"))
    whole, bare = completed(rows, Carry(0.05)).iter_rows(named=True)
    assert {name: whole[name] for name in own} == own
    # The source had no rho; ours is that of its own volatility.
    assert whole["rho"] is not None
    assert (bare["iv"], bare["iv_origin"], bare["iv_reason"]) == (0.31, "source", "greeks computed")
    expected = options.greeks(Contracts.of(True, 100.0, 100.0, 1.0, 0.05), np.array([0.31]))
    assert [bare[name] for name in GREEKS] == pytest.approx([getattr(expected, name)[0] for name in GREEKS])


def test_completing_twice_changes_nothing() -> None:
    rows = chain(quote(True, 90, "20", "21"), quote(False, 90, "2", "2.2"), quote(True, 100, None, None))
    once = completed(rows, Carry(0.05, 1.0))
    source = {"iv", *GREEKS, "iv_origin", "iv_reason"}
    again = completed(chain(*rows.iter_rows(named=True)), Carry(0.05, 1.0))
    assert once.equals(again)
    assert once.drop(source).equals(rows.drop(source))


def test_american_prices_are_those_of_the_published_table_and_of_quantlib() -> None:
    # Haug (1998), table of Bjerksund and Stensland (1993), as in QuantLib's own tests.
    contracts = Contracts.of(
        [True, True, True, False], [42, 90, 110, 36], [40, 100, 100, 40], [0.75, 0.1, 0.1, 1.0],
        [0.04, 0.10, 0.10, 0.06], [0.08, 0.10, 0.10, 0.0],
    )  # fmt: skip
    found = american.price(contracts, np.array([0.35, 0.15, 0.15, 0.20]))
    assert found.tolist() == pytest.approx([5.2704, 0.0205, 10.0, 4.4531], abs=5e-5)


def american_grid(n: int) -> tuple[Contracts, np.ndarray]:
    random = np.random.default_rng(3)
    strike = 100 * np.exp(random.uniform(-0.5, 0.5, n))
    days = random.choice([1, 7, 30, 91, 365, 730], n)
    rate, dividends = random.uniform(0, 0.08, n), random.uniform(0, 0.06, n)
    contracts = Contracts.of(random.random(n) < 0.5, 100.0, strike, days / 365, rate, dividends)
    return contracts, random.uniform(0.1, 0.6, n)


def test_quantlib_agrees_on_american_options() -> None:
    ql = pytest.importorskip("QuantLib", reason="QuantLib is not installed: pip install QuantLib")
    contracts, volatility = american_grid(120)
    found = american.price(contracts, volatility)
    today, count = ql.Date(2, 1, 2024), ql.Actual365Fixed()
    ql.Settings.instance().evaluationDate = today
    spot = ql.QuoteHandle(ql.SimpleQuote(100.0))
    formula, tree = np.empty(len(found)), np.empty(len(found))
    for i in range(len(found)):
        rate, dividends = (
            ql.YieldTermStructureHandle(ql.FlatForward(today, float(each[i]), count))
            for each in (contracts.rate, contracts.dividend_yield)
        )
        sigma = ql.BlackConstantVol(today, ql.NullCalendar(), float(volatility[i]), count)
        process = ql.BlackScholesMertonProcess(spot, dividends, rate, ql.BlackVolTermStructureHandle(sigma))
        kind = ql.Option.Call if contracts.call[i] else ql.Option.Put
        end = today + round(float(contracts.years[i]) * 365)
        option = ql.VanillaOption(
            ql.PlainVanillaPayoff(kind, float(contracts.strike[i])), ql.AmericanExercise(today, end)
        )
        option.setPricingEngine(ql.BjerksundStenslandApproximationEngine(process))
        formula[i] = option.NPV()
        option.setPricingEngine(ql.BinomialVanillaEngine(process, "lr", 401))
        tree[i] = option.NPV()
    assert np.abs(found - formula).max() < 1e-10
    # The formula is a lower bound; how far under the tree, in dollars on a stock of 100.
    print(f"under the tree by at most {(tree - found).max():.2f}, over it by at most {(found - tree).max():.0e}")
    assert (tree - found).max() < 0.6
    assert (found - tree).max() < 2e-3


def test_american_volatilities_give_the_price_again() -> None:
    contracts, volatility = american_grid(5000)
    worth = american.price(contracts, volatility)
    implied = american.implied_volatility(contracts, worth)
    solved = ~np.isnan(implied)
    assert np.abs(american.price(contracts[solved], implied[solved]) - worth[solved]).max() <= 1.01e-7
    # Only what is worth no more than at once, or nothing, has none.
    at_once = np.maximum(contracts.sign * (100 - contracts.strike), 0)
    assert (worth[~solved] - np.maximum(at_once, contracts.intrinsic)[~solved] < 1e-9).all()
    told = solved & (options.greeks(contracts, volatility).vega > 1e-3)
    np.testing.assert_allclose(implied[told], volatility[told], atol=2e-4)


def test_american_greeks_are_the_slopes_of_the_price() -> None:
    # Where early exercise is worth nothing they are the European ones.
    contracts = Contracts.of([True, False], 100.0, [120.0, 80.0], 0.1, [0.03, 1e-9], [1e-9, 0.03])
    sigma = np.array([0.3, 0.3])
    ours, exact = american.greeks(contracts, sigma), options.greeks(contracts, sigma)
    for name in GREEKS:
        np.testing.assert_allclose(getattr(ours, name), getattr(exact, name), rtol=2e-3, atol=1e-6, err_msg=name)


def test_ten_thousand_contracts_take_less_than_a_tenth_of_a_second() -> None:
    random = np.random.default_rng(1)
    n = 10_000
    strike, years = 100 * np.exp(random.uniform(-0.5, 0.5, n)), np.exp(random.uniform(np.log(1 / 365), np.log(2), n))
    contracts = Contracts.of(random.random(n) < 0.5, 100.0, strike, years, 0.04, 0.01)
    volatility = random.uniform(0.1, 0.8, n)
    european, early = price(contracts, volatility), american.price(contracts, volatility)
    works: dict[str, Callable[[], object]] = {
        "European volatilities": lambda: implied_volatility(contracts, european),
        "European greeks": lambda: options.greeks(contracts, volatility),
        "American volatilities": lambda: american.implied_volatility(contracts, early),
        "American greeks": lambda: american.greeks(contracts, volatility),
    }
    for name, work in works.items():
        taken = []
        for _ in range(5):
            # Of the processor, so that a busy machine does not count.
            started = time.process_time()
            work()
            taken.append(time.process_time() - started)
        print(f"{n} {name}: {1e3 * min(taken):.0f} ms")
        assert min(taken) < 0.1, name


SMILE = [
    (90, "put", 0.30, -0.20, 100, 10), (95, "put", 0.26, -0.30, 300, 30), (100, "put", 0.22, -0.48, 200, 20),
    (100, "call", 0.20, 0.52, 100, 40), (105, "call", 0.18, 0.30, 50, 60), (110, "call", 0.17, 0.20, 50, 60),
]  # fmt: skip


def smile(day: date, *, spot: float = 98.0) -> list[dict[str, Any]]:
    return [
        quote(kind == "call", strike, "1", "2", option_type=kind, iv=iv, delta=delta, volume=Decimal(volume),
              open_interest=Decimal(interest), expiration=day, underlying_price=Decimal(str(spot)))
        for strike, kind, iv, delta, volume, interest in SMILE
    ]  # fmt: skip


def test_risk_figures_by_hand() -> None:
    first, second, whole = chain_risk(chain(*smile(DAY), *smile(date(2027, 1, 15), spot=80.0)))
    # 98 lies ln(98/95)/ln(100/95) = 0.60612 of the way from 95 (26 %) to 100 (calls and puts averaged: 21 %).
    assert first.atm_iv == pytest.approx(0.26 - 0.60612 * 0.05, abs=1e-6)
    # Halfway between the puts of −0.30 and −0.20: 28 %; between the calls of 0.20 and 0.30: 17.5 %.
    assert first.skew_25d == pytest.approx(0.28 - 0.175)
    assert first == Risk(
        expiration=DAY, contracts=6, with_iv=6, atm_iv=first.atm_iv, skew_25d=first.skew_25d, put_call_volume=3.0,
        put_call_open_interest=0.375, max_open_interest_call=105.0, max_open_interest_put=95.0,
    )  # fmt: skip
    # A spot below all strikes has no volatility at the money: nothing is extrapolated.
    assert (second.atm_iv, second.expiration) == (None, date(2027, 1, 15))
    assert (whole.expiration, whole.contracts, whole.put_call_volume, whole.atm_iv) == (None, 12, 3.0, None)


def test_risk_figures_of_nothing() -> None:
    assert chain_risk(OPTIONS.empty()) == []
    (only, whole) = chain_risk(chain(quote(True, 100, None, None)))
    assert (only.with_iv, only.atm_iv, only.skew_25d, only.put_call_volume, only.max_open_interest_put) == (
        0,
        *[None] * 4,
    )
    assert whole.contracts == 1
