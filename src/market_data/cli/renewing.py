"""``recompute``: renew derived columns whose inputs or definitions changed."""

from __future__ import annotations

import typer

from market_data.cli.arguments import Json
from market_data.cli.invocation import Invocation
from market_data.cli.output import print_json, say
from market_data.cli.progress import counted


def recompute(context: typer.Context, as_json: Json = False) -> None:
    """Renew features and checks made under another definition, or whose inputs arrived later; nothing else.

    Resumable: each chunk commits on its own, a second run finds nothing to do.
    """
    from market_data.pipeline.write.recompute import Recomputation

    invocation: Invocation = context.obj
    candles = changed = 0
    with invocation.app() as app:
        recomputation = Recomputation(app.database, app.shelves, app.clock)
        stale = recomputation.note_stale()
        with counted("renewing", recomputation.remaining()) as step:
            for renewed in recomputation.run():
                candles += renewed.candles
                changed += renewed.changed
                step(renewed.candles)
    if as_json:
        print_json({"series_of_another_definition": stale, "candles": candles, "changed": changed})
    elif candles:
        say(f"{candles:,} candles looked at, {changed:,} renewed")
    else:
        say("nothing to renew: all features and checks follow from what is stored, as defined now")
