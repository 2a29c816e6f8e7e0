"""``db``: bring the schema up to date, say where it stands, print its SQL for a DBA."""

from __future__ import annotations

from typing import Annotated

import typer

from market_data.cli.arguments import Json
from market_data.cli.invocation import Invocation
from market_data.cli.output import print_fields, print_json, waiting
from market_data.cli.program import FAILED

app = typer.Typer(help="The database: upgrade, status, sql.", no_args_is_help=False)


@app.command()
def upgrade(context: typer.Context, as_json: Json = False) -> None:
    """Apply the migrations that are pending, then verify tables and columns. Safe to run again."""
    from dataclasses import asdict

    from market_data.storage import migrate

    invocation: Invocation = context.obj
    with invocation.database() as database:
        with waiting("migrating"):
            summary = migrate.upgrade(database)
        if as_json:
            print_json({"database": database.name, **asdict(summary)})
        else:
            typer.echo(f"{database.name}: {summary}")


@app.command()
def status(context: typer.Context, as_json: Json = False) -> None:
    """Say where the schema stands; exits 1 when migrations are pending."""
    from market_data.storage import migrate

    invocation: Invocation = context.obj
    with invocation.database() as database:
        found = migrate.status(database)
        fields = {
            "database": database.name,
            "schema": found.current,
            "program": found.head,
            "up_to_date": found.up_to_date,
            "pending": list(found.pending),
        }
    if as_json:
        print_json(fields)
    else:
        print_fields("Schema", fields)
    if not found.up_to_date:
        raise typer.Exit(FAILED)


@app.command()
def sql(
    after: Annotated[
        str | None, typer.Option(metavar="REVISION", help="Only what comes after this revision. [default: all]")
    ] = None,
) -> None:
    """Print the statements of an upgrade, for a DBA who runs them by hand."""
    from market_data.storage import migrate

    typer.echo(migrate.sql(after=after), nl=False)
