"""``options``: the newest stored chain of a symbol and its risk figures."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from typing import Annotated

import typer

from market_data.cli.arguments import AssetClassName, Json, Symbol, as_known, parse_instruments, parse_moment
from market_data.cli.invocation import Invocation
from market_data.cli.output import print_json, print_rows, say
from market_data.model.errors import UsageError

_FIGURES = (
    "bid",
    "ask",
    "volume",
    "open_interest",
    "iv",
    "delta",
    "gamma",
    "theta",
    "vega",
    "rho",
    "iv_origin",
    "iv_reason",
)


def options(
    context: typer.Context,
    symbol: Symbol,
    asset_class: AssetClassName = None,
    expiration: Annotated[
        str | None,
        typer.Option("--expiration", "-e", metavar="DAY", help="Show the contracts of this day: 2026-12-18."),
    ] = None,
    as_of: Annotated[str | None, typer.Option(metavar="TIME", help="The chain as it was known then, UTC.")] = None,
    as_json: Json = False,
) -> None:
    """Show risk figures of the newest stored option chain, and the contracts of an expiration."""
    from market_data.model.chain_risk import chain_risk
    from market_data.pipeline.write.chain import latest_chain

    invocation: Invocation = context.obj
    day = _day(expiration)
    moment = parse_moment(as_of, "--as-of")
    (instrument,) = parse_instruments([symbol], asset_class, invocation.settings())
    with invocation.app() as app:
        (instrument,) = as_known(app, [instrument], asset_class)
        chain = latest_chain(app.database, instrument, moment)
    risk = chain_risk(chain)
    contracts = chain.filter(chain["expiration"] == day) if day else chain
    if as_json:
        print_json(
            {"symbol": instrument.symbol, "risk": [asdict(one) for one in risk], "contracts": contracts.to_dicts()}
        )
        return
    if chain.is_empty():
        say(f"{instrument}: no option chain stored; fetch it with 'market-data backfill options-iv --symbol {symbol}'")
        return
    newest, source = chain.sort("timestamp")["timestamp"][-1], chain["source"][0]
    spot = chain["underlying_price"].drop_nulls()
    at = f", underlying at {spot[-1].normalize():f}" if len(spot) else ""
    print_rows(
        f"{instrument} options of {newest:%Y-%m-%d %H:%M} UTC by {source}{at}",
        [asdict(one) | {"expiration": one.expiration or "all"} for one in risk],
    )
    if day is None:
        say("--expiration DAY shows the contracts of a day")
    elif contracts.is_empty():
        raise UsageError(
            f"No contract expires on {day}. Expirations: {', '.join(map(str, chain['expiration'].unique().sort()))}"
        )
    else:
        print_rows(f"Contracts that expire on {day}", contracts.to_dicts(), ["option_type", "strike", *_FIGURES])


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--expiration {text!r} is not a day: write 2026-12-18") from None
