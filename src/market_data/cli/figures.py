"""Values as people read them: thousands apart, decimals as stored, times in UTC, a dash where we do not know."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from math import floor, isfinite, log10
from typing import Any, Final
from uuid import UUID

from market_data.cli.streams import printable

UNKNOWN: Final = "–"
FLOAT_DIGITS: Final = 6


def shown(value: Any) -> str:
    """A value in a table.

    >>> shown(Decimal("12345.670")), shown(None), shown(1234567), shown(0.0123456789)
    ('12,345.67', '–', '1,234,567', '0.0123457')
    """
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal):
        return f"{plain(value):,f}"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}" if value.second == 0 else f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, list | tuple):
        return ", ".join(shown(part) for part in value) or UNKNOWN
    return printable(str(value.value if isinstance(value, Enum) else value))


def column(values: Sequence[Any]) -> list[str]:
    """Values of one column, decimals filled up to the longest so that the points stand below each other."""
    places = [-int(plain(value).as_tuple().exponent) for value in values if isinstance(value, Decimal)]
    if not places:
        return [shown(value) for value in values]
    width = max(0, *places)
    return [f"{value:,.{width}f}" if isinstance(value, Decimal) else shown(value) for value in values]


def plain(value: Decimal) -> Decimal:
    """The same number without zeros behind the last digit, never in exponent form."""
    shortened = value.normalize()
    return shortened if int(shortened.as_tuple().exponent) <= 0 else shortened.quantize(Decimal(1))


def seconds(value: float) -> str:
    """A duration: ``0.42 s``, ``3 min 05 s``."""
    if value < 60:
        return f"{value:.2f} s"
    return f"{int(value) // 60} min {int(value) % 60:02d} s"


def score(value: float | None) -> str | None:
    """A score from 0 to 1 with three decimals."""
    return None if value is None else f"{value:.3f}"


def jsonable(value: Any) -> Any:
    """A value as JSON holds it: exact decimals as text, times in RFC 3339 UTC, null for what is not a number."""
    if isinstance(value, dict):
        return {str(key): jsonable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(part) for part in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    if isinstance(value, Decimal):
        return f"{plain(value):f}"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, UUID) else value


def _float(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.3g}"
    decimals = max(0, FLOAT_DIGITS - 1 - floor(log10(abs(value))))
    text = f"{value:,.{min(decimals, 8)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
