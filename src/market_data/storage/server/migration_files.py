"""The SQL files of the migrations: which there are, and the tables and columns they declare."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / "migrations"
_TABLE: Final = re.compile(r"^CREATE TABLE (?P<name>\w+) \((?P<body>.*?)^\)", re.MULTILINE | re.DOTALL)
_COLUMN: Final = re.compile(r"^    (?P<name>[a-z]\w*) [a-z]", re.MULTILINE)
_ALTERED: Final = re.compile(r"^ALTER TABLE (?P<table>\w+) (?P<how>ADD|DROP) COLUMN (?P<name>\w+)", re.MULTILINE)


# Columns of market_data_v2 that a shelf declares rather than a file: the features, by name their type.
_FEATURES: Final[dict[str, str]] = {}


def declare_features(types: Mapping[str, str]) -> None:
    """Say which columns of market_data_v2 the program's features are, by name their type in PostgreSQL."""
    _FEATURES.update(types)


def feature_columns() -> dict[str, str]:
    """The features whose columns no SQL file declares: an upgrade adds them."""
    filed = _declared_in_files()["market_data_v2"]
    return {name: kind for name, kind in _FEATURES.items() if name not in filed}


def known_revisions() -> tuple[str, ...]:
    """Identifiers of the revisions this program brings, oldest first: 0001, 0002 and so on."""
    return tuple(number for number, _ in numbered_files())


def numbered_files() -> list[tuple[str, Path]]:
    """The files with their identifiers, oldest first."""
    return [(path.stem[1:].split("_")[0], path) for path in sorted(FOLDER.glob("v*.sql"))]


def declared_columns() -> dict[str, set[str]]:
    """Columns by table as the SQL files and the features declare them."""
    columns = {table: set(names) for table, names in _declared_in_files().items()}
    columns["market_data_v2"] |= _FEATURES.keys()
    return columns


def present_columns() -> frozenset[str]:
    """The columns of market_data_v2: what has another name is a feature of the user's own."""
    return frozenset(_declared_in_files()["market_data_v2"] | _FEATURES.keys())


@cache
def _declared_in_files() -> dict[str, set[str]]:
    """Columns by table as the SQL files declare them.

    The files are written for this: CREATE TABLE and its closing parenthesis at the margin, one column per line,
    indented by four spaces, names and types in lower case; later changes by one ALTER TABLE … ADD COLUMN or DROP COLUMN
    per line.
    """
    columns: dict[str, set[str]] = {}
    for _, path in numbered_files():
        text = path.read_text(encoding="utf-8")
        for table in _TABLE.finditer(text):
            columns[table["name"]] = {column["name"] for column in _COLUMN.finditer(table["body"])}
        for altered in _ALTERED.finditer(text):
            known = columns[altered["table"]]
            (known.add if altered["how"] == "ADD" else known.discard)(altered["name"])
    return columns
