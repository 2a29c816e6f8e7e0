"""Rules for what is not a candle: corporate actions, earnings, option quotes, news. A name says what is wrong.

A rule rejects what would do harm where it is used (a ratio of zero adjusts all prices away); what is only odd is noted.
"""

from __future__ import annotations

from datetime import date
from typing import Final

import polars as pl

from market_data.model.dataset import DIVIDENDS, EARNINGS, NEWS, OPTIONS, SPLITS
from market_data.model.rule import Severity, rule

# ISO 4217 without funds and metals, with what was replaced lately: old dividends were paid in it.
_CODES: Final = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF "
    "CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD "
    "HNL HRK HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL "
    "LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR "
    "PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP "
    "TRY TTD TWD TZS UAH UGX USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG"
)
CURRENCIES: Final = tuple(_CODES.split())
# Payments a year; 0 is once and for all.
FREQUENCIES: Final = (0, 1, 2, 3, 4, 6, 12, 24, 26, 52, 365)
# No exchange we know of has older records, and nobody announces later.
OLDEST, LATEST = date(1900, 1, 1), date(2100, 1, 1)
EXTREME_SPLIT: Final = 1000.0
# Sources round estimates and surprises to a cent before or after they subtract.
SURPRISE_TOLERANCE: Final = 0.011
# Percentage points that are rounding, beside the twentieth of the surprise that a rounded estimate moves.
SURPRISE_POINTS: Final = 1.0
NEW_YORK: Final = "America/New_York"


def _plausible(column: str) -> pl.Expr:
    return pl.col(column).is_between(OLDEST, LATEST)


@rule(Severity.REJECT, dataset=DIVIDENDS)
def dividend_not_positive() -> pl.Expr:
    """The amount is a number above zero."""
    return pl.col("amount").is_finite() & (pl.col("amount") > 0)


@rule(Severity.REJECT, dataset=DIVIDENDS)
def dividend_date_implausible() -> pl.Expr:
    """The ex-date is a day of 1900 to 2099."""
    return _plausible("ex_date")


@rule(Severity.REJECT, dataset=DIVIDENDS)
def dividend_currency_unknown() -> pl.Expr:
    """The currency, where it is said, is a code of ISO 4217: an amount in an unknown one is no amount."""
    return pl.col("currency").is_in(CURRENCIES)


@rule(Severity.NOTE, dataset=DIVIDENDS)
def dividend_dates_out_of_order() -> pl.Expr:
    """It is declared by its ex-date and record date, and paid on the record date or later.

    The ex-date of a large special dividend may follow the day it is paid, so these two are not compared.
    """
    return pl.all_horizontal(
        (pl.col(first) <= pl.col(second)).fill_null(value=True)
        for first, second in (
            ("declaration_date", "ex_date"),
            ("declaration_date", "record_date"),
            ("record_date", "pay_date"),
        )
    )


@rule(Severity.NOTE, dataset=DIVIDENDS)
def dividend_frequency_unknown() -> pl.Expr:
    """The payments a year, where they are said, are 0 (once), 1, 2, 3, 4, 6, 12, 24, 26, 52 or 365."""
    return pl.col("frequency").is_in(FREQUENCIES)


@rule(Severity.REJECT, dataset=SPLITS)
def split_not_positive() -> pl.Expr:
    """Both sides of the ratio are numbers above zero; a reverse split has more on the left."""
    return pl.all_horizontal(pl.col(side).is_finite() & (pl.col(side) > 0) for side in ("split_from", "split_to"))


@rule(Severity.REJECT, dataset=SPLITS)
def split_without_change() -> pl.Expr:
    """The two sides of the ratio differ."""
    return pl.col("split_from") != pl.col("split_to")


@rule(Severity.REJECT, dataset=SPLITS)
def split_date_implausible() -> pl.Expr:
    """The execution date is a day of 1900 to 2099."""
    return _plausible("execution_date")


@rule(Severity.NOTE, dataset=SPLITS)
def split_extreme() -> pl.Expr:
    """The ratio is below 1000 in either direction."""
    ratio = pl.col("split_to") / pl.col("split_from")
    # What is no ratio at all is another rule's business.
    return (ratio <= 0) | ratio.is_infinite() | ratio.is_between(1 / EXTREME_SPLIT, EXTREME_SPLIT, closed="none")


@rule(Severity.REJECT, dataset=EARNINGS)
def earnings_period_unknown() -> pl.Expr:
    """The quarter is 1 to 4, or 0 for the whole year, of a year from 1900 to 2099."""
    return pl.col("fiscal_quarter").is_between(0, 4) & pl.col("fiscal_year").is_between(OLDEST.year, LATEST.year - 1)


@rule(Severity.REJECT, dataset=EARNINGS)
def earnings_currency_unknown() -> pl.Expr:
    """The currency, where it is said, is a code of ISO 4217."""
    return pl.col("currency").is_in(CURRENCIES)


@rule(Severity.NOTE, dataset=EARNINGS)
def earnings_surprise_inconsistent() -> pl.Expr:
    """The surprise is what was earned less what was expected, its percentage that of the estimate, but for rounding."""
    difference = pl.col("eps_actual") - pl.col("eps_estimate")
    percent = 100 * difference / pl.col("eps_estimate").abs()
    absolute = (pl.col("eps_surprise") - difference).abs() <= SURPRISE_TOLERANCE
    # Half a cent of rounding is a large share of a small estimate.
    allowed = SURPRISE_POINTS + 0.05 * percent.abs() + 100 * SURPRISE_TOLERANCE / pl.col("eps_estimate").abs()
    relative = (pl.col("surprise_pct") - percent).abs() <= allowed
    # Of a percent or more a fraction is told apart, however coarse the figures are.
    as_fraction = (100 * pl.col("surprise_pct") - percent).abs() < (pl.col("surprise_pct") - percent).abs()
    relative &= ~as_fraction | (percent.abs() < SURPRISE_POINTS)
    return absolute.fill_null(value=True) & (relative.fill_null(value=True) | (pl.col("eps_estimate") == 0))


@rule(Severity.NOTE, dataset=EARNINGS)
def earnings_before_their_period_ended() -> pl.Expr:
    """A quarter is reported after it ended."""
    return pl.col("report_date") >= pl.col("period_end")


@rule(Severity.REJECT, dataset=OPTIONS)
def strike_not_positive() -> pl.Expr:
    """The strike is a number above zero."""
    return pl.col("strike").is_finite() & (pl.col("strike") > 0)


@rule(Severity.REJECT, dataset=OPTIONS)
def option_expired() -> pl.Expr:
    """The contract expires on the day of the quote, by New York's calendar, or later."""
    return pl.col("expiration") >= pl.col("timestamp").dt.convert_time_zone(NEW_YORK).dt.date()


@rule(Severity.REJECT, dataset=OPTIONS)
def option_value_negative() -> pl.Expr:
    """Prices, volume, open interest and volatility are not below zero."""
    names = ("bid", "ask", "last", "underlying_price", "volume", "open_interest", "iv")
    return pl.all_horizontal((pl.col(name) >= 0).fill_null(value=True) for name in names)


@rule(Severity.REJECT, dataset=OPTIONS)
def contract_contradicts_its_name() -> pl.Expr:
    """Expiration, kind and strike are those that the contract's OCC name spells."""
    spelled = (
        pl.col("expiration").dt.strftime("%y%m%d")
        + pl.when(pl.col("option_type") == "call").then(pl.lit("C")).otherwise(pl.lit("P"))
        + (pl.col("strike") * 1000).round().cast(pl.Int64, strict=False).cast(pl.String).str.zfill(8)
    )
    return pl.col("contract").str.ends_with(spelled) | ~pl.col("contract").str.contains(r"\d{6}[CP]\d{8}$")


@rule(Severity.NOTE, dataset=OPTIONS)
def quote_crossed() -> pl.Expr:
    """The bid is not above the ask."""
    return pl.col("bid") <= pl.col("ask")


@rule(Severity.REJECT, dataset=NEWS)
def news_without_title() -> pl.Expr:
    """The title says something."""
    return pl.col("title").str.strip_chars().str.len_chars() > 0


@rule(Severity.REJECT, dataset=NEWS)
def news_without_address() -> pl.Expr:
    """There is an address to read it at, of http or https."""
    return pl.col("url").is_not_null() & pl.col("url").fill_null("").str.contains(r"^https?://[^\s/]+\S*$")
