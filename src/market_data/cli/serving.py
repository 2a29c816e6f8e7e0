"""``serve`` and ``openapi``: the HTTP interface, and the document that describes it."""

from __future__ import annotations

from typing import Annotated

import typer

from market_data.cli.invocation import Invocation
from market_data.cli.output import say


def serve(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Where to listen. [default: 127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes a free one. [default: 8000]")
    ] = None,
) -> None:
    """Serve the HTTP interface over the database, until stopped."""
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
            shown = f"[{address}]" if ":" in address else address
            url = f"http://{shown}:{listening.getsockname()[1]}"
            with serving(app, listens_beyond=not is_loopback(address)) as served:
                run(create_api(served), listening, lambda: say(f"serving on {url}; stop with Ctrl-C"))


def openapi() -> None:
    """Print the OpenAPI document of the HTTP interface."""
    from market_data.api.app import create_api
    from market_data.cli.output import print_json

    print_json(create_api().openapi())
