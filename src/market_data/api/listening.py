"""Listening: the API on an address, refused beyond this machine while nobody would be asked for a key."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import uvicorn
from fastapi import FastAPI

from market_data.api.connections import Impatient
from market_data.api.security import is_loopback
from market_data.bootstrap import App
from market_data.model.errors import ConfigError
from market_data.storage.work.keys import any_usable_key

# Requests under way get so long to end when the server stops.
GRACE_SECONDS: Final = 10
START_SECONDS: Final = 30.0


def check_address(app: App, host: str) -> None:
    """Refuse to listen where others could come in without a key.

    Raises:
        ConfigError: saying what to do.
    """
    limits = app.settings.api
    if is_loopback(host) or limits.allow_remote_without_keys:
        return
    if limits.keys == "off":
        raise ConfigError(
            f"Listening on {host} without keys would let anybody in: set api.keys to auto or required, or set "
            "api.allow_remote_without_keys when something in front of it asks who comes"
        )
    if not any_usable_key(app.database, app.clock()):
        raise ConfigError(
            f"Listening on {host} needs an API key, and there is none: make one with 'market-data keys create NAME', "
            "or listen on 127.0.0.1"
        )


def bound(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free.

    Raises:
        ConfigError: when the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, asyncio sends small pieces at once; else a body waits 40 ms for its head's acknowledgement.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except (OSError, OverflowError) as error:
        found.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"Cannot listen on {host} port {port}: {reason}; choose another with --port") from None
    return found


class Server(uvicorn.Server):
    """A server that leaves signals to its caller: uvicorn would end the process before the database is closed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def server_of(api: FastAPI) -> Server:
    """A server for the application: nothing of requests in its log, since addresses may carry secrets."""
    return Server(
        uvicorn.Config(
            api,
            http=Impatient,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            lifespan="off",
            timeout_graceful_shutdown=GRACE_SECONDS,
            # Who comes from where is what the connection says, not what a header claims.
            proxy_headers=False,
        )
    )


@contextmanager
def in_background(api: FastAPI, listening: socket.socket) -> Iterator[None]:
    """Serve in a thread of its own while the block runs.

    Raises:
        ConfigError: when it does not start.
    """
    server, started = server_of(api), threading.Event()
    serving = partial(asyncio.run, serve_from(server, listening, started.set))
    thread = threading.Thread(target=serving, name="market-data-api", daemon=True)
    thread.start()
    try:
        if not started.wait(START_SECONDS):
            raise ConfigError("the API did not start; the log says why")
        yield
    finally:
        server.should_exit = True
        thread.join(2 * GRACE_SECONDS)


async def serve_from(server: Server, listening: socket.socket, started: Callable[[], None]) -> None:
    """Serve until the server is told to exit; `started` is called when requests are taken."""
    serving = asyncio.create_task(server.serve([listening]))
    while not server.started and not serving.done():  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.01)
    if server.started:
        started()
    await serving


def serve(
    api: FastAPI,
    listening: socket.socket,
    signals: Sequence[signal.Signals],
    started: Callable[[], None] = lambda: None,
) -> None:
    """Serve until told to stop by one of the signals.

    Args:
        signals: what ends it.
        started: called when requests are taken.
    """

    async def run() -> None:
        server = server_of(api)

        def stop() -> None:
            server.should_exit = True

        for number in signals:
            asyncio.get_running_loop().add_signal_handler(number, stop)
        await serve_from(server, listening, started)

    asyncio.run(run())
