"""Standard output and error as they may be: closed, full, gone with their terminal, or of few letters."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, TextIO

# What every terminal takes as it is, in the middle of text: line breaks and tabs.
_HARMLESS: Final = "\n\t"
# Direction marks can make a terminal show other text than there is.
_DIRECTION: Final = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
LONGEST: Final = 4_000
STDERR: Final = 2


def prepare() -> None:
    """Make both usable: nothing is opened under their numbers, and letters they cannot show are written out."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        continue
    os.close(descriptor)
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # a test's stream, or one already detached
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def finish() -> OSError | None:
    """Write out what is left; the error when standard output takes it no more, and nothing tries again."""
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    try:
        sys.stdout.flush()
    except ValueError:
        return None
    except OSError as error:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


def printable(text: str, most: int = LONGEST) -> str:
    """Text of others as it may go to a terminal: its control characters written out, cut when it is very long."""
    cut = text if len(text) <= most else f"{text[:most]}…"
    if cut.isprintable():
        return cut
    return "".join(_shown(letter) for letter in cut)


def speaks_unicode(stream: TextIO) -> bool:
    """Whether a stream takes every letter."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")


def _shown(letter: str) -> str:
    code = ord(letter)
    if letter in _HARMLESS or (code >= 0xA0 and letter not in _DIRECTION and not 0xD800 <= code <= 0xDFFF):
        return letter
    if 0x20 <= code < 0x7F:
        return letter
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")  # for as long as the program runs
