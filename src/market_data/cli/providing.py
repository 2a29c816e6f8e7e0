"""``providers``: what each source serves, and whether it answers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from market_data.cli.arguments import Json
from market_data.cli.invocation import Invocation
from market_data.cli.output import print_json, print_rows, waiting
from market_data.model.errors import MarketDataError
from market_data.model.instrument import AssetClass, Instrument
from market_data.model.timeframe import Timeframe

if TYPE_CHECKING:
    from market_data.bootstrap.sources import Sources
    from market_data.config import Settings
    from market_data.model.provider import Provider

CHECK_SECONDS: Final = 10.0


def providers(
    context: typer.Context,
    check: Annotated[bool, typer.Option(help="Ask each source for one symbol to see whether it answers.")] = True,
    as_json: Json = False,
) -> None:
    """List the sources, what they serve and whether they answer."""
    invocation: Invocation = context.obj
    with invocation.sources() as (settings, sources):
        found = sources.providers
        answers: dict[str, str] = {}
        if check:
            import asyncio

            with waiting("asking the sources"):
                answers = asyncio.run(_ask_all(sources, settings))
        left_alone = _left_alone(sources)
        rows = [row for name, provider in found.items() for row in _rows(name, provider, answers.get(name))]
    if as_json:
        print_json(rows)
    else:
        states = {row["provider"]: row["state"] for row in rows}
        print_rows("Sources", [{"provider": name, "state": state} for name, state in states.items()])
        if left_alone:
            print_rows("Left alone", left_alone)
        print_rows("What they serve", _in_brief(rows))


def _rows(name: str, provider: Provider, answer: str | None) -> list[dict[str, Any]]:
    return [
        {
            "provider": name,
            "dataset": capability.dataset.name,
            "asset_classes": sorted(capability.asset_classes),
            "timeframes": [timeframe.value for timeframe in _in_order(capability.timeframes)],
            "history": _history(capability.reach),
            "live": capability.live,
            "state": provider.ready or answer or "not checked",
        }
        for capability in provider.capabilities
    ]


def _in_brief(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One line per source for candles, and one for all else of the same asset classes and history."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        span = f" {_shortened(row['timeframes'])}" if row["timeframes"] else ""
        same = (row["provider"], ", ".join(row["asset_classes"]), row["history"], span)
        lines.setdefault(same, []).append(f"{row['dataset']}{span}{' (live)' if row['live'] else ''}")
    return [
        {"provider": name, "serves": ", ".join(served), "asset_classes": classes, "history": history}
        for (name, classes, history, _), served in lines.items()
    ]


def _shortened(timeframes: Sequence[str]) -> str:
    return f"{timeframes[0]} … {timeframes[-1]}" if len(timeframes) == len(Timeframe) else ", ".join(timeframes)


def _in_order(timeframes: Any) -> list[Any]:
    return sorted(timeframes, key=lambda timeframe: timeframe.duration)


def _history(reach: Mapping[Any, Any]) -> str:
    if not reach:
        return "all"
    by_span: dict[int, list[str]] = {}
    for timeframe, span in reach.items():
        by_span.setdefault(span.days, []).append(timeframe.value if timeframe else "every")
    some = ", ".join(f"{' '.join(names)}: {days} d" for days, names in by_span.items())
    return some if None in reach else f"{some}; else all"


def _left_alone(sources: Sources) -> list[dict[str, Any]]:
    """The channels that no process asks at present, or that are to be tried; empty without a database."""
    from market_data.transport.gate import BreakerState, breaker_state

    return [
        {
            "channel": name,
            "breaker": breaker_state(standing).value.replace("_", " "),
            "seconds": round(max(standing.banned_for, standing.rests_for)),
            "because": standing.ban if standing.banned_for else standing.fault,
        }
        for name, standing in sources.standings().items()
        if standing.banned_for or breaker_state(standing) is not BreakerState.CLOSED
    ]


async def _ask_all(sources: Sources, settings: Settings) -> dict[str, str]:
    import asyncio

    try:
        answers = await asyncio.gather(*(_ask(provider, settings) for provider in sources.providers.values()))
    finally:
        await sources.aclose()
    return dict(zip(sources.providers, answers, strict=True))


async def _ask(provider: Provider, settings: Settings) -> str:
    if provider.ready is not None:
        return provider.ready
    served = {asset_class for capability in provider.capabilities for asset_class in capability.asset_classes}
    tracked = [Instrument(symbol, group) for group, symbol in settings.tracked if group in served]
    instrument = tracked[0] if tracked else Instrument(*_USUAL[min(served)])
    import asyncio

    begun = time.perf_counter()
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            listing = await provider.resolve(instrument)
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS:.0f} s"
    except MarketDataError as error:
        return f"{type(error).__name__}: {error}"
    return f"answers in {(time.perf_counter() - begun) * 1000:.0f} ms ({instrument.symbol} is {listing.raw_symbol})"


_USUAL: Final = {
    AssetClass.STOCK: ("AAPL", AssetClass.STOCK),
    AssetClass.ETF: ("SPY", AssetClass.ETF),
    AssetClass.CRYPTO: ("BTC", AssetClass.CRYPTO),
}
