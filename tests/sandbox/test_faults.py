"""Faults on demand, and the sandbox as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from market_data.model.errors import UsageError
from market_data.sandbox import Sandbox
from market_data.sandbox.app import create_app
from market_data.sandbox.faults import FAULTS, parse_faults
from market_data.sandbox.marketplace import Marketplace

from .conftest import ask_through

CANDLES = "/fapi/v1/klines?symbol=BTCUSDT&interval=1h&limit=5"


def test_shares_are_read() -> None:
    assert parse_faults("429:0.1, drop:0.01,") == {"429": 0.1, "drop": 0.01}
    assert parse_faults("") == {}


@pytest.mark.parametrize("text", ["oops:0.1", "429", "429:x", "429:1.5", "drop:-0.1", "429:0.6,drop:0.6"])
def test_a_wrong_share_is_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_faults(text)
    assert text.split(":", maxsplit=1)[0] in str(refused.value)
    if text.startswith("oops"):
        assert all(name in str(refused.value) for name in FAULTS)


@pytest.mark.parametrize(
    ("fault", "path", "status", "words"),
    [
        ("429", CANDLES, 429, '"code": -1003'),
        ("418", CANDLES, 418, "banned"),
        ("451", CANDLES, 451, '"code": 0'),
        ("5xx", CANDLES, 502, "<html>"),
        ("429", "/v2/aggs/ticker/KO/range/1/day/2014-01-01/2014-02-01", 429, "exceeded the maximum requests"),
        ("429", "/v8/finance/chart/KO", 429, "Too Many Requests"),
    ],
)
def test_refusals_are_in_the_sources_own_words(
    market: Marketplace, fault: str, path: str, status: int, words: str
) -> None:
    response = ask_through(create_app(market, faults=f"{fault}:1"))(path)
    assert response.status_code == status
    assert words in response.text
    assert ("retry-after" in response.headers) == (path == CANDLES and fault in ("429", "418"))


def test_garbage_is_no_json(market: Marketplace) -> None:
    response = ask_through(create_app(market, faults="garbage:1"))(CANDLES)
    assert response.status_code == 200
    with pytest.raises(ValueError, match=r"codec|Expecting|Invalid"):
        json.loads(response.content)


def test_the_same_seed_fails_the_same_requests(market: Marketplace) -> None:
    runs = []
    for _ in range(2):
        ask = ask_through(create_app(market, faults="5xx:0.3"))
        runs.append([ask("/fapi/v1/ping").status_code for _ in range(40)])
    assert runs[0] == runs[1]
    assert 4 <= runs[0].count(502) <= 20


def test_a_process_of_its_own() -> None:
    with Sandbox(now=datetime(2026, 11, 20, 18, 30, tzinfo=UTC)) as sandbox:
        assert sandbox.urls["providers.binance.rest_url"] == f"http://127.0.0.1:{sandbox.port}"
        assert sandbox.port > 0
        assert httpx.get(f"{sandbox.url}/fapi/v1/time").json() == {"serverTime": 1_795_199_400_000}
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{sandbox.url}/fapi/v1/time")


def test_connections_drop_and_bodies_break_off() -> None:
    for fault in ("drop", "truncate"):
        with Sandbox(faults=f"{fault}:1") as sandbox, pytest.raises(httpx.TransportError):
            httpx.get(sandbox.url + CANDLES)


def test_a_wrong_fault_is_told_before_anything_starts() -> None:
    with pytest.raises(UsageError, match="Valid: 429"):
        Sandbox(faults="nope:1")


def test_the_process_ends_with_its_parent() -> None:
    parent = (
        "from market_data.sandbox import Sandbox; import sys, time; s = Sandbox().start();"
        "print(s._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while _lives(child):
        assert time.monotonic() < deadline, "the sandbox outlived its parent"
        os.sched_yield()


def _lives(pid: int) -> bool:
    """Whether the process runs; one that ended but was not collected by init does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
