"""``instruments``: what the sources list, who a symbol is at each of them and since when, as it is or as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from market_data.cli.arguments import AssetClassName, Json, as_known, parse_instruments, parse_moment
from market_data.cli.invocation import Invocation
from market_data.cli.output import print_json, print_rows, say, waiting
from market_data.cli.trading import trading_notes
from market_data.model.errors import UnknownInstrument, UsageError
from market_data.model.instrument import AssetClass, Instrument, Kind, Status

if TYPE_CHECKING:
    from datetime import datetime

    from market_data.bootstrap import App
    from market_data.pipeline.fetch.listings import Refreshed

SHOWN: Final = 50
_LISTED: Final = ("symbol", "kind", "source", "raw_symbol", "status", "status_since", "listed_from", "listed_to")
_NAME: Final = ("asset_class", "provider", "raw_symbol", "venue", "valid_from", "valid_to")


def instruments(
    context: typer.Context,
    symbol: Annotated[
        str | None, typer.Argument(metavar="SYMBOL", help="BTC, BTC/USDT, AAPL. [default: everything listed]")
    ] = None,
    asset_class: AssetClassName = None,
    query: Annotated[str | None, typer.Option(metavar="TEXT", help="Only symbols or names with this text.")] = None,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help=f"Only {', '.join(Kind)}.")] = None,
    status: Annotated[str | None, typer.Option(metavar="STATUS", help=f"Only {', '.join(Status)}.")] = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="TIME", help="As listed at that moment: the dead among the living.")
    ] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Fetch the sources' instrument lists first.")] = False,
    provider: Annotated[str | None, typer.Option(metavar="NAME", help="With --refresh: ask this source only.")] = None,
    as_json: Json = False,
) -> None:
    """Show what the sources list: contracts with their status, and what each source calls a symbol."""
    if provider is not None and not refresh:
        raise UsageError("--provider goes with --refresh")
    invocation: Invocation = context.obj
    wanted = parse_instruments([symbol], asset_class, invocation.settings()) if symbol else []
    given = AssetClass.parse(asset_class) if asset_class else None
    moment = parse_moment(as_of, "--as-of")
    with invocation.app(asks_providers=refresh) as app:
        refreshed = _refresh(app, provider, wanted) if refresh else []
        if symbol is None and refresh and not (query or kind or status or as_of):
            found = _Found()
        else:
            found = _found(app, wanted, given, {"query": query, "kind": kind, "status": status}, moment)
    summary = [_line(one) for one in refreshed]
    if as_json:
        print_json(({"refreshed": summary} if refresh else {}) | (found.fields() if symbol or not refresh else {}))
    else:
        if summary:
            print_rows("Instrument lists", summary)
        found.show(symbol)
    _exit(refreshed)


def forget(
    context: typer.Context,
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="Our symbol: BTC, AAPL, BRK.B.")],
    asset_class: AssetClassName = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking again.")] = False,
    as_json: Json = False,
) -> None:
    """Remove a symbol and all that is stored of it, after saying what goes."""
    from market_data.storage.work.forgetting import forget as remove
    from market_data.storage.work.forgetting import holdings

    invocation: Invocation = context.obj
    with invocation.app() as app:
        (instrument,) = as_known(app, parse_instruments([symbol], asset_class, app.settings), asset_class)
        held = holdings(app.database, instrument)
        if not held:
            raise UnknownInstrument(f"Nothing is stored of {instrument}.")
        if not as_json:
            print_rows(f"{instrument}: what goes", [{"table": name, "rows": rows} for name, rows in held.items()])
        if not yes and not typer.confirm("Remove all of it, for good?", default=False, err=True):
            raise typer.Exit(1)
        with waiting(f"removing {instrument}"):
            removed = remove(app.database, instrument)
    if as_json:
        print_json({"symbol": instrument.symbol, "asset_class": instrument.asset_class, "removed": removed})
    else:
        say(f"{instrument} is forgotten: {sum(removed.values())} rows removed")


class _Found:
    """What is shown: contracts, names and notes."""

    def __init__(
        self,
        contracts: Sequence[dict[str, Any]] = (),
        names: Sequence[dict[str, Any]] = (),
        notes: Sequence[str] = (),
    ) -> None:
        self.contracts, self.names, self.notes = contracts, names, notes

    def fields(self) -> dict[str, Any]:
        """As JSON."""
        return {"contracts": self.contracts, "names": self.names, "notes": self.notes}

    def show(self, symbol: str | None) -> None:
        """As tables."""
        if self.contracts:
            print_rows("Contracts", list(self.contracts[:SHOWN]), (*_LISTED, "own") if symbol else _LISTED)
        if len(self.contracts) > SHOWN:
            say(f"{len(self.contracts) - SHOWN} more: --json shows all, --query finds some")
        if self.names:
            name = next((row["name"] for row in self.names if row["name"]), None)
            print_rows(f"{symbol}{f': {name}' if name else ''}", list(self.names), _NAME)
        for note in self.notes:
            say(f"note: {note}")


def _found(
    app: App,
    wanted: list[Instrument],
    asset_class: AssetClass | None,
    only: Mapping[str, str | None],
    as_of: datetime | None,
) -> _Found:
    from market_data.storage.facts.contract_reads import Query, contracts

    query = Query(**only, asset_class=asset_class, as_of=as_of)
    if not wanted:
        return _Found(contracts(app.database, query))
    (parsed,) = wanted
    known = app.names.meant(parsed.symbol, asset_class)
    instrument = app.names.stored_as(known or parsed)
    listed = contracts(app.database, query, of=known or parsed)
    rows = _rows(app, instrument.symbol, asset_class)
    if not listed and not rows:
        raise UnknownInstrument(_unlisted(app, parsed.symbol))
    return _Found(listed, rows, trading_notes(app, [instrument]))


def _refresh(app: App, name: str | None, wanted: list[Instrument]) -> list[Refreshed]:
    from market_data.pipeline.fetch.listings import Listings

    if name is not None and name not in app.providers:
        raise UsageError(f"Unknown provider {name!r}. Valid: {', '.join(app.providers)}")
    tracked = [one.instrument for one in app.tracked()]
    listings = Listings(app.database, app.sources.providers, app.clock)
    with waiting("fetching instrument lists"):
        return app.run(listings.refresh(name, list(dict.fromkeys([*wanted, *tracked]))))


def _rows(app: App, symbol: str, asset_class: AssetClass | None) -> list[dict[str, Any]]:
    from market_data.storage.facts.instruments import names_of, sources_listed

    rows = names_of(app.database, symbol, asset_class)
    if not rows:
        return []
    blank = dict.fromkeys(rows[0]) | {"symbol": symbol, "asset_class": rows[0]["asset_class"]}
    named = {row["provider"] for row in rows}
    return rows + [blank | {"provider": source} for source in sources_listed(app.database) if source not in named]


def _unlisted(app: App, symbol: str) -> str:
    from market_data.storage.facts.instruments import known_symbols

    if not known_symbols(app.database):
        return "No instrument list is stored yet: fetch them with 'market-data instruments --refresh'"
    return f"No source lists {symbol}.{app.names.suggestion(symbol)}"


def _line(one: Refreshed) -> dict[str, Any]:
    return {
        "provider": one.provider,
        "listed": one.listed,
        "contracts": one.contracts,
        "new": one.counts.inserted,
        "changed": one.counts.updated,
        "unchanged": one.counts.unchanged,
        "remarks": "; ".join([*one.notes, *([f"{type(one.error).__name__}: {one.error}"] if one.error else [])]),
    }


def _exit(refreshed: list[Refreshed]) -> None:
    failed = [one for one in refreshed if one.error is not None]
    if failed:
        say(f"{len(failed)} of {len(refreshed)} sources failed; what the others said is stored")
        raise typer.Exit(1 if len(failed) == len(refreshed) else 3)
