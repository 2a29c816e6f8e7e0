"""``actions``: what is believed of splits and dividends, who claims it, and a person's decision on a claim in doubt."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from market_data.cli.arguments import AssetClassName, Json, Symbol, as_known, parse_instruments, parse_moment
from market_data.cli.invocation import Invocation
from market_data.cli.output import print_json, print_rows, say
from market_data.model.errors import UsageError

if TYPE_CHECKING:
    from market_data.bootstrap import App
    from market_data.model.instrument import Instrument

SHOWN = ("date", "kind", "event", "state", "factor", "claims", "reason")


def actions(
    context: typer.Context,
    symbol: Symbol,
    asset_class: AssetClassName = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="TIME", help="As believed at that moment, UTC.")
    ] = None,
    history: Annotated[bool, typer.Option("--history", help="How what is believed of splits changed.")] = False,
    withdraw: Annotated[
        str | None, typer.Option(metavar="DAY", help="Withdraw what a source claims for this day: 2026-06-15.")
    ] = None,
    source: Annotated[str | None, typer.Option(metavar="NAME", help="Whose claim to withdraw. [default: all]")] = None,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; kept with the decision.")] = "",
    as_json: Json = False,
) -> None:
    """Show what is believed of splits and dividends: the claims of all sources joined and held against the price."""
    from market_data.pipeline.read.actions import believed
    from market_data.pipeline.read.actions import history as changes

    invocation: Invocation = context.obj
    moment = parse_moment(as_of, "--as-of")
    (instrument,) = parse_instruments([symbol], asset_class, invocation.settings())
    with invocation.app() as app:
        (instrument,) = as_known(app, [instrument], asset_class)
        if withdraw is not None:
            _withdraw(app, instrument, _day(withdraw), source, reason)
        if history:
            found = changes(app.reader, instrument)
        else:
            found = [asdict(each) for each in believed(app.reader, instrument, moment or app.clock())]
    if as_json:
        print_json({"symbol": instrument.symbol, "asset_class": instrument.asset_class.value, "actions": found})
    elif not found:
        say(f"no splits or dividends of {instrument} are known; ask with 'market-data backfill actions -s {symbol}'")
    elif history:
        print_rows(f"{instrument}: what was believed of splits", found)
    else:
        print_rows(f"{instrument}: splits and dividends", [_line(row) for row in found], SHOWN)


def _line(row: dict[str, Any]) -> dict[str, Any]:
    split = row["kind"] == "split"
    event = f"{row['split_to'].normalize():f} for {row['split_from'].normalize():f}" if split else (
        f"{row['amount'].normalize():f} {row['currency'] or ''} {row['dividend_type']}"
    )  # fmt: skip
    claims = ", ".join(f"{one['source']}{' (withdrawn)' if one['withdrawn'] else ''}" for one in row["claims"])
    return row | {"event": event, "claims": claims, "state": row["state"].value}


def _withdraw(app: App, instrument: Instrument, day: date, source: str | None, reason: str) -> None:
    """A person's word that a source's claim does not hold, whatever its list says."""
    from market_data.model.dataset import DIVIDENDS, SPLITS
    from market_data.pipeline.write.believe import settle
    from market_data.storage.facts.append import Provenance, lock_facts
    from market_data.storage.facts.claims import key_of, withdraw
    from market_data.storage.facts.reads import newest_versions

    if not reason.strip():
        raise UsageError("--withdraw needs a --reason: say why, so that others can judge it later.")
    done = 0
    for dataset in (SPLITS, DIVIDENDS):
        for row in newest_versions(app.database, dataset, instrument).iter_rows(named=True):
            if row[dataset.time] != day or source not in (None, row["source"]):
                continue
            with app.database.transaction() as connection:
                lock_facts(connection, dataset, instrument)
                origin = Provenance(source=row["source"], now=app.clock(), run_id=uuid4())
                key = key_of(dataset, row)
                done += withdraw(connection, dataset, instrument, key, origin, by=getpass.getuser(), comment=reason)
    if not done:
        whose = f" of {source}" if source else ""
        raise UsageError(f"No claim{whose} for {day} stands: see 'market-data actions {instrument.symbol}'")
    with app.database.transaction() as connection:
        settle(connection, app.reader, app.shelves, instrument, app.clock())


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--withdraw {text!r} is not a day: write 2026-06-15") from None
