"""``serve`` and ``openapi``: the HTTP interface, and the document that describes it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from market_data.cli.exporting import metrics_of
from market_data.cli.invocation import Invocation
from market_data.cli.memory import share_heaps
from market_data.cli.output import say
from market_data.cli.signals import stopping
from market_data.model.errors import ConfigError

if TYPE_CHECKING:
    from market_data.bootstrap import App


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where to listen. [default: 127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one. [default: 8000]")
    ] = None,
) -> None:
    """Serve the HTTP interface over the database, until stopped."""
    share_heaps()
    from market_data.api.app import create_api
    from market_data.api.listening import bound, check_address
    from market_data.api.listening import serve as run
    from market_data.api.security import is_loopback
    from market_data.api.served import serving

    invocation: Invocation = context.obj
    with invocation.app(asks_providers=True) as app:
        address = host or app.settings.api.host
        check_address(app, address)
        with bound(address, app.settings.api.port if port is None else port) as listening:
            url = address_of(address, listening)
            with metrics_of(app), serving(app, listens_beyond=not is_loopback(address)) as served:
                run(create_api(served), listening, stopping(), lambda: say(f"serving on {url}; stop with Ctrl-C"))


@contextmanager
def beside(app: App, port: int | None) -> Iterator[str]:
    """The HTTP interface in the background while the block runs; yields its address.

    Where the port of the defaults is taken, any other will do; one that was asked for must be free.
    """
    from market_data.api.app import create_api
    from market_data.api.listening import bound, check_address, in_background
    from market_data.api.security import is_loopback
    from market_data.api.served import serving

    limits = app.settings.api
    check_address(app, limits.host)
    try:
        listening = bound(limits.host, limits.port if port is None else port)
    except ConfigError:
        if port is not None or "api.port" in app.settings.origins:
            raise
        listening = bound(limits.host, 0)
    with (
        listening,
        serving(app, listens_beyond=not is_loopback(limits.host)) as served,
        in_background(create_api(served), listening),
    ):
        yield address_of(limits.host, listening)


def address_of(host: str, listening: socket.socket) -> str:
    """The URL of a listening socket."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


def openapi() -> None:
    """Print the OpenAPI document of the HTTP interface."""
    from market_data.api.app import create_api
    from market_data.cli.output import print_json

    print_json(create_api().openapi())
