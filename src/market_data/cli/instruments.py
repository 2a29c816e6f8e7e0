"""``instruments``: what every source calls a symbol and since when; fetches the sources' lists on request."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from market_data.cli.arguments import AssetClassName, Json, parse_instruments
from market_data.cli.invocation import Invocation
from market_data.cli.output import print_json, print_rows, say, waiting
from market_data.model.errors import UnknownInstrument, UsageError
from market_data.model.instrument import AssetClass, Instrument

if TYPE_CHECKING:
    from market_data.bootstrap import App
    from market_data.pipeline.fetch.listings import Refreshed

SUGGESTIONS: Final = 5


def instruments(
    context: typer.Context,
    symbol: Annotated[str | None, typer.Argument(metavar="SYMBOL", help="Our symbol: BTC, AAPL, BRK.B.")] = None,
    asset_class: AssetClassName = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Fetch the sources' instrument lists first.")] = False,
    provider: Annotated[str | None, typer.Option(metavar="NAME", help="With --refresh: ask this source only.")] = None,
    as_json: Json = False,
) -> None:
    """Show what every source calls a symbol, since when and until when."""
    if symbol is None and not refresh:
        raise UsageError("Missing SYMBOL: name one, or fetch the sources' lists with --refresh")
    if provider is not None and not refresh:
        raise UsageError("--provider goes with --refresh")
    invocation: Invocation = context.obj
    wanted = parse_instruments([symbol], asset_class, invocation.settings()) if symbol else []
    given = AssetClass.parse(asset_class) if asset_class else None
    with invocation.app(asks_providers=refresh) as app:
        refreshed = _refresh(app, provider, wanted) if refresh else []
        rows = _rows(app, wanted[0].symbol, given) if wanted else []
    summary = [_line(one) for one in refreshed]
    if as_json:
        print_json(({"refreshed": summary} if refresh else {}) | ({"names": rows} if wanted else {}))
    else:
        if summary:
            print_rows("Instrument lists", summary)
        if rows:
            columns = ("asset_class", "provider", "raw_symbol", "venue", "valid_from", "valid_to")
            name = next((row["name"] for row in rows if row["name"]), None)
            print_rows(f"{wanted[0].symbol}{f': {name}' if name else ''}", rows, columns)
    _exit(refreshed)


def _refresh(app: App, name: str | None, wanted: list[Instrument]) -> list[Refreshed]:
    from market_data.pipeline.fetch.listings import Listings

    if name is not None and name not in app.providers:
        raise UsageError(f"Unknown provider {name!r}. Valid: {', '.join(app.providers)}")
    tracked = [one.instrument for one in app.tracked()]
    listings = Listings(app.database, app.enricher.providers, app.clock)
    with waiting("fetching instrument lists"):
        return app.run(listings.refresh(name, list(dict.fromkeys([*wanted, *tracked]))))


def _rows(app: App, symbol: str, asset_class: AssetClass | None) -> list[dict[str, Any]]:
    from market_data.storage.facts.instruments import known_symbols, names_of, sources_listed

    rows = names_of(app.database, symbol, asset_class)
    if not rows:
        known = known_symbols(app.database)
        if not known:
            raise UnknownInstrument(
                "No instrument list is stored yet: fetch them with 'market-data instruments --refresh'"
            )
        raise UnknownInstrument(f"No source lists {symbol}.{_suggestion(symbol, known)}")
    blank = dict.fromkeys(rows[0]) | {"symbol": symbol, "asset_class": rows[0]["asset_class"]}
    named = {row["provider"] for row in rows}
    return rows + [blank | {"provider": source} for source in sources_listed(app.database) if source not in named]


def _suggestion(symbol: str, known: dict[str, str | None]) -> str:
    near = difflib.get_close_matches(symbol, known, n=SUGGESTIONS, cutoff=0.6)
    named = [each for each, name in known.items() if name and symbol.lower() in name.lower().split()]
    found = list(dict.fromkeys([*named, *near]))[:SUGGESTIONS]
    return f" Did you mean {', '.join(found)}?" if found else ""


def _line(one: Refreshed) -> dict[str, Any]:
    return {
        "provider": one.provider,
        "listed": one.listed,
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
