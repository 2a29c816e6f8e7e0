"""A filled database behind the API, shared by the tests that only read; a fresh one for those that write."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import httpx
import polars as pl
import psycopg
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from psycopg import sql
from psycopg.conninfo import make_conninfo

from market_data.api.app import create_api
from market_data.api.listening import bound, in_background
from market_data.api.served import Served, serving
from market_data.bootstrap import App, open_app
from market_data.config import load_settings
from market_data.model.dataset import CANDLES, DIVIDENDS, EARNINGS, NEWS, OPTIONS, QUOTES, SPLITS, TRADES, Dataset
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.session import grid
from market_data.model.timeframe import Timeframe, TimeRange
from market_data.pipeline.write.ingest import Batch, Purpose, ingest
from market_data.storage.facts.actions import Answer, note_answer
from market_data.storage.facts.append import Provenance, append, lock_facts, prepare_fact_partitions
from market_data.storage.server.embedded import EmbeddedServer
from market_data.storage.work import audit
from market_data.storage.work.runs import end_run, start_run

NOW = datetime(2026, 3, 1, 0, 30, tzinfo=UTC)
BTC = Instrument("BTC", AssetClass.CRYPTO)
AAPL = Instrument("AAPL", AssetClass.STOCK)
HOURS = 240
RUN = UUID(int=7)


class Clock:
    """The program's clock, in the test's hand."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands at NOW."""
    return Clock()


@contextmanager
def opened(url: str, clock: Callable[[], datetime], **settings: Any) -> Iterator[App]:
    """The program over a database, by settings with __ for dots."""
    values = {"database.url": url} | {name.replace("__", "."): value for name, value in settings.items()}
    with open_app(
        load_settings(environ={}, overrides={key: (value, "the test") for key, value in values.items()}), clock=clock
    ) as app:
        yield app


class Asking:
    """Asks an ASGI application from ordinary functions, as from this machine."""

    def __init__(self, portal: BlockingPortal, client: httpx.AsyncClient) -> None:
        self._portal = portal
        self._client = client

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Any request."""
        return self._portal.call(partial(self._client.request, method, path, **more))

    def get(self, path: str, **more: Any) -> httpx.Response:
        """A GET."""
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        """A POST."""
        return self.request("POST", path, **more)

    def raw(self, path: str, **more: Any) -> tuple[httpx.Response, bytes]:
        """A GET whose body is left as it was sent."""

        async def read() -> tuple[httpx.Response, bytes]:
            async with self._client.stream("GET", path, **more) as answer:
                return answer, b"".join([piece async for piece in answer.aiter_raw()])

        return self._portal.call(read)


@contextmanager
def client_of(served: Served, **headers: str) -> Iterator[Asking]:
    """Asks the API as from this machine."""
    transport = httpx.ASGITransport(create_api(served), raise_app_exceptions=False)
    with start_blocking_portal() as portal:
        client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", headers=headers)
        yield Asking(portal, client)
        portal.call(client.aclose)


@contextmanager
def reached(served: Served) -> Iterator[str]:
    """The API behind a real server; yields its address."""
    with bound("127.0.0.1", 0) as listening, in_background(create_api(served), listening):
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def candles(series: Series, span: TimeRange) -> pl.DataFrame:
    """A candle for every place on the grid; the close of the nth is 100 + n/4, its volume 10 + n."""
    opens = grid(series.asset_class, series.timeframe, span).opens
    count = len(opens)
    close = [Decimal(100) + Decimal(n) / 4 for n in range(count)]
    rows = pl.DataFrame(
        {
            "timestamp": pl.Series(opens).cast(pl.Datetime("us", "UTC")),
            "open": [value - Decimal("0.1") for value in close],
            "high": [value + 1 for value in close],
            "low": [value - 1 for value in close],
            "close": close,
            "volume": [Decimal(10 + n) for n in range(count)],
            "taker_buy_volume": [Decimal(10 + n) / 2 for n in range(count)],
        }
    )
    return CANDLES.conform(rows)


def store(app: App, series: Series, frame: pl.DataFrame, span: TimeRange, source: str = "binance") -> None:
    """Bring candles in by the program's own way, with the run's records around them."""
    with app.database.transaction() as connection:
        start_run(connection, RUN, "enrich", series.instrument, app.clock(), timeframe=series.timeframe)
    batch = Batch(
        series=series, frame=frame, source=source, fetched_at=app.clock(), requested_at=app.clock(), span=span,
        response_ms=120.0, quota_remaining=900,
    )  # fmt: skip
    outcome = ingest(app.database, app.shelves, batch, Purpose(run_id=RUN, span=span), app.clock)
    with app.database.transaction() as connection:
        end_run(connection, RUN, "completed", app.clock(), counts=outcome.counts)
        audit.record_status(connection, series, source, None, None, app.clock())


def append_facts(app: App, dataset: Dataset, instrument: Instrument, rows: list[dict[str, Any]], source: str) -> None:
    """Append facts the program's own way."""
    frame = pl.DataFrame([dataset.record.model_validate(row).model_dump() for row in rows], schema=dataset.schema)
    if dataset.time == "timestamp":
        times = frame["timestamp"]
        prepare_fact_partitions(app.database, dataset, TimeRange(times.min(), times.max() + timedelta(seconds=1)))
    with app.database.transaction() as connection:
        lock_facts(connection, dataset, instrument)
        append(connection, app.database, dataset, instrument, frame, Provenance(source=source, now=NOW, run_id=RUN))
        if dataset.withdrawable:
            asked = TimeRange(NOW - timedelta(days=3650), NOW + timedelta(days=90))
            note_answer(connection, dataset, instrument, Answer(source=source, asked=asked, complete=None, at=NOW))


def fill(app: App) -> None:
    """Hours of BTC, days of AAPL, and a few facts of every other dataset."""
    span = TimeRange(NOW.replace(minute=0) - timedelta(hours=HOURS), NOW.replace(minute=0))
    hours = Series(BTC, Timeframe.H1)
    store(app, hours, candles(hours, span), span)
    days = Series(AAPL, Timeframe.D1)
    span = TimeRange(NOW - timedelta(days=60), NOW)
    store(app, days, candles(days, span), span, "yahoo")
    at = datetime(2026, 2, 1, tzinfo=UTC)
    trades = [
        {"timestamp": at + timedelta(seconds=n), "trade_id": str(n), "price": Decimal("7000.5") + n, "size": "0.25",
         "aggressor_side": "buy" if n % 2 else "sell"}
        for n in range(25)
    ]  # fmt: skip
    append_facts(app, TRADES, BTC, trades, "binance")
    quotes = [
        {"timestamp": at, "sequence": n, "bid_price": "1.5", "bid_size": "2", "ask_price": "1.6", "ask_size": "3"}
        for n in range(3)
    ]
    append_facts(app, QUOTES, BTC, quotes, "binance")
    append_facts(app, DIVIDENDS, AAPL, [{"ex_date": date(2026, 2, 9), "amount": "0.26", "currency": "USD"}], "yahoo")
    append_facts(
        app, SPLITS, AAPL, [{"execution_date": date(2020, 8, 31), "split_from": "1", "split_to": "4"}], "yahoo"
    )
    quarters = [{"fiscal_year": 2025, "fiscal_quarter": quarter, "eps_actual": "1.5"} for quarter in (1, 2, 3)]
    append_facts(app, EARNINGS, AAPL, quarters, "yahoo")
    options = [
        {"timestamp": at, "contract": f"AAPL261218C00{strike}000", "option_type": "call", "expiration": "2026-12-18",
         "strike": strike, "iv": 0.25, "delta": 0.5}
        for strike in (200, 210)
    ]  # fmt: skip
    append_facts(app, OPTIONS, AAPL, options, "yahoo")
    news = [
        {
            "news_id": str(n),
            "published_at": at + timedelta(hours=n),
            "title": f'"Quoted" title {n} \\ é',
            "symbols": ("AAPL",),
        }
        for n in range(3)
    ]
    append_facts(app, NEWS, AAPL, news, "yahoo")


@pytest.fixture
def filling() -> Callable[[App], None]:
    """Brings the same in as is in the filled database."""
    return fill


@pytest.fixture
def appending() -> Callable[..., None]:
    """Appends facts the program's own way."""
    return append_facts


@pytest.fixture(scope="session")
def filled(postgres: EmbeddedServer, template: str) -> Iterator[Served]:
    """The API's backing over a filled database that nobody changes."""
    name = f"filled_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(make_conninfo(postgres.conninfo(), dbname="postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        with ExitStack() as stack:
            app = stack.enter_context(opened(make_conninfo(postgres.conninfo(), dbname=name), Clock()))
            fill(app)
            yield stack.enter_context(serving(app))
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def asking(filled: Served) -> Iterator[Asking]:
    """Asks the filled API."""
    with client_of(filled) as client:
        yield client


@pytest.fixture
def opening() -> Callable[..., AbstractContextManager[tuple[Served, Asking]]]:
    """Opens an API over a database: its backing, and who asks it; further settings by keyword."""

    @contextmanager
    def opened_api(url: str, clock: Callable[[], datetime], **settings: Any) -> Iterator[tuple[Served, Asking]]:
        beyond = settings.pop("listens_beyond", False)
        with (
            opened(url, clock, **settings) as app,
            serving(app, listens_beyond=beyond) as served,
            client_of(served) as asking,
        ):
            yield served, asking

    return opened_api


@pytest.fixture(scope="session")
def address(filled: Served) -> Iterator[str]:
    """Where a real server of the filled API listens."""
    with reached(filled) as url:
        yield url


@pytest.fixture
def reaching() -> Callable[[Served], AbstractContextManager[str]]:
    """Puts an API behind a real server."""
    return reached
