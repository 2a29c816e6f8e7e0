"""``observations`` and ``bars``: what is stored of a symbol besides candles, and bars made of its trades."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from market_data.cli.arguments import (
    AssetClassName,
    End,
    Json,
    Out,
    Start,
    Symbol,
    as_known,
    parse_instruments,
    parse_moment,
    stored_range,
)
from market_data.cli.invocation import Invocation
from market_data.cli.output import print_rows, say
from market_data.cli.writing import Format, check_target, write
from market_data.model.errors import UsageError
from market_data.model.timeframe import EPOCH, TimeRange

# In a table, when nothing else is asked for.
NEWEST: Final = 20
LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)


def observations(
    context: typer.Context,
    symbol: Symbol,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="E.g. open-interest, funding-rates, trades, news.")],
    asset_class: AssetClassName = None,
    start: Start = None,
    end: End = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Newest rows only. [default: 20 in a table]")] = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="TIME", help="As known at that moment, UTC; see --start for forms.")
    ] = None,
    source: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this source.")] = None,
    form: Annotated[Format, typer.Option("--format", "-f", help="How to write them.")] = Format.TABLE,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Show what is stored of a symbol besides candles, or export it."""
    from market_data.model.dataset import SERVED
    from market_data.storage.facts.reads import FactQuery, newest_facts

    invocation: Invocation = context.obj
    named = {each.path: each for each in SERVED}
    wanted = named.get(dataset.replace("_", "-"))
    if wanted is None:
        raise UsageError(f"unknown dataset {dataset!r}; valid: {', '.join(named)}")
    form = Format.JSON if as_json else form
    check_target(form, out)
    span = stored_range(parse_moment(start, "--start"), parse_moment(end, "--end"))
    moment = parse_moment(as_of, "--as-of")
    (instrument,) = parse_instruments([symbol], asset_class, invocation.settings())
    with invocation.app() as app:
        (instrument,) = as_known(app, [instrument], asset_class)
        query = FactQuery(dataset=wanted, instrument=instrument, span=span, as_of=moment, source=source)
        rows = newest_facts(app.database, query, limit or (NEWEST if form is Format.TABLE else None))
    if form is not Format.TABLE:
        write(rows, form, out, f"rows of {wanted.path}")
    elif rows.is_empty():
        backfill = wanted.backfill
        how = f"; fetch it with 'market-data backfill {backfill.name} --symbol {symbol}'" if backfill else ""
        say(f"{instrument}: no {wanted.path} stored{how}")
    else:
        print_rows(f"{instrument} {wanted.path}", rows.to_dicts())


def bars(
    context: typer.Context,
    symbol: Symbol,
    asset_class: AssetClassName = None,
    every: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="Of this length: 90s, 7m30s, 2h; a day is a multiple of it.")
    ] = None,
    volume: Annotated[str | None, typer.Option(metavar="UNITS", help="Each of so many units traded.")] = None,
    dollars: Annotated[
        str | None, typer.Option(metavar="MONEY", help="Each of so much money, in the quote currency.")
    ] = None,
    start: Start = None,
    end: End = None,
    form: Annotated[Format, typer.Option("--format", "-f", help="How to write them.")] = Format.TABLE,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Show bars made of the stored trades, or export them."""
    import polars as pl

    from market_data.model.bars import SCHEMA
    from market_data.pipeline.read.bars import bars as made
    from market_data.pipeline.read.bars import parse_cut

    invocation: Invocation = context.obj
    cut = parse_cut(every, volume, dollars)
    form = Format.JSON if as_json else form
    check_target(form, out)
    span = stored_range(parse_moment(start, "--start"), parse_moment(end, "--end"))
    (instrument,) = parse_instruments([symbol], asset_class, invocation.settings())
    with invocation.app() as app:
        (instrument,) = as_known(app, [instrument], asset_class)
        frames = made(app.database, instrument, span or TimeRange(EPOCH, LATEST), cut)
        rows = pl.concat([pl.DataFrame(schema=SCHEMA), *frames])
    if form is not Format.TABLE:
        write(rows, form, out, "bars")
    elif rows.is_empty():
        say(f"{instrument}: no trades stored; fetch them with 'market-data backfill trades --symbol {symbol}'")
    else:
        print_rows(f"{instrument} bars, the newest {NEWEST} of {rows.height:,}", rows.tail(NEWEST).to_dicts())
