"""``up --once`` in the sandbox: what is recorded, enriched through the queue and shown in one screen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import typer

from market_data.cli.chart import price_chart, sparkline
from market_data.cli.enriching import as_fields, finish
from market_data.cli.figures import score, seconds
from market_data.cli.following import work_off
from market_data.cli.invocation import Invocation
from market_data.cli.output import console, print_json, print_rows, say
from market_data.model.errors import MarketDataError
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.job import Status
from market_data.model.timeframe import Timeframe

if TYPE_CHECKING:
    import polars as pl

    from market_data.bootstrap import App
    from market_data.pipeline.fetch.candles import SeriesReport

SHOWN_FEATURES: Final = (
    "close",
    "return_1d",
    "volatility_20",
    "atr",
    "sma_20",
    "volume_spike_score",
    "trend_direction",
)
CHART_OF: Final = "BTC 1d"


@dataclass(frozen=True, slots=True)
class Part:
    """Instruments, timeframes and range of one part of what is shown."""

    instruments: tuple[Instrument, ...]
    timeframes: tuple[Timeframe, ...]
    start: datetime
    end: datetime


# Where all five are recorded, with Coca-Cola's split of August 2012.
RECORDED: Final = (
    Part(
        (Instrument("BTC", AssetClass.CRYPTO),),
        (Timeframe.H1, Timeframe.H4, Timeframe.D1),
        datetime(2018, 10, 1, tzinfo=UTC),
        datetime(2019, 10, 1, tzinfo=UTC),
    ),
    Part(
        tuple(Instrument(symbol, AssetClass.STOCK) for symbol in ("MSFT", "KO", "IBM", "AAPL")),
        (Timeframe.D1, Timeframe.W1),
        datetime(2012, 1, 1, tzinfo=UTC),
        datetime(2013, 3, 1, tzinfo=UTC),
    ),
)


def show_recorded(invocation: Invocation, *, as_json: bool) -> None:
    """Enrich what is recorded through the queue, and show what became of it."""
    begun = time.perf_counter()
    with invocation.app(asks_providers=True) as app:
        ready = time.perf_counter()
        reports = [report for part in RECORDED for report in _through_the_queue(app, part)]
        done = time.perf_counter()
        frames = [_stored(app, report) for report in reports]
        where = app.database.server.home.parent if app.database.server else app.database.name
    if as_json:
        print_json([_as_json(report, frame) for report, frame in zip(reports, frames, strict=True)])
    else:
        _show(RECORDED, reports, frames)
        total = sum(report.counts.fetched for report in reports)
        typer.echo(
            f"{total:,} candles in {seconds(done - ready)} after {seconds(ready - begun)} to start.\nStored in {where}."
        )
        say("Look further: market-data --sandbox features BTC 1h · status KO · quality MSFT · up")
    finish(reports, notes=not as_json)


def _through_the_queue(app: App, part: Part) -> list[SeriesReport]:
    """Enrich a part as the service does: queued, and worked off by a worker here."""
    from market_data.model.timeframe import TimeRange
    from market_data.pipeline.fetch.candles import SeriesReport
    from market_data.storage.series.present import Counts

    receipt = app.jobs.trigger(part.instruments, part.timeframes, start=part.start, end=part.end)
    reports = []
    for done in (part for job in work_off(app, [receipt.job_id]) for part in job.parts):
        assert done.task.series is not None
        spent = (done.finished_at - done.started_at).total_seconds() if done.finished_at and done.started_at else 0.0
        error = None if done.status is Status.COMPLETED else MarketDataError(done.error or done.status.value)
        reports.append(
            SeriesReport(
                done.task.series,
                TimeRange(part.start, part.end),
                list(done.sources),
                Counts(**done.counts),
                {"worked": spent},
                done.gaps or 0,
                error,
                list(done.notes),
            )
        )
    return reports


def _stored(app: App, report: SeriesReport) -> pl.DataFrame:
    return app.reader.features(report.series, report.span)


def _quality(frame: pl.DataFrame) -> float | None:
    scores = [score for score in frame["quality_score"].to_list() if score is not None]
    return float(sum(scores)) / len(scores) if scores else None


def _last(frame: pl.DataFrame) -> dict[str, Any]:
    return frame.row(-1, named=True) if frame.height else {}


def _closes(frame: pl.DataFrame) -> list[float]:
    return [float(close) for close in frame["close"].to_list()]


def _as_json(report: SeriesReport, frame: pl.DataFrame) -> dict[str, Any]:
    last = _last(frame)
    return {
        **as_fields(report),
        "candles": frame.height,
        "quality_score": _quality(frame),
        "last": {"timestamp": last.get("timestamp"), **{name: last.get(name) for name in SHOWN_FEATURES}},
    }


def _show(parts: Sequence[Part], reports: Sequence[SeriesReport], frames: Sequence[pl.DataFrame]) -> None:
    for part in parts:
        names = ", ".join(instrument.symbol for instrument in part.instruments)
        typer.echo(f"{names}: {' '.join(part.timeframes)} from {part.start:%Y-%m-%d} to {part.end:%Y-%m-%d}")
    typer.echo()
    pairs = list(zip(reports, frames, strict=True))
    print_rows("Fetched, checked, stored", [_line(report, frame) for report, frame in pairs])
    print_rows(
        "Newest features (returns and volatility in %)", [_feature_line(report, frame) for report, frame in pairs]
    )
    for report, frame in pairs:
        if str(report.series) == CHART_OF and frame.height:
            drawn = price_chart(frame["timestamp"].to_list(), _closes(frame), console().width)
            if drawn:
                typer.echo(f"{report.series}, close\n{drawn}\n")


def _line(report: SeriesReport, frame: pl.DataFrame) -> dict[str, Any]:
    counts = report.counts
    return {
        "series": str(report.series),
        "source": report.sources,
        "candles": frame.height,
        "inserted": counts.inserted,
        "updated": counts.updated,
        "unchanged": counts.unchanged,
        "gaps": report.gaps if report.error is None else None,
        "quality": score(_quality(frame)),
        "time": seconds(sum(report.seconds.values())),
    }


def _feature_line(report: SeriesReport, frame: pl.DataFrame) -> dict[str, Any]:
    last = _last(frame)
    short = {
        "return_1d": "return",
        "volatility_20": "vol 20",
        "volume_spike_score": "spike",
        "sma_20": "sma 20",
        "trend_direction": "trend",
    }
    line: dict[str, Any] = {"series": str(report.series)}
    for name in SHOWN_FEATURES:
        value = last.get(name)
        line[short.get(name, name)] = f"{value:,.2f}" if isinstance(value, float) else value
    return {**line, "price": sparkline(_closes(frame))}
