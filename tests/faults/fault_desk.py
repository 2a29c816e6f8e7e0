"""Runs one fault: the real providers against the loopback through the real pipeline, and what became of every row."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from fault_wire import Fault, Loopback, VirtualTime

from market_data import bootstrap
from market_data.bootstrap import App, open_app, shelves
from market_data.config import load_settings
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange, from_micros
from market_data.pipeline.fetch.candles import SeriesReport
from market_data.transport.http import Http
from market_data.transport.ledger import LocalLedger

FAKES = Path(__file__).parents[1] / "providers"
PROVIDERS = ("binance", "polygon", "yahoo")
COIN = Instrument("BTC", AssetClass.CRYPTO)
STOCK = Instrument("AAPL", AssetClass.STOCK)
HOURS = 1600
DAY = timedelta(days=1)


def fake(name: str) -> ModuleType:
    """The honest side of a provider, as its own tests have it."""
    spec = importlib.util.spec_from_file_location(f"honest_{name}", FAKES / name / "fake.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BINANCE, POLYGON, YAHOO = (fake(name) for name in PROVIDERS)


@dataclass(frozen=True, slots=True)
class Subject:
    """What is fetched while the fault happens."""

    provider: str
    instrument: Instrument
    timeframe: Timeframe
    span: TimeRange
    now: datetime


SUMMER = datetime(2024, 6, 1, tzinfo=UTC)
# Two pages of REST hours: 1500 and 100; of Massive's three windows of 720, 720 and 160 in pages of 700.
BINANCE_HOURS = Subject("binance", COIN, Timeframe.H1, TimeRange(SUMMER, SUMMER + timedelta(hours=HOURS)), BINANCE.NOW)
POLYGON_HOURS = Subject("polygon", COIN, Timeframe.H1, BINANCE_HOURS.span, POLYGON.NOW)
YAHOO_HOURS = Subject(
    "yahoo", STOCK, Timeframe.H1, TimeRange(datetime(2024, 11, 25, tzinfo=UTC), YAHOO.HOLE - 16 * DAY / 24), YAHOO.NOW
)
ARCHIVE_MINUTES = Subject("binance", COIN, Timeframe.M1, TimeRange(SUMMER, SUMMER + 3 * DAY), BINANCE.NOW)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A fault and what must come of it; `stored` counts rows by source."""

    name: str
    subject: Subject
    faults: Sequence[Fault] = ()
    outcome: str = "complete"
    stored: Mapping[str, int]
    missing: int = 0
    rejected: int = 0
    priority: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    waited: float = 0.0
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a case's rows."""

    outcome: str
    stored: Mapping[str, int]
    missing: int
    rejected: int
    lost: int
    wrong: int
    waited: float
    asked: Sequence[str]
    notes: frozenset[str]
    report: SeriesReport


class Sources:
    """All honest sources behind one address, told apart by path."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.binance, self.polygon, self.yahoo = (module.Source() for module in (BINANCE, POLYGON, YAHOO))
        for path, content in files.items():
            self.binance.add_file(path, content.decode("latin-1"))

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.startswith(("/fapi", "/api", "/data", "/futures")):
            return self.binance(request)
        return self.polygon(request) if path.startswith(("/v2", "/v3/reference")) else self.yahoo(request)


async def happened(case: Case, database_url: str) -> Found:
    """Fetch the case's subject with its faults into the database, and look at every row."""
    subject = case.subject
    async with Loopback(Sources(case.files), case.faults).serving() as loopback:
        time = VirtualTime()
        with opened(case, database_url, loopback.url, time) as running:
            try:
                (report,) = await running.enricher.enrich(
                    [subject.instrument], [subject.timeframe], subject.span.start, subject.span.end
                )
            finally:
                await running.disconnect()
            return looked_at(running, subject, report, time.passed, loopback.asked)


@contextmanager
def opened(case: Case, database_url: str, url: str, time: VirtualTime) -> Iterator[App]:
    """The program with its sources on the loopback and its waits in virtual time."""
    priority = list(case.priority or [case.subject.provider])
    values: dict[str, Any] = {
        "providers.polygon.api_key": POLYGON.KEY,
        f"instruments.priority.{case.subject.instrument.asset_class}": priority,
        **{f"providers.binance.{name}": url for name in ("rest_url", "spot_rest_url", "archive_url")},
        **{f"providers.{provider}.rest_url": url for provider in ("polygon", "yahoo")},
    }
    with program(values | dict(case.settings), database_url, case.subject.now, time) as app:
        yield app


@contextmanager
def program(values: Mapping[str, Any], database_url: str, now: datetime, time: VirtualTime) -> Iterator[App]:
    """The program with these settings over a database; nobody in it really sleeps between two requests."""
    paced = {f"providers.{provider}.requests_per_minute": 60_000 for provider in PROVIDERS}
    everything = {**paced, **values, "database.url": database_url}
    settings = load_settings(environ={}, overrides={key: (value, "the test") for key, value in everything.items()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shelves, "Http", partial(Http, clock=time, sleep=time.sleep, jitter=lambda: 1.0))
        # The database's clock does not pass with virtual time.
        patch.setattr(bootstrap, "SharedLedger", lambda _: LocalLedger(time))
        with open_app(settings, clock=lambda: now) as app:
            patch.undo()
            yield app


def looked_at(app: App, subject: Subject, report: SeriesReport, waited: float, asked: Sequence[str]) -> Found:
    """Compare every stored row with the truth, and find out what is known of those that are not stored."""
    rows = app.database.rows(
        "SELECT timestamp, open, high, low, close, volume, source, validation_notes AS notes FROM market_data_v2"
    )
    wrong = sum(not is_true(subject, row) for row in rows)
    stored: dict[str, int] = {}
    for row in rows:
        stored[row["source"]] = stored.get(row["source"], 0) + 1
    expected = opens(subject, subject.span)
    ledger = app.database.rows("SELECT start_time, end_time FROM coverage WHERE state = 'missing'")
    missing = {at for row in ledger for at in opens(subject, TimeRange(row["start_time"], row["end_time"]))}
    refused = app.database.rows("SELECT timestamp FROM quarantine")
    absent = expected - {row["timestamp"] for row in rows}
    reported = missing | {row["timestamp"] for row in refused} | unreached(app, report, absent)
    return Found(
        outcome="complete" if report.error is None else type(report.error).__name__,
        stored=stored,
        missing=len(missing & absent),
        rejected=len(refused),
        lost=len(absent - reported),
        wrong=wrong,
        waited=waited,
        asked=asked,
        notes=frozenset(note for row in rows for note in (row["notes"] or "").split("; ") if note),
        report=report,
    )


def unreached(app: App, report: SeriesReport, absent: set[datetime]) -> set[datetime]:
    """Of the absent ones those that a run which says that it failed also says it has not reached."""
    if report.error is None:
        return set()
    (run,) = app.database.rows("SELECT status, error FROM runs")
    assert (run["status"], run["error"]) == ("failed", str(report.error))
    (reached,) = app.database.rows("SELECT max(last_successful_date) AS until FROM backfill_state")
    return {moment for moment in absent if reached["until"] is None or moment >= reached["until"]}


def opens(subject: Subject, span: TimeRange) -> set[datetime]:
    """Open times of all candles of a range that are closed."""
    expected = grid(subject.instrument.asset_class, subject.timeframe, span).closed_by(subject.now)
    return {from_micros(int(moment)) for moment in expected.opens}


def is_true(subject: Subject, row: Mapping[str, Any]) -> bool:
    """Whether a stored row is what its source honestly says, on the grid, inside the range and closed."""
    moment, source = row["timestamp"], row["source"].partition(":")[0]
    if moment not in opens_of(subject):
        return False
    seconds, step = int(moment.timestamp()), subject.timeframe.duration // timedelta(seconds=1)
    if source == "binance":
        told = [str(value) for value in BINANCE.kline(seconds, step)[1:6]]
    elif source == "polygon":
        bar = POLYGON.bar(moment, 60)
        told = [str(bar[name]) for name in "ohlcv"]
    else:
        # A split of two for one lies ahead: raw prices were twice as high, volumes half.
        adjusted = [Decimal(str(value)) for value in YAHOO.price(moment)]
        told = [*(str(price * 2) for price in adjusted[:4]), str(adjusted[4] / 2)]
    return [row[name] for name in ("open", "high", "low", "close", "volume")] == [Decimal(text) for text in told]


_opens: dict[Subject, set[datetime]] = {}


def opens_of(subject: Subject) -> set[datetime]:
    """`opens` of the whole range, found once."""
    if subject not in _opens:
        _opens[subject] = opens(subject, subject.span)
    return _opens[subject]
