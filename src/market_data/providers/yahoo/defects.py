"""Known defects of Yahoo's prices, found in the rows themselves; repaired where the rows prove them, else noted.

A repair needs a witness on both sides of what is repaired: rows before and after that agree with each other, or other
prices of the same row. What has one witness only stays as sent and is noted as unknown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta, tzinfo
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from market_data.model.dataset import EXACT
from market_data.providers.yahoo.parse import Split
from market_data.providers.yahoo.repair import PRICES, local_date, with_note

NOTE_UNIT_REPAIRED: Final = "unit_100x_repaired"
NOTE_UNIT_UNKNOWN: Final = "unit_100x_unknown"
NOTE_SPLIT_NOT_APPLIED: Final = "split_not_applied_by_source"
NOTE_SPLIT_UNKNOWN: Final = "split_adjustment_unknown"
NOTE_VOLUME_UNKNOWN: Final = "volume_unknown"

UNIT: Final = 100
LOG_UNIT: Final = math.log(UNIT)
# How far from a factor of exactly 100 a change of unit may be: a night's move besides.
ROW_TOLERANCE: Final = math.log(1.5)
# Within a row prices are closer; a real crash to a hundredth of the price does not hit it that well.
FIELD_TOLERANCE: Final = math.log(1.25)
FIELD_NEIGHBOURS: Final = 5
# Robust standard deviations of the daily log returns that a split must exceed to be told from an ordinary move.
SPLIT_DEVIATIONS: Final = 8.0
LEAST_DEVIATION: Final = 0.005
NORMAL_DEVIATIONS_PER_MAD: Final = 1.4826
# How near its date a split may have been applied.
SPLIT_LATE: Final = timedelta(days=10)
SPLIT_EARLY: Final = timedelta(days=21)
# An unadjusted stretch that ends again where it is older than this could be two unrelated moves.
LONGEST_STRETCH: Final = 60

Floats = NDArray[np.float64]


def with_units_settled(rows: pl.DataFrame, splits: Sequence[Split]) -> pl.DataFrame:
    """Rows in one unit: those a hundred times too high or low between rows that agree are brought back.

    Rows before a change of unit that never changes back stay as sent and are noted, and so does everything where a
    listed split is of about that ratio.

    Args:
        rows: candles as the source sent them, adjusted for splits; any order.
        splits: those the source lists.
    """
    ordered = rows.sort("timestamp", maintain_order=True)
    prices = ordered.select(pl.col(PRICES).cast(pl.Float64)).to_numpy()
    listed = any(abs(abs(_log_ratio(split)) - LOG_UNIT) < ROW_TOLERANCE for split in splits)
    if ordered.height < 3 or listed or not (prices > 0).all():
        return ordered
    scale, doubtful = _row_scales(np.sort(prices, axis=1)[:, 1])
    by_field = _field_scales(prices * 10.0 ** (2.0 * scale[:, None]))
    powers = scale[:, None] + by_field
    if not powers.any() and not doubtful.any():
        return ordered
    factors = pl.DataFrame({f"{name} power": powers[:, place] for place, name in enumerate(PRICES)})
    both = pl.concat([ordered, factors], how="horizontal")
    settled = both.with_columns(_rescaled(name) for name in PRICES).select(ordered.columns)
    settled = _noted_where(settled, (powers != 0).any(axis=1), NOTE_UNIT_REPAIRED)
    return _noted_where(settled, doubtful, NOTE_UNIT_UNKNOWN)


def with_volumes_doubted(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows whose price moved without volume are noted: the source lost the volume, or the price is a quote."""
    moved = (pl.col("high") != pl.col("low")) | (pl.col("close") != pl.col("close").shift(1)).fill_null(value=False)
    ordered = rows.sort("timestamp", maintain_order=True)
    lost = ordered.select((pl.col("volume") == 0) & moved).to_series().to_numpy()
    return _noted_where(ordered, lost, NOTE_VOLUME_UNKNOWN)


def splits_settled(rows: pl.DataFrame, splits: Sequence[Split], zone: tzinfo) -> tuple[Split, ...]:
    """The splits with what the daily rows say on whether the source adjusted for them.

    Where it did, the price goes on across the date of the split; where it did not, it jumps by the split's ratio.
    """
    if rows.height < 3 or not splits:
        return tuple(splits)
    ordered = rows.sort("timestamp").with_columns(date=local_date("timestamp", zone)).unique("date", keep="last")
    ordered = ordered.sort("date").filter(pl.col("open") > 0, pl.col("close") > 0)
    days: list[date] = ordered["date"].to_list()
    opens, closes = (np.log(ordered[name].cast(pl.Float64).to_numpy()) for name in ("open", "close"))
    if len(days) < 3:
        return tuple(splits)
    # What the price lost over each night.
    losses = np.concatenate([[0.0], closes[:-1] - opens[1:]])
    spread = NORMAL_DEVIATIONS_PER_MAD * float(np.median(np.abs(np.diff(closes))))
    usual = max(spread, LEAST_DEVIATION)
    return tuple(_settled(split, days, losses, usual, zone) for split in splits)


def with_split_notes(rows: pl.DataFrame, splits: Sequence[Split], zone: tzinfo) -> pl.DataFrame:
    """Rows noted where the source did not adjust for a split, or may not have."""
    days = rows.select(local_date("timestamp", zone)).to_series()
    for split in splits:
        day = split.moment.astimezone(zone).date()
        if split.in_doubt:
            rows = _noted_where(rows, (days < day).to_numpy(), NOTE_SPLIT_UNKNOWN)
        elif split.raw_before is not None:
            raw = (days < split.raw_before) & (days >= (split.raw_from or date.min))
            rows = _noted_where(rows, raw.to_numpy(), NOTE_SPLIT_NOT_APPLIED)
    return rows


def _settled(split: Split, days: list[date], losses: Floats, usual: float, zone: tzinfo) -> Split:
    day, ratio = split.moment.astimezone(zone).date(), _log_ratio(split)
    around = [place for place in range(1, len(days)) if day - SPLIT_EARLY <= days[place] <= day + SPLIT_LATE]
    # As large as the ratio, give or take a quarter of it: nearer to it than to no jump at all.
    jumps = [place for place in around if abs(losses[place] - ratio) <= abs(ratio) / 4]
    if not jumps:
        return split
    at = jumps[0]
    proved = len(jumps) == 1 and abs(ratio) >= SPLIT_DEVIATIONS * usual
    # Rows from the split's date on cannot be of before it: then either the date or the rows are wrong.
    if not proved or (days[at] > day and days[at - 1] >= day):
        return replace(split, in_doubt=True) if abs(ratio) >= SPLIT_DEVIATIONS / 2 * usual else split
    back = [place for place in range(1, at) if abs(losses[place] + ratio) <= abs(ratio) / 4]
    if back and at - back[-1] > LONGEST_STRETCH:
        return replace(split, in_doubt=True)
    return replace(split, raw_from=days[back[-1]] if back else None, raw_before=min(days[at], day))


def _row_scales(levels: Floats) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each row the power of 100 it is to be multiplied by, and whether its unit is in doubt."""
    moves = np.concatenate([[0.0], np.diff(np.log(levels))])
    steps = np.where(np.abs(np.abs(moves) - LOG_UNIT) < ROW_TOLERANCE, np.sign(moves), 0.0).astype(np.int64)
    units = np.cumsum(steps)
    scale, doubtful = np.zeros(len(levels), np.int64), np.zeros(len(levels), np.bool_)
    last = units[-1]
    first_right = int(np.argmax(units == last))
    # What lies before the first row of the present unit has no neighbour on its other side.
    doubtful[:first_right] = True
    wrong = np.flatnonzero((units != last) & ~doubtful)
    for run in np.split(wrong, np.flatnonzero(np.diff(wrong) > 1) + 1) if len(wrong) else []:
        before, after = levels[run[0] - 1], levels[run[-1] + 1]
        agree = abs(math.log(after / before)) < ROW_TOLERANCE
        scale[run] = last - units[run] if agree else 0
        doubtful[run] = not agree
    return scale, doubtful


def _field_scales(prices: Floats) -> NDArray[np.int64]:
    """For each price the power of 100 it is to be multiplied by, where others of its row are as its neighbours."""
    levels = pl.Series(np.sort(prices, axis=1)[:, 1:3].mean(axis=1))
    near = levels.rolling_median(FIELD_NEIGHBOURS, center=True, min_samples=3).to_numpy()
    distance = np.log(prices / near[:, None])
    off = np.where(np.abs(np.abs(distance) - LOG_UNIT) < FIELD_TOLERANCE, -np.sign(distance), 0.0)
    witnessed = (np.abs(distance) < FIELD_TOLERANCE).sum(axis=1) + (off != 0).sum(axis=1) == len(PRICES)
    witnessed &= (off == 0).any(axis=1)
    return np.where(witnessed[:, None], off, 0.0).astype(np.int64)


def _rescaled(name: str) -> pl.Expr:
    price, power = pl.col(name), pl.col(f"{name} power")
    times = pl.lit(UNIT, EXACT)
    return pl.when(power == 1).then(price * times).when(power == -1).then(price / times).otherwise(price).alias(name)


def _log_ratio(split: Split) -> float:
    return math.log(split.numerator / split.denominator)


def _noted_where(rows: pl.DataFrame, where: NDArray[np.bool_], note: str) -> pl.DataFrame:
    if not where.any():
        return rows
    return rows.with_columns(notes=pl.when(pl.lit(pl.Series(where))).then(with_note(note)).otherwise("notes"))
