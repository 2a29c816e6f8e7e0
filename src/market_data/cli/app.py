"""The program's commands and the options that hold for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from market_data.cli import (
    acting,
    backfilling,
    database,
    enriching,
    gaps,
    history,
    instruments,
    keys,
    observing,
    option_chains,
    providing,
    proving,
    reading,
    reconciling,
    renewing,
    running,
    sandboxing,
    serving,
    tracking,
)
from market_data.cli.arguments import Json
from market_data.cli.invocation import Invocation
from market_data.cli.program import Program

app = typer.Typer(
    name="market-data",
    cls=Program,
    help="Canonical, checked, versioned market data with features, in PostgreSQL.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly done.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file (YAML) over the defaults.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the private PostgreSQL keeps its data.")
    ] = None,
    database_url: Annotated[
        str | None, typer.Option(metavar="URL", help="A PostgreSQL server: postgresql://user:password@host/name.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="DEBUG, INFO, WARNING, ERROR or CRITICAL.")
    ] = None,
    sandbox: Annotated[
        bool,
        typer.Option("--sandbox", help="Recorded market history instead of the real sources, in its own database."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")] = False,
) -> None:
    """Canonical, checked, versioned market data with features, in PostgreSQL."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit
    context.obj = Invocation(
        config=config,
        data_dir=data_dir,
        database_url=database_url,
        log_level=log_level,
        sandbox=sandbox,
        debug=debug,
        command=context.invoked_subcommand,
    )


@app.command()
def version(as_json: Json = False) -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    from market_data.cli.output import print_json

    number = installed("market-data-platform")
    if as_json:
        print_json({"version": number})
    else:
        typer.echo(f"market-data {number}")


app.command("enrich")(enriching.enrich)
app.command("status")(reading.status)
app.command("quality")(reading.quality)
app.command("features")(reading.features)
app.command("gaps")(gaps.gaps)
app.command("correct")(history.correct)
app.add_typer(history.quarantine, name="quarantine")
app.command("reconcile")(reconciling.reconcile)
app.command("prove")(proving.prove)
app.command("recompute")(renewing.recompute)
app.command("providers")(providing.providers)
app.command("instruments")(instruments.instruments)
app.command("forget")(instruments.forget)
app.command("observations")(observing.observations)
app.command("actions")(acting.actions)
app.command("bars")(observing.bars)
app.command("options")(option_chains.options)
app.add_typer(database.app, name="db")
app.command("serve")(serving.serve)
app.command("openapi")(serving.openapi)
app.add_typer(keys.app, name="keys")
app.command("sandbox")(sandboxing.sandbox)
app.command("backfill")(backfilling.backfill)
app.command("track")(tracking.track)
app.command("untrack")(tracking.untrack)
app.command("up")(running.up)
app.command("worker")(running.worker)
app.command("scheduler")(running.scheduler)
app.command("jobs")(running.jobs)
