"""``db``: the schema and its SQL, sizes, backup and restore, retention."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from market_data.cli.arguments import Json
from market_data.cli.invocation import Invocation, now
from market_data.cli.output import print_fields, print_json, print_rows, say, waiting
from market_data.cli.program import FAILED

app = typer.Typer(help="The database: upgrade, status, sql, stats, backup, restore, prune.", no_args_is_help=False)


@app.command()
def upgrade(context: typer.Context, as_json: Json = False) -> None:
    """Apply the migrations that are pending, then verify tables and columns. Safe to run again."""
    from dataclasses import asdict

    from market_data.bootstrap.shelves import declared_features
    from market_data.storage.server import migrate

    declared_features()
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
    """Say where the schema stands, and which features of your own have columns; exits 1 when migrations are pending."""
    from dataclasses import asdict

    from market_data.bootstrap.shelves import declared_features
    from market_data.storage.series.own_features import stored
    from market_data.storage.server import migrate

    declared_features()
    invocation: Invocation = context.obj
    with invocation.database() as database:
        found = migrate.status(database)
        fields = {
            "database": database.name,
            "schema": found.current,
            "program": found.head,
            "up_to_date": found.up_to_date,
            "pending": [*found.pending, *(f"column {name}" for name in found.features)],
        }
        own = [asdict(each) for each in stored(database)] if found.up_to_date else []
    if as_json:
        print_json({**fields, "user_features": own})
    else:
        print_fields("Schema", fields)
        if own:
            print_rows("Features of your own", own)
    if not found.up_to_date:
        raise typer.Exit(FAILED)


@app.command()
def sql(
    after: Annotated[
        str | None, typer.Option(metavar="REVISION", help="Only what comes after this revision. [default: all]")
    ] = None,
) -> None:
    """Print the statements of an upgrade, for a DBA who runs them by hand."""
    from market_data.bootstrap.shelves import declared_features
    from market_data.storage.server import migrate

    declared_features()
    typer.echo(migrate.sql(after=after), nl=False)


@app.command()
def stats(
    context: typer.Context,
    partitions: Annotated[bool, typer.Option(help="A line per partition too.")] = True,
    as_json: Json = False,
) -> None:
    """Show rows, bytes, oldest and newest of every table and partition."""
    from dataclasses import asdict

    from market_data.storage.server.growth import table_sizes

    invocation: Invocation = context.obj
    with invocation.database() as database, waiting("measuring"):
        sizes = table_sizes(database, partitions=partitions)
    if as_json:
        print_json([asdict(size) for size in sizes])
        return
    if not any(size.rows for size in sizes):
        say("nothing is stored")
        return
    print_rows(
        None,
        [
            {
                "table": f"  {size.partition}" if size.partition else size.table,
                "rows": size.rows,
                "MiB": round(size.bytes / 2**20, 1),
                "oldest": size.oldest,
                "newest": size.newest,
            }
            for size in sizes
            if size.rows
        ],
    )


Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]


@app.command()
def backup(context: typer.Context, file: Annotated[Path, typer.Argument(metavar="FILE")], force: Force = False) -> None:
    """Write all of the database into one file, while it is in use."""
    from market_data.storage.server.backup import back_up

    invocation: Invocation = context.obj
    with invocation.database() as database, waiting("writing the backup"):
        made = back_up(database, file, overwrite=force)
    say(f"{made.path}: {made.bytes / 2**20:,.1f} MiB, {len(made.tables_with_rows)} tables with rows")


@app.command()
def restore(
    context: typer.Context, file: Annotated[Path, typer.Argument(metavar="FILE")], force: Force = False
) -> None:
    """Make the database equal to a backup, all of it or nothing."""
    from market_data.storage.server.restore import restore as restore_from

    invocation: Invocation = context.obj
    with invocation.database() as database, waiting("restoring"):
        made = restore_from(database, file, overwrite=force)
    say(f"{database.name} now equals {made.path}: {len(made.tables_with_rows)} tables with rows")


@app.command()
def prune(context: typer.Context, as_json: Json = False) -> None:
    """Drop trades, quotes and raw payloads that are older than their retention; pack old options."""
    from market_data.storage.facts.retention import prune as prune_all

    invocation: Invocation = context.obj
    settings = invocation.settings()
    with invocation.database() as database, waiting("pruning"):
        done = prune_all(database, settings.database.retention.ages, settings.database.folder / "archive", now())
    if as_json:
        print_json(
            {"dropped": done.dropped, "packed": done.packed, "taken_back": [str(path) for path in done.taken_back]}
        )
    else:
        say(f"dropped {len(done.dropped)} partitions; packed {len(done.packed)} quarters of options")
