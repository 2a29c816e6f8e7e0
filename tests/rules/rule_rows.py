"""A candle that breaks no rule, and what a rule says of rows like it."""

from datetime import UTC, datetime, timedelta

import polars as pl

from market_data import rules as shelf_package
from market_data.model.dataset import CANDLES, UTC_MICROS
from market_data.model.rule import Rule
from market_data.shelf import collect

RULES = {name: rule for name, rule in collect(shelf_package, Rule).items() if rule.dataset is CANDLES}
WEDNESDAY_OPEN = datetime(2024, 7, 10, 13, 30, tzinfo=UTC)

GOOD = {
    "timestamp": WEDNESDAY_OPEN,
    "end": WEDNESDAY_OPEN + timedelta(hours=1),
    "first_of_timestamp": True,
    "asset_class": "stock",
    "open": 10.0,
    "high": 12.0,
    "low": 9.0,
    "close": 11.0,
    "volume": 100.0,
    "quote_volume": 1050.0,
    "vwap": 10.5,
    "trade_count": 7,
    "taker_buy_volume": 60.0,
    "taker_buy_quote_volume": 630.0,
    "notes": None,
    "disagrees": False,
    "previous_expected": None,
}
TYPES = {"timestamp": UTC_MICROS, "end": UTC_MICROS, "previous_expected": UTC_MICROS, "notes": pl.String}


def verdicts(name: str, rows: list[dict[str, object]]) -> list[bool]:
    """Whether each row is fine; null, when the rule has no say, is fine."""
    frame = pl.DataFrame([GOOD | row for row in rows], schema_overrides=TYPES, infer_schema_length=None)
    return frame.select(RULES[name].expression.fill_null(value=True)).to_series().to_list()
