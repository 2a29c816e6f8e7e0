"""``reconcile``: the stored candles of a series against another source."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from market_data.cli.arguments import (
    TIMEFRAMES,
    AssetClassName,
    End,
    Json,
    Start,
    Symbol,
    as_known,
    parse_instruments,
    parse_range,
    parse_timeframes,
)
from market_data.cli.invocation import Invocation, now
from market_data.cli.output import print_json, print_rows, say, waiting
from market_data.model.errors import UsageError

if TYPE_CHECKING:
    from market_data.bootstrap import App
    from market_data.model.instrument import Series
    from market_data.pipeline.fetch.reconcile import Reconciliation


def reconcile(
    context: typer.Context,
    symbol: Symbol,
    timeframe: Annotated[str, typer.Argument(metavar="TIMEFRAME", help=TIMEFRAMES)],
    against: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="yahoo, binance:archive … [default: the first that is not stored]"),
    ] = None,
    asset_class: AssetClassName = None,
    start: Start = None,
    end: End = None,
    as_json: Json = False,
) -> None:
    """Compare the stored candles with another source; differences beyond the tolerance are recorded.

    Without --start the last 500 candles are compared.
    """
    from market_data.model.instrument import Series

    invocation: Invocation = context.obj
    (parsed,) = parse_timeframes([timeframe])
    first, last = parse_range(start, end, now())
    (instrument,) = parse_instruments([symbol], asset_class, invocation.settings())
    with invocation.app(asks_providers=True) as app, waiting("comparing"):
        (instrument,) = as_known(app, [instrument], asset_class)
        series = Series(instrument, parsed)
        last = last or now()
        found = _run(app, series, against, first or last - 500 * parsed.duration, last)
    if as_json:
        print_json(_as_fields(found))
    else:
        _print(found)


def _run(app: App, series: Series, against: str | None, start: Any, end: Any) -> Reconciliation:
    from market_data.model.timeframe import TimeRange
    from market_data.pipeline.fetch.reconcile import provider_of, reconcile
    from market_data.pipeline.write.recompute import Recomputation

    span = TimeRange(start, end)
    source = against or _other_source(app, series, span)
    provider = provider_of(source, list(app.providers.values()))
    found = app.run(reconcile(app.sources, provider, source, series, span))
    # Candles on which sources differ score lower.
    for _ in Recomputation(app.database, app.shelves, app.clock).run():
        pass
    return found


def _other_source(app: App, series: Series, span: Any) -> str:
    from market_data.model.dataset import CANDLES

    stored = set(app.reader.newest_facts(series, span)["source"].str.split(":").list.first())
    for provider in app.sources.providers.get(series.asset_class, ()):
        serves = provider.capability(CANDLES, series.instrument, series.timeframe) is not None
        if serves and provider.ready is None and provider.name not in stored:
            return provider.name
    raise UsageError(f"no second source serves {series}: name one with --against, for example binance:archive")


def _print(found: Reconciliation) -> None:
    say(
        f"{found.series} against {found.against}, {found.span.start:%Y-%m-%d %H:%M} – {found.span.end:%Y-%m-%d %H:%M}: "
        f"{found.both:,} candles of both, {found.only_stored:,} only stored, {found.only_other:,} only there"
    )
    print_rows(None, [asdict(field) for field in found.fields if field.compared])
    if found.worst:
        print_rows("Largest disagreements", list(found.worst))


def _as_fields(found: Reconciliation) -> dict[str, Any]:
    return {
        "symbol": found.series.symbol,
        "timeframe": found.series.timeframe,
        "against": found.against,
        "start": found.span.start,
        "end": found.span.end,
        "both": found.both,
        "only_stored": found.only_stored,
        "only_other": found.only_other,
        "beyond_tolerance": found.beyond,
        "fields": [asdict(field) for field in found.fields],
        "worst": list(found.worst),
    }
