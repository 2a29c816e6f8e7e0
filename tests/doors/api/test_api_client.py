"""The Python client, against a server over a socket and over a local database without one."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from market_data.client import MarketData
from market_data.client.transport import Transport
from market_data.model.errors import (
    BadCredentials,
    ConnectionLost,
    DatabaseUnavailable,
    NotEntitled,
    ProviderUnavailable,
    UnknownInstrument,
    UsageError,
)
from market_data.sandbox import Sandbox
from market_data.storage.series.windows import Windows


def test_frames_hold_what_is_stored(address: str) -> None:
    with MarketData(address) as data:
        features = data.features("BTC", "1h", start=date(2026, 2, 20), end=datetime(2026, 2, 21, tzinfo=UTC))
        assert (features.height, features["sma_20"].null_count()) == (24, 0)
        newest = data.candles("BTC", "1h", limit=1)
        assert newest["close"].to_list() == [Decimal("159.75")]
        assert data.features("BTC", "1h").height == 240
        assert data.trades("BTC")["trade_id"].to_list() == [str(n) for n in range(25)]
        assert data.dividends("AAPL")["amount"].to_list() == [Decimal("0.26")]
        assert data.splits("AAPL", source="yahoo")["split_to"].to_list() == [Decimal(4)]
        assert data.news("AAPL")["symbols"].to_list() == [["AAPL"]] * 3
        assert (data.options("AAPL").height, data.earnings("AAPL").height, data.quotes("BTC").height) == (2, 3, 3)
        assert data.status("BTC")["records_available"] == 240
        assert data.quality("BTC", days=2)["period_days"] == 2
        assert data.metrics()["fetch_pipeline"]["total_fetches"] == 2
        assert data.instruments()["symbol"].to_list()[:2] == ["AAPL", "BTC"]
        assert {row["name"] for row in data.providers()} >= {"binance"}


def test_wrong_questions_raise_what_they_mean(address: str) -> None:
    with MarketData(address) as data:
        with pytest.raises(UnknownInstrument, match="NOSUCH"):
            data.candles("NOSUCH", "1h")
        with pytest.raises(UsageError, match="Invalid timeframes"):
            data.candles("BTC", "2h")
        with pytest.raises(UsageError, match="time zone"):
            data.candles("BTC", "1h", start=datetime(2026, 1, 1))
        with pytest.raises(TypeError, match="colour"):
            data.trades("BTC", colour="red")
        with pytest.raises(UsageError, match="symbol"):
            data.candles("../../healthz?", "1h")


def test_a_job_is_queued_and_waited_for(address: str) -> None:
    with MarketData(address) as data:
        job = data.trigger(["KO", "IBM"], ["1d", "1h"])
        assert (job.receipt["symbol"], job.receipt["symbols"], len(job.state()["results"])) == (None, ["KO", "IBM"], 4)
        with pytest.raises(TimeoutError, match="queued"):
            job.wait(timeout=0, progress=False)


def answering(*answers: httpx.Response | Exception) -> tuple[Transport, list[httpx.Request]]:
    asked: list[httpx.Request] = []
    waiting = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        found = next(waiting)
        if isinstance(found, Exception):
            raise found
        return found

    return Transport(httpx.Client(transport=httpx.MockTransport(answer), base_url="http://far.example")), asked


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the client would have waited."""
    waited: list[float] = []
    monkeypatch.setattr("market_data.client.transport.time.sleep", waited.append)
    return waited


def test_what_may_help_is_tried_again(no_pauses: list[float]) -> None:
    transport, asked = answering(
        httpx.ConnectError("refused"),
        httpx.Response(503, headers={"Retry-After": "7"}, json={"detail": "busy"}),
        httpx.Response(200, json={"fine": True}),
    )
    assert transport.json("GET", "/x") == {"fine": True}
    assert (len(asked), no_pauses[1]) == (3, 7.0)


def test_what_will_not_help_is_told_at_once(no_pauses: list[float]) -> None:
    for status, kind in ((401, BadCredentials), (403, NotEntitled), (422, UsageError)):
        transport, asked = answering(httpx.Response(status, json={"detail": "no", "action": "Do this."}))
        with pytest.raises(kind, match=r"no Do this\."):
            transport.json("GET", "/x")
        assert len(asked) == 1
    transport, asked = answering(*[httpx.Response(502, text="<html>")] * 4)
    with pytest.raises(ProviderUnavailable, match="HTTP 502"):
        transport.json("GET", "/x")
    assert len(asked) == 4


def test_what_changes_state_is_sent_once(no_pauses: list[float]) -> None:
    transport, asked = answering(httpx.ReadTimeout("gone"))
    with pytest.raises(ConnectionLost):
        transport.json("POST", "/x")
    assert (len(asked), no_pauses) == (1, [])


def test_nobody_there_is_said(no_pauses: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with (
            MarketData(f"http://127.0.0.1:{unused.getsockname()[1]}") as data,
            pytest.raises(ConnectionLost, match="run"),
        ):
            data.metrics()


def test_the_same_over_a_local_database(data_home: Path) -> None:
    with MarketData.local(data_home) as data:
        assert data.status("BTC")["status"] == "not_enriched"
        assert data.features("BTC", "1h").is_empty()
        assert data.instruments().height > 5


@pytest.fixture
def both(address: str, filled: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[MarketData, MarketData]]:
    """The client of a server, and one over the same database without a server."""
    monkeypatch.setenv("DATABASE_URL", filled.app.database.conninfo())
    with MarketData(address) as served, MarketData.local() as local:
        yield served, local


FRAMES: dict[str, Callable[[MarketData], pl.DataFrame]] = {
    "candles": lambda data: data.candles("BTC", "1h", "2026-02-20", "2026-02-22"),
    "newest candles": lambda data: data.candles("AAPL", "1d", limit=7),
    "adjusted candles": lambda data: data.candles("AAPL", "1d", adjusted="total", as_of="2026-03-01T00:30:00Z"),
    "features": lambda data: data.features("BTC", "1h"),
    "features as of": lambda data: data.features("BTC", "1h", as_of="2026-03-01T12:00:00Z", limit=30),
    "trades": lambda data: data.trades("BTC", limit=20),
    "quotes": lambda data: data.quotes("BTC", source="binance"),
    "dividends": lambda data: data.dividends("AAPL", date(2026, 1, 1)),
    "splits": lambda data: data.splits("AAPL"),
    "earnings": lambda data: data.earnings("AAPL"),
    "options": lambda data: data.options("AAPL"),
    "news": lambda data: data.news("AAPL"),
    "instruments": lambda data: data.instruments(),
}


def test_a_server_and_a_local_database_give_the_same(both: tuple[MarketData, MarketData]) -> None:
    served, local = both
    for name, frame in FRAMES.items():
        one, other = frame(served), frame(local)
        assert one.height, name
        # Where an instrument stands depends on the time, and the two have different clocks.
        unalike = [column for column in ("status", "computed_at", "updated_at") if column in one.columns]
        assert_frame_equal(one.drop(unalike), other.drop(unalike))
    documents: dict[str, Callable[[MarketData], Any]] = {
        "status": lambda data: data.status("BTC")["records_available"],
        "quality": lambda data: set(data.quality("BTC", days=30)),
        "metrics": lambda data: data.metrics()["backfill_progress"],
        "providers": lambda data: [(row["name"], row["capabilities"]) for row in data.providers()],
    }
    for name, document in documents.items():
        assert document(served) == document(local), name
    for data in both:
        with pytest.raises(UnknownInstrument, match="NOSUCH"):
            data.candles("NOSUCH", "1h")


def test_a_local_database_is_read_without_a_word(filled: Any) -> None:
    """In a process of its own, as a notebook is: nobody has set up logs there."""
    told = "with MarketData.local() as data: print(data.status('BTC')['symbol'])"
    reading = f"from market_data.client import MarketData\n{told}"
    environ = os.environ | {"DATABASE_URL": filled.app.database.conninfo()}
    command = [sys.executable, "-c", reading]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environ)
    assert (done.stdout, done.stderr) == ("BTC\n", "")


def test_frames_go_on_to_pandas(address: str) -> None:
    with MarketData(address) as data:
        found = data.features("BTC", "1h", limit=3).to_pandas()
    assert found["sma_20"].tolist() == [156.875, 157.125, 157.375]
    assert str(found["timestamp"].dtype) == "datetime64[us, UTC]"


@pytest.mark.parametrize("way", ["server", "local"])
async def test_a_job_is_done_while_the_client_waits(
    way: str,
    database_url: str,
    opening: Callable[..., AbstractContextManager[Any]],
    reaching: Callable[[Any], AbstractContextManager[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = datetime(2026, 11, 20, 18, 30, 15, tzinfo=UTC)
    monkeypatch.setattr("market_data.client.job.LOOK_SECONDS", 0.02)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("DATABASE_URL", database_url)

    def asked(url: str) -> tuple[dict[str, Any], int]:
        with MarketData(url) if way == "server" else MarketData.local() as data:
            job = data.trigger("BTC", "1d", asset_class="crypto")
            return job.wait(timeout=60), data.candles("BTC", "1d").height

    with Sandbox(now=now, limits=False) as sandbox:
        urls = {key.replace(".", "__"): value for key, value in sandbox.urls.items()}
        with opening(database_url, lambda: now, **urls) as (served, _), reaching(served) as url:
            worker = served.app.worker()
            working = asyncio.create_task(worker.run())
            done, rows = await asyncio.to_thread(asked, url)
            worker.stop()
            await asyncio.wait_for(working, 60)
            await served.app.disconnect()
    (part,) = done["results"]
    assert (done["status"], part["source"], part["records_inserted"]) == ("completed", "binance", rows)
    assert rows > 1000
    # The bar that was shown: what it did, and how far it came.
    assert "completed" in capsys.readouterr().err


def test_a_stream_that_breaks_is_never_taken_for_a_whole_one(
    address: str, no_pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, read = Windows.stored, itertools.count()

    def breaking(*arguments: Any) -> pl.DataFrame:
        if next(read) % 5 == 4:
            raise DatabaseUnavailable("gone")
        return stored(*arguments)

    monkeypatch.setattr(Windows, "stored", breaking)
    monkeypatch.setattr("market_data.api.selections.CHUNK_ROWS", 7)
    with MarketData(address) as data, pytest.raises(ConnectionLost):
        data.features("BTC", "1h")
    assert len(no_pauses) == 3


def test_listings_are_read_page_by_page() -> None:
    pages = [
        httpx.Response(200, json={"instruments": [{"symbol": symbol}], "next": following})
        for symbol, following in (("A", "x"), ("B", "y"), ("C", None))
    ]
    transport, asked = answering(*pages)
    data = MarketData()
    data._transport = transport
    assert data.instruments()["symbol"].to_list() == ["A", "B", "C"]
    assert [request.url.params.get("cursor") for request in asked] == [None, "x", "y"]


def test_the_client_is_typed() -> None:
    import market_data

    assert (Path(market_data.__file__).parent / "py.typed").is_file()
    annotated = typing.get_type_hints(MarketData.features)
    assert annotated["return"] is pl.DataFrame
