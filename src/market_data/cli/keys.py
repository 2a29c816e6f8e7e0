"""``keys``: make, revoke and list API keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from market_data.cli.arguments import Json
from market_data.cli.invocation import Invocation, now
from market_data.cli.output import print_json, print_rows, say

app = typer.Typer(help="API keys: create, revoke, list.", no_args_is_help=False)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.")]


@app.command()
def create(
    context: typer.Context,
    name: Name,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            "-s",
            metavar="SCOPE",
            help="read, trigger or admin; each includes the ones before. [default: read]",
        ),
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=36500, help="Expires after so many days. [default: never]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it; it cannot be shown again."""
    from market_data.model.errors import UsageError
    from market_data.storage.work.keys import Scope, create_key

    if unknown := [given for given in scope or () if given not in set(Scope)]:
        raise UsageError(f"Unknown scopes {unknown}. Valid: {', '.join(Scope)}")
    scopes = [Scope(given) for given in scope or ("read",)]
    invocation: Invocation = context.obj
    expires = None if days is None else now() + timedelta(days=days)
    with invocation.app() as opened:
        token = create_key(opened.database, name, scopes, now(), expires_at=expires)
    if as_json:
        print_json({"name": name, "scopes": scopes, "expires_at": expires, "key": token})
    else:
        typer.echo(token)
        say("keep it safe: only its hash is stored. Send it as 'Authorization: Bearer KEY'")


@app.command()
def revoke(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Revoke a key; it stops working at once."""
    from market_data.storage.work.keys import revoke_key

    invocation: Invocation = context.obj
    with invocation.app() as opened:
        changed = revoke_key(opened.database, name, now())
    if as_json:
        print_json({"name": name, "revoked": changed})
    else:
        say(f"{name} is revoked" if changed else f"{name} was revoked before")


@app.command("list")
def listed(context: typer.Context, as_json: Json = False) -> None:
    """List all keys, never their secrets."""
    from market_data.storage.work.keys import listed_keys

    invocation: Invocation = context.obj
    with invocation.app() as opened:
        rows = [{name: value for name, value in row.items() if name != "id"} for row in listed_keys(opened.database)]
    if as_json:
        print_json(rows)
    elif rows:
        print_rows(None, rows)
    else:
        say("no keys; make one with 'market-data keys create NAME'")
