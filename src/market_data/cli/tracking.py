"""``track`` and ``untrack``: which symbols scheduled work covers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from market_data.cli.arguments import TIMEFRAMES, AssetClassName, Json, parse_instruments, parse_timeframes
from market_data.cli.invocation import Invocation, now
from market_data.cli.output import print_json, print_rows, say

if TYPE_CHECKING:
    from market_data.bootstrap import App

Symbols = Annotated[
    list[str] | None, typer.Argument(metavar="SYMBOL...", help="Our symbols: BTC AAPL BRK.B. [default: list them]")
]


def track(
    context: typer.Context,
    symbols: Symbols = None,
    asset_class: AssetClassName = None,
    timeframe: Annotated[
        list[str] | None,
        typer.Option("--timeframe", "-t", metavar="TF", help=f"{TIMEFRAMES}. [default: the asset class's]"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Track symbols from now on; without symbols, list what is tracked."""
    from market_data.storage.work.tracked import track as store

    invocation: Invocation = context.obj
    chosen = parse_timeframes(timeframe) if timeframe else None
    with invocation.app() as app:
        for instrument in parse_instruments(symbols, asset_class, app.settings) if symbols else ():
            store(app.database, [instrument], chosen or app.default_timeframes(instrument), now())
        _show(app, as_json=as_json)


def untrack(
    context: typer.Context, symbols: Symbols = None, asset_class: AssetClassName = None, as_json: Json = False
) -> None:
    """Leave symbols alone from now on; what is stored of them stays."""
    from market_data.storage.work.tracked import untrack as store

    invocation: Invocation = context.obj
    with invocation.app() as app:
        tracked = {one.instrument.symbol: one.instrument for one in app.tracked()}
        instruments = parse_instruments(symbols, asset_class, app.settings)
        if asset_class is None:
            instruments = [tracked.get(one.symbol, one) for one in instruments]
        for instrument in instruments:
            if instrument not in tracked.values():
                say(f"{instrument} was not tracked")
        store(app.database, instruments, now())
        _show(app, as_json=as_json)


def _show(app: App, *, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {
            "symbol": one.instrument.symbol,
            "asset_class": one.instrument.asset_class,
            "timeframes": list(one.timeframes),
            "named_in": one.named_in,
        }
        for one in app.tracked()
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_rows("Tracked", rows)
    else:
        say("nothing is tracked; name symbols with 'market-data track'")
