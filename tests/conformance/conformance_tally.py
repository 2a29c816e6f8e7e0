"""What was compared with what was recorded: values counted, one by one, by source and kind of answer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import polars as pl

MOST_SHOWN = 5
# More digits than any number recorded has; the place our exact columns end at.
EXACTLY, SMALLEST = Context(prec=60), Decimal(1).scaleb(-18)
Row = Mapping[str, Any]


@dataclass
class Tally:
    """Values of one kind of answer; `differing` names those that are not as recorded."""

    what: str
    files: int = 0
    rows: int = 0
    values: int = 0
    differing: list[str] = field(default_factory=list)

    def compare(self, where: str, found: pl.DataFrame | Sequence[Row], expected: Sequence[Row]) -> None:
        """Count every value of `expected` against the row of `found` in its place; other columns are not looked at."""
        rows: Sequence[Row] = found.to_dicts() if isinstance(found, pl.DataFrame) else found
        self.files += 1
        self.rows += len(expected)
        if len(rows) != len(expected):
            self.differing.append(f"{where}: {len(rows)} rows where {len(expected)} are recorded")
        for number, (got, want) in enumerate(zip(rows, expected, strict=False)):
            for name, value in want.items():
                self.values += 1
                if not same(got.get(name), value):
                    self.differing.append(f"{where}, row {number}: {name} is {got.get(name)!r}, recorded {value!r}")

    def say(self, where: str, found: object, expected: object) -> None:
        """Count one value."""
        self.values += 1
        if not same(found, expected):
            self.differing.append(f"{where}: {found!r}, recorded {expected!r}")


def same(found: Any, recorded: Any) -> bool:
    """Equal to the last digit, of which we keep 18 after the point; a double is the one nearest to those recorded."""
    if isinstance(found, float) and isinstance(recorded, (Decimal, int, str)):
        return found == float(recorded)
    if isinstance(found, Decimal) and isinstance(recorded, (Decimal, str)):
        return found == EXACTLY.quantize(Decimal(recorded), SMALLEST)
    return bool(found == recorded)


def decoded(text: str | bytes) -> Any:
    """JSON read by the standard library alone, fractions as decimals: the other opinion on what was recorded."""
    return json.loads(text, parse_float=Decimal)


def inner(text: str, key: str) -> str:
    """The text of a field's value, so that no digit changes on the way."""
    at = text.index(f'"{key}"') + len(key) + 2
    value = text[at:].split(":", 1)[1].lstrip()
    return value[: json.JSONDecoder().raw_decode(value)[1]]


def moment(value: Any, per_second: int = 1000) -> datetime:
    """A count since 1970 as a moment, to the microsecond below."""
    micros = int(value) * 1_000_000 // per_second
    return datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000)


def files(folder: Path, *patterns: str) -> Iterable[Path]:
    """Recordings by name, hand-made ones left out."""
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if ".fake." not in path.name)
