"""Adjusted views: prices and volumes as if today's shares had always been traded, from splits and dividends then known.

Raw prices are what is stored; factors are computed at read. For a candle of session date D, over the actions whose date
lies after D and not after the date of reading:

- splits: price x product of split_from / split_to, volume by the inverse;
- total: also price x product of (1 - dividend / close of the session before the ex-date). This is the convention of
  Yahoo, CRSP and LEAN. The other one in use, c / (c + d) with c the close of the ex-date (Quandl), is understood too.
  Both mean a return with the dividend reinvested, at the previous close or at that of the ex-date.

An amount is per share as traded on the ex-date: where a split falls on the same day the previous close is converted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from market_data.model.dataset import DIVIDENDS, EXACT, SPLITS, Dataset
from market_data.model.errors import UsageError
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.session import sessions
from market_data.model.timeframe import Timeframe, TimeRange, from_micros, to_micros
from market_data.storage.facts.reads import newest_versions
from market_data.storage.series.reader import Reader

PRICES: Final = ("open", "high", "low", "close", "vwap")
VOLUMES: Final = ("volume", "taker_buy_volume")
_ADJUSTED: Final = pl.Decimal(38, 12)
_DAY: Final = timedelta(days=1)


class Adjustment(StrEnum):
    """What prices and volumes are adjusted for."""

    NONE = "none"
    SPLITS = "splits"
    TOTAL = "total"

    @classmethod
    def parse(cls, name: str) -> Adjustment:
        """The adjustment of that name.

        Raises:
            UsageError: naming the valid ones.
        """
        try:
            return cls(name)
        except ValueError:
            raise UsageError(f"Invalid adjustment: {name!r}. Valid: {', '.join(cls)}") from None


class DividendRule(StrEnum):
    """Which close a dividend is measured against."""

    PREVIOUS_CLOSE = "previous_close"
    """1 - d / c, c the close of the session before the ex-date: ours."""
    EX_DATE_CLOSE = "ex_date_close"
    """c / (c + d), c the close of the ex-date."""


@dataclass(frozen=True, slots=True)
class Actions:
    """Corporate actions that had taken effect: `splits` (date, ratio = from / to), `dividends` (date, amount)."""

    splits: pl.DataFrame
    dividends: pl.DataFrame


def known_actions(reader: Reader, instrument: Instrument, as_of: datetime) -> Actions:
    """Splits and dividends known at a moment and in effect by then, each from the source that has most of them."""
    splits = _of_one_source(reader, SPLITS, instrument, as_of).select(
        pl.col("execution_date").alias("date"),
        pl.col("split_from").cast(pl.Float64).alias("from"),
        pl.col("split_to").cast(pl.Float64).alias("to"),
    )
    dividends = _of_one_source(reader, DIVIDENDS, instrument, as_of)
    ratio = splits["from"].to_numpy() / splits["to"].to_numpy()
    paid = dividends.group_by(pl.col("ex_date").alias("date")).agg(pl.col("amount").sum().cast(pl.Float64))
    return Actions(splits.select("date").with_columns(ratio=pl.Series(ratio, dtype=pl.Float64)), paid.sort("date"))


def _of_one_source(reader: Reader, dataset: Dataset, instrument: Instrument, as_of: datetime) -> pl.DataFrame:
    """Two sources' dates of the same event may differ by a day: mixing them would count it twice."""
    known = newest_versions(reader.database, dataset, instrument, as_of=as_of)
    known = known.filter(pl.col(dataset.time) <= as_of.date())
    if known.is_empty():
        return known
    most = known.group_by("source").len().sort(["len", "source"], descending=[True, False])["source"][0]
    return known.filter(pl.col("source") == most).sort(dataset.time)


def factors(
    dates: pl.Series,
    actions: Actions,
    closes: pl.DataFrame,
    adjustment: Adjustment,
    rule: DividendRule = DividendRule.PREVIOUS_CLOSE,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per session date what to multiply prices by, and what to divide volumes by.

    Args:
        dates: session dates.
        actions: what happened.
        closes: `date`, `close` of sessions in order, raw, as far as known; used for dividends.
        adjustment: for what to adjust.
        rule: against which close a dividend is measured.

    Returns:
        NaN in the first where the close that a dividend is measured against is not known.
    """
    wanted = dates.cast(pl.Int32).to_numpy()
    split = _after(wanted, actions.splits["date"], actions.splits["ratio"].to_numpy())
    if adjustment is not Adjustment.TOTAL:
        return split, split
    paid = actions.dividends
    if not paid.is_empty():
        paid = paid.filter(pl.col("date") > dates.min())
    each = np.array([_dividend_factor(row, actions.splits, closes, rule) for row in paid.iter_rows()], np.float64)
    return split * _after(wanted, paid["date"], each), split


def _dividend_factor(paid: tuple[date, float], splits: pl.DataFrame, closes: pl.DataFrame, rule: DividendRule) -> float:
    day, amount = paid
    if rule is DividendRule.EX_DATE_CLOSE:
        found = closes.filter(pl.col("date") == day)["close"]
        return float("nan") if found.is_empty() else float(found[0]) / (float(found[0]) + amount)
    before = closes.filter(pl.col("date") == _session_before(day))["close"]
    if before.is_empty():
        return float("nan")
    same_day = splits.filter(pl.col("date") == day)["ratio"].to_list()
    return 1.0 - amount / (float(before[0]) * float(np.prod(same_day)))


def _session_before(day: date) -> date:
    midnight = to_micros(datetime.combine(day, datetime.min.time()).replace(tzinfo=UTC))
    opens, _ = sessions(AssetClass.STOCK.calendar, midnight - 14 * 86_400_000_000, midnight)
    return from_micros(int(opens[-1])).date() if len(opens) else day - _DAY


def _after(wanted: NDArray[np.int32], days: pl.Series, each: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per wanted day the product of the factors of all later days."""
    order = np.argsort(days.cast(pl.Int32).to_numpy(), kind="stable")
    later = days.cast(pl.Int32).to_numpy()[order]
    products = np.append(np.cumprod(each[order][::-1])[::-1], 1.0)
    return products[np.searchsorted(later, wanted, side="right")]


def adjust(
    reader: Reader,
    series: Series,
    rows: pl.DataFrame,
    adjustment: Adjustment,
    as_of: datetime,
    rule: DividendRule = DividendRule.PREVIOUS_CLOSE,
) -> pl.DataFrame:
    """Candles with adjusted prices and volumes; null where a factor is not known.

    Args:
        reader: reads the database.
        series: whose candles.
        rows: candles in order, raw.
        adjustment: for what to adjust.
        as_of: only what was known and in effect then counts.
        rule: against which close a dividend is measured.
    """
    if adjustment is Adjustment.NONE or series.asset_class is AssetClass.CRYPTO or rows.is_empty():
        return rows
    actions = known_actions(reader, series.instrument, as_of)
    # A regular session lies within one UTC day.
    dates = rows["timestamp"].dt.date()
    closes = _closes(reader, series, rows, as_of) if adjustment is Adjustment.TOTAL else _NO_CLOSES
    price, volume = factors(dates, actions, closes, adjustment, rule)
    if series.timeframe is Timeframe.W1:
        price = np.where(_acted_within(dates, actions, adjustment), np.nan, price)
    shares = np.where(np.isnan(price), np.nan, 1.0 / volume)
    return rows.with_columns(
        *(_times(rows, name, price) for name in PRICES if name in rows.columns),
        *(_times(rows, name, shares) for name in VOLUMES if name in rows.columns),
    )


def _times(rows: pl.DataFrame, name: str, factor: NDArray[np.float64]) -> pl.Series:
    """A column times a factor; left exact where nothing changes."""
    values = rows[name].cast(pl.Float64).fill_null(np.nan).to_numpy() * factor
    product = pl.Series(name, values, nan_to_null=True).cast(_ADJUSTED).cast(EXACT)
    same = pl.Series(factor == 1.0)
    return pl.select(pl.when(same).then(rows[name]).otherwise(product).alias(name)).to_series()


def _acted_within(dates: pl.Series, actions: Actions, adjustment: Adjustment) -> NDArray[np.bool_]:
    """Weeks within which something happened: part of such a candle is of other shares than the rest."""
    days = actions.splits["date"]
    if adjustment is Adjustment.TOTAL:
        days = pl.concat([days, actions.dividends["date"]])
    later = np.sort(days.cast(pl.Int32).to_numpy())
    first = dates.cast(pl.Int32).to_numpy()
    end_of_week = first - (first + 3) % 7 + 6
    inside: NDArray[np.bool_] = np.searchsorted(later, end_of_week, "right") > np.searchsorted(later, first, "right")
    return inside


def _closes(reader: Reader, series: Series, rows: pl.DataFrame, as_of: datetime) -> pl.DataFrame:
    """Raw closes by session date: the daily series' where it has them, else the last candle's of the series itself."""
    first: datetime = rows["timestamp"][0]
    span = TimeRange(first - 14 * _DAY, max(as_of, first) + _DAY)
    daily = reader.candles(Series(series.instrument, Timeframe.D1), span, as_of=as_of)
    own = reader.candles(series, span, as_of=as_of) if series.timeframe.intraday else daily.clear()
    both = [found.select(pl.col("timestamp").dt.date().alias("date"), "close") for found in (own, daily)]
    return pl.concat(both).unique("date", keep="last", maintain_order=True).sort("date").select("date", "close")


_NO_CLOSES: Final = pl.DataFrame(schema={"date": pl.Date, "close": EXACT})
