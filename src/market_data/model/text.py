"""Text from elsewhere made safe to print, log and store: cut to a length, without anything that steers a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

# What a source says of an article may be long; what is longer than this is no text anybody reads here.
LONGEST_KEPT: Final = 20_000
LONGEST_MESSAGE: Final = 2_000
LONGEST_TEXT: Final = 300
# What is deeper in a value than there is room for this many characters is not shown.
SHORTEST: Final = 10
REPLACEMENT: Final = "\ufffd"
# Control characters but for tab and line feed, marks that turn the direction of text, halves of surrogate pairs.
_HARMFUL: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_ELLIPSIS: Final = "…"
QUOTES: Final = "\"'`“”‘’"


def cleaned(text: str, longest: int = LONGEST_TEXT) -> str:
    """The text on one line without control characters, terminal escapes and lone surrogates, cut with an ellipsis."""
    # Only what may be kept is looked at: a source may send megabytes.
    start = " ".join(text[: 8 * longest].split())
    printable = "".join(letter for letter in start if letter.isprintable())
    cut = len(printable) > longest or len(text) > 8 * longest
    return f"{printable[: longest - 1]}…" if cut else printable


def kept(text: str, longest: int = LONGEST_KEPT) -> str:
    """`text` with every harmful character replaced, and cut where it is longer than `longest`."""
    if len(text) > longest:
        text = text[: longest - 1] + _ELLIPSIS
    return text if text.isascii() and text.isprintable() else _HARMFUL.sub(REPLACEMENT, text.replace("\r\n", "\n"))


def kept_within(value: Any) -> Any:
    """What JSON says, every text and name in it cleaned."""
    if isinstance(value, str):
        return kept(value)
    if isinstance(value, dict):
        return {kept(str(name)): kept_within(each) for name, each in value.items()}
    return [kept_within(each) for each in value] if isinstance(value, list) else value


def shown(value: object, longest: int = 200) -> str:
    """A value of a source on one line for a message: what is large or deep is not written out first."""
    if isinstance(value, str):
        return repr(kept(value, longest))
    if isinstance(value, dict | list | tuple) and longest < SHORTEST:
        return _ELLIPSIS
    if isinstance(value, dict):
        each = longest // 3
        return _members("{}", (f"{shown(name, each)}: {shown(held, each)}" for name, held in value.items()), longest)
    if isinstance(value, list | tuple):
        return _members("[]", (shown(held, longest // 2) for held in value), longest)
    return kept(repr(value), longest)


def _members(brackets: str, members: Iterable[str], longest: int) -> str:
    written = brackets[0]
    for member in members:
        if len(written) + len(member) > longest:
            return f"{written}{_ELLIPSIS}{brackets[1]}"
        written += ("" if written == brackets[0] else ", ") + member
    return written + brackets[1]


def fault_of_key(key: str) -> str | None:
    """What is wrong with a key that is to travel in a header, None when nothing is; never with the key itself."""
    if key[:1] in QUOTES or key[-1:] in QUOTES:
        return "the key is wrapped in quotes: leave them out"
    if any(letter.isspace() or not letter.isprintable() for letter in key):
        return "the key holds a blank, a line break or a control character: was more copied than the key?"
    if not key.isascii():
        return "the key holds a letter beyond ASCII: was it copied from formatted text?"
    return None
