"""Rules for what a market tells besides candles: trades, quotes, observations, liquidations, listings.

A rule rejects what cannot be, or what stands for "not known" in the source's words; what is only odd is noted.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from market_data.model.dataset import (
    FUNDING_RATES,
    FX_RATES,
    INSTRUMENTS,
    LIQUIDATIONS,
    LONG_SHORT_RATIOS,
    OPEN_INTEREST,
    PREMIUM_INDEX,
    QUOTES,
    SPOT_FLOW,
    TAKER_VOLUMES,
    TRADES,
)
from market_data.model.rule import Severity, rule

# Exchanges cap what is paid at a few percent an interval; a whole one is a unit taken for another.
IMPOSSIBLE_FUNDING: Final = 1.0
EXTREME_FUNDING: Final = 0.05
# Sources round a ratio and its shares to four decimals each.
RATIO_TOLERANCE: Final = 0.02


def _positive(*columns: str) -> pl.Expr:
    return pl.all_horizontal((pl.col(name).is_finite() & (pl.col(name) > 0)).fill_null(value=True) for name in columns)


def _not_negative(*columns: str) -> pl.Expr:
    return pl.all_horizontal((pl.col(name).is_finite() & (pl.col(name) >= 0)).fill_null(value=True) for name in columns)


@rule(Severity.REJECT, dataset=TRADES)
def trade_price_not_positive() -> pl.Expr:
    """The price is a number above zero."""
    return _positive("price")


@rule(Severity.REJECT, dataset=TRADES)
def trade_size_not_positive() -> pl.Expr:
    """Something was traded: the size is a number above zero."""
    return _positive("size")


@rule(Severity.REJECT, dataset=QUOTES)
def quoted_price_not_positive() -> pl.Expr:
    """Bid and ask, where there are any, are numbers above zero."""
    return _positive("bid_price", "ask_price")


@rule(Severity.REJECT, dataset=QUOTES)
def quoted_size_negative() -> pl.Expr:
    """Sizes are numbers of zero or more."""
    return _not_negative("bid_size", "ask_size")


@rule(Severity.NOTE, dataset=QUOTES)
def best_prices_crossed() -> pl.Expr:
    """The best bid is not above the best ask; for a moment, between two venues, it may be."""
    return pl.col("bid_price") <= pl.col("ask_price")


@rule(Severity.REJECT, dataset=OPEN_INTEREST)
def open_interest_not_positive() -> pl.Expr:
    """Contracts are open: in a market that trades, 0 stands for a value that the source does not have."""
    return _positive("value", "value_quote")


@rule(Severity.REJECT, dataset=FUNDING_RATES)
def funding_rate_impossible() -> pl.Expr:
    """An interval's rate is a number between -100 % and 100 %."""
    return pl.col("rate").is_finite() & (pl.col("rate").abs() < IMPOSSIBLE_FUNDING)


@rule(Severity.REJECT, dataset=FUNDING_RATES)
def mark_price_not_positive() -> pl.Expr:
    """The mark price, where it is said, is a number above zero."""
    return _positive("mark_price")


@rule(Severity.NOTE, dataset=FUNDING_RATES)
def funding_rate_extreme() -> pl.Expr:
    """An interval's rate is at most 5 % in either direction."""
    # What is no rate at all is another rule's business.
    return (pl.col("rate").abs() <= EXTREME_FUNDING) | (pl.col("rate").abs() >= IMPOSSIBLE_FUNDING)


@rule(Severity.REJECT, dataset=PREMIUM_INDEX)
def premium_impossible() -> pl.Expr:
    """The premium is a number between -100 % and 100 % of the index."""
    return pl.col("value").is_finite() & (pl.col("value").abs() < 1)


@rule(Severity.REJECT, dataset=LONG_SHORT_RATIOS)
def ratio_not_positive() -> pl.Expr:
    """The ratio is a number above zero: there are always accounts on both sides."""
    return _positive("ratio")


@rule(Severity.REJECT, dataset=LONG_SHORT_RATIOS)
def account_share_impossible() -> pl.Expr:
    """The shares of long and short accounts, where they are said, are from 0 to 1."""
    return pl.all_horizontal(
        pl.col(name).is_between(0, 1).fill_null(value=True) for name in ("long_account", "short_account")
    )


@rule(Severity.NOTE, dataset=LONG_SHORT_RATIOS)
def ratio_contradicts_its_shares() -> pl.Expr:
    """The ratio is that of the shares, within 2 %."""
    implied = pl.col("long_account") / pl.col("short_account")
    usable = pl.col("long_account").is_between(0, 1) & (pl.col("short_account") > 0) & (pl.col("ratio") > 0)
    return ~usable | ((pl.col("ratio") - implied).abs() <= RATIO_TOLERANCE * implied)


@rule(Severity.REJECT, dataset=TAKER_VOLUMES)
def taker_volume_negative() -> pl.Expr:
    """What takers bought and sold are numbers of zero or more."""
    return _not_negative("buy_volume", "sell_volume")


@rule(Severity.REJECT, dataset=SPOT_FLOW)
def spot_flow_negative() -> pl.Expr:
    """What takers bought and sold on the spot market are numbers of zero or more."""
    return _not_negative("buy_quote", "sell_quote")


@rule(Severity.REJECT, dataset=LIQUIDATIONS)
def liquidation_not_positive() -> pl.Expr:
    """Price and size of a forced order are numbers above zero."""
    return _positive("price", "size")


@rule(Severity.REJECT, dataset=FX_RATES)
def exchange_rate_not_positive() -> pl.Expr:
    """What a unit of the currency was worth is a number above zero."""
    return _positive("rate")


@rule(Severity.REJECT, dataset=INSTRUMENTS)
def listing_without_symbol() -> pl.Expr:
    """What is listed has a name, the source's and ours."""
    return (pl.col("raw_symbol").str.strip_chars() != "") & (pl.col("symbol").str.strip_chars() != "")
