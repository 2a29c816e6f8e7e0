"""The Python client, against a server over a socket and over a local database without one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from market_data.api.app import create_api
from market_data.api.listening import bound, serve_from, server_of
from market_data.client import MarketData
from market_data.client.transport import Transport
from market_data.model.errors import (
    BadCredentials,
    ConnectionLost,
    NotEntitled,
    ProviderUnavailable,
    UnknownInstrument,
    UsageError,
)


@pytest.fixture
def address(filled: Any) -> Iterator[str]:
    """Where a real server of the filled API listens."""
    import asyncio

    server, started = server_of(create_api(filled)), threading.Event()
    with bound("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=partial(asyncio.run, serve_from(server, listening, started.set)))
        thread.start()
        try:
            assert started.wait(30)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)


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
        with pytest.raises(UsageError, match="colour"):
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
