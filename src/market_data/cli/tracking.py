"""``track`` and ``untrack``: which symbols scheduled work covers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from market_data.cli.arguments import (
    TIMEFRAMES,
    AssetClassName,
    Json,
    as_known,
    as_listed,
    parse_instruments,
    parse_timeframes,
)
from market_data.cli.invocation import Invocation, now
from market_data.cli.output import print_json, print_rows, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from market_data.bootstrap import App
    from market_data.model.instrument import Series

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
    later: Annotated[bool, typer.Option("--later", help="Leave the first fill to the schedule.")] = False,
    as_json: Json = False,
) -> None:
    """Track symbols from now on and fill what is new of them at once; without symbols, list what is tracked."""
    from market_data.storage.work.tracked import track as store

    invocation: Invocation = context.obj
    chosen = parse_timeframes(timeframe) if timeframe else None
    with invocation.app() as app:
        parsed = parse_instruments(symbols, asset_class, app.settings) if symbols else []
        instruments = as_listed(app, parsed, asset_class)
        followed = {series for one in app.tracked() for series in one.series}
        for instrument in instruments:
            store(app.database, [instrument], chosen or app.default_timeframes(instrument), now())
        new = [series for one in app.tracked() if one.instrument in instruments for series in one.series]
        _show(app, as_json=as_json)
        if not later:
            _fill(app, [series for series in new if series not in followed])


def _fill(app: App, series: Sequence[Series]) -> None:
    """Have series fetched: by a worker that runs, else here and now.

    Raises:
        typer.Exit: when not all of them could be had.
    """
    if not series:
        return
    from market_data.cli.following import conclude, work_off
    from market_data.model.dataset import CANDLES
    from market_data.model.job import Kind, Task
    from market_data.monitoring.readings import WORKER_SILENT
    from market_data.storage.work.workers import live_workers

    receipt = app.jobs.submit(
        Kind.ENRICH,
        [
            Task(kind=Kind.ENRICH, instrument=one.instrument, timeframe=one.timeframe, dataset=CANDLES.name)
            for one in series
        ],
    )
    if live_workers(app.database, now() - WORKER_SILENT):
        say(f"job {receipt.job_id} fetches {', '.join(map(str, series))} now")
        return
    conclude(work_off(app, [receipt.job_id]), notes=True)


def untrack(
    context: typer.Context, symbols: Symbols = None, asset_class: AssetClassName = None, as_json: Json = False
) -> None:
    """Leave symbols alone from now on; what is stored of them stays."""
    from market_data.storage.work.tracked import untrack as store

    invocation: Invocation = context.obj
    with invocation.app() as app:
        tracked = {one.instrument.symbol: one.instrument for one in app.tracked()}
        instruments = as_known(app, parse_instruments(symbols, asset_class, app.settings), asset_class)
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
