"""Canonical records: one frozen model each; schemas of frames, tables and JSON come from them.

Times are UTC. Prices and sizes are exact decimals as the source sent them. Absent is None.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Exact = Annotated[Decimal, Field(allow_inf_nan=False)]
NonNegative = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]


class Record(BaseModel):
    """A frozen row; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Candle(Record):
    """Open, high, low, close and volume over [timestamp, timestamp + timeframe); closed ones only, raw prices."""

    timestamp: AwareDatetime
    """Open time."""
    open: Exact
    high: Exact
    low: Exact
    close: Exact
    volume: Exact
    """Base units: shares, coins."""
    quote_volume: Exact | None = None
    """Traded value in the quote currency."""
    vwap: Exact | None = None
    trade_count: int | None = None
    taker_buy_volume: Exact | None = None
    """Base units bought by takers."""
    taker_buy_quote_volume: Exact | None = None
    notes: str | None = None
    """What the provider found or repaired, in its own words' names; None when nothing."""


class Trade(Record):
    """One match."""

    timestamp: AwareDatetime
    trade_id: str
    price: Exact
    size: NonNegative
    aggressor_side: Literal["buy", "sell"] | None = None
    """Who crossed the spread; None where the source does not say."""
    venue: str | None = None
    conditions: tuple[str, ...] | None = None
    correction: int | None = None
    """The tape's indicator: 1 corrected, 7 in error, 8 cancelled; 10, 11 and 12 only say so of another trade."""


class Quote(Record):
    """Best bid and ask with sizes."""

    timestamp: AwareDatetime
    sequence: int
    bid_price: Exact | None = None
    bid_size: NonNegative | None = None
    ask_price: Exact | None = None
    ask_size: NonNegative | None = None


class Observation(Record):
    """A value on its own clock: what it speaks of, and when it was published."""

    timestamp: AwareDatetime
    known_at: AwareDatetime
    """Nothing may use the value at an earlier moment."""


class OpenInterest(Observation):
    """Contracts outstanding at a moment."""

    value: NonNegative
    """Base units."""
    value_quote: NonNegative | None = None


class FundingRate(Observation):
    """A perpetual's periodic rate, as published."""

    rate: Exact
    """Fraction per funding interval."""
    rate_type: str = "Regular"
    mark_price: Exact | None = None


class PremiumIndex(Observation):
    """How far a perpetual's price stands from its index at the end of the period that ends at `timestamp`."""

    period: str
    value: Exact
    """Fraction of the index, as the exchange computes it; the funding rate is made of its mean."""


class LongShortRatio(Observation):
    """Longs over shorts of the accounts of a kind, as the exchange publishes it."""

    kind: Literal["global_accounts", "top_accounts", "top_positions"]
    ratio: NonNegative
    long_account: NonNegative | None = None
    short_account: NonNegative | None = None


class TakerVolume(Observation):
    """Volume bought and sold by takers over the period that ends at `timestamp`."""

    period: str
    buy_volume: NonNegative
    sell_volume: NonNegative


class SpotFlow(Observation):
    """Quote volume bought and sold by takers on the spot market over the period that ends at `timestamp`."""

    period: str
    buy_quote: NonNegative
    sell_quote: NonNegative


class Liquidation(Observation):
    """One forced order; `side` is the side liquidated."""

    liquidation_id: str
    side: Literal["long", "short"]
    price: Exact
    size: NonNegative


class Dividend(Record):
    """Cash paid per share, as declared: not adjusted for later splits."""

    ex_date: date
    amount: NonNegative
    currency: str | None = None
    declaration_date: date | None = None
    record_date: date | None = None
    pay_date: date | None = None
    frequency: int | None = None
    """Payments a year."""
    dividend_type: str = "cash"
    """cash, special, capital_gain …: two of different types may share an ex-date."""
    component: int | None = None
    """Counts what a source tells of one type for one ex-date: parts of a payment, or other currencies."""
    notes: str | None = None


class StockSplit(Record):
    """`split_to` shares for every `split_from` held, from the open of `execution_date`."""

    execution_date: date
    split_from: Exact
    split_to: Exact
    component: int | None = None
    """Counts the ratios that a source tells for one day."""
    notes: str | None = None


class FxRate(Record):
    """What one unit of a currency was worth at the end of a day, for payments in another currency than the prices."""

    date: date
    currency: str
    quote_currency: str
    """What `rate` is in."""
    rate: Exact
    notes: str | None = None


class Earnings(Record):
    """One fiscal quarter, reported or expected; quarter 0 is the whole year."""

    fiscal_year: int
    fiscal_quarter: int
    period_end: date | None = None
    report_date: date | None = None
    report_time: Literal["before_open", "during_session", "after_close"] | None = None
    eps_estimate: Exact | None = None
    eps_actual: Exact | None = None
    eps_surprise: Exact | None = None
    surprise_pct: float | None = None
    """Percent of the estimate."""
    revenue_estimate: Exact | None = None
    revenue_actual: Exact | None = None
    currency: str | None = None
    notes: str | None = None


class OptionQuote(Record):
    """One contract of a chain at a moment."""

    timestamp: AwareDatetime
    contract: str
    """OCC form without prefix: AAPL261218C00200000."""
    option_type: Literal["call", "put"]
    exercise_style: Literal["american", "european"] | None = None
    expiration: date
    strike: Exact
    bid: Exact | None = None
    ask: Exact | None = None
    last: Exact | None = None
    volume: NonNegative | None = None
    open_interest: NonNegative | None = None
    underlying_price: Exact | None = None
    shares_per_contract: NonNegative | None = None
    """What it delivers; other than 100 after splits and mergers, which then are not told of one share."""
    iv: float | None = None
    """Implied volatility per year as a fraction: 0.25 is 25 %."""
    delta: float | None = None
    gamma: float | None = None
    theta: float | None = None
    """Per calendar day."""
    vega: float | None = None
    """Per percentage point of volatility."""
    rho: float | None = None
    """Per percentage point of the interest rate."""
    iv_origin: Literal["source", "computed"] | None = None
    iv_reason: str | None = None
    """Why there is no volatility or no greeks."""


class NewsItem(Record):
    """One article."""

    news_id: str
    published_at: AwareDatetime
    title: str
    summary: str | None = None
    url: str | None = None
    author: str | None = None
    publisher: str | None = None
    symbols: tuple[str, ...] = ()
    """Canonical symbols the source names."""
    keywords: tuple[str, ...] = ()
    sentiment: Literal["positive", "neutral", "negative"] | None = None
    """As the source judged it for the instruments it names, where it judged them alike."""


class ListedInstrument(Record):
    """A row of a source's instrument list."""

    raw_symbol: str
    symbol: str
    asset_class: str
    venue: str | None = None
    name: str | None = None
    currency: str | None = None
    status: str | None = None
    valid_from: AwareDatetime | None = None
    valid_to: AwareDatetime | None = None
