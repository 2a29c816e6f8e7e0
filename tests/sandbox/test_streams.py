"""Sockets: what is told live is what REST serves afterwards, in each source's own protocol."""

import base64
import json
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import httpx
import pytest
import websockets.sync.client
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from market_data.sandbox import Sandbox
from market_data.sandbox.binance import FUTURES, SPOT
from market_data.sandbox.binance_streams import StreamTeller
from market_data.sandbox.feed import Feed
from market_data.sandbox.marketplace import Marketplace
from market_data.sandbox.yahoo_socket import pricing

from .conftest import Ask

MINUTE = 60_000
# 2026-11-20 18:00 UTC.
AT = 1_795_197_600_000


@pytest.fixture(scope="module")
def teller(market: Marketplace) -> StreamTeller:
    return StreamTeller(Feed(market), FUTURES)


def told(teller: StreamTeller, name: str, start: int, end: int) -> list[dict[str, Any]]:
    stream = teller.parse(name)
    assert stream is not None
    return list(teller.events(stream, start, end))


def test_a_closed_candle_is_the_one_rest_serves(ask: Ask, teller: StreamTeller) -> None:
    events = told(teller, "ethusdt@kline_5m", AT - 1, AT + 5 * MINUTE)
    closed = [event["k"] for event in events if event["k"]["x"]]
    assert [k["t"] for k in closed] == [AT - 5 * MINUTE, AT]
    rest = ask(f"/fapi/v1/klines?symbol=ETHUSDT&interval=5m&startTime={AT - 5 * MINUTE}&limit=2").json()
    for k, row in zip(closed, rest, strict=True):
        assert [k[name] for name in ("t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q")] == row[:11]


def test_a_forming_candle_knows_only_what_was_traded(ask: Ask, teller: StreamTeller) -> None:
    now = AT + 7 * MINUTE + 20_000
    k = told(teller, "ltcusdt@kline_15m", now - 250, now)[-1]["k"]
    query = f"symbol=LTCUSDT&startTime={AT + 7 * MINUTE}&endTime={now - 1}&limit=1000"
    trades = ask(f"/fapi/v1/aggTrades?{query}").json()
    minutes = ask(f"/fapi/v1/klines?symbol=LTCUSDT&interval=1m&startTime={AT}&limit=7").json()
    assert not k["x"]
    assert (k["o"], k["c"]) == (minutes[0][1], trades[-1]["p"])
    assert k["n"] == sum(row[8] for row in minutes) + len(trades)


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 119_999), max_size=8))
def test_trades_are_told_once_however_often_we_look(cuts: list[int]) -> None:
    teller = StreamTeller(Feed(Marketplace()), FUTURES)
    edges = [AT + cut for cut in sorted({0, 120_000, *cuts})]
    pieces = [event for start, end in pairwise(edges) for event in told(teller, "solusdt@aggTrade", start, end)]
    assert pieces == told(teller, "solusdt@aggTrade", AT, AT + 120_000)
    assert [event["a"] for event in pieces] == list(range(pieces[0]["a"], pieces[0]["a"] + len(pieces)))


def test_spot_quotes_have_neither_type_nor_time(market: Marketplace) -> None:
    event = told(StreamTeller(Feed(market), SPOT), "btcusdt@bookTicker", AT, AT + 2000)[0]
    assert set(event) == {"u", "s", "b", "B", "a", "A"}
    assert float(event["b"]) < float(event["a"])


def test_liquidations_at_most_one_a_second_and_symbol(teller: StreamTeller) -> None:
    events = told(teller, "!forceOrder@arr", AT, AT + MINUTE)
    assert len({(event["o"]["s"], event["o"]["T"] // 1000) for event in events}) == len(events) > 20
    assert {event["o"]["S"] for event in events} == {"BUY", "SELL"}
    assert told(teller, "btcusdt@forceOrder", AT, AT + 20 * MINUTE)


@pytest.mark.parametrize("name", ["btcusdt@kline_7m", "nopeusdt@trade", "BTCUSDT@trade", "btcusdt", "!nope@arr"])
def test_names_that_will_stay_silent(teller: StreamTeller, name: str) -> None:
    assert teller.parse(name) is None


def test_a_price_sample_by_hand() -> None:
    # Field 1 length 4 "AAPL"; 2 float 1.5; 3 zigzag of 1 is 2; 4 "USD"; 5 "NMS"; 6 = 8; 7 and 9 are zero, so absent.
    expected = (
        b"\x0a\x04AAPL" + b"\x15" + struct.pack("<f", 1.5) + b"\x18\x02" + b"\x22\x03USD" + b"\x2a\x03NMS" + b"0\x08"
    )
    assert pricing("AAPL", 1.5, 1, "NMS", 8, 0, 0) == expected


@pytest.fixture(scope="module")
def fast() -> Iterator[Sandbox]:
    """A sandbox whose minute passes in two seconds, within New York's session."""
    with Sandbox(now=datetime(2026, 11, 20, 18, 30, 15, tzinfo=UTC), speed=30) as sandbox:
        yield sandbox


def frames(url: str, requests: list[dict[str, Any]], count: int, seconds: float = 10) -> list[Any]:
    """The first frames after sending requests; fewer when none came in time or the server hung up."""
    found: list[Any] = []
    with websockets.sync.client.connect(url, proxy=None, close_timeout=0.5) as socket:
        for request in requests:
            socket.send(json.dumps(request))
        try:
            while len(found) < count:
                found.append(json.loads(socket.recv(timeout=seconds)))
        except (TimeoutError, ConnectionClosed):
            return found
    return found


def test_futures_candles_over_the_wire(fast: Sandbox) -> None:
    url = f"{fast.urls['providers.binance.ws_url']}/market/stream?streams=btcusdt@kline_1m"
    k = next(frame["data"]["k"] for frame in frames(url, [], 32) if frame["data"]["k"]["x"])
    row = httpx.get(f"{fast.url}/fapi/v1/klines?symbol=BTCUSDT&interval=1m&startTime={k['t']}&limit=1").json()[0]
    assert [k[name] for name in ("o", "h", "l", "c", "v")] == row[1:6]


def test_market_streams_on_the_old_path_are_acknowledged_and_silent(fast: Sandbox) -> None:
    base, ask = fast.urls["providers.binance.ws_url"], {"method": "SUBSCRIBE", "params": ["btcusdt@aggTrade"], "id": 1}
    assert frames(f"{base}/ws", [ask], 2, seconds=1) == [{"result": None, "id": 1}]
    heard = frames(f"{base}/market/ws/1", [ask], 2)
    assert heard[0] == {"result": None, "id": 1}
    assert heard[1]["e"] == "aggTrade"


def test_wrong_requests_are_answered_with_a_code(fast: Sandbox) -> None:
    url = f"{fast.urls['providers.binance.spot_ws_url']}/ws"
    asked = [{"method": "NOPE", "id": 3}, {"method": "LIST_SUBSCRIPTIONS", "id": 4}]
    first, second = frames(url, asked, 2)
    assert (first["code"], first["id"]) == (2, 3)
    assert second == {"result": [], "id": 4}


def test_massive_by_its_protocol(fast: Sandbox) -> None:
    url = f"{fast.urls['providers.polygon.ws_url']}/stocks"
    asked = [{"action": "auth", "params": "key-1"}, {"action": "subscribe", "params": "T.KO,AM.NOPE"}]
    heard = frames(url, asked, 5)
    assert [frame[0].get("status") for frame in heard[:4]] == ["connected", "auth_success", "success", "error"]
    assert {event["ev"] for event in heard[4]} == {"T"}


@pytest.mark.parametrize("key", ["bad", "basic", ""])
def test_massive_refuses_a_key_and_hangs_up(fast: Sandbox, key: str) -> None:
    heard = frames(f"{fast.urls['providers.polygon.ws_url']}/crypto", [{"action": "auth", "params": key}], 5)
    assert [frame[0]["status"] for frame in heard] == ["connected", "auth_failed"]


def test_massive_closes_the_older_connection_of_a_key(fast: Sandbox) -> None:
    url = f"{fast.urls['providers.polygon.ws_url']}/crypto"
    auth = json.dumps({"action": "auth", "params": "key-2"})
    with websockets.sync.client.connect(url, proxy=None, close_timeout=0.5) as older:
        older.send(auth)
        assert [json.loads(older.recv(timeout=5))[0]["status"] for _ in range(2)] == ["connected", "auth_success"]
        frames(url, [{"action": "auth", "params": "key-2"}], 2)
        assert json.loads(older.recv(timeout=5))[0]["status"] == "max_connections"
        with pytest.raises(ConnectionClosed):
            older.recv(timeout=5)


def test_yahoo_samples(fast: Sandbox) -> None:
    heard = frames(f"{fast.urls['providers.yahoo.ws_url']}/?version=2", [{"subscribe": ["BTC-USD", "NOPE"]}], 2)
    assert {frame["type"] for frame in heard} == {"pricing"}
    assert all(base64.b64decode(frame["message"]).startswith(b"\x0a\x07BTC-USD\x15") for frame in heard)


def test_disconnects_on_demand() -> None:
    with Sandbox(faults="disconnect:1") as sandbox:
        assert frames(f"{sandbox.urls['providers.binance.ws_url']}/market/ws/btcusdt@aggTrade", [], 10**6) == []
