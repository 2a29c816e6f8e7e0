"""``enrich``: fetch, check, compute and store candles, then say what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from market_data.cli.arguments import (
    TIMEFRAMES,
    AssetClassName,
    End,
    Json,
    Start,
    as_listed,
    parse_instruments,
    parse_range,
    parse_timeframes,
)
from market_data.cli.ending import end_as, say_incomplete
from market_data.cli.figures import score, seconds
from market_data.cli.following import stopped_by_signals
from market_data.cli.invocation import Invocation, now
from market_data.cli.output import print_json, print_rows, say
from market_data.cli.program import print_error
from market_data.cli.progress import series_bars
from market_data.cli.trading import trading_notes
from market_data.model.errors import MarketDataError, Stopped, UnknownInstrument
from market_data.model.instrument import Instrument, Series
from market_data.model.job import outcome_of
from market_data.model.timeframe import Timeframe

if TYPE_CHECKING:
    from market_data.bootstrap import App
    from market_data.pipeline.fetch.candles import SeriesReport


def enrich(
    context: typer.Context,
    symbols: Annotated[
        list[str] | None, typer.Argument(metavar="SYMBOL...", help="One or more symbols: BTC AAPL BRK.B.")
    ] = None,
    asset_class: AssetClassName = None,
    timeframe: Annotated[
        list[str] | None,
        typer.Option("--timeframe", "-t", metavar="TF", help=f"{TIMEFRAMES}; may be repeated. [default: 1d]"),
    ] = None,
    start: Start = None,
    end: End = None,
    as_json: Json = False,
) -> None:
    """Fetch, check and store candles with their features.

    Without --start a series continues from its last stored candle, reading the newest ones again for corrections.
    """
    invocation: Invocation = context.obj
    timeframes = parse_timeframes(timeframe)
    first, last = parse_range(start, end, now())
    instruments = parse_instruments(symbols, asset_class, invocation.settings())
    with invocation.app(asks_providers=True) as app:
        instruments, unknown = _listed(app, instruments, asset_class)
        reports = run(app, instruments, timeframes, first, last) if instruments else []
        reports += _unlisted(unknown, timeframes)
        app.run(_along(app, reports))
        quiet = trading_notes(app, instruments)
        quality = {report.series: quality_of(app, report) for report in reports}
    if as_json:
        print_json([as_fields(report) | {"quality_score": quality[report.series]} for report in reports])
    else:
        lines = as_lines(reports)
        print_rows(None, [line | {"quality": score(quality[r.series])} for line, r in zip(lines, reports, strict=True)])
    for note in quiet:
        say(f"note: {note}")
    finish(reports, notes=not as_json)


def run(
    app: App,
    instruments: Sequence[Instrument],
    timeframes: Sequence[Timeframe],
    start: datetime | None,
    end: datetime | None,
) -> list[SeriesReport]:
    """Enriches with a progress bar per series, until Ctrl-C; one report per series."""

    async def enriched() -> list[SeriesReport]:
        stop = asyncio.Event()
        with series_bars() as step, stopped_by_signals(stop.set, "what is committed is kept"):
            return await app.enricher.enrich(instruments, timeframes, start, end, step, stop=stop)

    return app.run(enriched())


def _listed(
    app: App, instruments: Sequence[Instrument], asset_class: str | None
) -> tuple[list[Instrument], list[tuple[Instrument, MarketDataError]]]:
    """What the names mean, and those that no source lists: one of them does not stop the others."""
    found, unknown = list[Instrument](), list[tuple[Instrument, MarketDataError]]()
    for each in instruments:
        try:
            found += as_listed(app, [each], asset_class)
        except UnknownInstrument as error:
            unknown.append((each, error))
    return list(dict.fromkeys(found)), unknown


def _unlisted(
    unknown: Sequence[tuple[Instrument, MarketDataError]], timeframes: Sequence[Timeframe]
) -> list[SeriesReport]:
    from market_data.pipeline.fetch.candles import SeriesReport

    return [SeriesReport(Series(each, one), error=error) for each, error in unknown for one in timeframes]


async def _along(app: App, reports: Sequence[SeriesReport]) -> None:
    """What happened to shares is asked for with their prices, once per instrument, from the first candle of any."""
    firsts: dict[Instrument, SeriesReport] = {}
    for report in reports:
        known = firsts.get(report.series.instrument)
        if (
            report.error is None
            and report.span is not None
            and (known is None or known.span is None or report.span.start < known.span.start)
        ):
            firsts[report.series.instrument] = report
    for instrument, report in firsts.items():
        report.notes += await app.actions.along(instrument, report.span.start if report.span else None)


def quality_of(app: App, report: SeriesReport) -> float | None:
    """Average quality score of the stored candles of the range, None when there are none."""
    if report.span is None:
        return None
    scores = app.reader.features(report.series, report.span)["quality_score"]
    mean = scores.mean()
    return float(str(mean)) if mean is not None else None


def as_lines(reports: Sequence[SeriesReport]) -> list[dict[str, Any]]:
    """Reports as lines of a table; kept and rejected rows have a column only when there are any."""
    lines = [_as_line(report) for report in reports]
    for name in ("kept", "rejected"):
        if not any(line[name] for line in lines):
            for line in lines:
                del line[name]
    return lines


def _as_line(report: SeriesReport) -> dict[str, Any]:
    counts = report.counts
    return {
        "series": str(report.series),
        "source": report.sources,
        "candles": counts.fetched,
        "inserted": counts.inserted,
        "updated": counts.updated,
        "unchanged": counts.unchanged,
        "kept": counts.kept,
        "rejected": counts.rejected,
        "gaps": report.gaps if report.error is None else None,
        "time": seconds(sum(report.seconds.values())),
    }


def as_fields(report: SeriesReport) -> dict[str, Any]:
    """A report as JSON."""
    counts = report.counts
    return {
        "symbol": report.series.symbol,
        "asset_class": report.series.asset_class,
        "timeframe": report.series.timeframe,
        "start": report.span.start if report.span else None,
        "end": report.span.end if report.span else None,
        "sources": report.sources,
        "inserted": counts.inserted,
        "updated": counts.updated,
        "unchanged": counts.unchanged,
        "kept": counts.kept,
        "rejected": counts.rejected,
        "gaps": report.gaps,
        "seconds": report.seconds,
        "status": report.outcome,
        "notes": report.notes,
        "error": str(report.error) if report.error else None,
    }


def finish(reports: Sequence[SeriesReport], *, notes: bool) -> None:
    """Tells what went wrong, one line each.

    Raises:
        typer.Exit: 1 when nothing went well; 3 when some did not, rows were refused or candles are missing.
    """
    if notes:
        for note in dict.fromkeys(note for report in reports for note in report.notes):
            say(f"note: {note}")
    stopped = [report for report in reports if isinstance(report.error, Stopped)]
    for report in reports:
        if report.error is not None and report not in stopped:
            print_error(f"{report.series}: {report.error}")
    if stopped:
        rows = sum(report.counts.fetched for report in reports)
        say(
            f"stopped with {len(reports) - len(stopped)} of {len(reports)} series done and {rows:,} candles committed: "
            "the same command goes on from there"
        )
    say_incomplete(sum(report.counts.rejected for report in reports), sum(report.gaps for report in reports))
    end_as(outcome_of(report.outcome for report in reports))
