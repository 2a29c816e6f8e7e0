"""One measured figure, and how things are timed side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

RUNS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure as it goes into results.json.

    Attributes:
        target: what it should reach, in words or as a number with a sign: ">= 0.8".
        peer: what it is compared with, None when it stands alone.
        detail: how it came about: rows, times, medians of how many runs.
    """

    name: str
    value: float
    unit: str
    target: str
    peer: str | None = None
    detail: str = ""


def side_by_side(
    contenders: Mapping[str, Callable[[], object]],
    *,
    runs: int = RUNS,
    before: Callable[[str], object] = lambda _: None,
) -> dict[str, float]:
    """Median seconds of each contender, taking turns so that a slow moment of the machine hits all of them.

    Args:
        before: called with the contender's name before each of its runs, not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name, contender in contenders.items():
            before(name)
            started = time.perf_counter()
            contender()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken) for name, taken in seconds.items()}
