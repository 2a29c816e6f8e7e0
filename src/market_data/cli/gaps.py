"""``gaps``: what is missing, in what state, and closing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from market_data.cli.arguments import AssetClassName, Json, as_known, parse_instruments, parse_timeframes
from market_data.cli.invocation import Invocation, now
from market_data.cli.output import print_json, print_rows, say, waiting
from market_data.cli.program import PARTLY_DONE
from market_data.cli.trading import trading_notes

if TYPE_CHECKING:
    from market_data.bootstrap import App
    from market_data.model.instrument import Series
    from market_data.pipeline.fetch.heal import Healed


def gaps(
    context: typer.Context,
    symbol: Annotated[
        str | None, typer.Argument(metavar="SYMBOL", help="Only this symbol. [default: everything stored]")
    ] = None,
    asset_class: AssetClassName = None,
    timeframe: Annotated[
        list[str] | None, typer.Option("--timeframe", "-t", metavar="TF", help="Only these. [default: all stored]")
    ] = None,
    heal: Annotated[bool, typer.Option("--heal", help="Ask the sources for what is missing, now.")] = False,
    audit: Annotated[
        bool, typer.Option("--audit", help="First compare the ledger with every stored candle and the calendar.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what is missing per series; with --heal, try to close it. Exits 3 when healing left something missing."""
    invocation: Invocation = context.obj
    with invocation.app(asks_providers=heal) as app:
        chosen = _chosen(app, invocation, symbol, asset_class, timeframe)
        if audit:
            _audit(app, chosen)
        healed = _heal(app, chosen) if heal else []
        lines, details = [_line(app, series) for series in chosen], [_stretches(app, series) for series in chosen]
        quiet = trading_notes(app, [series.instrument for series in chosen])
    if as_json:
        listed = [line | {"gaps": found} for line, found in zip(lines, details, strict=True)]
        print_json({"series": listed, "healed": [_as_fields(result) for result in healed]})
    elif not lines:
        say("nothing is stored; fetch candles with 'market-data enrich'")
    else:
        print_rows(None, lines)
        open_gaps = [gap for found in details for gap in found]
        if open_gaps:
            print_rows("Open gaps", open_gaps[:50])
        if len(open_gaps) > 50:
            say(f"{len(open_gaps) - 50} more: --json shows all")
        for note in dict.fromkeys(note for result in healed for note in result.notes):
            say(f"note: {note}")
        for note in quiet:
            say(f"note: {note}")
    if any(result.missing for result in healed):
        raise typer.Exit(PARTLY_DONE)


def _chosen(
    app: App, invocation: Invocation, symbol: str | None, asset_class: str | None, timeframe: list[str] | None
) -> list[Series]:
    from market_data.storage.series.coverage import known_series

    wanted = parse_timeframes(timeframe) if timeframe else None
    instrument = None
    if symbol is not None:
        (instrument,) = as_known(app, parse_instruments([symbol], asset_class, invocation.settings()), asset_class)
    known = known_series(app.database, instrument)
    return [series for series in known if wanted is None or series.timeframe in wanted]


def _audit(app: App, chosen: list[Series]) -> None:
    from market_data.pipeline.write.gaps import audit_series

    for series in chosen:
        with waiting(f"auditing {series}"):
            found = audit_series(app.database, series, now())
        if found.corrected or found.proved:
            say(f"{series}: {found.corrected} ledger rows corrected, {found.proved} candles proved without trades")


def _heal(app: App, chosen: list[Series]) -> list[Healed]:
    from market_data.pipeline.fetch.heal import Healer

    healer = Healer(app.sources, app.shelves)

    async def run() -> list[Healed]:
        return [result for series in chosen for result in await healer.heal(series, due_only=False)]

    with waiting("healing"):
        return app.run(run())


def _line(app: App, series: Series) -> dict[str, Any]:
    from dataclasses import asdict

    from market_data.pipeline.write.gaps import coverage, covered_span
    from market_data.pipeline.write.ledger import Coverage

    span = covered_span(app.database, series)
    counts = coverage(app.database, series, span, now()) if span else Coverage()
    return {
        "symbol": series.symbol,
        "timeframe": series.timeframe,
        "since": span.start if span else None,
        "until": span.end if span else None,
    } | asdict(counts)


def _stretches(app: App, series: Series) -> list[dict[str, Any]]:
    from market_data.pipeline.write.ledger import candles_in
    from market_data.storage.series.coverage import State, stretches

    with app.database.transaction() as connection:
        found = stretches(connection, series)
    return [
        {
            "series": str(series),
            "start": stretch.start,
            "end": stretch.end,
            "candles": candles_in(series, stretch),
            "state": stretch.state,
            "detected_at": stretch.detected_at,
            "tries": stretch.tries,
            "next_try_at": stretch.next_try_at,
            "last_error": stretch.last_error,
        }
        for stretch in found
        if stretch.state in (State.MISSING, State.UNRECOVERABLE)
    ]


def _as_fields(result: Healed) -> dict[str, Any]:
    from dataclasses import asdict

    fields = asdict(result)
    series = fields.pop("series")
    return {"symbol": series["instrument"]["symbol"], "timeframe": series["timeframe"]} | fields
