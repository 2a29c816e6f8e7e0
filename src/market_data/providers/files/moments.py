"""The time column of a file as moments of UTC: what cannot be read is null, what may be either of two is told."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from market_data.model.dataset import UTC_MICROS
from market_data.model.session import ALWAYS_OPEN, Grid, grid
from market_data.model.timeframe import Timeframe, TimeRange, from_micros
from market_data.providers.files.described import Described, TimeColumn

PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
UNITS: Final = tuple(PER_SECOND)
# 1900 and 2100. What a count is in one unit it is a thousand times nearer to 1970 in the next: so a moment of these
# years is another one of them only where one of the two lies in the first weeks of 1970.
EARLIEST_SECONDS, LATEST_SECONDS = -2_208_988_800, 4_102_444_800
DAY_MICROS: Final = 86_400_000_000
NEW_YORK: Final = "America/New_York"
ZONED: Final = r"T.*(Z|[+-]\d\d:?\d\d)$"


def moments(column: pl.Series, entry: Described) -> tuple[pl.Series, pl.Series]:
    """The opens of the rows, and which of them are unclear: counts that are a likely moment in two units."""
    unclear = pl.repeat(value=False, n=len(column), dtype=pl.Boolean, eager=True)
    if entry.time.unit is not None:
        told, unclear = _counted(column, entry.time.unit)
    else:
        told = _told(column, entry.time)
    return _opens(told, entry).alias("timestamp"), unclear


def _counted(column: pl.Series, unit: str) -> tuple[pl.Series, pl.Series]:
    """Counts by the unit that was described; one that is no likely moment in it, by the unit in which it is one.

    Collections of files mix seconds and milliseconds.
    """
    numbers = column.cast(pl.String).str.replace(r"\.0+$", "").cast(pl.Int64, strict=False)
    likely = {each: _likely(numbers, PER_SECOND[each]) for each in UNITS}
    mine, micros = likely[unit], _micros(numbers, unit)
    # The coarsest unit last, so that it counts: in a finer one the same number is a moment near 1970.
    others = [each for each in reversed(UNITS) if each != unit]
    # In milliseconds, the seconds of our days lie in January and February of 1970.
    coarser = UNITS[UNITS.index(unit) - 1] if unit != "s" else None
    unclear = mine & likely[coarser] & (numbers != 0) if coarser else pl.Series([False] * len(numbers))
    for other in others:
        micros = _micros(numbers, other).zip_with(~mine & likely[other], micros)
    known = mine | pl.select(pl.any_horizontal(*(likely[each] for each in others))).to_series()
    return micros.set(~known.fill_null(value=False), None).cast(UTC_MICROS), unclear.fill_null(value=False)


def _likely(numbers: pl.Series, per_second: int) -> pl.Series:
    return numbers.is_between(EARLIEST_SECONDS * per_second, LATEST_SECONDS * per_second)


def _micros(numbers: pl.Series, unit: str) -> pl.Series:
    per_second = PER_SECOND[unit]
    inside = numbers.set(~_likely(numbers, per_second).fill_null(value=True), None)
    return inside // (per_second // 10**6) if per_second > 10**6 else inside * (10**6 // per_second)


def _told(column: pl.Series, time: TimeColumn) -> pl.Series:
    if column.dtype != pl.String:
        return _in_utc(column.cast(pl.Datetime("us", getattr(column.dtype, "time_zone", None))), time.zone)
    if time.format is not None:
        return _in_utc(column.str.to_datetime(time.format, time_unit="us", strict=False), time.zone)
    texts = column.str.strip_chars().str.replace(" ", "T", literal=True)
    zoned = texts.str.contains(ZONED).fill_null(value=False)
    with_zone = texts.set(~zoned, None).str.replace("Z$", "+0000").str.replace(r"([+-]\d\d):(\d\d)$", "$1$2")
    without = texts.set(zoned, None)
    read = _first_of(with_zone, ("%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M%z"))
    local = _first_of(without, ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d"))
    return _in_utc(read, time.zone).zip_with(zoned, _in_utc(local, time.zone))


def _first_of(texts: pl.Series, formats: tuple[str, ...]) -> pl.Series:
    tried = [texts.str.to_datetime(each, time_unit="us", strict=False) for each in formats]
    return pl.select(pl.coalesce(*tried)).to_series()


def _in_utc(told: pl.Series, zone: str) -> pl.Series:
    if getattr(told.dtype, "time_zone", None) is None:
        # An hour that the clocks skip or repeat is no moment that anybody could tell.
        told = told.dt.replace_time_zone(zone, ambiguous="null", non_existent="null")
    return told.dt.convert_time_zone("UTC").cast(UTC_MICROS)


def _opens(told: pl.Series, entry: Described) -> pl.Series:
    """Opens of the candles whose open, close or date was told."""
    known = told.drop_nulls()
    if known.is_empty():
        return told
    micros = told.cast(pl.Int64)
    first, last = int(known.cast(pl.Int64).min()), int(known.cast(pl.Int64).max())  # type: ignore[arg-type]
    span = TimeRange(from_micros(first - 8 * DAY_MICROS), from_micros(last + 8 * DAY_MICROS))
    candles = grid(entry.asset_class, entry.timeframe, span)
    if entry.time.stamps == "close":
        micros = _of_ends(micros, candles, entry.timeframe)
    if entry.asset_class.calendar != ALWAYS_OPEN and not entry.timeframe.intraday:
        micros = _of_dates(told, micros, candles, entry)
    return micros.cast(UTC_MICROS)


def _of_ends(ends: pl.Series, candles: Grid, timeframe: Timeframe) -> pl.Series:
    """The opens of candles by their ends: the last one of a session may be shorter than the others."""
    opens = dict(zip(candles.ends.tolist(), candles.opens.tolist(), strict=True))
    return pl.Series([None if end is None else opens.get(end, end - timeframe.micros) for end in ends], dtype=pl.Int64)


def _of_dates(told: pl.Series, micros: pl.Series, candles: Grid, entry: Described) -> pl.Series:
    """Where midnight was told, a date was meant: the open of its session, or of the week that it lies in."""
    day = DAY_MICROS if entry.timeframe is Timeframe.D1 else 7 * DAY_MICROS
    # 1970-01-01 was a Thursday; a session lies within one day of UTC.
    shift = 0 if entry.timeframe is Timeframe.D1 else 3 * DAY_MICROS
    by_period = dict(zip(((candles.opens + shift) // day).tolist(), candles.opens.tolist(), strict=True))
    opens = micros.to_list()
    for zone in dict.fromkeys((entry.time.zone, "UTC", NEW_YORK)):
        local = told.dt.convert_time_zone(zone)
        midnight = local.dt.truncate("1d") == local
        dates = local.dt.date().to_physical()
        for place in np.flatnonzero(midnight.fill_null(value=False).to_numpy()):
            period = (int(dates[int(place)]) * DAY_MICROS + shift) // day
            opens[place] = by_period.get(period, opens[place])
    return pl.Series(opens, dtype=pl.Int64)
