"""Adjusted views: prices and volumes as if today's shares had always been traded, from the events believed.

Raw prices are what is stored; factors are computed at read (`factors.py`) from what was believed and in effect at the
moment of reading. A week within which something happened is made of its adjusted days. Intraday candles lie within one
session, so that nothing happens inside them. Where a factor cannot be known the values are null, and the notes say why.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from market_data.model.aggregation import NOTE_PARTS_UNKNOWN, NOTE_SEPARATOR, aggregate
from market_data.model.dataset import CANDLES, DIVIDENDS, EXACT, FX_RATES, SPLITS, UTC_MICROS
from market_data.model.errors import UsageError
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.session import Grid, grid
from market_data.model.timeframe import MICROSECOND, Timeframe, TimeRange, from_micros
from market_data.pipeline.read.factors import (
    Closes,
    Cumulated,
    DividendRule,
    Effect,
    Rates,
    cumulated,
    payment_effects,
    split_effects,
)
from market_data.pipeline.write.believe import PRICED_IN, believed_payments, believed_splits
from market_data.storage.facts.actions import asked_since, covered
from market_data.storage.facts.reads import newest_versions
from market_data.storage.series.reader import Reader

PRICES: Final = ("open", "high", "low", "close", "vwap")
VOLUMES: Final = ("volume", "taker_buy_volume")
UNKNOWN: Final = "adjustment_unknown"
FRESH: Final = timedelta(days=7)
"""An answer this old still speaks for what happened since: events are announced."""
_DAY: Final = timedelta(days=1)


class Adjustment(StrEnum):
    """What prices and volumes are adjusted for."""

    NONE = "none"
    SPLITS = "splits"
    TOTAL = "total"
    """Splits and payments, reinvested at the last close before the ex-date."""
    TOTAL_EX_DATE = "total_ex_date"
    """Splits and payments, reinvested at the close of the ex-date."""

    @property
    def of_payments(self) -> bool:
        """Whether payments count."""
        return self in (Adjustment.TOTAL, Adjustment.TOTAL_EX_DATE)

    @property
    def rule(self) -> DividendRule:
        """The close that payments are measured against."""
        return DividendRule.EX_DATE_CLOSE if self is Adjustment.TOTAL_EX_DATE else DividendRule.PREVIOUS_CLOSE

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


def require_asked(
    reader: Reader, instrument: Instrument, adjustment: Adjustment, first: date, last: date, today: date
) -> None:
    """Refuse to call prices of [first, last] adjusted where no source was asked what happened to them.

    Raises:
        UsageError: naming the command that asks.
    """
    for dataset in (SPLITS, DIVIDENDS) if adjustment.of_payments else (SPLITS,):
        answers = [
            TimeRange(row["start_time"], until)
            for row in asked_since(reader.database, dataset, instrument)
            if (until := min(row["end_time"], row["answered_at"] + FRESH)) > row["start_time"]
        ]
        if not covered(answers, first, last):
            days = (today - first).days + 1
            raise UsageError(
                f"nobody was asked for all {dataset.name} of {instrument} since {first}: these prices cannot be "
                f"adjusted; run 'market-data backfill {dataset.name} --symbol {instrument.symbol} "
                f"--asset-class {instrument.asset_class} --days {days}'"
            )


def effects_of(
    reader: Reader, instrument: Instrument, adjustment: Adjustment, closes: Closes, as_of: datetime
) -> list[Effect]:
    """What had happened by a moment as it was believed then."""
    splits = [each for each in believed_splits(reader, instrument, as_of) if each.date <= as_of.date()]
    effects = split_effects(splits)
    if adjustment.of_payments:
        paid = [each for each in believed_payments(reader, instrument, as_of) if each.date <= as_of.date()]
        rates = rates_of(reader, instrument, as_of)
        effects += payment_effects(paid, splits, closes, rates, adjustment.rule, PRICED_IN)
    return effects


def rates_of(reader: Reader, instrument: Instrument, as_of: datetime) -> Rates:
    """The rates of currencies known by a moment that payments of an instrument are converted by."""
    known = newest_versions(reader.database, FX_RATES, instrument, as_of=as_of)
    found: dict[str, tuple[list[date], list[object]]] = {}
    for day, currency, rate in (
        known.filter(pl.col("quote_currency") == PRICED_IN)
        .sort("date", "source")
        .unique(["date", "currency"], keep="first", maintain_order=True)
        .select("date", "currency", "rate")
        .iter_rows()
    ):
        dates, rates = found.setdefault(currency, ([], []))
        dates.append(day)
        rates.append(rate)
    return Rates(found)  # type: ignore[arg-type]  # a column of decimals


@dataclass(frozen=True, slots=True)
class View:
    """How the candles of a series are adjusted as of a moment; worked out once for all of them."""

    reader: Reader
    series: Series
    adjustment: Adjustment
    effects: list[Effect]
    factors: Cumulated
    as_of: datetime

    def adjusted(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Candles, in order, with adjusted prices and volumes; null where a factor is not known: the notes say why."""
        if rows.is_empty() or not self.effects:
            return rows
        applied = _applied(rows, self.factors)
        return self._weeks_made_of_days(applied) if self.series.timeframe is Timeframe.W1 else applied

    def _weeks_made_of_days(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Weeks within which something happened, made of their adjusted days; null where a day is missing."""
        touched = self._weeks_touched(TimeRange(rows["timestamp"][0], rows["timestamp"][-1] + MICROSECOND))
        if not len(touched):
            return rows
        span = TimeRange(from_micros(touched.opens[0]), from_micros(touched.ends[-1]))
        days = Series(self.series.instrument, Timeframe.D1)
        daily = CANDLES.conform(self.reader.candles(days, span, as_of=self.as_of))
        made = aggregate(_applied(daily, self.factors), touched, grid(days.asset_class, days.timeframe, span))
        whole = made.filter(~pl.col("notes").fill_null("").str.contains(NOTE_PARTS_UNKNOWN, literal=True))
        names = [name for name in (*PRICES, *VOLUMES) if name in rows.columns]
        values = whole.select("timestamp", *names)
        found = rows.join(values, on="timestamp", how="left", suffix="_made", maintain_order="left")
        opens = pl.Series(touched.opens).cast(rows.schema["timestamp"])
        inside = pl.col("timestamp").is_in(opens.implode())
        found = found.with_columns(pl.when(inside).then(f"{name}_made").otherwise(name).alias(name) for name in names)
        lacking = found.select(pl.when(inside & pl.col("close_made").is_null()).then(pl.lit(NO_DAYS))).to_series()
        return _noted(found.select(rows.columns), lacking)

    def _weeks_touched(self, extent: TimeRange) -> Grid:
        weeks = grid(self.series.asset_class, Timeframe.W1, extent)
        days = np.sort(_days_of([effect.date for effect in self.effects]))
        first, last = (_days_of(pl.Series(at).cast(UTC_MICROS)) for at in (weeks.opens, weeks.ends - 1))
        inside = np.searchsorted(days, last, "right") > np.searchsorted(days, first, "right")
        return Grid(weeks.opens[inside], weeks.ends[inside])


def view_of(reader: Reader, series: Series, since: datetime, adjustment: Adjustment, as_of: datetime) -> View:
    """How candles that open at `since` or later are adjusted, by what was known and in effect at `as_of`."""
    effects: list[Effect] = []
    if adjustment is not Adjustment.NONE and series.asset_class is not AssetClass.CRYPTO:
        closes = closes_of(reader, series, since, as_of) if adjustment.of_payments else Closes((), ())
        known = effects_of(reader, series.instrument, adjustment, closes, as_of)
        effects = [effect for effect in known if effect.date > since.date()]
    return View(reader, series, adjustment, effects, cumulated(effects), as_of)


def _days_of(times: pl.Series | list[date]) -> NDArray[np.int32]:
    # A regular session lies within one UTC day.
    return pl.Series(times).cast(pl.Date).cast(pl.Int32).to_numpy()


def _applied(rows: pl.DataFrame, factors: Cumulated) -> pl.DataFrame:
    place = np.searchsorted(_days_of(list(factors.dates)), _days_of(rows["timestamp"]), side="right")
    price = np.append(np.array([np.nan if f is None else f for f in factors.price], np.float64), 1.0)[place]
    shares = np.append(np.array(factors.shares, np.float64), 1.0)[place]
    shares = np.where(np.isnan(price), np.nan, shares)
    reasons = pl.Series([*factors.reasons, None], dtype=pl.String).gather(place)
    adjusted = rows.with_columns(
        *(_times(rows, name, price) for name in PRICES if name in rows.columns),
        *(_times(rows, name, shares) for name in VOLUMES if name in rows.columns),
    )
    return _noted(adjusted, reasons)


def _noted(rows: pl.DataFrame, reasons: pl.Series) -> pl.DataFrame:
    if "notes" not in rows.columns or reasons.null_count() == len(reasons):
        return rows
    told = pl.format(f"{UNKNOWN}: {{}}", pl.lit(reasons))
    notes = pl.concat_str("notes", told, separator=NOTE_SEPARATOR, ignore_nulls=True)
    return rows.with_columns(notes=pl.when(pl.lit(reasons).is_null()).then("notes").otherwise(notes))


def _times(rows: pl.DataFrame, name: str, factor: NDArray[np.float64]) -> pl.Series:
    """A column times a factor; left exact where nothing changes."""
    values = pl.Series("value", rows[name].cast(pl.Float64).fill_null(np.nan).to_numpy() * factor, nan_to_null=True)
    # Twelve digits of what is left, and no more than a double holds: the rest would be noise.
    size = pl.col("value").abs()
    product = (
        pl.when(size >= 1)
        .then(pl.col("value").cast(pl.Decimal(38, 12)).cast(EXACT))
        .when(size >= 1e-3)
        .then(pl.col("value").cast(pl.Decimal(38, 15)).cast(EXACT))
        .otherwise(pl.col("value").cast(EXACT))
    )
    same = pl.Series(factor == 1.0)
    frame = pl.DataFrame({"value": values, "raw": rows[name]})
    return frame.select(pl.when(same).then("raw").otherwise(product).alias(name)).to_series()


NO_DAYS: Final = "something happened within the week, and not all its days are known"


def closes_of(reader: Reader, series: Series, since: datetime, as_of: datetime) -> Closes:
    """Raw closes by session date: the daily series' where it has them, else those of the series itself."""
    span = TimeRange(since - 14 * _DAY, max(as_of, since) + _DAY)
    daily = reader.candles(Series(series.instrument, Timeframe.D1), span, as_of=as_of)
    own = daily.clear() if series.timeframe is Timeframe.D1 else reader.candles(series, span, as_of=as_of)
    day = _last_session(series, span) if series.timeframe is Timeframe.W1 else pl.col("timestamp").dt.date()
    both = [
        own.select(day.alias("date"), "close"),
        daily.select(pl.col("timestamp").dt.date().alias("date"), "close"),
    ]
    known = pl.concat(both).drop_nulls().unique("date", keep="last", maintain_order=True).sort("date")
    weekly = series.timeframe is Timeframe.W1
    of_weeks = frozenset(known["date"]) - frozenset(both[1]["date"]) if weekly else frozenset[date]()
    return Closes(known["date"].to_list(), known["close"].to_list(), of_weeks, series.asset_class.calendar)


def _last_session(series: Series, span: TimeRange) -> pl.Expr:
    """The date whose close a week's close is."""
    weeks = grid(series.asset_class, Timeframe.W1, span)
    both = zip(weeks.opens, weeks.ends, strict=True)
    last = {from_micros(opens): (from_micros(ends) - MICROSECOND).date() for opens, ends in both}
    return pl.col("timestamp").replace_strict(last, default=None, return_dtype=pl.Date)
