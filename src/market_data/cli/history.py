"""``correct`` and ``quarantine``: a person's say about what is stored and what was refused."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from market_data.cli.arguments import (
    TIMEFRAMES,
    AssetClassName,
    Json,
    Symbol,
    as_known,
    parse_instruments,
    parse_moment,
    parse_timeframes,
)
from market_data.cli.invocation import Invocation
from market_data.cli.output import print_fields, print_json, print_rows, say
from market_data.cli.program import PARTLY_DONE
from market_data.model.errors import UsageError
from market_data.model.instrument import Series

if TYPE_CHECKING:
    from market_data.storage.server.database import Database

quarantine = typer.Typer(
    help="Rows that broke a rule: kept aside, never lost, never stored as good.", no_args_is_help=True
)
LISTED = ("id", "symbol", "timeframe", "timestamp", "source", "rule", "created_at", "resolution")
Number = Annotated[list[int] | None, typer.Argument(metavar="NUMBER...", help="Only these, as listed. [default: all]")]


def correct(
    context: typer.Context,
    symbol: Symbol,
    timeframe: Annotated[str, typer.Argument(metavar="TIMEFRAME", help=TIMEFRAMES)],
    timestamp: Annotated[str, typer.Argument(metavar="TIMESTAMP", help="The candle's open time, UTC.")],
    values: Annotated[
        list[str] | None, typer.Argument(metavar="FIELD=VALUE...", help="What it should be: close=101.5 volume=12.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; kept with the correction.")] = "",
    revert: Annotated[bool, typer.Option("--revert", help="Take corrections of this candle back.")] = False,
    asset_class: AssetClassName = None,
    as_json: Json = False,
) -> None:
    """Correct a stored candle by hand; it stands against every source until it is reverted."""
    from market_data.pipeline.write.amend import Amender

    invocation: Invocation = context.obj
    (parsed,) = parse_timeframes([timeframe])
    (instrument,) = parse_instruments([symbol], asset_class, invocation.settings())
    moment = parse_moment(timestamp, "TIMESTAMP")
    assert moment is not None
    if revert and values:
        raise UsageError("--revert takes no FIELD=VALUE: it restores what the sources say")
    wanted = _pairs(values or [])
    with invocation.app() as app:
        (instrument,) = as_known(app, [instrument], asset_class)
        series = Series(instrument, parsed)
        amender = Amender(app.database, app.shelves, app.clock, getpass.getuser())
        change = amender.revert(series, moment, reason) if revert else amender.correct(series, moment, wanted, reason)
    done = {
        "series": str(series),
        "timestamp": moment,
        "action": "reverted" if revert else "corrected",
        "later_candles_reached": change.reached,
        "later_candles_changed": change.refreshed,
    }
    print_json(done) if as_json else print_fields(str(series), done)


@quarantine.command("list")
def list_rows(
    context: typer.Context,
    symbol: Annotated[str | None, typer.Argument(metavar="SYMBOL", help="Only this symbol. [default: all]")] = None,
    asset_class: AssetClassName = None,
    resolved: Annotated[bool, typer.Option("--all", help="Also those that were resolved.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: Json = False,
) -> None:
    """List rows in quarantine, newest first."""
    from market_data.storage.work.quarantine import listed

    invocation: Invocation = context.obj
    named = parse_instruments([symbol], asset_class, invocation.settings()) if symbol else []
    with invocation.app() as app:
        instrument = next(iter(as_known(app, named, asset_class)), None)
        rows = listed(app.database, instrument, resolved=resolved, limit=limit)
    if as_json:
        print_json(rows)
    elif not rows:
        say(f"nothing of {instrument.symbol} is in quarantine" if instrument else "quarantine is empty")
    else:
        print_rows(None, rows, LISTED)
        if len(rows) == limit:
            say(f"the newest {limit}; --limit shows more")


@quarantine.command("show")
def show_row(
    context: typer.Context,
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="As listed.")],
    as_json: Json = False,
) -> None:
    """Show one row in quarantine, whole."""
    invocation: Invocation = context.obj
    with invocation.app() as app:
        row = _row(app.database, number)
    if as_json:
        print_json(row)
        return
    payload: dict[str, Any] = row.pop("payload")
    print_fields(f"quarantine {number}", row)
    print_fields("payload", payload)


@quarantine.command("retry")
def retry_rows(
    context: typer.Context,
    numbers: Number = None,
    symbol: Annotated[str | None, typer.Option("--symbol", "-s", help="Only this symbol.")] = None,
    asset_class: AssetClassName = None,
    as_json: Json = False,
) -> None:
    """Check rows in quarantine again and store those that pass; exits 3 when some do not."""
    from dataclasses import asdict

    from market_data.pipeline.write.release import retry

    invocation: Invocation = context.obj
    named = parse_instruments([symbol], asset_class, invocation.settings()) if symbol else []
    with invocation.app() as app:
        instrument = next(iter(as_known(app, named, asset_class)), None)
        for number in numbers or ():
            _refuse_unless_waiting(_row(app.database, number))
        counts = retry(app.database, app.shelves, app.clock, instrument=instrument, numbers=numbers)
    if as_json:
        print_json(asdict(counts))
    elif counts.fetched:
        print_fields("quarantine", asdict(counts))
    else:
        say("no candle in quarantine waits to be checked again")
    if counts.rejected:
        raise typer.Exit(PARTLY_DONE)


def _row(database: Database, number: int) -> dict[str, Any]:
    from market_data.storage.work.quarantine import shown

    row = shown(database, number)
    if row is None:
        raise UsageError(f"There is no number {number} in quarantine; see 'market-data quarantine list'.")
    return row


def _refuse_unless_waiting(row: dict[str, Any]) -> None:
    from market_data.model.dataset import CANDLES

    if row["resolved_at"] is not None:
        raise UsageError(f"Number {row['id']} left quarantine before: {row['resolution']}.")
    if row["dataset"] != CANDLES.name:
        raise UsageError(
            f"Number {row['id']} is of {row['dataset']}: only candles are checked again from here. "
            "'market-data backfill' fetches it again and checks what comes."
        )


def _pairs(words: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign:
            raise UsageError(f"{word!r} is not FIELD=VALUE, e.g. close=101.5")
        pairs[name.strip()] = value.strip()
    return pairs
