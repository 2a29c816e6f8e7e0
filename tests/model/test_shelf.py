"""What is declared is found: in packages, entry points and files of the user's own."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from market_data import providers, rules, shelf
from market_data.model.errors import ConfigError
from market_data.model.provider import Provider
from market_data.model.rule import Rule

RULE = '''"""A shelf's module."""
import polars as pl
from market_data.model.rule import Severity, rule

@rule(Severity.NOTE)
def {name}() -> pl.Expr:
    """Fine."""
    return pl.col("close") > 0
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An importable empty package `planted`."""
    folder = tmp_path / "planted"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""A shelf."""\n')
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "planted"]:
        del sys.modules[name]


def imported() -> ModuleType:
    __import__("planted")
    return sys.modules["planted"]


def test_items_are_found_at_any_depth(package: Path) -> None:
    (package / "one.py").write_text(RULE.format(name="first"))
    (package / "inner").mkdir()
    (package / "inner" / "__init__.py").write_text(RULE.format(name="second"))
    (package / "inner" / "three.py").write_text(RULE.format(name="third"))
    assert set(shelf.collect(imported(), Rule)) == {"first", "second", "third"}


def test_an_item_imported_twice_is_one(package: Path) -> None:
    (package / "one.py").write_text(RULE.format(name="first"))
    (package / "two.py").write_text("from planted.one import first\nalias = first\n")
    assert list(shelf.collect(imported(), Rule)) == ["first"]


def test_two_items_of_one_name_are_refused(package: Path) -> None:
    (package / "one.py").write_text(RULE.format(name="first"))
    (package / "two.py").write_text(RULE.format(name="first"))
    with pytest.raises(ConfigError, match="two Rules are named 'first'"):
        shelf.collect(imported(), Rule)


def test_entry_points_are_found(package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "third_party_rules.py").write_text(RULE.format(name="theirs"))
    installed = EntryPoint("theirs", "third_party_rules", "planted")
    monkeypatch.setattr(shelf, "entry_points", lambda *, group: [installed] if group == installed.group else [])
    assert list(shelf.collect(imported(), Rule)) == ["theirs"]
    sys.modules.pop("third_party_rules")


def test_a_file_of_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(RULE.format(name="mine"))
    assert list(shelf.collect_file(path, Rule)) == ["mine"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("import no_such_module", "ModuleNotFoundError"),
        ("1 +", "line 1: invalid syntax"),
        ("raise ValueError('no')", "no"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"mine\.py cannot be imported: .*{complaint}"):
        shelf.collect_file(path, Rule)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere.py is not a Python file"):
        shelf.collect_file(tmp_path / "nowhere.py", Rule)
    (tmp_path / "notes.txt").write_text("no Python")
    with pytest.raises(ConfigError, match=r"notes.txt is not a Python file"):
        shelf.collect_file(tmp_path / "notes.txt", Rule)


def test_the_three_providers_are_found() -> None:
    assert {"binance", "polygon", "yahoo"} <= set(shelf.collect_classes(providers, Provider))  # type: ignore[type-abstract]


def test_names_are_those_of_the_items() -> None:
    assert all(name == item.name for name, item in shelf.collect(rules, Rule).items())
