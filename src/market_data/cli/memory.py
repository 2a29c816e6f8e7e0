"""Memory of a process that serves: few heaps, told to the C library before the first thread needs one."""

from __future__ import annotations

import ctypes
from typing import Final

# Of mallopt(3).
M_ARENA_MAX: Final = -8


def share_heaps() -> None:
    """Let all threads share two heaps, where the C library is GNU's; without effect once a thread was started.

    It would make up to eight for each core, and what a thread of one has freed those of another cannot use: a server
    that streamed millions of rows kept twice the memory.
    """
    try:
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)
    except (OSError, AttributeError):
        # Another C library, with heaps of another kind.
        return
