"""What the user typed, as our types: symbols, asset classes, timeframes, moments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from market_data.model.errors import UsageError
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import EPOCH, Timeframe, TimeRange

if TYPE_CHECKING:
    from market_data.bootstrap import App
    from market_data.config import Settings

TIMEFRAMES: Final = " ".join(Timeframe)
ASSET_CLASSES: Final = ", ".join(AssetClass)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Symbol = Annotated[str, typer.Argument(metavar="SYMBOL", help="Our symbol: BTC, AAPL, BRK.B.")]
AssetClassName = Annotated[
    str | None,
    typer.Option(
        "--asset-class", "-a", metavar="CLASS", help=f"{ASSET_CLASSES}; known for tracked symbols, else stock."
    ),
]
Start = Annotated[
    str | None, typer.Option(metavar="TIME", help="First open time, UTC: 2024-01-31 or 2024-01-31T13:30:00Z.")
]
End = Annotated[str | None, typer.Option(metavar="TIME", help="Where to stop, exclusive; the same forms.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write to this file.")]

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOMENT: Final = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?)([Zz]|[+-]\d{2}:\d{2})?",
)


def parse_moment(text: str | None, option: str) -> datetime | None:
    """A moment in UTC from a date (its midnight) or an RFC 3339 time; None stays None.

    Args:
        text: What was typed.
        option: The option's name, for the message.

    Raises:
        UsageError: naming both forms.
    """
    if text is None:
        return None
    forms = "write 2024-01-31 or 2024-01-31T13:30:00Z (UTC)"
    stripped = text.strip()
    if moment := _MOMENT.fullmatch(stripped):
        day, time, offset = moment.groups()
        if offset is None:
            raise UsageError(f"{option} {text!r} has no time zone: {forms}")
        stripped = f"{day}T{time}{'+00:00' if offset in 'Zz' else offset}"
    elif _DATE.fullmatch(stripped):
        stripped += "T00:00:00+00:00"
    else:
        raise UsageError(f"{option} {text!r} is not a time: {forms}")
    try:
        return datetime.fromisoformat(stripped).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{option} {text!r} is not a time ({error}): {forms}") from None


def parse_range(start: str | None, end: str | None, now: datetime) -> tuple[datetime | None, datetime | None]:
    """Both bounds in UTC.

    Raises:
        UsageError: when one cannot be read, they are the wrong way round, or the start is still to come.
    """
    first, last = parse_moment(start, "--start"), parse_moment(end, "--end")
    if first and last and first >= last:
        raise UsageError(f"--start {start} is not before --end {end}: the end is exclusive and must be later")
    if first and first >= now:
        raise UsageError(f"--start {start} is in the future: it is {now:%Y-%m-%dT%H:%M:%SZ} now")
    return first, last


def stored_range(first: datetime | None, last: datetime | None) -> TimeRange | None:
    """The range to read of what is stored; a bound left open reaches as far as time does, None is everything."""
    if first is None and last is None:
        return None
    return TimeRange(first or EPOCH, last or datetime(9999, 1, 1, tzinfo=UTC))


def parse_timeframes(names: Iterable[str] | None, default: str = "1d") -> tuple[Timeframe, ...]:
    """Timeframes by name, also several in one word with commas.

    Raises:
        UsageError: naming the unknown ones and all that are valid.
    """
    wanted = [part.strip() for name in names or () for part in name.split(",") if part.strip()]
    return Timeframe.parse_many(wanted or [default])


def parse_instruments(symbols: Sequence[str] | None, asset_class: str | None, settings: Settings) -> list[Instrument]:
    """Instruments by symbol, each once; the asset class as given, else as tracked, else stock.

    Raises:
        UsageError: without symbols, with an unusable one, or with an unknown asset class.
    """
    given = None if asset_class is None else AssetClass.parse(asset_class)
    names = list(dict.fromkeys(part.strip().upper() for name in symbols or () for part in name.split(",")))
    if not names or "" in names:
        known = "; ".join(
            f"{group}: {', '.join(members)}" for group, members in settings.instruments.tracked.items() if members
        )
        raise UsageError(f"Missing SYMBOL: give one or more that your sources list, e.g. {known}")
    for name in names:
        if not re.fullmatch(r"[A-Z0-9][A-Z0-9.\-_/]*", name):
            raise UsageError(f"{name!r} is not a symbol: letters, digits and . - _ / only, e.g. BTC, AAPL, BRK.B")
    tracked = {symbol: group for group, symbol in settings.tracked}
    return [Instrument(name, given or tracked.get(name, AssetClass.STOCK)) for name in names]


def as_known(app: App, instruments: Sequence[Instrument], asset_class: str | None) -> list[Instrument]:
    """The same instruments; where no asset class was given, of that under which the symbol is tracked or stored."""
    if asset_class is not None:
        return list(instruments)
    return [app.standings.stored(instrument.symbol)[0] for instrument in instruments]
