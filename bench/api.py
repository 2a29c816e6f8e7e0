"""The API over loopback: small answers beside a bare route, many rows by Arrow beside JSON, wrong keys beside none."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx

from bench.api_server import BACKFILLS, COMPUTATIONS, FETCHES, LONG_ROWS, NOW, ROWS
from bench.figures import Figure

REQUESTS = 300
RUNS = 5
JSON_PAGE = 10_000
WRONG_A_MINUTE = 10_000
ATTACK_SECONDS = 6.0
ROUNDS = 3
TEN_MILLION = f"{(LONG_ROWS + FETCHES + COMPUTATIONS + BACKFILLS) / 1e6:.1f} M rows in the tables"


def measure() -> Iterator[Figure]:
    """Database, server and asker in processes of their own; the contenders take turns."""
    from market_data.storage.server.embedded import EmbeddedServer

    with tempfile.TemporaryDirectory() as folder:
        # The embedded server runs as another account when this one is root.
        Path(folder).chmod(0o755)
        with EmbeddedServer(Path(folder), settings={"fsync": "off", "max_wal_size": "'8GB'"}) as database:
            filling = [sys.executable, "-m", "bench.api_server", "fill", database.conninfo()]
            key = subprocess.run(filling, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
            with _server(database.conninfo()) as (process, url):
                yield from _small(url["api"], url["bare"])
                yield from _wrong_keys(url["locked"], key)
                yield from _bulk(url["api"])
                yield from _stream(url["api"], process)


@contextmanager
def _server(conninfo: str) -> Iterator[tuple[int, dict[str, str]]]:
    command = [sys.executable, "-m", "bench.api_server", "serve", conninfo]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.pid, json.loads(server.stdout.readline())
        finally:
            server.kill()


def _small(api: str, bare: str) -> Iterator[Figure]:
    with httpx.Client() as client:
        paths: dict[str, Callable[[], httpx.Response]] = {
            "status": lambda: client.get(f"{api}/api/v1/enrichment/status/BTC"),
            "bare": lambda: client.get(f"{bare}/row/BTC"),
            "metrics": lambda: client.get(f"{api}/api/v1/enrichment/metrics"),
            "quality": lambda: client.get(f"{api}/api/v1/data/quality/ETH"),
            "trigger": lambda: client.post(f"{api}/api/v1/enrichment/trigger?symbol=BTC&asset_class=crypto"),
        }
        taken: dict[str, list[float]] = {name: [] for name in paths}
        for number in range(REQUESTS + 20):
            for name, ask in paths.items():
                began = time.perf_counter()
                ask().raise_for_status()
                if number >= 20:
                    taken[name].append((time.perf_counter() - began) * 1000)
    high = {name: _p95(times) for name, times in taken.items()}
    medians = ", ".join(f"{name} {statistics.median(times):.2f}" for name, times in taken.items())
    p95 = ", ".join(f"{name} {value:.2f}" for name, value in high.items())
    detail = f"{TEN_MILLION}; {REQUESTS} requests each, taking turns; p95 ms: {p95}; median ms: {medians}"
    yield Figure(
        name="api_status_p95_vs_bare", value=high["status"] / high["bare"], unit="ratio", target="<= 2",
        peer="FastAPI route with one indexed SELECT", detail=detail,
    )  # fmt: skip
    for name, target in (("metrics", "< 100"), ("quality", "< 100"), ("trigger", "< 50")):
        yield Figure(name=f"api_{name}_p95_ms", value=high[name], unit="ms", target=target, detail=detail)


def _wrong_keys(api: str, key: str) -> Iterator[Figure]:
    """The median time of a right key while wrong ones come in, beside that of quiet moments in between."""
    quiet: list[float] = []
    attacked: list[float] = []
    sent = 0
    for _ in range(ROUNDS):
        quiet += _right_key(api, key, ATTACK_SECONDS / 2)
        command = [sys.executable, "-m", "bench.wrong_keys", api, str(WRONG_A_MINUTE), str(ATTACK_SECONDS)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attacker:
            assert attacker.stdout is not None
            attacker.stdout.readline()
            attacked += _right_key(api, key, ATTACK_SECONDS)
            sent += int(attacker.stdout.readline())
    pace = sent / (ROUNDS * ATTACK_SECONDS) * 60
    yield Figure(
        name="api_wrong_keys_slowdown", value=_p95(attacked) / _p95(quiet), unit="ratio", target="<= 2",
        peer="the same right key without wrong ones",
        detail=f"{pace:,.0f} different wrong keys a minute, all refused; right key p95 ms: {_p95(attacked):.2f} beside "
        f"{_p95(quiet):.2f}, median {statistics.median(attacked):.2f} beside {statistics.median(quiet):.2f}; "
        f"{len(attacked)} and {len(quiet)} requests in {ROUNDS} turns",
    )  # fmt: skip


def _right_key(api: str, key: str, seconds: float) -> list[float]:
    """Milliseconds of requests with the right key, one after the other, twenty-five a second."""
    taken = []
    with httpx.Client(headers={"Authorization": f"Bearer {key}"}) as client:
        client.get(f"{api}/api/v1/enrichment/status/BTC").raise_for_status()
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            client.get(f"{api}/api/v1/enrichment/status/BTC").raise_for_status()
            taken.append((time.perf_counter() - began) * 1000)
            time.sleep(max(0.0, 0.04 - (time.perf_counter() - began)))
    return taken


def _bulk(api: str) -> Iterator[Figure]:
    from market_data.client import MarketData

    arrow, by_json = [], []
    with MarketData(api) as data, httpx.Client(base_url=api, timeout=60) as client:
        for _ in range(RUNS):
            began = time.perf_counter()
            rows = data.features("BTC", "1m", start=NOW - timedelta(minutes=ROWS)).height
            arrow.append(time.perf_counter() - began)
            began = time.perf_counter()
            found = _json_rows(client)
            by_json.append(time.perf_counter() - began)
            assert rows == found == ROWS
    taken, slow = statistics.median(arrow), statistics.median(by_json)
    detail = f"{ROWS:,} enriched rows into a Polars frame through the client; median of {RUNS}"
    yield Figure(name="api_features_arrow_100k_s", value=taken, unit="s", target="<= 1", detail=detail)
    yield Figure(
        name="api_arrow_vs_json", value=slow / taken, unit="x", target=">= 4", peer="the same rows by pages of JSON",
        detail=f"Arrow {taken:.2f} s, JSON {slow:.2f} s in {ROWS // JSON_PAGE} pages, parsed and made into a frame",
    )  # fmt: skip


def _json_rows(client: httpx.Client) -> int:
    import polars as pl

    pages, start = [], (NOW - timedelta(minutes=ROWS)).isoformat()
    while start:
        body = client.get("/api/v1/market/features/BTC/1m", params={"start": start, "limit": JSON_PAGE}).json()
        pages.append(pl.DataFrame(body["candles"], infer_schema_length=None))
        start = body["next"]
    return pl.concat(pages, how="vertical_relaxed").height


def _stream(api: str, process: int) -> Iterator[Figure]:
    """All minutes of the long series, read and dropped as they come; the server's memory at its highest."""
    import pyarrow as pa

    before = _resident(process, "VmRSS")
    # Sets the high-water mark of its memory back.
    Path(f"/proc/{process}/clear_refs").write_text("5")
    began = time.perf_counter()
    headers = {"Accept": "application/vnd.apache.arrow.stream", "Accept-Encoding": "identity"}
    with httpx.stream("GET", f"{api}/api/v1/market/features/ETH/1m", headers=headers, timeout=120) as answer:
        answer.raise_for_status()
        received = 0
        reader, rows = pa.ipc.open_stream(_Pieces(answer.iter_raw())), 0
        for batch in reader:
            rows += batch.num_rows
            received += batch.nbytes
    seconds = time.perf_counter() - began
    assert rows == LONG_ROWS, rows
    yield Figure(
        name="api_stream_rss_mb", value=_resident(process, "VmHWM"), unit="MB", target="< 300",
        detail=f"{rows / 1e6:g} M enriched rows, {received / 2**20:,.0f} MB, in {seconds:.1f} s; "
        f"{before:.0f} MB before; all of the server's process",
    )  # fmt: skip


class _Pieces:
    """A file over pieces as they arrive."""

    closed = False

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = bytearray()

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._left) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._left += piece
        found = bytes(self._left[: size if size >= 0 else None])
        del self._left[: len(found)]
        return found

    def readable(self) -> bool:
        return True


def _resident(process: int, name: str) -> float:
    """Megabytes of a figure of /proc."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def _p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20)[18]
