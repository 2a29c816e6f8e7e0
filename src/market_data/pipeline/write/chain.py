"""Option chains: our volatility and greeks where the source has none, and the newest chain that is stored."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from market_data.model import american, implied, options
from market_data.model.chain_risk import standard
from market_data.model.dataset import DIVIDENDS, OPTIONS, UTC_MICROS
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.normal import Doubles
from market_data.model.options import DAYS_A_YEAR, Contracts, Greeks
from market_data.model.session import last_close
from market_data.model.timeframe import MICROSECOND, TimeRange
from market_data.storage.facts.reads import newest_moment, newest_versions
from market_data.storage.server.database import Database

# Contracts die with the regular session of their last day, which may be a half one.
CALENDAR: Final = AssetClass.STOCK.calendar
MICROS_A_YEAR: Final = DAYS_A_YEAR * 86_400e6
CLOSES: Final = "closes_at"
GREEKS: Final = tuple(field.name for field in fields(Greeks))
# A chain comes in pages: rows this much older than the newest belong to it still.
SNAPSHOT: Final = timedelta(hours=1)
YEAR: Final = timedelta(days=365)

GREEKS_COMPUTED: Final = "greeks computed"
OTHER_SHARES: Final = "does not deliver 100 shares: its price is not that of an option on the plain share"
NO_RATE: Final = "no interest rate is set"
EXPIRED: Final = "expired"
NO_SPOT: Final = "no underlying price"
NO_QUOTE: Final = "no bid and ask"
NO_BID: Final = "no bid"
NO_ASK: Final = "no ask"
CROSSED: Final = "bid above ask"
BELOW: Final = "price not above intrinsic value"
ABOVE: Final = "price not below the highest possible"


@dataclass(frozen=True, slots=True)
class Carry:
    """What holding the underlying costs and brings, per year, continuously compounded."""

    rate: float | None
    """The riskless rate; None computes nothing."""
    dividends: float = 0.0
    """Money a share paid over the past year: what it is expected to pay over the next."""


def completed(chain: pl.DataFrame, carry: Carry) -> pl.DataFrame:
    """The chain with volatilities and greeks of ours where the source has none; its own are kept as they are.

    A volatility of ours is that of the middle of bid and ask. American contracts, and those whose style is not told,
    are priced with early exercise; `iv_reason` says why there is no volatility, or that greeks are ours.

    Args:
        chain: rows in the OPTIONS schema.
        carry: the rate and dividends to assume.
    """
    if chain.is_empty():
        return chain
    given = with_closes(chain).with_columns(iv=pl.when(pl.col("iv") > 0).then("iv"))
    reasons = given.select(_reason()).to_series()
    if carry.rate is None:
        reason = pl.coalesce(pl.lit(reasons), pl.lit(NO_RATE))
        told = pl.when(pl.col("iv").is_null()).then(reason).otherwise(pl.col("iv_reason"))
        return given.with_columns(iv_reason=told).select(chain.columns)
    contracts = contracts_of(given, carry)
    possible = given.select(_priceable()).to_series().to_numpy()
    european = (given["exercise_style"] == "european").fill_null(value=False).to_numpy()
    volatility = given["iv"].fill_null(np.nan).to_numpy().copy()
    wanted = np.isnan(volatility) & reasons.is_null().to_numpy()
    middle = given.select((pl.col("bid") + pl.col("ask")).cast(pl.Float64) / 2).to_series().fill_null(np.nan).to_numpy()
    for chosen, model in ((wanted & european, implied), (wanted & ~european, american)):
        volatility[chosen] = model.implied_volatility(contracts[chosen], middle[chosen])
    found = np.full((len(GREEKS), len(volatility)), np.nan)
    known = possible & ~np.isnan(volatility)
    for chosen, pricing in ((known & european, options), (known & ~european, american)):
        values = pricing.greeks(contracts[chosen], volatility[chosen])
        found[:, chosen] = [getattr(values, name) for name in GREEKS]
    at_once = np.where(european, 0.0, contracts.sign * (contracts.spot - contracts.strike))
    why = np.where(middle <= np.maximum(at_once, contracts.intrinsic), BELOW, ABOVE)
    unsolved = pl.Series(wanted & np.isnan(volatility))
    reasons = pl.select(pl.when(unsolved).then(pl.Series(why)).otherwise(reasons)).to_series()
    return _written(given, volatility, found, reasons).select(chain.columns)


def _written(given: pl.DataFrame, volatility: Doubles, found: Doubles, reasons: pl.Series) -> pl.DataFrame:
    computed = {name: pl.Series(values, nan_to_null=True) for name, values in zip(GREEKS, found, strict=True)}
    ours = pl.Series(volatility, nan_to_null=True)
    told = pl.col("iv").is_not_null()
    missing = pl.all_horizontal(pl.col(name).is_null() for name in GREEKS[:4])
    solved = pl.lit(ours).is_not_null()
    return given.with_columns(
        iv=pl.coalesce("iv", pl.lit(ours)),
        **{name: pl.coalesce(name, pl.lit(values)) for name, values in computed.items()},
        iv_origin=pl.when(told).then(pl.lit("source")).when(solved).then(pl.lit("computed")),
        iv_reason=pl.when(told & (pl.lit(reasons) == CROSSED))
        .then(pl.lit(CROSSED))
        .when(told & ~missing)
        .then(pl.lit(None, pl.String))
        .when(told & pl.lit(computed["delta"]).is_not_null())
        .then(pl.lit(GREEKS_COMPUTED))
        .when(told)
        .then(pl.coalesce(pl.lit(reasons), "iv_reason"))
        .when(solved)
        .then(pl.lit(None, pl.String))
        .otherwise(pl.lit(reasons)),
    )


def contracts_of(chain: pl.DataFrame, carry: Carry) -> Contracts:
    """The rows as contracts; time runs to the close of the exchange on the day of expiration."""
    chain = chain if CLOSES in chain.columns else with_closes(chain)
    numbers = {
        name: chain[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in ("underlying_price", "strike")
    }
    spot = numbers["underlying_price"]
    with np.errstate(divide="ignore", invalid="ignore"):
        dividends = np.where(spot > 0, np.log1p(carry.dividends / spot), np.nan)
    return Contracts.of(
        (chain["option_type"] == "call").to_numpy(),
        spot,
        numbers["strike"],
        chain.select(_years()).to_series().to_numpy(),
        0.0 if carry.rate is None else carry.rate,
        dividends,
    )


def with_closes(chain: pl.DataFrame) -> pl.DataFrame:
    """The rows with the moment at which each contract dies: the close of the last session of its life."""
    days = chain["expiration"].drop_nulls().unique().to_list()
    closes = {day: last_close(CALENDAR, day) for day in days}
    moment = pl.col("expiration").replace_strict(closes, default=None, return_dtype=UTC_MICROS)
    return chain.with_columns(moment.alias(CLOSES))


def _years() -> pl.Expr:
    return (pl.col(CLOSES) - pl.col("timestamp")).dt.total_microseconds() / MICROS_A_YEAR


def _priceable() -> pl.Expr:
    return (standard() & (pl.col("underlying_price") > 0) & (pl.col("strike") > 0) & (_years() > 0)).fill_null(
        value=False
    )


def _reason() -> pl.Expr:
    """Why no volatility can be had of the quote; null where it can be tried."""
    bid, ask = pl.col("bid").fill_null(0) <= 0, pl.col("ask").fill_null(0) <= 0
    spot = (pl.col("underlying_price").is_null()) | (pl.col("underlying_price") <= 0)
    return (
        pl.when(_years() <= 0)
        .then(pl.lit(EXPIRED))
        .when(~standard())
        .then(pl.lit(OTHER_SHARES))
        .when(spot)
        .then(pl.lit(NO_SPOT))
        .when(bid & ask)
        .then(pl.lit(NO_QUOTE))
        .when(bid)
        .then(pl.lit(NO_BID))
        .when(ask)
        .then(pl.lit(NO_ASK))
        .when(pl.col("bid") > pl.col("ask"))
        .then(pl.lit(CROSSED))
        .alias("reason")
    )


def paid_last_year(database: Database, instrument: Instrument, now: datetime) -> float:
    """What a share paid in ordinary dividends over the past year, by the source that has most of them; 0 for none."""
    known = newest_versions(database, DIVIDENDS, instrument, TimeRange(now - YEAR, now)).filter(
        pl.col("dividend_type") == "cash"
    )
    by_source = known.group_by("source").agg(pl.len().alias("payments"), pl.col("amount").cast(pl.Float64).sum())
    best = by_source.sort("payments", "source", descending=[True, False])
    return 0.0 if best.is_empty() else float(best["amount"][0])


def latest_chain(database: Database, instrument: Instrument, as_of: datetime | None = None) -> pl.DataFrame:
    """The newest chain that is stored of one source, each contract once, in order; as known at `as_of`.

    Returns:
        the columns of OPTIONS and `source`; no rows when there is none.
    """
    newest = newest_moment(database, OPTIONS, instrument, as_of)
    if newest is None:
        return OPTIONS.empty().with_columns(source=pl.lit(None, pl.String))
    span = TimeRange(newest - SNAPSHOT, newest + MICROSECOND)
    rows = newest_versions(database, OPTIONS, instrument, span, as_of=as_of)
    source = rows.sort("timestamp", "source", descending=[True, False])["source"][0]
    chain = rows.filter(pl.col("source") == source).sort("timestamp")
    last = chain.unique("contract", keep="last").sort("expiration", "option_type", "strike")
    return last.select(*OPTIONS.schema.names(), "source").with_columns(pl.col("timestamp").cast(UTC_MICROS))
