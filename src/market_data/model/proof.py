"""Proves features: what depends on the future, on more history than declared, or on where a series was cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from market_data.model.evaluation import evaluate
from market_data.model.feature import Feature
from market_data.model.instrument import AssetClass
from market_data.model.timeframe import MICROSECOND, Timeframe, from_micros
from market_data.model.trial import Trial, trial_window
from market_data.model.window import Window

FUTURE = "future"
LOOKBACK = "lookback"
START = "start"
INPUTS = "inputs"
OBSERVATIONS = "observations"
_MEANING = {
    FUTURE: "the value changes when later candles or later observations are taken away: it peeks",
    LOOKBACK: "the value changes when candles before the declared lookback are taken away: the lookback is too short",
    START: "the value changes with where the series begins, however far back: something runs from the first row",
    INPUTS: "the value changes when columns that are not declared as inputs are taken away",
    OBSERVATIONS: "the value changes when observations older than declared are taken away",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A feature that broke a law, and the first row where it shows."""

    feature: str
    law: str
    row: int
    timestamp: datetime
    whole: float | str | None
    """The value computed from the whole series."""
    part: float | str | None
    """The value computed from the part that should have sufficed."""

    def __str__(self) -> str:
        return (
            f"{self.feature}: {_MEANING[self.law]} "
            f"(row {self.row}, {self.timestamp:%Y-%m-%dT%H:%M:%SZ}: {self.whole!r} became {self.part!r})"
        )


def prove(features: Sequence[Feature], window: Window, cuts: Iterable[int]) -> list[Violation]:
    """Break the series at every cut and compare each value, bit for bit, with that of the whole series.

    At most one violation per feature and law is returned: the one at the earliest row.

    Args:
        features: the ones to prove.
        window: a series longer than the lookbacks, else the proof of the lookback is empty.
        cuts: row numbers; each is tried as an end, as a beginning and as a single row with its lookback.
    """
    whole = evaluate(features, window)
    found: dict[tuple[str, str], Violation] = {}

    def compare(each: Feature, law: str, part: pl.DataFrame, start: int, skip: int) -> None:
        row = _first_difference(whole[each.name][start + skip :], part[each.name][skip:])
        if row is None:
            return
        place = start + skip + row
        known = found.get((each.name, law))
        if known is None or place < known.row:
            stamp = from_micros(int(window.opens[place]))
            pair = whole[each.name][place], part[each.name][skip + row]
            found[each.name, law] = Violation(
                feature=each.name, law=law, row=place, timestamp=stamp, whole=pair[0], part=pair[1]
            )

    for cut in sorted({cut for cut in cuts if 0 <= cut < len(window)}):
        before = evaluate(features, _known_by_end(window.rows(0, cut + 1)))
        after = evaluate(features, window.rows(cut, len(window)))
        for each in features:
            lookback = each.lookback_for(window.series)
            compare(each, FUTURE, before, 0, 0)
            start = max(0, cut - lookback)
            alone = evaluate([each], window.rows(start, cut + 1))
            compare(each, LOOKBACK, alone, start, cut - start)
            law = START if _never_settles(whole[each.name][cut:], after[each.name], lookback) else LOOKBACK
            compare(each, law, after, cut, min(lookback, len(after)))
            if each.observations:
                recent = evaluate([each], _recent(each, window.rows(start, cut + 1)))
                compare(each, OBSERVATIONS, recent, start, cut - start)
    for each in features:
        compare(each, INPUTS, evaluate([each], window.restricted(frozenset(each.inputs))), 0, 0)
    return sorted(found.values(), key=lambda violation: (violation.feature, violation.law))


def trials(count: int, seed: int = 0) -> Iterator[Trial]:
    """`count` made-up series of all classes and timeframes: calm, wild, flat, idle, with gaps, nulls and extremes."""
    random = np.random.default_rng(seed)
    kinds = [(asset_class, timeframe) for timeframe in Timeframe for asset_class in AssetClass]
    for place in range(count):
        asset_class, timeframe = kinds[place % len(kinds)]
        yield Trial(
            seed=int(random.integers(2**32)),
            rows=int(random.integers(120, 240)),
            asset_class=asset_class,
            timeframe=timeframe,
            scale=float(random.choice([1e-12, 1.0, 100.0, 1e12])),
            step=float(random.choice([1e-9, 1e-3, 0.02, 1.0])),
            gaps=float(random.choice([0.0, 0.0, 0.05])),
            absent=float(random.choice([0.0, 0.0, 0.02])),
            flat=bool(random.random() < 0.1),
            idle=float(random.choice([0.0, 0.0, 0.3])),
            extreme=float(random.choice([0.0, 0.0, 0.02])),
        )


def prove_on_trials(features: Sequence[Feature], count: int = 48, seed: int = 0) -> Iterator[tuple[Trial, Violation]]:
    """Prove features on made-up series; for each feature and law the first violation found, as it is found."""
    said: set[tuple[str, str]] = set()
    for trial in trials(count, seed):
        window = trial_window(trial)
        cuts = np.random.default_rng(trial.seed).integers(0, len(window), 4).tolist()
        for violation in prove(features, window, cuts):
            if (violation.feature, violation.law) not in said:
                said.add((violation.feature, violation.law))
                yield trial, violation


def bits(column: pl.Series) -> NDArray[np.uint64]:
    """A column as integers that are equal only for equal bits; null is a number of its own."""
    if column.dtype == pl.String:
        return column.hash(seed=0).to_numpy()
    return column.to_numpy().view(np.uint64)


def _first_difference(whole: pl.Series, part: pl.Series) -> int | None:
    height = min(len(whole), len(part))
    differs = np.flatnonzero(bits(whole)[:height] != bits(part)[:height])
    return int(differs[0]) if len(differs) else None


def _never_settles(whole: pl.Series, part: pl.Series, lookback: int) -> bool:
    """Whether values still differ at the end of a run at least three lookbacks long."""
    tail = len(part) - 3 * lookback - 3
    return tail > 0 and _first_difference(whole[-tail:], part[-tail:]) is not None


def _known_by_end(window: Window) -> Window:
    """The window without observations that became known after its last candle's end."""
    last = from_micros(int(window.ends[-1]))
    kept = {name: frame.filter(pl.col("known_at") <= last) for name, frame in window.observations.frames.items()}
    return window.observing(kept)


def _recent(each: Feature, window: Window) -> Window:
    """The window with what observations its last row may use: the declared history before the row's end."""
    end = int(window.ends[-1])
    kept = {}
    for name, history in each.observations.items():
        if name in window.observations.frames:
            first = from_micros(end - history // MICROSECOND)
            kept[name] = window.observations.frames[name].filter(pl.col("timestamp") >= first)
    return window.observing(kept)
