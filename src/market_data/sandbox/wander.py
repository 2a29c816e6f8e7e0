"""A curve that wanders within bounds and can be asked at any moment alone."""

from __future__ import annotations

import numpy as np

from market_data.sandbox.block import DAY, HOUR, MINUTE, Int
from market_data.sandbox.noise import Float, normal

# Length of a wave and its part in the whole.
OCTAVES = ((21 * DAY, 0.6), (4 * DAY, 0.5), (16 * HOUR, 0.4), (3 * HOUR, 0.3), (20 * MINUTE, 0.15))


def wander(seed: int, time: Int, lane: int) -> Float:
    """Mean 0, deviation about 0.7, within ±7: waves between random heights at fixed moments, five lengths added."""
    total = np.zeros(len(time))
    for octave, (length, part) in enumerate(OCTAVES):
        knot = time // length
        here = normal(seed, knot, lane * 16 + octave)
        there = normal(seed, knot + 1, lane * 16 + octave)
        done = (time - knot * length) / length
        total += part * (here + (there - here) * done * done * (3 - 2 * done))
    return total
