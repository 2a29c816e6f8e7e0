"""``prove``: the promises, checked on what is stored."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from market_data.cli.arguments import TIMEFRAMES, AssetClassName, Json, parse_instruments, parse_timeframes
from market_data.cli.invocation import Invocation
from market_data.cli.output import print_json, print_rows, say, waiting
from market_data.cli.program import FAILED, print_error


def prove(
    context: typer.Context,
    symbol: Annotated[
        str | None, typer.Argument(metavar="SYMBOL", help="Only this symbol. [default: everything stored]")
    ] = None,
    asset_class: AssetClassName = None,
    timeframe: Annotated[
        list[str] | None, typer.Option("--timeframe", "-t", metavar="TF", help=f"Only these: {TIMEFRAMES}.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Stretches and moments to look at per promise.")] = 5,
    seed: Annotated[int, typer.Option(help="Which samples; another number looks elsewhere.")] = 0,
    as_json: Json = False,
) -> None:
    """Check on your own data that re-runs, starts, futures, moments, coverage and corrections do what is promised.

    Nothing is written. Exits 1 when a promise does not hold.
    """
    from market_data.pipeline.prove import Prover
    from market_data.storage.coverage import known_series

    invocation: Invocation = context.obj
    wanted = parse_timeframes(timeframe) if timeframe else None
    instrument = parse_instruments([symbol], asset_class, invocation.settings())[0] if symbol else None
    lines: list[dict[str, Any]] = []
    failures: list[str] = []
    with invocation.app() as app:
        prover = Prover(app.database, app.shelves, app.clock, samples, seed)
        for series in known_series(app.database, instrument):
            if wanted is not None and series.timeframe not in wanted:
                continue
            started = time.perf_counter()
            with waiting(f"proving {series}"):
                for check in prover.prove(series):
                    seconds, started = time.perf_counter() - started, time.perf_counter()
                    lines.append(
                        {
                            "series": str(series),
                            "promise": check.promise,
                            "cases": check.cases,
                            "holds": check.holds,
                            "seconds": round(seconds, 3),
                        }
                    )
                    failures += [f"{series}, {check.promise}: {failure}" for failure in check.failures]
    if as_json:
        print_json({"checks": lines, "failures": failures})
    elif not lines:
        say("nothing is stored; fetch candles with 'market-data enrich'")
    else:
        print_rows(None, lines)
        for failure in failures[:20]:
            print_error(failure)
    if failures:
        raise typer.Exit(FAILED)
