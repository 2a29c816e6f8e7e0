"""``sandbox``: serve recorded market history through the sources' own protocols, and point the program at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from market_data.cli.arguments import Json
from market_data.cli.output import print_json, print_rows, say, waiting


@contextmanager
def served() -> Iterator[dict[str, Any]]:
    """Runs a sandbox of our own while the block runs; gives the settings that lead the providers to it."""
    from market_data.sandbox import Sandbox

    sandbox = Sandbox()
    with waiting("starting the sandbox"):
        sandbox.start()
    try:
        yield sandbox.settings()
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
    from market_data.sandbox import Sandbox

    served_here = Sandbox(port=port, faults=fault or [])
    if explain:
        rows = [
            {"symbol": p.symbol, "class": p.asset_class, "recorded": p.recorded, "modelled": p.modelled}
            for p in served_here.explain()
        ]
        print_json(rows) if as_json else print_rows("What the sandbox serves", rows)
        return
    served_here.start()
    try:
        if as_json:
            print_json(served_here.settings())
        else:
            for key, value in served_here.settings().items():
                typer.echo(f"MARKET_DATA__{key.upper().replace('.', '__')}={value}")
            say("serving until Ctrl-C; set these in the environment of what should use it")
        served_here.wait()
    finally:
        served_here.stop()
