"""``prove``: the promises, checked on what is stored; ``prove features``: the laws, for features of the user's own."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from market_data.cli.arguments import TIMEFRAMES, AssetClassName, Json, as_known, parse_instruments, parse_timeframes
from market_data.cli.invocation import Invocation
from market_data.cli.output import print_json, print_rows, say, waiting
from market_data.cli.program import FAILED, print_error
from market_data.model.errors import UsageError
from market_data.model.instrument import Instrument
from market_data.model.timeframe import Timeframe

FEATURES: Final = "features"


def prove(
    context: typer.Context,
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="SYMBOL|features", help="Only this symbol, or the features. [default: everything stored]"
        ),
    ] = None,
    asset_class: AssetClassName = None,
    timeframe: Annotated[
        list[str] | None, typer.Option("--timeframe", "-t", metavar="TF", help=f"Only these: {TIMEFRAMES}.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Stretches and moments to look at per promise.")] = 5,
    seed: Annotated[int, typer.Option(help="Which samples; another number looks elsewhere.")] = 0,
    path: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With features: a Python file of your own instead of ours.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check on your own data that re-runs, starts, futures, moments, coverage and corrections do what is promised.

    With `features`: find features that peek or declare too short a lookback, on made-up series. Nothing is written.
    Exits 1 when a promise does not hold.
    """
    if what == FEATURES:
        prove_features(context.obj, path, seed, as_json=as_json)
        return
    if path is not None:
        raise UsageError("--path goes with 'prove features'")
    invocation: Invocation = context.obj
    wanted = parse_timeframes(timeframe) if timeframe else None
    named = parse_instruments([what], asset_class, invocation.settings()) if what else []
    lines, failures = _checked(invocation, named, asset_class, wanted, samples, seed)
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


def _checked(
    invocation: Invocation,
    named: Sequence[Instrument],
    asset_class: str | None,
    wanted: Collection[Timeframe] | None,
    samples: int,
    seed: int,
) -> tuple[list[dict[str, Any]], list[str]]:
    """A line per series and promise, and every failure in words."""
    from market_data.pipeline.read.prove import Prover
    from market_data.storage.series.coverage import known_series

    lines: list[dict[str, Any]] = []
    failures: list[str] = []
    with invocation.app() as app:
        instrument = next(iter(as_known(app, named, asset_class)), None)
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
    return lines, failures


def prove_features(invocation: Invocation, path: Path | None, seed: int, *, as_json: bool) -> None:
    """Hold every feature of a file, or every one in use, to the laws; say where one is broken."""
    from market_data.bootstrap.shelves import open_shelves
    from market_data.model.proof import prove_on_trials
    from market_data.pipeline.own_features import TRIALS, own_features

    if path is not None:
        features = list(own_features([path], {}).values())
    else:
        features = list(open_shelves(invocation.settings().features.paths).features)
    with waiting(f"proving {len(features)} features on {TRIALS} series"):
        found = [violation for _, violation in prove_on_trials(features, TRIALS, seed)]
    broken = {violation.feature for violation in found}
    lines = [{"feature": each.name, "holds": each.name not in broken} for each in features]
    if as_json:
        print_json({"features": lines, "violations": [str(violation) for violation in found]})
    else:
        say(f"{len(features)} features on {TRIALS} made-up series: {len(features) - len(broken)} keep every law")
        for violation in found:
            print_error(str(violation))
    if found:
        raise typer.Exit(FAILED)
