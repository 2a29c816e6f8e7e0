"""The sandbox as a server: in the foreground, or as a process of its own that ends with its parent."""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import uvicorn

from market_data.model.errors import ProviderUnavailable
from market_data.sandbox.app import create_app
from market_data.sandbox.faults import parse_faults
from market_data.sandbox.marketplace import DEFAULT_SEED, Marketplace, Provenance, fixed_clock, running_clock

HOST = "127.0.0.1"
STOP_SECONDS = 5.0


class Sandbox:
    """A sandbox in its own process, so that its memory and time are not the client's.

    Usable as a context manager. The process ends with ``stop`` or with the process that started it.

    Args:
        port: where to listen on loopback; 0 for any free one.
        seed: of the model.
        faults: like ``429:0.1,drop:0.01``; see ``faults.FAULTS``.
        now: the present when it starts; the real one when None.
        speed: how fast time then goes by; it stands still at 0. Without ``now`` it goes by as it does.
        limits: whether Binance's request weight is enforced.

    Raises:
        UsageError: for a fault that does not exist.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        seed: int = DEFAULT_SEED,
        faults: str = "",
        now: datetime | None = None,
        speed: float = 0.0,
        limits: bool = True,
    ) -> None:
        parse_faults(faults)
        self.port = port
        self.seed = seed
        self._arguments = ["--port", str(port), "--seed", str(seed), "--lifeline"]
        self._arguments += ["--faults", faults] if faults else []
        self._arguments += ["--now", now.isoformat(), "--speed", str(speed)] if now else []
        self._arguments += [] if limits else ["--no-limits"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    @property
    def urls(self) -> dict[str, str]:
        """Base URL by setting."""
        binance, polygon, yahoo = "providers.binance", "providers.polygon", "providers.yahoo"
        same = (
            f"{binance}.rest_url",
            f"{binance}.spot_rest_url",
            f"{binance}.archive_url",
            f"{polygon}.rest_url",
            f"{yahoo}.rest_url",
        )
        sockets = {
            f"{binance}.ws_url": "um",
            f"{binance}.spot_ws_url": "spot",
            f"{polygon}.ws_url": "massive",
            f"{yahoo}.ws_url": "yahoo",
        }
        addresses = dict.fromkeys(same, self.url) | {f"{yahoo}.cookie_url": f"{self.url}/fc"}
        return addresses | {name: f"ws://{HOST}:{self.port}/{path}" for name, path in sockets.items()}

    def start(self) -> Sandbox:
        """Start the process and wait until it answers.

        Raises:
            ProviderUnavailable: with the process's own words when it does not come up.
        """
        command = [sys.executable, "-m", "market_data.sandbox.server", *self._arguments]
        # In a session of its own: Ctrl-C at the terminal is for us, who still need it while we finish.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, complaint = self._process.communicate()
            last = complaint.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise ProviderUnavailable(f"The sandbox did not start: {last[0]}")
        self.port = int(json.loads(line)["port"])
        return self

    def stop(self) -> None:
        """End the process; nothing when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    def explain(self) -> list[Provenance]:
        """What is recorded and what is modelled, per symbol."""
        return Marketplace(self.seed).explain()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(
    port: int,
    *,
    seed: int = DEFAULT_SEED,
    faults: str = "",
    now: datetime | None = None,
    speed: float = 0.0,
    limits: bool = True,
    ready: Callable[[int], None] | None = None,
    lifeline: bool = False,
) -> None:
    """Serve in this process until it is told to stop.

    ``ready`` is called with the port once connections are taken; with ``lifeline`` the end of standard input is the end
    of the server. The other arguments are those of ``Sandbox``.
    """
    market = Marketplace(seed, _clock(now, speed) if now else None)
    app = create_app(market, faults=faults, limits=limits)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="websockets-sansio",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        # Connections queue from here on, so whoever is told may connect at once.
        listener.listen(1024)
        if lifeline:
            threading.Thread(target=_end_with_input, daemon=True).start()
        if ready:
            ready(int(listener.getsockname()[1]))
        # Trading calendars take most of a second to load: better now than within someone's first request.
        threading.Thread(target=market.stock, args=(next(iter(market.stocks)),), daemon=True).start()
        server.run(sockets=[listener])


def _clock(now: datetime, speed: float) -> Callable[[], datetime]:
    return running_clock(now, speed) if speed else fixed_clock(now)


def _end_with_input() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        continue
    os._exit(0)


def _announce(port: int) -> None:
    sys.stdout.write(json.dumps({"port": port}) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serve as the arguments say and print the port as JSON."""
    parser = argparse.ArgumentParser(description="The sandbox's server process.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--faults", default="")
    parser.add_argument("--now", type=datetime.fromisoformat)
    parser.add_argument("--speed", type=float, default=0.0)
    parser.add_argument("--no-limits", action="store_true")
    parser.add_argument("--lifeline", action="store_true")
    given = parser.parse_args()
    now = given.now if given.now is None or given.now.tzinfo else given.now.replace(tzinfo=UTC)
    serve(
        given.port,
        seed=given.seed,
        faults=given.faults,
        now=now,
        speed=given.speed,
        limits=not given.no_limits,
        lifeline=given.lifeline,
        ready=_announce,
    )


if __name__ == "__main__":
    main()
