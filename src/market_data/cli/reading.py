"""``status``, ``quality`` and ``features``: what is stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from market_data.cli.arguments import (
    TIMEFRAMES,
    AssetClassName,
    End,
    Json,
    Out,
    Start,
    Symbol,
    as_known,
    parse_instruments,
    parse_moment,
    parse_range,
    parse_timeframes,
    stored_range,
)
from market_data.cli.figures import column, shown
from market_data.cli.invocation import Invocation, now
from market_data.cli.output import print_fields, print_json, print_rows, say
from market_data.cli.writing import Format, check_target, write
from market_data.model.errors import UsageError
from market_data.model.instrument import Series

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl

    from market_data.bootstrap import App
    from market_data.model.explanation import Explanation
    from market_data.model.timeframe import TimeRange

# Shown first in a terminal; what fits of the others follows.
FIRST_COLUMNS: Final = ("timestamp", "open", "high", "low", "close", "volume")
NEXT_COLUMNS: Final = (
    "return_1h",
    "return_1d",
    "volatility_20",
    "atr",
    "sma_20",
    "trend_direction",
    "market_structure",
    "volume_spike_score",
    "quality_score",
    "source",
)
LAST_COLUMNS: Final = ("symbol", "asset_class", "timeframe", "revision", "amended_from", "fetched_at", "computed_at")


# Of a longer window the JSON form shows all.
SHOWN_INPUTS: Final = 50


def status(context: typer.Context, symbol: Symbol, asset_class: AssetClassName = None, as_json: Json = False) -> None:
    """Say how up to date and how good a symbol's data is."""
    invocation: Invocation = context.obj
    (instrument,) = parse_instruments([symbol], asset_class, invocation.settings())
    with invocation.app() as app:
        (instrument,) = as_known(app, [instrument], asset_class)
        found = app.status(instrument)
    if as_json:
        print_json(found)
    else:
        print_fields(str(instrument), found)


def quality(
    context: typer.Context,
    symbol: Symbol,
    asset_class: AssetClassName = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="How many days back.")] = 7,
    as_json: Json = False,
) -> None:
    """Show checks, gaps and scores per day, and recent fetches."""
    invocation: Invocation = context.obj
    (instrument,) = parse_instruments([symbol], asset_class, invocation.settings())
    with invocation.app() as app:
        (instrument,) = as_known(app, [instrument], asset_class)
        found = app.quality(instrument, days)
    if as_json:
        print_json(found)
        return
    print_fields(f"{instrument}, last {days} days", found["summary"])
    if found["daily_metrics"]:
        print_rows("Per day", found["daily_metrics"])
    if found["recent_fetch_logs"]:
        print_rows("Newest fetches", found["recent_fetch_logs"])


def features(
    context: typer.Context,
    symbol: Symbol,
    timeframe: Annotated[str, typer.Argument(metavar="TIMEFRAME", help=TIMEFRAMES)],
    asset_class: AssetClassName = None,
    start: Start = None,
    end: End = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Newest candles only. [default: 20 in a table]")] = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="TIME", help="As known at that moment, UTC; see --start for forms.")
    ] = None,
    adjusted: Annotated[
        str,
        typer.Option(metavar="KIND", help="Prices adjusted for: none, splits, total, total_ex_date."),
    ] = "none",
    columns: Annotated[
        list[str] | None, typer.Option("--column", "-c", metavar="NAME", help="Only this column; may be repeated.")
    ] = None,
    explain: Annotated[
        str | None, typer.Option(metavar="TIME", help="The numbers behind each value of the candle that opens then.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", "-f", help="How to write them.")] = Format.TABLE,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Show candles with features and provenance, as they are or as they were known, or export them."""
    from market_data.pipeline.read.adjust import Adjustment
    from market_data.pipeline.read.history import enriched

    invocation: Invocation = context.obj
    (parsed,) = parse_timeframes([timeframe])
    first, last = parse_range(start, end, now())
    (instrument,) = parse_instruments([symbol], asset_class, invocation.settings())
    if explain is not None:
        with invocation.app() as app:
            (instrument,) = as_known(app, [instrument], asset_class)
            _explain(app, Series(instrument, parsed), explain, as_json=as_json)
        return
    known, adjustment = parse_moment(as_of, "--as-of"), Adjustment.parse(adjusted)
    form = Format.JSON if as_json else form
    check_target(form, out)
    if form is Format.TABLE and limit is None:
        limit = 20
    with invocation.app() as app:
        (instrument,) = as_known(app, [instrument], asset_class)
        series, span = Series(instrument, parsed), stored_range(first, last)
        frame = enriched(
            app.reader, app.shelves, series, span, limit=limit, as_of=known, adjustment=adjustment, now=now()
        )
        why_none = _why_none(app, series, span, known) if form is Format.TABLE and frame.is_empty() else None
    frame = _chosen(frame, columns)
    if why_none is not None:
        say(f"{series}: {why_none}")
    elif form is Format.TABLE:
        _print_table(str(series), frame, all_columns=bool(columns))
    else:
        write(frame, form, out)


def _why_none(app: App, series: Series, span: TimeRange | None, as_of: datetime | None) -> str:
    first = None if as_of is None else app.reader.first_known(series, span)
    if as_of is None or first is None or first <= as_of:
        return "no candles stored; fetch them with 'market-data enrich'"
    return f"no candles were known at {shown(as_of)} UTC; the first became known at {shown(first)} UTC"


def _explain(app: App, series: Series, when: str, *, as_json: bool) -> None:
    from market_data.pipeline.read.explain import explain

    timestamp = parse_moment(when, "--explain")
    if timestamp is None:
        raise UsageError("--explain needs the candle's open time")
    explanations = explain(app.reader, app.shelves, series, timestamp)
    if as_json:
        print_json([_document(each) for each in explanations])
        return
    for each in explanations:
        looked = f"{each.rows.height} of the {each.lookback + 1} it looks at"
        told = {"value": each.value, "unit": each.unit, **each.sections, "candles": looked}
        if each.conversions:
            told["converted"] = "; ".join(map(str, each.conversions))
        inputs = {f"{name}, newest last": _newest(each.rows[name].to_list()) for name in each.rows.columns[2:]}
        seen = {what: said for name, frame in each.observations.items() for what, said in _observed(name, frame)}
        print_fields(each.feature, told | inputs | seen)


def _observed(dataset: str, frame: pl.DataFrame) -> Iterator[tuple[str, object]]:
    """How many observations there are, and their values."""
    yield f"observations of {dataset}", frame.height
    for values in frame.iter_columns():
        if frame.height and (values.dtype.is_float() or values.dtype.is_decimal()):
            yield f"{dataset}.{values.name}, newest last", _newest(values.to_list())


def _document(explanation: Explanation) -> dict[str, Any]:
    """An explanation as JSON, its frames as lists of rows."""
    values = {field.name: getattr(explanation, field.name) for field in fields(explanation)}
    observations = {name: frame.to_dicts() for name, frame in explanation.observations.items()}
    conversions = [asdict(each) for each in explanation.conversions]
    return values | {"rows": explanation.rows.to_dicts(), "observations": observations, "conversions": conversions}


def _newest(values: list[float | None]) -> str:
    """The last values, in order of time."""
    shown = ["–" if value is None else f"{value:.10g}" for value in values[-SHOWN_INPUTS:]]
    return ("… " if len(values) > SHOWN_INPUTS else "") + " ".join(shown)


def _chosen(frame: pl.DataFrame, columns: list[str] | None) -> pl.DataFrame:
    if not columns:
        return frame
    names = list(dict.fromkeys(["timestamp", *columns]))
    if unknown := [name for name in names if name not in frame.columns]:
        raise UsageError(f"Unknown columns {unknown}. Valid: {', '.join(frame.columns)}")
    return frame.select(names)


def _print_table(title: str, frame: pl.DataFrame, *, all_columns: bool) -> None:
    import shutil
    import sys

    names = frame.columns if all_columns else _ordered(frame)
    rows = frame.to_dicts()
    if not all_columns and sys.stdout.isatty():
        names, left = _fitting(names, rows, shutil.get_terminal_size().columns)
        print_rows(title, rows, names)
        if left:
            say(f"{len(left)} more columns: --format csv shows all; --column NAME picks one")
        return
    print_rows(title, rows, names)


def _ordered(frame: pl.DataFrame) -> list[str]:
    """Candle first, then what has values, then what is the same everywhere."""
    rest = [name for name in frame.columns if name not in FIRST_COLUMNS + NEXT_COLUMNS + LAST_COLUMNS]
    middle = sorted((*NEXT_COLUMNS, *rest), key=lambda name: name in frame.columns and frame[name].is_null().all())
    return [name for name in (*FIRST_COLUMNS, *middle, *LAST_COLUMNS) if name in frame.columns]


def _fitting(names: list[str], rows: list[dict[str, object]], width: int) -> tuple[list[str], list[str]]:
    kept: list[str] = []
    for position, name in enumerate(names):
        cells = column([row[name] for row in rows])
        width -= 2 + max(*map(len, name.split("_")), *map(len, cells), 0)
        if width + 2 < 0 and len(kept) >= len(FIRST_COLUMNS):
            return kept, names[position:]
        kept.append(name)
    return kept, []
