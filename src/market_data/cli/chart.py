"""A small price chart for the terminal, in braille dots: two columns and four rows of them per character."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Final

HEIGHT: Final = 7
WIDEST: Final = 100
SPARKS: Final = "▁▂▃▄▅▆▇█"
SPARKS_WIDE: Final = 10
# Bits of a braille character (Unicode 2800) by column and row of its dots.
DOTS: Final = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def price_chart(times: Sequence[datetime], closes: Sequence[float], width: int, height: int = HEIGHT) -> str:
    """Closes over time as text: every column of dots spans the lowest to the highest close of its part of the time.

    Args:
        times: Open times, in order.
        closes: As many prices.
        width: Characters to fill, scale included; at most `WIDEST` are used.
        height: Lines of the chart itself.

    Returns:
        Lines without colours; empty with fewer than two prices or where the terminal has no braille.
    """
    if len(closes) < 2 or not _has_braille():
        return ""
    low, high = min(closes), max(closes)
    labels = {0: f"{high:,.2f}", height // 2: f"{(low + high) / 2:,.2f}", height - 1: f"{low:,.2f}"}
    margin = max(len(label) for label in labels.values())
    columns = max(10, min(width, WIDEST) - margin - 2)
    grid = [[0] * columns for _ in range(height)]
    for x, (least, most) in enumerate(_spans(closes, 2 * columns)):
        for y in range(_row(most, low, high, height), _row(least, low, high, height) + 1):
            grid[y // 4][x // 2] |= DOTS[x % 2][y % 4]
    lines = [
        f"{labels.get(line, ''):>{margin}} ┤" + "".join(chr(0x2800 + dots) for dots in cells).rstrip("\u2800")
        for line, cells in enumerate(grid)
    ]
    return "\n".join([*lines, " " * (margin + 2) + _dates(times, columns)])


def sparkline(closes: Sequence[float], width: int = SPARKS_WIDE) -> str:
    """Closes over time in one line of blocks; empty with fewer than two or where the terminal has no such blocks."""
    if len(closes) < 2 or not _has_braille():
        return ""
    low, high = min(closes), max(closes)
    last = [closes[(part + 1) * len(closes) // width - 1] for part in range(width)]
    steps = len(SPARKS) - 1
    return "".join(SPARKS[round((close - low) / (high - low) * steps) if high > low else steps // 2] for close in last)


def _dates(times: Sequence[datetime], columns: int) -> str:
    """The first, middle and last day, the middle one only where there is room."""
    first, middle, last = (f"{times[place]:%Y-%m-%d}" for place in (0, len(times) // 2, len(times) - 1))
    room = max(1, columns - len(first) - len(last))
    return first + (middle if room > len(middle) + 1 else "").center(room) + last


def _spans(closes: Sequence[float], parts: int) -> list[tuple[float, float]]:
    """(lowest, highest) close of each of `parts` equal parts, joined to the close before it so that lines connect."""
    if len(closes) < parts:
        closes = [_between(closes, part * (len(closes) - 1) / (parts - 1)) for part in range(parts)]
    spans = []
    for part in range(parts):
        begin, end = part * len(closes) // parts, (part + 1) * len(closes) // parts
        inside = closes[max(0, begin - 1) : end]
        spans.append((min(inside), max(inside)))
    return spans


def _between(closes: Sequence[float], place: float) -> float:
    """The close at a place between two, on the straight line that joins them."""
    before = min(int(place), len(closes) - 2)
    return closes[before] + (closes[before + 1] - closes[before]) * (place - before)


def _row(price: float, low: float, high: float, height: int) -> int:
    """The row of dots of a price, 0 at the top."""
    return round((high - price) / (high - low) * (4 * height - 1)) if high > low else 2 * height


def _has_braille() -> bool:
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
