"""The client without a server: the same routes over a local database, asked by way of a private socket."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import structlog

from market_data.client.transport import TIMEOUT

if TYPE_CHECKING:
    from fastapi import FastAPI


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
    from market_data.storage.server.clock import SystemClock

    overrides: dict[str, tuple[Any, str]] = {"api.keys": ("off", "MarketData.local")}
    if data_dir is not None:
        overrides["database.data_dir"] = (data_dir, "data_dir")
        overrides["database.url"] = (None, "data_dir")
    if sandbox:
        overrides["database.sandbox"] = (True, "sandbox")
        overrides["database.url"] = (None, "sandbox")
    settings = load_settings(config, os.environ, overrides)
    _keep_quiet()
    with ExitStack() as stack:
        app = stack.enter_context(open_app(settings, clock=SystemClock()))
        served = stack.enter_context(serving(app))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="market-data-")))
        path = folder / "api"
        stack.enter_context(_listening(create_api(served), path))
        transport = httpx.HTTPTransport(uds=str(path))
        client = httpx.Client(transport=transport, base_url="http://localhost", timeout=TIMEOUT, trust_env=False)
        yield stack.enter_context(client)


def _keep_quiet() -> None:
    """Only warnings, and those on stderr, unless the caller has set up logs: a notebook wants its frame alone."""
    if not structlog.is_configured():
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )


@contextmanager
def _listening(api: FastAPI, path: Path) -> Iterator[None]:
    """A server on a socket in a folder of this user's own, in a thread."""
    from market_data.api.listening import in_background

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        with in_background(api, listening):
            yield
