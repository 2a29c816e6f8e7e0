"""The client without a server: the same routes over a local database, asked by way of a private socket."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx

from market_data.client.transport import TIMEOUT
from market_data.model.errors import DatabaseUnavailable

START_SECONDS: Final = 30.0


@contextmanager
def opened(data_dir: Path | None, *, sandbox: bool, config: Path | None) -> Iterator[httpx.Client]:
    """The program over a local database, asked through a socket that only this user can open.

    Raises:
        ConfigError: when a setting is wrong.
        DatabaseUnavailable: when the database cannot be opened.
    """
    from market_data.api.app import create_api
    from market_data.api.served import serving
    from market_data.bootstrap import open_app
    from market_data.config import load_settings

    overrides: dict[str, tuple[Any, str]] = {"api.keys": ("off", "MarketData.local")}
    if data_dir is not None:
        overrides["database.data_dir"] = (data_dir, "data_dir")
        overrides["database.url"] = (None, "data_dir")
    if sandbox:
        overrides["database.sandbox"] = (True, "sandbox")
        overrides["database.url"] = (None, "sandbox")
    settings = load_settings(config, os.environ, overrides)
    with ExitStack() as stack:
        app = stack.enter_context(open_app(settings, clock=lambda: datetime.now(UTC)))
        served = stack.enter_context(serving(app))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="market-data-")))
        path = folder / "api"
        stack.enter_context(_listening(create_api(served), path))
        transport = httpx.HTTPTransport(uds=str(path))
        yield stack.enter_context(httpx.Client(transport=transport, base_url="http://localhost", timeout=TIMEOUT))


@contextmanager
def _listening(api: Any, path: Path) -> Iterator[None]:
    """A server on a socket in a folder of this user's own, in a thread."""
    from market_data.api.listening import serve_from, server_of

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        server = server_of(api)
        started = threading.Event()

        serving = partial(asyncio.run, serve_from(server, listening, started.set))
        thread = threading.Thread(target=serving, name="market-data-local", daemon=True)
        thread.start()
        if not started.wait(START_SECONDS) or not server.started:
            raise DatabaseUnavailable("the local database could not be served; try again")
        try:
            yield
        finally:
            server.should_exit = True
            thread.join(START_SECONDS)
