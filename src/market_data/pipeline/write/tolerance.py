"""How much two sources may differ on the same candle before it counts as a disagreement."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import polars as pl

# Relative to the larger of the two. Different venues and tapes print slightly different prices and count different
# trades; one venue's archive and its REST answers describe the same trades and must agree to the last digit.
_PRICE: Final = Decimal("0.001")
_AMOUNT: Final = Decimal("0.05")
TOLERANCES: Final = {
    "open": _PRICE,
    "high": _PRICE,
    "low": _PRICE,
    "close": _PRICE,
    "vwap": _PRICE,
    "volume": _AMOUNT,
    "quote_volume": _AMOUNT,
    "trade_count": _AMOUNT,
    "taker_buy_volume": _AMOUNT,
    "taker_buy_quote_volume": _AMOUNT,
}


def tolerance(field: str, source_a: str, source_b: str) -> Decimal:
    """The largest relative difference that is not a disagreement; 0 within one provider: binance, binance:archive."""
    if source_a.partition(":")[0] == source_b.partition(":")[0]:
        return Decimal(0)
    return TOLERANCES[field]


def relative_difference(a: pl.Expr, b: pl.Expr) -> pl.Expr:
    """|a − b| over the larger magnitude, as double: 0 where both are equal, null where either is null."""
    difference = (a - b).abs().cast(pl.Float64)
    larger = pl.max_horizontal(a.abs(), b.abs()).cast(pl.Float64)
    return pl.when(difference == 0).then(0.0).otherwise(difference / larger)
