"""Recorded charts through provider, rules and tables: actions as recorded, adjusted closes as the source has them."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest

from asking_sources import asking
from market_data.bootstrap.shelves import open_shelves
from market_data.model.dataset import DIVIDENDS, SPLITS
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.fetch.candles import Enricher
from market_data.pipeline.fetch.facts import Collector
from market_data.pipeline.read.adjust import Adjustment
from market_data.pipeline.read.history import enriched
from market_data.providers.polygon.companies import parse_dividends, parse_splits
from market_data.providers.polygon.parse import parse_answer
from market_data.providers.yahoo import Yahoo, YahooSettings
from market_data.storage.facts.reads import newest_versions
from market_data.storage.series.reader import Reader
from market_data.storage.server.database import Database
from market_data.transport.http import Http
from market_data.transport.senders import HttpxSender

NOW = datetime(2025, 2, 20, 12, tzinfo=UTC)
SHELVES = open_shelves()
# Closes and adjusted closes come in single precision, half a unit of which is 2^-25; the source's own steps at an
# ex-date follow 1 - d / previous close to 3 in 10 million, and there are a few of them a year.
ROUNDING_A_STEP = 3e-7


class Replay:
    """A source that answers every chart with a recorded one."""

    def __init__(self, path: Path) -> None:
        text = path.read_text()
        body = text[text.index('"bodyJson"') + len('"bodyJson"') :].split(":", 1)[1].strip()
        self.body = body[: json.JSONDecoder().raw_decode(body)[1]].encode()
        (self.result,) = json.loads(self.body, parse_float=Decimal)["chart"]["result"]
        self.symbol: str = self.result["meta"]["symbol"]

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/search"):
            kind = {"quoteType": "EQUITY", "exchange": "NMS", "symbol": self.symbol, "longname": self.symbol}
            return httpx.Response(200, json={"quotes": [kind], "news": []})
        return httpx.Response(200, content=self.body, headers={"Content-Type": "application/json"})

    @property
    def days(self) -> list[date]:
        return [datetime.fromtimestamp(int(moment), UTC).date() for moment in self.result["timestamp"]]

    @property
    def span(self) -> TimeRange:
        first, last = self.days[0], self.days[-1]
        midnight = datetime.min.time()
        return TimeRange(
            datetime.combine(first, midnight, UTC), datetime.combine(last, midnight, UTC) + timedelta(days=1)
        )

    def column(self, name: str) -> list[Decimal]:
        indicators = self.result["indicators"]
        found: list[Decimal] = (indicators["adjclose"] if name == "adjclose" else indicators["quote"])[0][name]
        return found

    def events(self, name: str) -> dict[date, dict[str, Any]]:
        found = self.result.get("events", {}).get(name, {}).values()
        return {datetime.fromtimestamp(int(event["date"]), UTC).date(): event for event in found}


def charts(recordings: Path) -> list[Replay]:
    found = [Replay(path) for path in sorted(recordings.glob("yahoo_finance2_fixtures/*chart-*.json"))
             if '"adjclose"' in path.read_text() and '"status": 200' in path.read_text()]  # fmt: skip
    if not found:
        pytest.skip(f"no recorded charts with adjusted closes in {recordings}/yahoo_finance2_fixtures")
    return [chart for chart in found if chart.result.get("timestamp") and chart.result["meta"]["currency"] == "USD"]


def stored(database: Database, chart: Replay) -> Series:
    """Fetch candles, dividends and splits of a recorded chart, and store them."""
    settings = YahooSettings(requests_per_minute=60_000, max_retries=0)
    yahoo = Yahoo(settings, Http("yahoo", settings, sender=HttpxSender(httpx.MockTransport(chart))))
    providers = {AssetClass.STOCK: [yahoo]}
    series = Series(Instrument(chart.symbol, AssetClass.STOCK), Timeframe.D1)

    async def fill() -> None:
        enricher = Enricher(asking(database, providers, lambda: NOW, batch_rows=50_000), SHELVES)
        (report,) = await enricher.enrich([series.instrument], [Timeframe.D1], chart.span.start, chart.span.end)
        assert report.error is None, report
        for dataset in (DIVIDENDS, SPLITS):
            collected = await Collector(asking(database, providers, lambda: NOW), SHELVES).collect(
                dataset, series.instrument, chart.span
            )
            assert collected.error is None, collected

    asyncio.run(fill())
    return series


def closes(database: Database, series: Series, adjustment: Adjustment) -> dict[date, float]:
    rows = enriched(Reader(database), SHELVES, series, adjustment=adjustment, now=NOW)
    return {moment.date(): float(close) for moment, close in rows.select("timestamp", "close").rows()}


@pytest.mark.parametrize("name", ["dividends", "splits"])
def test_actions_stored_are_those_recorded(recordings: Path, database: Database, name: str) -> None:
    counted = 0
    for chart in charts(recordings):
        wanted = chart.events(name)
        if not wanted:
            continue
        series = stored(database, chart)
        dataset = {"dividends": DIVIDENDS, "splits": SPLITS}[name]
        rows = newest_versions(database, dataset, series.instrument)
        if name == "dividends":
            found = {row["ex_date"]: row["amount"] for row in rows.iter_rows(named=True)}
            assert found == {day: event["amount"] for day, event in wanted.items()}, chart.symbol
        else:
            found = {row["execution_date"]: (row["split_to"], row["split_from"]) for row in rows.iter_rows(named=True)}
            assert found == {day: (e["numerator"], e["denominator"]) for day, e in wanted.items()}, chart.symbol
        counted += len(wanted)
    print(f"{counted} {name} equal those recorded")
    assert counted


def test_adjusted_closes_rebuilt_from_raw_and_events_are_the_sources_own(recordings: Path, database: Database) -> None:
    compared, steps, worst, dollars = 0, 0, 0.0, 0.0
    for chart in charts(recordings):
        paid, splits = chart.events("dividends"), chart.events("splits")
        # A chart asked for splits alone hides the dividends that its adjusted closes count.
        if not paid:
            continue
        series = stored(database, chart)
        ours = closes(database, series, Adjustment.TOTAL)
        # What happened after the recording's end scales all its adjusted closes alike.
        theirs = dict(zip(chart.days, map(float, chart.column("adjclose")), strict=True))
        days = [day for day in chart.days if day in ours]
        unit = theirs[days[-1]] / ours[days[-1]]
        off = np.array([abs(ours[day] * unit / theirs[day] - 1) for day in days])
        assert off.max() < ROUNDING_A_STEP * (1 + len(paid) + len(splits)), chart.symbol
        compared, steps, worst = compared + len(days), steps + len(paid) + len(splits), max(worst, off.max())
        dollars = max(dollars, *(abs(ours[day] * unit - theirs[day]) for day in days))
    print(f"{compared} adjusted closes over {steps} events: off by at most {worst:.1e}, {dollars:.5f} USD")
    assert steps


def test_closes_adjusted_for_splits_are_the_sources_own(recordings: Path, database: Database) -> None:
    compared = 0
    for chart in charts(recordings):
        if not chart.events("splits"):
            continue
        series = stored(database, chart)
        raw, ours = (closes(database, series, each) for each in (Adjustment.NONE, Adjustment.SPLITS))
        theirs = dict(zip(chart.days, map(float, chart.column("close")), strict=True))
        assert max(abs(ours[day] / theirs[day] - 1) for day in ours) < 2**-24 + 1e-7
        assert max(raw[day] / ours[day] for day in ours) > 1.9, "the raw ones are as traded before the split"
        compared += len(ours)
    print(f"{compared} closes adjusted for splits equal the source's")
    assert compared


def test_polygons_recorded_actions_keep_every_figure(recordings: Path) -> None:
    counted = 0
    for path, parse, kept in (
        ("polygon_client_python/test_rest/mocks/v3/reference/dividends.json", parse_dividends, dividend_figures),
        ("polygon_client_python/test_rest/mocks/v3/reference/splits.json", parse_splits, split_figures),
        ("massive_spec/examples/v3_reference_splits.json", parse_splits, split_figures),
    ):
        if not (recordings / path).exists():
            pytest.skip(f"no recording {path}")
        body = json.loads((recordings / path).read_text(), parse_float=Decimal)
        for result in body.get("example", body)["results"]:
            given = parse_answer(json.dumps({"status": "OK", "results": [result]}, default=float).encode()).results
            assert kept(parse(given).frame, result), (path, result)
            counted += 1
    print(f"{counted} dividends and splits of Polygon equal those recorded")
    assert counted


def dividend_figures(frame: pl.DataFrame, result: dict[str, Any]) -> bool:
    (row,) = frame.iter_rows(named=True)
    days = {"ex_date": "ex_dividend_date", "record_date": "record_date", "pay_date": "pay_date",
            "declaration_date": "declaration_date"}  # fmt: skip
    same = all(str(row[ours]) == str(result.get(theirs)) for ours, theirs in days.items())
    figures = (row["amount"], row["currency"], row["frequency"])
    return same and figures == (
        Decimal(str(result["cash_amount"])), result.get("currency"), result.get("frequency"),
    )  # fmt: skip


def split_figures(frame: pl.DataFrame, result: dict[str, Any]) -> bool:
    (row,) = frame.iter_rows(named=True)
    return (str(row["execution_date"]), row["split_from"], row["split_to"]) == (
        result["execution_date"], result["split_from"], result["split_to"],
    )  # fmt: skip
