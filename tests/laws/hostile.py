"""Hostile answers: what a source sends, changed in one place or several as no honest source would."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

NASTY: list[Any] = [
    None, True, False, "", " ", "x", "\x00", "a\x00b", "\ud800", "\udfff\ud800", "\x1b[31mred\x1b[0m", "\x1b]0;t\x07",
    "\u202e\u2066", "\r\n\t", "²", "١٢", "0", "-1", -1, 0, 1, 10**30, -(10**30), 2**63, -(2**63) - 1, 0.1, 1e-19, 1e308,
    "1e999999", "-1e-999999", "NaN", "Infinity", "0.1234567890123456789012", "9" * 400, "0" * 70, "1_000", "0x10", "+5",
    "0000-00-00", "9999-12-31", "10000-01-01", "2024-02-30", "1600-01-01", "1970-01-01T00:00:00Z",
    "2024-01-01T25:61:61Z", "+262143-12-31T23:59:59Z", "2024-13-01", [], {}, [[]], {"": {}}, [None], ["\ud800"],
    [1, "a", None], {"raw": "x"}, "A" * 5000, "../../etc/passwd", "http://[::1", "[x](javascript:1)", "Europe",
    "Mars/Base", "..",
]  # fmt: skip
HEADERS: list[tuple[str, str]] = [
    ("Date", "²"), ("Date", "Wed, 99 Foo 99999 99:99:99 GMT"), ("Date", "Mon, 01 Jan 0001 00:00:00 +2359"),
    ("Retry-After", "²"), ("Retry-After", "9" * 400), ("Retry-After", "-1"), ("Retry-After", "1e9"),
    ("x-mbx-used-weight-1m", "²"), ("x-mbx-used-weight-1m", "9" * 400), ("Location", "http://[::1"),
    ("Content-Type", "\x1b[2J"), ("Location", "//"), ("Content-Encoding", "gzip"),
]  # fmt: skip
ADDED = (b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\x1b[2J", b"[" * 2000, b'"', b"\n", b",", b"-", b"9" * 30)
STATUSES = [200, 204, 206, 301, 302, 400, 401, 403, 404, 408, 413, 418, 422, 429, 451, 499, 500, 503, 999]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything within a JSON value."""
    found = [path] if path else []
    if isinstance(value, dict):
        return found + [each for name, held in value.items() for each in places(held, (*path, name))]
    if isinstance(value, list):
        some = range(len(value)) if len(value) < 12 else (0, 1, len(value) // 2, len(value) - 1)
        return found + [each for number in some for each in places(value[number], (*path, number))]
    return found


def changed_json(body: bytes, dice: random.Random) -> bytes:
    """A JSON body with one place changed: its value, its name, its number."""
    try:
        value = json.loads(body)
    except ValueError:
        return changed_bytes(body, dice)
    where = places(value)
    if not where:
        return json.dumps(dice.choice(NASTY)).encode()
    value = copy.deepcopy(value)
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        *path, last = dice.choice(where)
        try:
            held = value
            for step in path:
                held = held[step]
            _change(held, last, dice)
        except (LookupError, TypeError):
            continue
    text = json.dumps(value)
    if dice.random() < 0.1:
        text = text.replace(": ", dice.choice((': NaN, "x": ', ': 1e99999, "x": ', ":\u00a0", ": 01")), 1)
    return text.encode()


def _change(held: Any, last: Any, dice: random.Random) -> None:
    how = dice.randrange(5)
    if how == 0:
        del held[last]
    elif how == 1 and isinstance(held, list):
        held.insert(dice.randrange(len(held) + 1), copy.deepcopy(held[last]))
    elif how == 2 and isinstance(held, dict):
        held[str(dice.choice(NASTY))[:50]] = held.pop(last)
    elif how == 3 and isinstance(held, list):
        held[last], held[0] = held[0], held[last]
    else:
        held[last] = copy.deepcopy(dice.choice(NASTY))


def changed_bytes(body: bytes, dice: random.Random) -> bytes:
    """A body with some of its bytes changed, lost, repeated or added."""
    at = dice.randrange(len(body) + 1)
    until = min(len(body), at + dice.choice((1, 2, 8, 100)))
    added = dice.choice(
        (b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\x1b[2J", b"[" * 2000, b'"', b"\n", b",", b"-", b"9" * 30)
    )
    return dice.choice(
        (
            body[:at],
            body[:at] + body[until:],
            body[:at] + added + body[at:],
            body[:at] + added + body[until:],
            body[:until] + body[at:],
            bytes(body[:at]) + bytes(255 - byte for byte in body[at:until]) + body[until:],
            body.decode("utf-8", "replace").encode("utf-16"),
            b"\xef\xbb\xbf" + body,
            b"",
            b"[" * 100_000,
            b'{"a":' * 5_000,
        )
    )


def changed_lines(text: bytes, dice: random.Random) -> bytes:
    """A table with a cell, a line or some bytes changed."""
    lines = text.decode("utf-8", "replace").split("\n")
    if dice.random() < 0.3 or len(lines) < 2:
        return changed_bytes(text, dice)
    for _ in range(dice.choice((1, 1, 3))):
        number = dice.randrange(len(lines))
        cells = lines[number].split(",")
        cells[dice.randrange(len(cells))] = str(dice.choice(NASTY))
        lines[number] = dice.choice(
            (",".join(cells), ",".join(cells[:-1]), "", lines[number] + ",,,", lines[number] * 2)
        )
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def changed(body: bytes, dice: random.Random) -> bytes:
    """Any of these changes."""
    return (changed_bytes if dice.random() < 0.25 else changed_json)(body, dice)
