"""Numbers that look random and depend only on (seed, time, lane), so that any piece of history can be asked alone."""

from __future__ import annotations

from hashlib import blake2b
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Float: TypeAlias = NDArray[np.float64]

# Constants of SplitMix64 (Steele, Lea, Flood 2014): a counter hashed twice passes the usual test batteries.
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_LOW_16 = np.uint64(0xFFFF)


def seed_of(*parts: object) -> int:
    """A 63-bit seed from anything that prints: the run's seed, a symbol, a purpose."""
    return int.from_bytes(blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest(), "big") >> 1


def _bits(seed: int, time: NDArray[np.int64], lane: int) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        word = time.astype(np.uint64) * _GAMMA + np.uint64(seed) + np.uint64(lane) * _MIX_2
        word = (word ^ (word >> np.uint64(30))) * _MIX_1
        word = (word ^ (word >> np.uint64(27))) * _MIX_2
        word ^= word >> np.uint64(31)
        word = (word + _GAMMA) * _MIX_1
        return word ^ (word >> np.uint64(29))


def uniform(seed: int, time: NDArray[np.int64], lane: int) -> Float:
    """In [0, 1), one per time."""
    return (_bits(seed, time, lane) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(seed: int, time: NDArray[np.int64], lane: int) -> Float:
    """Mean 0, deviation 1, within ±3.5: a sum of four uniforms, the same on every machine, which a logarithm is not."""
    word = _bits(seed, time, lane)
    total = (word & _LOW_16).astype(np.float64)
    for shift in (16, 32, 48):
        total += ((word >> np.uint64(shift)) & _LOW_16).astype(np.float64)
    return np.multiply(total / 65536.0 - 2.0, np.sqrt(3.0))
