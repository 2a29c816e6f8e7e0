"""The raw price's own jumps: they say whether a split happened, and on which day."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from math import exp, log, sqrt
from statistics import median
from typing import Final

from market_data.model.actions import APART, ActionState, Sessions, Split

NOISES: Final = 5.0
"""A move of so many standard deviations is no noise."""
# Sessions of an instrument that hardly moves, and of one of which too little is known.
QUIET: Final = 0.02
UNKNOWN: Final = 0.04
ENOUGH: Final = 8
# From a standard deviation of a normal variable to its median absolute value.
MEDIAN_TO_DEVIATION: Final = 1.4826
LONGEST_BREAK: Final = 20
"""Prices this many sessions apart say nothing of what happened between."""
OTHER_SIZE: Final = log(1.5)
AROUND: Final = timedelta(days=60)
"""Prices so near a split tell how much the price moves by itself."""


@dataclass(frozen=True, slots=True)
class SessionPrice:
    """First and last price of a session's date, as far as known."""

    date: date
    open: float | None
    close: float | None


@dataclass(frozen=True, slots=True)
class Jump:
    """From the last price of one date to the first of a later one: the log of old over new, over so many sessions."""

    before: date
    after: date
    size: float
    sessions: int

    def spans(self, day: date) -> bool:
        """Whether what happened at the open of a day lies in it."""
        return self.before < day <= self.after


def jumps_of(prices: Iterable[SessionPrice], sessions: Sessions) -> list[Jump]:
    """The jumps between neighbouring dates whose prices are known on both sides."""
    ordered = sorted(prices, key=lambda each: each.date)
    found = []
    for before, after in pairwise(ordered):
        apart = sessions(before.date, after.date)
        if before.close and after.open and apart <= LONGEST_BREAK:
            found.append(Jump(before.date, after.date, log(before.close / after.open), max(apart, 1)))
    return found


def settled(splits: Sequence[Split], prices: Iterable[SessionPrice], sessions: Sessions) -> list[Split]:
    """Splits with date and state as the prices have it.

    A split is confirmed where the price jumps by its ratio within three sessions of a date that is claimed, and takes
    effect there. It is contradicted where the prices around are known and none jumps by about its ratio, unless the
    ratio is no larger than what the price does anyway. Of rivals, told for about the same day, one stays.
    """
    jumps = jumps_of(prices, sessions)
    judged = [_judged(split, jumps, sessions) if split.applies else split for split in splits]
    left = _merged([_against_rivals(split, judged, jumps, sessions) for split in judged])
    return sorted(left, key=_order)


def _merged(splits: Iterable[Split]) -> list[Split]:
    """One jump is one split: claims that it confirms alike are of one event."""
    found: dict[tuple[date, object], Split] = {}
    for split in sorted(splits, key=lambda each: not each.applies):
        first = found.setdefault((split.date, split.ratio), split)
        if first is not split:
            found[split.date, split.ratio] = replace(first, claims=first.claims + split.claims)
    return list(found.values())


def _order(split: Split) -> tuple[date, float]:
    return split.date, float(split.ratio)


def _claimed(split: Split) -> list[date]:
    return sorted({claim.date for claim in split.claims if claim.withdrawn is None}) or [split.date]


def _judged(split: Split, jumps: Sequence[Jump], sessions: Sessions) -> Split:
    days, size = _claimed(split), log(split.ratio)
    near = [jump for jump in jumps if _reaches(jump, days, sessions)]
    around = [jump for jump in jumps if abs(jump.after - split.date) <= AROUND]
    noise = _noise(jump for jump in around if jump not in near)
    if abs(size) <= NOISES * noise:
        return replace(split, reason="smaller than what the price does anyway")
    fitting = [jump for jump in near if _residual(jump, size) <= _tolerance(jump, noise, size)]
    if fitting:
        at_claimed = [jump for jump in fitting if any(jump.spans(day) for day in days)]
        best = min(at_claimed or fitting, key=lambda jump: _residual(jump, size))
        return _confirmed(split, best, days)
    known = all(any(jump.spans(day) for jump in near) for day in days)
    if not known:
        return replace(split, reason="no price on one side of it")
    best = min(near, key=lambda jump: _residual(jump, size))
    if _residual(best, size) <= max(NOISES * noise * sqrt(best.sessions), min(OTHER_SIZE, abs(size) / 2)):
        return replace(split, reason=f"the price changed by {exp(best.size):.4g} at {best.after}")
    told = next(jump for jump in near if jump.spans(split.date))
    moved = (
        f"the price changed by {exp(told.size):.4g} from {told.before} to {told.after}, not by {float(split.ratio):.6g}"
    )
    return replace(split, state=ActionState.CONTRADICTED, reason=moved)


def _confirmed(split: Split, jump: Jump, days: Sequence[date]) -> Split:
    within = [day for day in days if jump.spans(day)]
    day = split.date if split.date in within else within[0] if within else jump.after
    moved = f"told for {split.date}; the price changed at {day}" if day != split.date else None
    return replace(split, date=day, state=ActionState.CONFIRMED, reason=moved)


def _reaches(jump: Jump, days: Sequence[date], sessions: Sessions) -> bool:
    """Whether the jump is within three sessions of the days claimed."""
    late = jump.before >= days[-1] and sessions(days[-1], jump.after) > APART
    early = jump.after < days[0] and sessions(jump.after, days[0]) > APART
    return not late and not early


def _residual(jump: Jump, size: float) -> float:
    return abs(jump.size - size)


def _tolerance(jump: Jump, noise: float, size: float) -> float:
    return min(NOISES * noise * sqrt(jump.sessions), abs(size) / 2)


def _noise(others: Iterable[Jump]) -> float:
    sizes = [abs(jump.size) / sqrt(jump.sessions) for jump in others]
    return max(QUIET, MEDIAN_TO_DEVIATION * median(sizes)) if len(sizes) >= ENOUGH else UNKNOWN


def _against_rivals(split: Split, judged: Sequence[Split], jumps: Sequence[Jump], sessions: Sessions) -> Split:
    if not split.applies:
        return split
    for other in judged:
        if other is split or not other.applies or other.ratio == split.ratio:
            continue
        if _rival(split, other, sessions) and _rank(other, jumps) < _rank(split, jumps):
            why = "as the price did" if other.state is ActionState.CONFIRMED else "as more or earlier claims have it"
            reason = f"{_ratio(other)} took place instead, {why}"
            return replace(split, state=ActionState.CONTRADICTED, reason=reason)
    return split


def _rival(one: Split, other: Split, sessions: Sessions) -> bool:
    """Whether both answer the same question: dates about the same, and no source tells both small ratios."""
    if min(abs(sessions(a, b)) for a in _claimed(one) for b in _claimed(other)) > APART:
        return False
    small = min(abs(log(one.ratio)), abs(log(other.ratio))) <= NOISES * QUIET
    sources = [{claim.source for claim in each.claims if claim.withdrawn is None} for each in (one, other)]
    return not small or not sources[0] & sources[1]


def _rank(split: Split, jumps: Sequence[Jump]) -> tuple[object, ...]:
    """The less, the more is it believed: what the price shows, then how many tell it, then how near the price is."""
    standing = [claim for claim in split.claims if claim.withdrawn is None]
    near = [_residual(jump, log(split.ratio)) for jump in jumps if jump.spans(split.date)]
    return (
        split.state is not ActionState.CONFIRMED,
        min(near, default=0.0),
        -len({claim.source for claim in standing}),
        min((claim.since for claim in standing), default=datetime.max.replace(tzinfo=UTC)),
        _ratio(split),
    )


def _ratio(split: Split) -> str:
    return f"{split.split_to.normalize():f} for {split.split_from.normalize():f}"
