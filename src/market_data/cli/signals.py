"""What ends the program in good order: Ctrl-C, SIGTERM, and the terminal that closes."""

from __future__ import annotations

import signal
import threading
from typing import Final

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stopping() -> tuple[signal.Signals, ...]:
    """The signals that end it; one that whoever started us told us to ignore, as nohup does, stays ignored."""
    return tuple(number for number in _STOPPING if signal.getsignal(number) is not signal.SIG_IGN)


def unwind_on_signals() -> None:
    """Let each of them end the program as Ctrl-C does: what is open is closed, and no server stays behind."""
    if threading.current_thread() is threading.main_thread():
        for number in stopping():
            signal.signal(number, signal.default_int_handler)
