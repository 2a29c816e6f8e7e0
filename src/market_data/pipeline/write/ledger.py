"""How a write or an audit changes the coverage ledger: pure arithmetic on stretches, the calendar and open times."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from market_data.model.instrument import Series
from market_data.model.session import ALWAYS_OPEN, Grid, grid, lookback_start
from market_data.model.timeframe import TimeRange, from_micros, to_micros
from market_data.storage.series.coverage import State, Stretch

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What happens to an expected candle: its stretch goes on, or it begins a new one.
_KEEP, _FILLED, _FOUND_MISSING, _FOUND_PRESENT = range(4)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Expected candles of a span by state; the four states together are all that are expected."""

    expected: int = 0
    present: int = 0
    no_trade: int = 0
    missing: int = 0
    unrecoverable: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """Which candles of a span were seen.

    Attributes:
        span: What was asked for or looked through.
        opens: Open times seen in it, int64 microseconds, in order.
        source: Who showed them.
        closed_by: Candles that end later are not expected yet.
        now: The moment written into the ledger.
        whole: Whether `opens` is all that is stored in the span; else candles known to be present stay so.
    """

    span: TimeRange
    opens: NDArray[np.int64]
    source: str
    closed_by: datetime
    now: datetime
    whole: bool = False


def revise(series: Series, ledger: Sequence[Stretch], sighting: Sighting) -> list[Stretch]:
    """The ledger after a sighting; equal to `ledger` when it says nothing new.

    What lies between a span and the rest of the ledger is missing: everything from the first to the last candle ever
    asked for is expected.

    Args:
        ledger: the stretches that touch the sighting's span, and the nearest before and after it, in order.
    """
    span = sighting.span
    near = grid(series.asset_class, series.timeframe, TimeRange(_before(series, span.start), _after(series, span.end)))
    first, last = np.searchsorted(near.opens, (to_micros(span.start), to_micros(span.end)))
    last = min(last, np.searchsorted(near.ends, to_micros(sighting.closed_by), side="right"))
    if last <= first:
        return list(ledger)
    here = Grid(near.opens[first:last], near.ends[first:last])
    begin, end = from_micros(here.opens[0]), from_micros(here.ends[-1])
    pieces = [replace(s, end=min(s.end, from_micros(near.ends[first - 1]))) for s in ledger if s.start < begin]
    pieces += _hole(series, pieces[-1].end if pieces else None, begin, sighting.now)
    pieces += _inside(ledger, here, sighting)
    later = [s for s in ledger if s.end > end]
    if later:
        pieces += _hole(series, end, later[0].start, sighting.now)
        pieces += [replace(s, start=max(s.start, from_micros(near.opens[last]))) for s in later]
    return merged(pieces)


def proved_empty(
    series: Series, ledger: Sequence[Stretch], span: TimeRange, proofs: Mapping[int, str], now: datetime
) -> list[Stretch]:
    """The ledger with missing candles of a span turned into no_trade.

    Args:
        ledger: the stretches that touch the span, and the nearest before and after it, in order.
        proofs: by open time in microseconds, each beginning with the source that proved it and a colon.
    """
    near = grid(series.asset_class, series.timeframe, TimeRange(_before(series, span.start), _after(series, span.end)))
    pieces: list[Stretch] = []
    for stretch in ledger:
        first, last = np.searchsorted(near.opens, (to_micros(stretch.start), to_micros(stretch.end)))
        texts = [proofs.get(moment) for moment in near.opens[first:last].tolist()]
        if not any(texts):
            pieces.append(stretch)
            continue
        edges = [first, *(first + i for i in range(1, len(texts)) if texts[i] != texts[i - 1]), last]
        cuts = [replace(stretch, start=from_micros(near.opens[i]), end=from_micros(near.ends[j - 1]))
                for i, j in pairwise(edges)]  # fmt: skip
        # The stretch may reach beyond the span.
        cuts[0] = replace(cuts[0], start=min(cuts[0].start, stretch.start))
        cuts[-1] = replace(cuts[-1], end=max(cuts[-1].end, stretch.end))
        pieces += [_empty(cut, texts[i - first], now) for cut, i in zip(cuts, edges[:-1], strict=True)]
    return merged(pieces)


def before_listing(
    series: Series, gaps: Sequence[Stretch], since: datetime, proof: str, now: datetime
) -> list[Stretch]:
    """Missing stretches with the candles that end by `since` turned into no_trade.

    Args:
        gaps: missing stretches, in order.
        since: when the instrument began to trade.
        proof: begins with the source that proved it and a colon.
    """
    pieces: list[Stretch] = []
    for gap in gaps:
        here = grid(series.asset_class, series.timeframe, gap.span)
        early = int(np.searchsorted(here.ends, to_micros(since), side="right"))
        if early:
            pieces.append(_empty(replace(gap, end=from_micros(here.ends[early - 1])), proof, now))
        if early < len(here):
            pieces.append(replace(gap, start=from_micros(here.opens[early])) if early else gap)
    return pieces


def merged(pieces: Iterable[Stretch]) -> list[Stretch]:
    """Neighbours that tell the same story as one. Between consecutive pieces no candle may be expected."""
    result: list[Stretch] = []
    for piece in pieces:
        if result and _story(result[-1]) == _story(piece):
            last = result[-1]
            tries = [moment for moment in (last.next_try_at, piece.next_try_at) if moment is not None]
            result[-1] = replace(
                last,
                end=piece.end,
                detected_at=min(last.detected_at, piece.detected_at),
                next_try_at=min(tries, default=None),
            )
        else:
            result.append(piece)
    return result


def tally(series: Series, ledger: Sequence[Stretch], span: TimeRange, closed_by: datetime) -> Coverage:
    """Candles expected in a span by state; those outside the ledger were never asked for and count as missing.

    Args:
        ledger: at least the stretches that overlap the span, in order.
    """
    expected = grid(series.asset_class, series.timeframe, span).closed_by(closed_by)
    at = _positions(ledger, expected.opens)
    states = np.array([*(s.state.value for s in ledger), State.MISSING.value])[at]
    counts = {state.value: int((states == state.value).sum()) for state in State}
    return Coverage(expected=len(expected), **counts)


def candles_in(series: Series, stretch: Stretch) -> int:
    """How many expected candles a stretch has."""
    return len(grid(series.asset_class, series.timeframe, stretch.span))


def _inside(ledger: Sequence[Stretch], here: Grid, sighting: Sighting) -> list[Stretch]:
    seen = np.isin(here.opens, sighting.opens)
    at = _positions(ledger, here.opens)
    known = at >= 0
    present = np.array([*(s.state is State.PRESENT for s in ledger), False])[at]
    change = np.where(known, _KEEP, np.where(seen, _FOUND_PRESENT, _FOUND_MISSING))
    change[known & seen & ~present] = _FILLED
    if sighting.whole:
        change[present & ~seen] = _FOUND_MISSING
        at = np.where(change == _FOUND_MISSING, -1, at)
    story = at * 4 + change
    edges = [0, *(np.flatnonzero(np.diff(story)) + 1).tolist(), len(here)]
    return [
        _piece(ledger, int(at[i]), int(change[i]), TimeRange(from_micros(here.opens[i]), from_micros(here.ends[j - 1])),
               sighting)
        for i, j in pairwise(edges)
    ]  # fmt: skip


def _piece(ledger: Sequence[Stretch], at: int, change: int, span: TimeRange, sighting: Sighting) -> Stretch:
    if change == _FOUND_MISSING:
        return _missing(span, sighting.now)
    if change == _FOUND_PRESENT:
        return Stretch(start=span.start, end=span.end, state=State.PRESENT, detected_at=sighting.now)
    old = replace(ledger[at], start=span.start, end=span.end)
    if change == _KEEP:
        return old
    return replace(
        old,
        state=State.PRESENT,
        filled_at=sighting.now,
        filled_by=sighting.source,
        next_try_at=None,
        last_error=None,
    )


def _empty(piece: Stretch, proof: str | None, now: datetime) -> Stretch:
    if proof is None:
        return piece
    source = proof.partition(": ")[0]
    return replace(piece, state=State.NO_TRADE, filled_at=now, filled_by=source, next_try_at=None, last_error=proof)


def _missing(span: TimeRange, now: datetime) -> Stretch:
    return Stretch(start=span.start, end=span.end, state=State.MISSING, detected_at=now, next_try_at=now)


def _hole(series: Series, start: datetime | None, end: datetime, now: datetime) -> list[Stretch]:
    """The candles expected between the end of one stretch and the start of the next, as a missing one."""
    if start is None or start >= end:
        return []
    after = grid(series.asset_class, series.timeframe, TimeRange(start, min(end, _after(series, start)))).opens
    if not len(after):
        return []
    before = grid(series.asset_class, series.timeframe, TimeRange(_before(series, end), end)).ends
    return [_missing(TimeRange(from_micros(after[0]), from_micros(before[-1])), now)]


def _positions(ledger: Sequence[Stretch], opens: NDArray[np.int64]) -> NDArray[np.int64]:
    """Per open time the stretch it lies in, −1 for none."""
    starts = np.array([to_micros(s.start) for s in ledger], np.int64)
    ends = np.array([*(to_micros(s.end) for s in ledger), np.iinfo(np.int64).min], np.int64)
    at = np.searchsorted(starts, opens, side="right") - 1
    positions: NDArray[np.int64] = np.where(opens < ends[at], at, -1)
    return positions


def _story(stretch: Stretch) -> tuple[object, ...]:
    """What two neighbours must share to be written as one; when they were found may differ."""
    if stretch.state is State.MISSING and stretch.tries:
        return (stretch.state, stretch.detected_at, stretch.tries, stretch.next_try_at, stretch.last_error)
    return (stretch.state, stretch.filled_at, stretch.filled_by, stretch.tries, stretch.last_error)


# No market of ours was ever closed for longer.
_LONGEST_CLOSURE: Final = timedelta(days=11)


def _before(series: Series, moment: datetime) -> datetime:
    """Early enough that an expected candle opens in [it, moment)."""
    return lookback_start(series.asset_class, series.timeframe, moment, 1)


def _after(series: Series, moment: datetime) -> datetime:
    """Late enough that an expected candle opens in [moment, it)."""
    closure = timedelta(0) if series.asset_class.calendar == ALWAYS_OPEN else _LONGEST_CLOSURE
    return moment + 2 * series.timeframe.duration + closure
