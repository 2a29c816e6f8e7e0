"""Pages of what is on the shelves: features, rules, providers; and the timeframes they speak of."""

from datetime import timedelta

from market_data import features as feature_shelf
from market_data import providers as provider_shelf
from market_data import rules as rule_shelf
from market_data.model.dataset import CANDLES
from market_data.model.feature import Feature
from market_data.model.instrument import AssetClass, Instrument, Series
from market_data.model.provider import Capability, Provider
from market_data.model.rows import UNREADABLE
from market_data.model.rule import Rule, Severity
from market_data.model.timeframe import Timeframe
from market_data.shelf import collect, collect_classes
from reference.markdown import code, codes, one_line, page, paragraphs, table

VERBS = {Severity.REJECT: "rejected", Severity.NOTE: "noted"}
CLOSED_ONLY = """
A candle's `timestamp` is its open time; it is stored when it has closed:
[decision 5](../decisions/0005-canonical-candles.md).
"""
SAMPLES = {group: Instrument("X", group) for group in AssetClass}


def rules_page() -> str:
    """Every rule: whose rows it checks, what it does to one that breaks it, lookback, and what holds for the others."""
    found = sorted(
        collect(rule_shelf, Rule).values(),
        key=lambda rule: (rule.dataset is not CANDLES, rule.dataset.name, rule.severity is Severity.NOTE, rule.name),
    )
    rows = [(r.dataset.name, code(r.name), VERBS[r.severity], str(r.lookback), one_line(r.doc)) for r in found]
    at_the_door = [("all", code(name), "rejected", "0", doc) for name, doc in UNREADABLE.items()]
    rows = at_the_door + rows
    head = ("rows of", "rule", "a row that breaks it is", "lookback", "what holds for a row that does not")
    return page("Rules", table(head, rows))


def features_page() -> str:
    """Every feature: column, unit, what it is, formula, null, source, inputs, and where it exists."""
    found = sorted(collect(feature_shelf, Feature).values(), key=lambda feature: feature.name)
    overview = table(
        ("column", "unit", "meaning"), [(f"[`{f.name}`](#{f.name})", f.unit, one_line(f.doc)) for f in found]
    )
    return page("Features", overview, *[_feature(feature) for feature in found])


def _feature(feature: Feature) -> str:
    reads = codes(feature.inputs)
    if feature.observations:
        clocks = [f"{code(name)} ({_length(history)})" for name, history in feature.observations.items()]
        reads = "; ".join(filter(None, [reads, f"of their own clock, with the history needed: {', '.join(clocks)}"]))
    facts = {
        "unit": feature.unit,
        "reads": reads,
        "lookback in rows": _lookback(feature),
        "exists for": _exists(feature),
        "values": codes(feature.labels) if feature.labels else "number",
    }
    return f"## {feature.name}\n\n" + table(("", ""), facts.items())


def _series() -> list[Series]:
    return [Series(instrument, timeframe) for instrument in SAMPLES.values() for timeframe in Timeframe]


def _lookback(feature: Feature) -> str:
    needed = {feature.lookback_for(series) for series in _series() if feature.applies(series)}
    return f"{min(needed)} to {max(needed)}, by timeframe" if len(needed) > 1 else str(needed.pop())


def _exists(feature: Feature) -> str:
    parts = []
    for group in AssetClass:
        frames = [s.timeframe for s in _series() if s.instrument.asset_class is group and feature.applies(s)]
        if frames:
            parts.append(f"{group}: {'all' if len(frames) == len(Timeframe) else codes(frames)}")
    return "; ".join(parts)


def providers_page() -> str:
    """Every provider: what it says of itself, its capabilities, and where its settings are."""
    found = sorted(collect_classes(provider_shelf, Provider).items())
    return page("Providers", *[_provider(name, cls) for name, cls in found])


def _provider(name: str, cls: type[Provider]) -> str:
    rows = [
        (
            code(capability.dataset.name),
            ", ".join(sorted(capability.asset_classes)),
            codes(frame for frame in Timeframe if frame in capability.timeframes) or "none of its own",
            _reach(capability),
            "yes" if capability.live else "no",
        )
        for capability in cls.capabilities
    ]
    head = ("dataset", "asset classes", "timeframes", "history", "live stream")
    served = table(head, rows) or "What it serves depends on its settings."
    settings = f"Settings: [`providers.{name}`](settings.md#providers{name})."
    return f"## {name}\n\n{paragraphs(cls.__doc__ or '')}\n\n{served}\n\n{settings}"


def _reach(capability: Capability) -> str:
    if not capability.reach:
        return "all the source has"
    return ", ".join(
        f"{frame.value + ': ' if frame else ''}{_length(reach)}" for frame, reach in capability.reach.items()
    )


def timeframes_page() -> str:
    """Every timeframe: its length, where its candles lie, and who serves it."""
    found = sorted(collect_classes(provider_shelf, Provider).items())
    rows = [(code(frame), _length(frame.duration), *_grid(frame), _servers(frame, found)) for frame in Timeframe]
    head = ("timeframe", "nominal length", "crypto, UTC", "stocks and ETFs, regular session", "served by")
    return page("Timeframes", CLOSED_ONLY, table(head, rows))


def _grid(frame: Timeframe) -> tuple[str, str]:
    if frame is Timeframe.W1:
        return "from Monday 00:00", "from the week's first open to its last close"
    if frame is Timeframe.D1:
        return "from 00:00", "from the session's open to its close"
    return f"every {_length(frame.duration)} from 00:00", "from the session's open on; the last ends at its close"


def _servers(frame: Timeframe, found: list[tuple[str, type[Provider]]]) -> str:
    serving = [
        name
        for name, cls in found
        if any(capability.dataset is CANDLES and frame in capability.timeframes for capability in cls.capabilities)
    ]
    return ", ".join(f"[{name}](providers.md#{name})" for name in serving)


def _length(span: timedelta) -> str:
    for unit, seconds in (("week", 604_800), ("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        count, rest = divmod(span.total_seconds(), seconds)
        if count and not rest and (unit != "week" or count == 1):
            return f"{count:g} {unit}{'' if count == 1 else 's'}"
    return str(span)
