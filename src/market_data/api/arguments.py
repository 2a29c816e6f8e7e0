"""Arguments of the routes: symbols, moments, ranges, timeframes; each checked where it arrives."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final

from fastapi import Path, Query
from pydantic import BeforeValidator, WithJsonSchema

from market_data.api.problems import Problem
from market_data.model.instrument import MOST_LETTERS, AssetClass, is_name
from market_data.model.timeframe import EPOCH, Timeframe, TimeRange

FORMS: Final = "write 2024-01-31 or 2024-01-31T13:30:00Z (UTC)"
LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
_MOMENT: Final = re.compile(r"\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?([Zz]|[+-]\d{2}:\d{2})?)?")


def parse_moment(text: Any) -> Any:
    """A UTC moment from a date (its midnight) or an RFC 3339 time; other types are passed on.

    Raises:
        ValueError: naming both forms.
    """
    if not isinstance(text, str):
        return text
    # In a query string an unescaped + arrives as a space.
    text = re.sub(r" (\d{2}:\d{2})$", r"+\1", text.strip()) if text.count(":") > 1 else text.strip()
    if not _MOMENT.fullmatch(text):
        raise ValueError(f"{text!r} is not a time: {FORMS}")
    try:
        if len(text) == 10:
            moment = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
        else:
            moment = datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time ({error}): {FORMS}") from None
    if moment.utcoffset() is None:
        raise ValueError(f"{text!r} has no time zone: {FORMS}")
    moment = _in_utc(moment, text)
    if not EPOCH <= moment <= LATEST:
        raise ValueError(f"{text!r} is out of reach: give a time from 1970 to 2200")
    return moment


def _in_utc(moment: datetime, text: str) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is out of reach: give a time from 1970 to 2200") from None


_CLOCK: Final = r"([01]\d|2[0-3]):[0-5]\d"
_AS_TEXT: Final = WithJsonSchema(
    {
        "type": "string",
        "pattern": r"^(19[7-9]\d|20\d\d|21\d\d)-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
        rf"([Tt]{_CLOCK}(:[0-5]\d(\.\d{{1,6}})?)?([Zz]|[+-]{_CLOCK}))?$",
        "examples": ["2026-01-31", "2026-01-31T13:30:00Z"],
    }
)
Moment = Annotated[datetime, BeforeValidator(parse_moment), _AS_TEXT]


def _named(text: str) -> str:
    """The name as written; a slash in a path comes encoded.

    Raises:
        ValueError: when it can name nothing.
    """
    name = re.sub(ENCODED_SLASH, "/", text, flags=re.IGNORECASE)
    if not is_name(name):
        raise ValueError(f"{text[:64]!a} is not a symbol: no blanks, nothing unprintable, 64 letters at most")
    return name


ENCODED_SLASH: Final = "%2F"
_NAME: Final = WithJsonSchema(
    {"type": "string", "minLength": 1, "maxLength": MOST_LETTERS, "examples": ["BTC"], "pattern": r"^[A-Za-z0-9.\-]+$"}
)
Symbol = Annotated[
    str,
    BeforeValidator(_named),
    _NAME,
    Path(description="Our symbol: BTC, BRK.B; or exactly, a slash as %2F: BTC%2FUSDT.", examples=["BTC"]),
]
SymbolQuery = Annotated[str, BeforeValidator(_named), _NAME]
AssetClassQuery = Annotated[
    AssetClass | None,
    Query(description="Known for what is tracked, stored or listed; else stock.", examples=["crypto"]),
]
# Checked by `timeframes`, which names all that are wrong at once.
TimeframeName = Annotated[str, WithJsonSchema({"type": "string", "enum": list(Timeframe), "examples": ["1h"]})]
TimeframePath = Annotated[TimeframeName, Path(description="Length of a candle.", examples=["1h"])]
Start = Annotated[Moment | None, Query(description="First moment, UTC; a date is its midnight.")]
End = Annotated[Moment | None, Query(description="Where to stop, exclusive; the same forms.")]
AsOf = Annotated[Moment | None, Query(description="What was known at this moment; without it, the present.")]
Limit = Annotated[
    int | None,
    Query(ge=1, le=50_000_000, description="At most so many rows. JSON: 1,000 unless given, 10,000 at most."),
]
Cursor = Annotated[str | None, Query(max_length=512, description="`next` of the page before.")]


def one_timeframe(name: str) -> Timeframe:
    """The timeframe of that name.

    Raises:
        Problem: 422, naming the valid ones.
    """
    return timeframes([name])[0]


def timeframes(names: list[str]) -> list[Timeframe]:
    """Timeframes by name, each once.

    Raises:
        Problem: 422, naming the unknown ones; the valid ones are in `valid`.
    """
    wanted = list(dict.fromkeys(part.strip() for name in names for part in name.split(",")))
    if unknown := [name for name in wanted if name not in set(Timeframe)]:
        raise Problem(
            422,
            "unknown-timeframe",
            f"Invalid timeframes: {unknown}",
            action=f"Use any of {', '.join(Timeframe)}",
            valid=list(Timeframe),
        )
    return [Timeframe(name) for name in wanted]


def time_range(start: datetime | None, end: datetime | None) -> TimeRange | None:
    """[start, end) with open bounds as far as time reaches; None when both are open.

    Raises:
        UsageError: when start is not before end.
    """
    if start is None and end is None:
        return None
    return TimeRange(start or EPOCH, end or LATEST)
