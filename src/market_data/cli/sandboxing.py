"""``sandbox``: serve recorded market history through the sources' own protocols, and point the program at it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from market_data.cli.arguments import Json
from market_data.cli.figures import jsonable
from market_data.cli.output import print_json, print_rows, say, waiting
from market_data.model.errors import UsageError

if TYPE_CHECKING:
    from market_data.sandbox import Sandbox

# The sandbox takes any key and, as a paid plan does, has no limit of a few requests a minute.
BESIDES_ADDRESSES: Final[Mapping[str, Any]] = {
    "providers.polygon.api_key": "sandbox",
    "providers.polygon.requests_per_minute": 6000,
    "providers.yahoo.requests_per_minute": 6000,
    "pipelines.backfill_requests_per_minute": 6000,
}


@contextmanager
def served() -> Iterator[dict[str, Any]]:
    """Runs a sandbox of our own while the block runs; gives the settings that lead the providers to it."""
    from market_data.sandbox import Sandbox

    sandbox = Sandbox()
    with waiting("starting the sandbox"):
        sandbox.start()
    try:
        yield _settings(sandbox)
    finally:
        sandbox.stop()


def sandbox(
    explain: Annotated[bool, typer.Option("--explain", help="Say what is recorded and what is modelled.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on loopback; 0 takes a free one.")] = 8800,
    fault: Annotated[
        list[str] | None, typer.Option(metavar="KIND:SHARE", help="Fail on purpose, e.g. 429:0.1; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve recorded market history on loopback.

    It speaks as Binance, Massive and Yahoo do, errors and limits included. Stop it with Ctrl-C.
    """
    from market_data.sandbox import Sandbox, serve

    faults = ",".join(fault or [])
    here = Sandbox(port, faults=faults)
    if explain:
        _explain(here, as_json=as_json)
        return

    def ready(bound: int) -> None:
        here.port = bound
        settings = _settings(here)
        if as_json:
            print_json(settings)
            return
        for key, value in settings.items():
            typer.echo(f"MARKET_DATA__{key.upper().replace('.', '__')}={jsonable(value)}")
        say("serving until Ctrl-C; with these in its environment a program asks here")

    try:
        # Ctrl-C is how it ends.
        with suppress(KeyboardInterrupt):
            serve(port, faults=faults, ready=ready)
    except OSError as error:
        raise UsageError(f"--port {port}: {error.strerror or error}; choose another, or 0 for a free one") from None


def _settings(sandbox: Sandbox) -> dict[str, Any]:
    return {**sandbox.urls, **BESIDES_ADDRESSES}


def _explain(sandbox: Sandbox, *, as_json: bool) -> None:
    rows = [
        {"symbol": part.symbol, "asset_class": part.asset_class, "recorded": part.recorded, "modelled": part.modelled}
        for part in sandbox.explain()
    ]
    if as_json:
        print_json(rows)
    else:
        print_rows("What the sandbox serves", rows)
