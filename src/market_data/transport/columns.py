"""The one door where texts of a source become numbers, dates and moments: exactly, or told as unreadable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal

import polars as pl

from market_data.model.dataset import EXACT, UTC_MICROS
from market_data.model.rows import VALUE_TOO_FINE, VALUE_UNREADABLE
from market_data.model.text import LONGEST_KEPT, kept, shown

# No market is older and nothing is announced for later.
EARLIEST: Final = datetime(1800, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
LONGEST_NUMBER: Final = 60
MOST_IN_A_LIST: Final = 1_000
DECIMALS: Final = 18
# Counts of milliseconds do not reach this before the year 5138, counts of microseconds did in 1973.
FIRST_MICROS: Final = 10**14
_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DATE: Final = r"^\d{4}-\d\d-\d\d$"
_MOMENT: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"
# More digits after the point than are kept, the last of them no zero; or an exponent that may make them so.
_FINE: Final = r"\.\d{18}\d*[1-9]|[eE]-"


@dataclass(frozen=True, slots=True)
class Count:
    """A moment told as a count since 1970; without a unit it is of milliseconds or microseconds, by its size."""

    unit: Literal["s", "ms", "us", "ns"] | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A moment of UTC written without saying so: 2024-01-31 23:55:00."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """A number worked out by the source, or sent through a binary float: what is beyond the 18th decimal is noise."""


Field = pl.DataType | Count | Written | Rounded


def type_of(kind: Field) -> pl.DataType:
    """The type of a column of that kind."""
    if isinstance(kind, Rounded):
        return EXACT
    return UTC_MICROS if isinstance(kind, Count | Written) else kind


def exact(value: Any, kind: Field = EXACT) -> Decimal:
    """A number, alone.

    Raises:
        ValueError: when it is none, or too fine to be kept.
    """
    series, wrong = column("number", [value], kind)
    if wrong or series[0] is None:
        raise ValueError(f"{shown(value)} is no number of at most {DECIMALS} decimals")
    number: Decimal = series[0]
    return number


def moment(value: Any, unit: Literal["s", "ms", "us", "ns"]) -> datetime:
    """A moment told as a count since 1970, alone.

    Raises:
        ValueError: when it is none of the years 1800 to 2199.
    """
    series, wrong = column("moment", [value], Count(unit))
    if wrong or series[0] is None:
        raise ValueError(f"{shown(value)} is no moment in {unit}")
    told: datetime = series[0]
    return told


def column(name: str, given: list[Any], kind: Field) -> tuple[pl.Series, dict[int, str]]:
    """Values as a column of a type, null where one is wrong, and the reason for each that is."""
    if isinstance(kind, pl.List):
        return _lists(name, given)
    if kind == pl.Boolean:
        flags = [value if isinstance(value, bool) else None for value in given]
        return pl.Series(name, flags, dtype=pl.Boolean), _apart(given, flags)
    texts = [_text(value) for value in given]
    wrong = _apart(given, texts)
    told = pl.Series(name, texts, dtype=pl.String)
    read, right = typed(told, kind)
    if right is not None:
        fine = _too_fine(told) if kind == EXACT else _nowhere(told)
        wrong |= {place: VALUE_TOO_FINE if fine[place] else VALUE_UNREADABLE for place in places(~right)}
    return read, wrong


def typed(texts: pl.Series, kind: Field) -> tuple[pl.Series, pl.Series | None]:
    """A column of texts as a type, null where that cannot be, and where it could; None for everywhere."""
    if kind == pl.String or texts.null_count() == len(texts):
        return texts.cast(type_of(kind)), None
    if isinstance(kind, Count):
        read = moments_of(texts, kind)
    elif isinstance(kind, Written):
        read = _within(
            texts.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False).dt.replace_time_zone("UTC")
        )
    elif kind == pl.Date:
        days = texts.set(~_matches(texts, _DATE), None).str.to_date("%Y-%m-%d", strict=False)
        read = days.set(~days.is_between(EARLIEST.date(), LATEST.date()).fill_null(value=True), None)
    elif kind == UTC_MICROS:
        right = texts.set(~_matches(texts, _MOMENT), None).str.replace("Z$", "+00:00")
        moments = right.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=False)
        read = _within(moments.cast(UTC_MICROS))
    else:
        read = _numbers(texts, kind)
    if read.null_count() == texts.null_count():
        return read, None
    return read, read.is_not_null() | texts.is_null()


def _numbers(texts: pl.Series, kind: Field) -> pl.Series:
    numbers = texts.cast(type_of(kind), strict=False)
    if kind == pl.Float64:
        return numbers.set(~numbers.is_finite().fill_null(value=True), None)
    if kind == pl.Int64:
        return numbers
    # Most numbers are short: then there is nothing to look for.
    lengths = texts.str.len_bytes()
    longest = lengths.max() or 0
    assert isinstance(longest, int)
    if longest > DECIMALS + 1 or texts.str.contains_any(["e-", "E-"]).any():
        endless = (lengths > LONGEST_NUMBER).fill_null(value=False)
        numbers = numbers.set(endless | _too_fine(texts) if kind == EXACT else endless, None)
    return numbers


def moments_of(counts: pl.Series, kind: Count) -> pl.Series:
    """Counts since 1970, as numbers or texts, as moments; null where one is none of the years 1800 to 2199."""
    numbers = counts.cast(pl.Int64, strict=False)
    if kind.unit is not None:
        return _counted(numbers, kind.unit)
    return _counted(numbers, "us").zip_with(numbers >= FIRST_MICROS, _counted(numbers, "ms"))


def _counted(numbers: pl.Series, unit: str) -> pl.Series:
    per_second = _PER_SECOND[unit]
    # Before it is multiplied: a product that is too large comes out as a moment of any year.
    low, high = (int(bound.timestamp()) * per_second for bound in (EARLIEST, LATEST))
    inside = numbers.set(~numbers.is_between(max(low, -(2**63)), min(high, 2**63 - 1)).fill_null(value=True), None)
    micros = inside // (per_second // 10**6) if per_second > 10**6 else inside * (10**6 // per_second)
    return micros.cast(UTC_MICROS)


def _within(moments: pl.Series) -> pl.Series:
    return moments.set(~moments.is_between(EARLIEST, LATEST).fill_null(value=True), None)


def _too_fine(texts: pl.Series) -> pl.Series:
    """Where digits would be lost."""
    suspected = places(_matches(texts, _FINE))
    lost = {place for place in suspected if _loses_digits(texts[place])}
    return pl.Series([place in lost for place in range(len(texts))], dtype=pl.Boolean) if lost else _nowhere(texts)


def _loses_digits(text: str) -> bool:
    try:
        exponent = Decimal(text).normalize().as_tuple().exponent
    except InvalidOperation:
        return False
    return isinstance(exponent, int) and exponent < -DECIMALS


def _lists(name: str, given: list[Any]) -> tuple[pl.Series, dict[int, str]]:
    lists = [
        value[:MOST_IN_A_LIST]
        if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
        else None
        for value in given
    ]
    return pl.Series(name, lists, dtype=pl.List(pl.String)), _apart(given, lists)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value if len(value) <= LONGEST_KEPT else kept(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return str(value)
    return None


def _apart(given: Sequence[Any], read: Sequence[Any]) -> dict[int, str]:
    return {
        place: VALUE_UNREADABLE
        for place, (value, each) in enumerate(zip(given, read, strict=True))
        if each is None and value is not None
    }


def _matches(texts: pl.Series, pattern: str) -> pl.Series:
    return texts.str.contains(pattern).fill_null(value=False)


def places(mask: pl.Series) -> list[int]:
    """The numbers of the rows for which a mask holds."""
    return mask.fill_null(value=False).arg_true().to_list()


def _nowhere(texts: pl.Series) -> pl.Series:
    return pl.repeat(value=False, n=len(texts), dtype=pl.Boolean, eager=True)
