"""Risk figures of an option chain: volatility at the money and its skew, put/call ratios, largest open interest.

A figure is None where the chain does not tell it: nothing is extrapolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
import polars as pl

WING_DELTA: Final = 0.25
STANDARD_SHARES: Final = 100


def standard() -> pl.Expr:
    """Whether a contract delivers 100 shares: the others, left by splits and mergers, are about something else.

    Where the number is not told, a digit at the end of the contract's root says that it is another.
    """
    other_root = pl.col("contract").str.contains(r"^[A-Z.]+\d\d{6}[CP]\d{8}$")
    told = pl.col("shares_per_contract")
    return pl.when(told.is_null()).then(~other_root).otherwise(told == STANDARD_SHARES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """Figures of one expiration, or of the whole chain where `expiration` is None."""

    expiration: date | None
    contracts: int
    """All of them; the figures are of those that deliver 100 shares."""
    with_iv: int
    atm_iv: float | None
    """At the strike of the spot, between the nearest strikes, calls and puts averaged; per year, a fraction."""
    skew_25d: float | None
    """Volatility of the put of delta −0.25 less that of the call of delta 0.25; above 0 where falls are feared."""
    put_call_volume: float | None
    put_call_open_interest: float | None
    max_open_interest_call: float | None
    """The strike of the calls with the largest open interest."""
    max_open_interest_put: float | None


def chain_risk(chain: pl.DataFrame) -> list[Risk]:
    """One row per expiration in order, then one of the whole chain, whose volatilities are None.

    Args:
        chain: one moment's rows in the OPTIONS schema.
    """
    if chain.is_empty():
        return []
    exact = [name for name, dtype in chain.schema.items() if dtype.is_decimal()]
    rows = chain.with_columns(pl.col(name).cast(pl.Float64) for name in exact)
    parts = rows.sort("expiration").partition_by("expiration", maintain_order=True)
    return [*(_of(part, part["expiration"][0]) for part in parts), _of(rows, None)]


def _of(every: pl.DataFrame, expiration: date | None) -> Risk:
    # Strikes and counts of contracts that deliver something else do not stand beside the others'.
    rows = every.filter(standard())
    calls, puts = (rows.filter(pl.col("option_type") == kind) for kind in ("call", "put"))
    return Risk(
        expiration=expiration,
        contracts=every.height,
        with_iv=rows["iv"].count(),
        atm_iv=None if expiration is None else _at_the_money(rows),
        skew_25d=None if expiration is None else _skew(calls, puts),
        put_call_volume=_ratio(puts, calls, "volume"),
        put_call_open_interest=_ratio(puts, calls, "open_interest"),
        max_open_interest_call=_largest(calls),
        max_open_interest_put=_largest(puts),
    )


def _at_the_money(rows: pl.DataFrame) -> float | None:
    spot = rows["underlying_price"].median()
    smile = rows.drop_nulls("iv").group_by("strike").agg(pl.col("iv").mean()).sort("strike")
    if spot is None or smile.is_empty():
        return None
    return _between(smile["strike"].log().to_numpy(), smile["iv"].to_numpy(), float(np.log(spot)))  # type: ignore[arg-type]


def _skew(calls: pl.DataFrame, puts: pl.DataFrame) -> float | None:
    wings = []
    for rows, delta in ((puts, -WING_DELTA), (calls, WING_DELTA)):
        known = rows.drop_nulls(["iv", "delta"]).sort("delta")
        wings.append(_between(known["delta"].to_numpy(), known["iv"].to_numpy(), delta))
    put, call = wings
    return None if put is None or call is None else put - call


def _between(at: np.ndarray, values: np.ndarray, wanted: float) -> float | None:
    if not len(at) or not at[0] <= wanted <= at[-1]:
        return None
    return float(np.interp(wanted, at, values))


def _ratio(puts: pl.DataFrame, calls: pl.DataFrame, column: str) -> float | None:
    # The sum of nothing but unknowns is unknown, not zero.
    if not puts[column].count() or not calls[column].count():
        return None
    below = float(calls[column].sum())
    return float(puts[column].sum()) / below if below else None


def _largest(rows: pl.DataFrame) -> float | None:
    # Of strikes with equal interest the lowest, so that the order of rows does not matter.
    known = rows.drop_nulls("open_interest").group_by("strike").agg(pl.col("open_interest").sum())
    best = known.filter(pl.col("open_interest") > 0).sort("open_interest", "strike", descending=[True, False])
    return None if best.is_empty() else float(best["strike"][0])
