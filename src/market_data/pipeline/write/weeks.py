"""Weeks within which a split falls: a source's own mixes two kinds of shares, so the present is made of the days.

Such a candle is in the shares of its last session. Where a day is not stored it stays as its source gave it, says so,
and no feature looks at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import polars as pl

from market_data.model.cuts import PRICES, SHARES, Cut
from market_data.model.dataset import CANDLES, EXACT
from market_data.model.instrument import AssetClass, Series
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange, to_micros
from market_data.storage.series.reader import Reader

# The remark on such a candle, and what follows where it could not be made.
SPLIT_WITHIN: Final = "split_within"
DAYS_MISSING: Final = "split_within: not all of its days are stored"


def has_weeks(series: Series) -> bool:
    """Whether candles of the series may have a split within them."""
    return series.timeframe is Timeframe.W1 and series.asset_class is not AssetClass.CRYPTO


def with_made_weeks(
    reader: Reader, series: Series, rows: pl.DataFrame, cuts: Sequence[Cut], as_of: datetime | None = None
) -> tuple[pl.DataFrame, list[Cut]]:
    """The rows with their weeks that hold a split made of days, and the cuts; a week that cannot be is cut out.

    Args:
        reader: reads the days.
        series: whose rows.
        rows: candles in order, with `end`.
        cuts: where the series is cut.
        as_of: a past moment; None is now.

    Returns:
        the rows with one more column, `mixed`: true for a candle in two kinds of shares.
    """
    found, mixed = list(cuts), list[datetime]()
    for week in rows.iter_rows(named=True) if has_weeks(series) else ():
        inside = splits_within(week["timestamp"], week["end"], cuts)
        if not inside:
            continue
        made = _made(reader, series, TimeRange(week["timestamp"], week["end"]), inside, as_of)
        if made is None:
            mixed.append(week["timestamp"])
            found += [Cut(to_micros(week["timestamp"]), None), Cut(to_micros(week["end"]), None)]
        said = DAYS_MISSING if made is None else SPLIT_WITHIN
        notes = "; ".join(filter(None, (week["notes"], said)))
        here = pl.col("timestamp") == week["timestamp"]
        rows = rows.with_columns(
            pl.when(here).then(pl.lit(value, CANDLES.schema[name])).otherwise(name).alias(name)
            for name, value in {**(made or {}), "notes": notes}.items()
        )
    return rows.with_columns(mixed=pl.col("timestamp").is_in(pl.Series(mixed, dtype=rows.schema["timestamp"]))), found


def splits_within(opened: datetime, ended: datetime, cuts: Sequence[Cut]) -> list[Cut]:
    """The splits between a candle's first and its last session."""
    start, end = to_micros(opened), to_micros(ended)
    return [cut for cut in cuts if cut.ratio is not None and start < cut.moment < end]


def _made(
    reader: Reader, series: Series, span: TimeRange, splits: Sequence[Cut], as_of: datetime | None
) -> dict[str, Any] | None:
    """The values of a week by its days, in the shares of the last; None where one is not stored."""
    days = reader.candles(Series(series.instrument, Timeframe.D1), span, as_of=as_of)
    if days["timestamp"].to_physical().to_list() != grid(series.asset_class, Timeframe.D1, span).opens.tolist():
        return None
    told = []
    for day in days.iter_rows(named=True):
        ratio = Fraction(1)
        for cut in splits:
            ratio *= cut.ratio if cut.ratio and to_micros(day["timestamp"]) < cut.moment else 1
        prices = {name: day[name] and Fraction(day[name]) / ratio for name in PRICES if name in CANDLES.schema}
        shares = {name: day[name] and Fraction(day[name]) * ratio for name in SHARES if name in CANDLES.schema}
        told.append(day | prices | shares)
    volume = sum(day["volume"] for day in told)
    worth = None if any(day["vwap"] is None for day in told) else sum(day["vwap"] * day["volume"] for day in told)
    exact = {
        "open": told[0]["open"],
        "high": max(day["high"] for day in told),
        "low": min(day["low"] for day in told),
        "close": told[-1]["close"],
        "volume": volume,
        "vwap": worth / volume if worth is not None and volume else None,
    }
    values = {name: _rounded(value) for name, value in exact.items()}
    count = None if (trades := _sum(told, "trade_count")) is None else int(trades)
    return values | {"quote_volume": _rounded(_sum(told, "quote_volume")), "trade_count": count}


def _sum(told: Sequence[dict[str, Any]], name: str) -> Fraction | None:
    """Of all days, exactly; None where one does not say."""
    return None if any(day[name] is None for day in told) else sum((Fraction(day[name]) for day in told), Fraction(0))


def _rounded(value: Fraction | None) -> Decimal | None:
    """To as many digits as are stored."""
    return None if value is None else Decimal(f"{round(value * 10**EXACT.scale)}e-{EXACT.scale}")
