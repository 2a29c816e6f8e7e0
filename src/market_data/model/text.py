"""Text from elsewhere made safe to print, log and store: short, on one line, nothing but printable characters."""

from __future__ import annotations

from typing import Final

LONGEST_TEXT: Final = 300


def cleaned(text: str, longest: int = LONGEST_TEXT) -> str:
    """The text on one line without control characters, terminal escapes and lone surrogates, cut with an ellipsis."""
    # Only what may be kept is looked at: a source may send megabytes.
    start = " ".join(text[: 8 * longest].split())
    printable = "".join(letter for letter in start if letter.isprintable())
    cut = len(printable) > longest or len(text) > 8 * longest
    return f"{printable[: longest - 1]}…" if cut else printable
