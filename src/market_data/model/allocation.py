"""Asks the C library to keep freed memory for the next arrays instead of giving it back to the system each time."""

from __future__ import annotations

import ctypes
from typing import Final

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

# What a process keeps at most when its arrays are freed; it keeps no more than it once needed.
KEPT_BYTES: Final = 256 << 20
# The largest that glibc accepts: an array above it is always made of new pages.
LARGEST_KEPT_ARRAY_BYTES: Final = 32 << 20


def keep_freed_memory() -> bool:
    """Have all threads share one heap that keeps what is freed; False where the C library cannot.

    The first touch of a new page costs several times the arithmetic of an array. glibc gives a heap's end back whenever
    it is free, and a thread's own heap as soon as it is empty.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        # Another C library: musl, macOS, Windows.
        return False
    settings = ((_M_ARENA_MAX, 1), (_M_TRIM_THRESHOLD, KEPT_BYTES), (_M_MMAP_THRESHOLD, LARGEST_KEPT_ARRAY_BYTES))
    done = [mallopt(option, value) for option, value in settings]
    return all(done)
