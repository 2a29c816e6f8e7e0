"""What the user typed, as our types: symbols, asset classes, timeframes, moments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from market_data.model.errors import UsageError
from market_data.model.instrument import AssetClass, Instrument, is_name
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

    What the names mean is found out later, by `as_known` or `as_listed`: any text without blanks may be one.

    Raises:
        UsageError: without symbols, with an unusable one, or with an unknown asset class.
    """
    given = None if asset_class is None else AssetClass.parse(asset_class)
    names = list(dict.fromkeys(part.strip() for name in symbols or () for part in name.split(",")))
    if not names or "" in names:
        known = "; ".join(
            f"{group}: {', '.join(members)}" for group, members in settings.instruments.tracked.items() if members
        )
        raise UsageError(f"Missing SYMBOL: give one or more that your sources list, e.g. {known}")
    for name in names:
        if not is_name(name):
            raise UsageError(f"{name!r} is not a symbol: no blanks, no control characters, e.g. BTC, BTC/USDT, AAPL")
    tracked = {symbol: group for group, symbol in settings.tracked}
    spelled = [name if name in tracked or name.upper() not in tracked else name.upper() for name in names]
    return [Instrument(name, given or tracked.get(name, AssetClass.STOCK)) for name in dict.fromkeys(spelled)]


def as_known(app: App, instruments: Sequence[Instrument], asset_class: str | None) -> list[Instrument]:
    """What the names mean among what is tracked, stored or in the stored lists; else as they were parsed.

    Raises:
        UsageError: when one may mean several.
    """
    given = None if asset_class is None else AssetClass.parse(asset_class)
    meant = [app.names.meant(each.symbol, given) or each for each in instruments]
    return [app.names.stored_as(each) for each in meant]


def as_listed(app: App, instruments: Sequence[Instrument], asset_class: str | None) -> list[Instrument]:
    """As `as_known`; of a name that nothing stored knows the sources are asked.

    Raises:
        UsageError: when one may mean several.
        UnknownInstrument: when no source lists one, or none could be asked.
    """
    given = None if asset_class is None else AssetClass.parse(asset_class)
    found = []
    for each in instruments:
        meant = app.names.meant(each.symbol, given)
        found.append(meant or app.run(app.contracts.find(each.symbol, given, app.names)))
    return [app.names.stored_as(each) for each in found]
