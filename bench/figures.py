"""One measured figure, how things are timed side by side, and what a median of such turns is worth."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb

RUNS = 5
# Time of the machine's own: on a slow or busy one it says nothing of the program.
ABSOLUTE_UNITS = frozenset({"s", "ms", "us", "k rows/s", "M rows/s", "candles/s"})
_TARGET = re.compile(r"(?P<sign><=|>=|<|>)?\s*(?P<bound>[\d.]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure as it goes into results.json.

    Attributes:
        target: what it should reach, in words or as a number with a sign: ">= 0.8".
        peer: what it is compared with, None when it stands alone.
        detail: how it came about: rows, times, medians of how many runs.
        spread: from where to where the median lies with 95 % confidence, or the turns where they are too few for that.
    """

    name: str
    value: float
    unit: str
    target: str
    peer: str | None = None
    detail: str = ""
    spread: tuple[float, float] | None = None

    def verdict(self, *, calm: bool) -> str:
        """`met`, `missed`, or why it is not judged.

        Args:
            calm: whether the machine was as quick as it can be; else only ratios and counts say something.
        """
        found = _TARGET.fullmatch(self.target.strip())
        if found is None:
            return ""
        if not calm and self.unit in ABSOLUTE_UNITS:
            return "not judged"
        bound, value = float(found["bound"]), self.value
        met = {"<=": value <= bound, ">=": value >= bound, "<": value < bound, ">": value > bound}
        return "met" if met.get(found["sign"] or "", value == bound) else "missed"


class Timings(dict[str, float]):
    """Median seconds by contender, and the turns they are of."""

    def __init__(self, turns: Mapping[str, Sequence[float]]) -> None:
        super().__init__({name: statistics.median(taken) for name, taken in turns.items()})
        self.turns = turns

    def ratios(self, above: str, below: str) -> list[float]:
        """Seconds of one contender over those of another, turn by turn."""
        return [a / b for a, b in zip(self.turns[above], self.turns[below], strict=True)]

    def ratio(self, above: str, below: str) -> tuple[float, tuple[float, float]]:
        """The median of `ratios`, and where it lies."""
        ratios = self.ratios(above, below)
        return statistics.median(ratios), interval(ratios)


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Where the median lies with that confidence, by order statistics; the extremes when the values are too few.

    Source: the number of values below the median is binomial with p = 1/2.
    """
    ordered, count = sorted(values), len(values)
    tail, skip = 0.0, 0
    while skip < count // 2:
        tail += comb(count, skip) / 2**count
        if 2 * tail > 1 - confidence:
            break
        skip += 1
    left_out = max(0, skip - 1)
    return ordered[left_out], ordered[count - 1 - left_out]


def side_by_side(
    contenders: Mapping[str, Callable[[], object]],
    *,
    runs: int = RUNS,
    before: Callable[[str], object] = lambda _: None,
) -> Timings:
    """Times contenders in turns, so that a slow moment of the machine hits all of them.

    Args:
        before: called with the contender's name before each of its runs, not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(runs):
        # Forwards and backwards: none is always the one after the other.
        for name in list(contenders)[:: 1 if turn % 2 == 0 else -1]:
            before(name)
            started = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - started)
    return Timings(seconds)
