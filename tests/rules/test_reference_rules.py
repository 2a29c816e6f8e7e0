"""Every rule of a dataset besides candles with rows written by hand that break it, and good ones that do not."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from market_data import rules as shelf_package
from market_data.model.dataset import CANDLES, DATASETS, DIVIDENDS, EARNINGS, NEWS, OPTIONS, SPLITS, Dataset
from market_data.model.rule import Rule, Severity
from market_data.pipeline.write.validate import validate_facts
from market_data.shelf import collect

RULES = {name: rule for name, rule in collect(shelf_package, Rule).items() if rule.dataset is not CANDLES}

GOOD: dict[str, dict[str, Any]] = {
    "dividends": {
        "ex_date": date(2024, 3, 14),
        "amount": Decimal("0.485"),
        "currency": "USD",
        "declaration_date": date(2024, 2, 15),
        "record_date": date(2024, 3, 15),
        "pay_date": date(2024, 4, 1),
        "frequency": 4,
        "dividend_type": "cash",
    },
    "splits": {"execution_date": date(2012, 8, 13), "split_from": Decimal(1), "split_to": Decimal(2)},
    "earnings": {
        "fiscal_year": 2024,
        "fiscal_quarter": 1,
        "period_end": date(2024, 3, 31),
        "report_date": date(2024, 4, 30),
        "eps_estimate": Decimal("0.70"),
        "eps_actual": Decimal("0.72"),
        "eps_surprise": Decimal("0.02"),
        "surprise_pct": 2.857,
        "currency": "USD",
    },
    "options": {
        "timestamp": datetime(2026, 12, 18, 20, tzinfo=UTC),
        "contract": "AAPL261218C00202500",
        "option_type": "call",
        "expiration": date(2026, 12, 18),
        "strike": Decimal("202.5"),
        "bid": Decimal("4.9"),
        "ask": Decimal("5.1"),
        "open_interest": Decimal(0),
        "iv": 0.31,
    },
    "news": {
        "news_id": "1",
        "published_at": datetime(2024, 3, 4, tzinfo=UTC),
        "title": "Results",
        "url": "https://example.com/results?id=1",
    },
}

MOMENT = datetime(2024, 3, 4, tzinfo=UTC)
OBSERVED: dict[str, Any] = {"timestamp": MOMENT, "known_at": MOMENT}
GOOD |= {
    "trades": {"timestamp": MOMENT, "trade_id": "7", "price": Decimal("0.5"), "size": Decimal("0.001")},
    "quotes": {
        "timestamp": MOMENT,
        "sequence": 1,
        "bid_price": Decimal("9.9"),
        "bid_size": Decimal(0),
        "ask_price": Decimal("9.9"),
        "ask_size": Decimal(3),
    },
    "open_interest": OBSERVED | {"value": Decimal("0.001"), "value_quote": Decimal(40)},
    "funding_rates": OBSERVED | {"rate": Decimal("-0.03"), "rate_type": "Regular", "mark_price": Decimal(40000)},
    "premium_index": OBSERVED | {"period": "5m", "value": Decimal("-0.2")},
    "long_short_ratios": OBSERVED
    | {
        "kind": "top_accounts",
        "ratio": Decimal("1.5"),
        "long_account": Decimal("0.6"),
        "short_account": Decimal("0.4"),
    },
    "taker_volumes": OBSERVED | {"period": "5m", "buy_volume": Decimal(0), "sell_volume": Decimal(1)},
    "spot_flow": OBSERVED | {"period": "5m", "buy_quote": Decimal(0), "sell_quote": Decimal(1)},
    "liquidations": OBSERVED | {"liquidation_id": "1", "side": "long", "price": Decimal(9), "size": Decimal(1)},
    "fx_rates": {"date": date(2024, 3, 4), "currency": "CAD", "quote_currency": "USD", "rate": Decimal("0.73")},
    "instruments": {"raw_symbol": "BTCUSDT", "symbol": "BTC", "asset_class": "crypto", "valid_from": MOMENT},
}

FINE: list[tuple[str, dict[str, Any]]] = [
    ("quotes", {"bid_price": None, "bid_size": None}),
    ("open_interest", {"value_quote": None}),
    ("funding_rates", {"rate": Decimal(0), "mark_price": None}),
    ("long_short_ratios", {"long_account": None, "short_account": None}),
    # The archive gives the ratio alone, REST rounds both to four decimals.
    ("long_short_ratios", {"ratio": Decimal("1.5012")}),
    ("taker_volumes", {"sell_volume": Decimal(0)}),
    ("splits", {"split_from": Decimal(25), "split_to": Decimal(1)}),
    ("splits", {"split_from": Decimal(1000), "split_to": Decimal(1281)}),
    ("dividends", {"currency": None, "declaration_date": None, "frequency": None}),
    ("dividends", {"frequency": 0, "pay_date": date(2024, 3, 15)}),
    # A large special dividend: paid, then ex.
    ("dividends", {"ex_date": date(2024, 4, 2), "dividend_type": "special"}),
    ("earnings", {"fiscal_quarter": 0}),
    ("earnings", {"eps_actual": None, "eps_surprise": None, "surprise_pct": None, "report_date": None}),
    # A loss smaller than feared: 20 % of what was expected, counted upwards.
    (
        "earnings",
        {
            "eps_estimate": Decimal("-0.50"),
            "eps_actual": Decimal("-0.40"),
            "eps_surprise": Decimal("0.10"),
            "surprise_pct": 20.0,
        },
    ),
    # The estimate was 0.704 before it was rounded.
    ("earnings", {"eps_surprise": Decimal("0.016"), "surprise_pct": 2.27}),
    ("options", {"bid": Decimal("5.1"), "ask": Decimal("5.1")}),
    ("options", {"bid": Decimal(0), "ask": None, "iv": None}),
    # Half past seven in New York on the day it expires is the next day in Greenwich.
    ("options", {"timestamp": datetime(2026, 12, 19, 0, 30, tzinfo=UTC)}),
    ("options", {"contract": "BTC-18DEC26-202500-C"}),
]

BREAKING: list[tuple[str, str, dict[str, Any]]] = [
    ("trades", "trade_price_not_positive", {"price": Decimal(0)}),
    ("trades", "trade_price_not_positive", {"price": Decimal(-1)}),
    ("trades", "trade_size_not_positive", {"size": Decimal(0)}),
    ("quotes", "quoted_price_not_positive", {"bid_price": Decimal(0)}),
    ("quotes", "quoted_price_not_positive", {"ask_price": Decimal(-1), "bid_price": None}),
    ("quotes", "quoted_size_negative", {"ask_size": Decimal(-1)}),
    ("quotes", "best_prices_crossed", {"bid_price": Decimal("9.91")}),
    ("open_interest", "open_interest_not_positive", {"value": Decimal(0)}),
    ("open_interest", "open_interest_not_positive", {"value_quote": Decimal(0)}),
    ("open_interest", "open_interest_not_positive", {"value": Decimal(-5)}),
    ("funding_rates", "funding_rate_impossible", {"rate": Decimal("1.5")}),
    ("funding_rates", "funding_rate_impossible", {"rate": Decimal(-1)}),
    ("funding_rates", "funding_rate_extreme", {"rate": Decimal("-0.051")}),
    ("funding_rates", "mark_price_not_positive", {"mark_price": Decimal(0)}),
    ("premium_index", "premium_impossible", {"value": Decimal("-1.01")}),
    ("long_short_ratios", "ratio_not_positive", {"ratio": Decimal(0)}),
    ("long_short_ratios", "account_share_impossible", {"short_account": Decimal("-0.4")}),
    ("long_short_ratios", "account_share_impossible", {"long_account": Decimal(60)}),
    ("long_short_ratios", "ratio_contradicts_its_shares", {"ratio": Decimal("1.6")}),
    ("taker_volumes", "taker_volume_negative", {"sell_volume": Decimal(-1)}),
    ("spot_flow", "spot_flow_negative", {"buy_quote": Decimal(-1)}),
    ("liquidations", "liquidation_not_positive", {"price": Decimal(0)}),
    ("liquidations", "liquidation_not_positive", {"size": Decimal(0)}),
    ("instruments", "listing_without_symbol", {"symbol": " "}),
    ("fx_rates", "exchange_rate_not_positive", {"rate": Decimal(0)}),
    ("dividends", "dividend_not_positive", {"amount": Decimal(0)}),
    ("dividends", "dividend_not_positive", {"amount": Decimal("-0.1")}),
    ("dividends", "dividend_date_implausible", {"ex_date": date(1024, 3, 14), "declaration_date": None}),
    ("dividends", "dividend_currency_unknown", {"currency": "US dollar"}),
    ("dividends", "dividend_currency_unknown", {"currency": "GBp"}),
    ("dividends", "dividend_dates_out_of_order", {"declaration_date": date(2024, 3, 15)}),
    ("dividends", "dividend_dates_out_of_order", {"pay_date": date(2024, 3, 14)}),
    ("dividends", "dividend_frequency_unknown", {"frequency": 7}),
    ("splits", "split_not_positive", {"split_from": Decimal(0)}),
    ("splits", "split_not_positive", {"split_to": Decimal(-2)}),
    ("splits", "split_without_change", {"split_to": Decimal(1)}),
    ("splits", "split_date_implausible", {"execution_date": date(2999, 1, 1)}),
    ("splits", "split_extreme", {"split_to": Decimal(5000)}),
    ("splits", "split_extreme", {"split_from": Decimal(5000)}),
    ("earnings", "earnings_period_unknown", {"fiscal_quarter": 5}),
    ("earnings", "earnings_period_unknown", {"fiscal_year": 24, "period_end": None}),
    ("earnings", "earnings_currency_unknown", {"currency": "usd"}),
    ("earnings", "earnings_surprise_inconsistent", {"eps_surprise": Decimal("0.05")}),
    ("earnings", "earnings_surprise_inconsistent", {"surprise_pct": 28.57}),
    ("earnings", "earnings_surprise_inconsistent", {"surprise_pct": -2.857}),
    # Two cents above half a dollar are 4 percent, not 0.04.
    (
        "earnings",
        "earnings_surprise_inconsistent",
        {
            "eps_estimate": Decimal("0.50"),
            "eps_actual": Decimal("0.52"),
            "eps_surprise": None,
            "surprise_pct": 0.04,
        },
    ),
    ("earnings", "earnings_before_their_period_ended", {"report_date": date(2024, 3, 30)}),
    ("options", "strike_not_positive", {"strike": Decimal(0), "contract": "AAPL261218C00000000"}),
    ("options", "option_expired", {"timestamp": datetime(2026, 12, 19, 15, tzinfo=UTC)}),
    ("options", "option_value_negative", {"bid": Decimal("-0.01")}),
    ("options", "option_value_negative", {"iv": -0.2}),
    ("options", "contract_contradicts_its_name", {"strike": Decimal("202.0")}),
    ("options", "contract_contradicts_its_name", {"option_type": "put"}),
    ("options", "contract_contradicts_its_name", {"expiration": date(2026, 12, 19)}),
    ("options", "quote_crossed", {"bid": Decimal("5.2")}),
    ("news", "news_without_title", {"title": "  "}),
    ("news", "news_without_address", {"url": None}),
    ("news", "news_without_address", {"url": "javascript:alert(1)"}),
]


def frame(dataset: Dataset, *rows: dict[str, Any]) -> pl.DataFrame:
    schema = {name: kind for name, kind in dataset.schema.items() if any(name in row for row in rows)}
    return dataset.conform(pl.DataFrame(rows, schema=schema))


def broken(name: str, row: dict[str, Any]) -> set[str]:
    """Every rule, rejecting or noting, that a row breaks."""
    found: set[str] = set()
    for rule in RULES.values():
        if rule.dataset.name == name:
            alone = Rule(
                name=rule.name,
                expression=rule.expression,
                severity=Severity.REJECT,
                lookback=0,
                doc=rule.doc,
                dataset=rule.dataset,
            )
            found |= (
                {rule.name}
                if validate_facts(rule.dataset, frame(rule.dataset, row), [alone]).rejected.height
                else set()
            )
    return found


@pytest.mark.parametrize(
    "name,change", [*((name, {}) for name in GOOD), *FINE], ids=lambda value: None if isinstance(value, dict) else value
)
def test_good_rows_break_no_rule(name: str, change: dict[str, Any]) -> None:
    assert broken(name, GOOD[name] | change) == set()


@pytest.mark.parametrize("name,rule,change", BREAKING)
def test_a_bad_row_breaks_its_rule_and_no_other(name: str, rule: str, change: dict[str, Any]) -> None:
    assert broken(name, GOOD[name] | change) == {rule}


def test_every_rule_has_a_row_that_breaks_it() -> None:
    assert {rule for _, rule, _ in BREAKING} == set(RULES)
    assert {rule.dataset.name for rule in RULES.values()} == set(DATASETS) - {"candles"}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_it_looks_at_known_columns_of_the_row_alone_and_explains_itself(rule: Rule) -> None:
    assert rule.doc.endswith(".")
    assert rule.lookback == 0
    assert set(rule.expression.meta.root_names()) <= set(rule.dataset.schema)
    assert validate_facts(rule.dataset, rule.dataset.empty(), [rule]).rejected.is_empty()


@pytest.mark.parametrize("name", sorted(GOOD))
def test_every_row_is_accepted_rejected_or_repeated(name: str) -> None:
    dataset, rules = DATASETS[name], list(RULES.values())
    good = GOOD[name]
    said_otherwise = {
        DIVIDENDS: "pay_date",
        SPLITS: "notes",
        EARNINGS: "revenue_actual",
        OPTIONS: "last",
        NEWS: "author",
    }
    column = said_otherwise.get(dataset)
    if column is None:
        pytest.skip("every value of it is part of its key, or looked at by a rule")
    other = {
        "pay_date": date(2024, 5, 1),
        "notes": "x",
        "revenue_actual": Decimal(7),
        "last": Decimal(5),
        "author": "A",
    }
    bad = good | next(change for of, rule, change in BREAKING if of == name and RULES[rule].severity is Severity.REJECT)
    required = next((each for each in dataset.required if each not in dataset.key), "fiscal_year")
    rows = [bad, good, good, good | {column: other[column]}, good | {required: None}]
    checked = validate_facts(dataset, frame(dataset, *rows), rules)
    assert checked.accepted.height + checked.rejected.height + checked.repeated == len(rows)
    assert (checked.accepted.height, checked.repeated) == (1, 1)
    reasons = [set(names) for names in checked.rejected["rules"]]
    assert {"duplicate_key"} in reasons
    assert any("value_missing" in names for names in reasons)


def test_what_is_noted_joins_the_notes_of_the_source() -> None:
    odd = GOOD["dividends"] | {"frequency": 7, "notes": "sum_of_2"}
    plain = GOOD["dividends"] | {"ex_date": date(2024, 3, 13)}
    also = GOOD["dividends"] | {"ex_date": date(2024, 3, 12), "declaration_date": date(2024, 3, 13), "frequency": 9}
    checked = validate_facts(DIVIDENDS, frame(DIVIDENDS, odd, plain, also), list(RULES.values()))
    assert checked.accepted["notes"].to_list() == [
        "sum_of_2; dividend_frequency_unknown",
        None,
        "dividend_dates_out_of_order; dividend_frequency_unknown",
    ]
