"""Each guide to adding something is followed in a copy of the project, which counts the files it touched.

A block after `<!-- in FILE -->` becomes that file; one after `<!-- at the end of FILE -->` is added to it, one after
`<!-- before `LINE` in FILE -->` stands before the line that begins so. What a guide promises is then tried: the program
with the new thing, and the tests that find it by themselves.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", ".cache", "site", "results*"
)
BLOCK = re.compile(
    r"^ *<!-- (?P<how>in|at the end of|before `(?P<line>[^`]+)` in) (?P<file>\S+) -->\n *```\w+\n(?P<text>.*?)^ *```",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Project:
    """A copy of the project in which a guide was followed."""

    folder: Path
    touched: list[str]

    def run(self, *arguments: str) -> str:
        """Run Python in the copy.

        Returns:
            what it printed.
        """
        environ = os.environ | {"PYTHONPATH": str(self.folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        return done.stdout

    def tests(self, *selection: str) -> None:
        """Run tests of the copy; they must pass, and there must be some."""
        assert " passed" in self.run("-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *selection)


Follow = Callable[[str], Project]


@pytest.fixture
def follow(tmp_path: Path) -> Follow:
    """Follows a guide in a copy of the project."""

    def followed(guide: str) -> Project:
        folder = tmp_path / "project"
        shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
        touched = []
        for block in BLOCK.finditer((ROOT / "docs" / "howto" / f"{guide}.md").read_text(encoding="utf-8")):
            path, text = folder / block["file"], textwrap.dedent(block["text"])
            assert (block["how"] == "in") is not path.exists(), f"{block['file']} is there already, or not yet"
            path.parent.mkdir(parents=True, exist_ok=True)
            old = path.read_text(encoding="utf-8") if path.exists() else ""
            if block["line"]:
                before, found, after = old.partition(f"\n{block['line']}")
                assert found, f"{block['file']} has no line that begins with {block['line']}"
                margin = re.match(r" *", block["line"])
                assert margin
                new = f"{before}\n{textwrap.indent(text, margin[0])}\n{found[1:]}{after}"
            else:
                new = f"{old}\n\n{text}" if old else text
            path.write_text(new, encoding="utf-8")
            touched.append(block["file"])
        return Project(folder, sorted(set(touched)))

    return followed


def test_a_feature_takes_a_function_and_an_example(follow: Follow) -> None:
    project = follow("add-a-feature")
    assert len(project.touched) == 2
    assert 'ADD COLUMN IF NOT EXISTS "sma_10" double precision' in project.run("-m", "market_data", "db", "sql")
    assert '"sma_10"' in project.run("-m", "market_data", "openapi")
    project.tests(
        "tests/features/test_worked_examples.py::test_the_mean_of_ten_closes",
        "tests/storage/test_migrations.py::test_the_verification_knows_every_column",
    )


def test_a_rule_takes_a_function_and_a_row_that_breaks_it(follow: Follow) -> None:
    project = follow("add-a-rule")
    assert len(project.touched) == 2
    project.tests(
        "tests/rules/test_width.py",
        "tests/rules/test_rules.py",
        "tests/laws/test_rule_laws.py",
        "-k",
        "width or wide or named",
    )


def test_a_dataset_takes_its_declaration_and_a_migration(follow: Follow) -> None:
    project = follow("add-a-dataset")
    assert len(project.touched) == 2
    assert "CREATE TABLE basis (" in project.run("-m", "market_data", "db", "sql")
    assert "/api/v1/market/basis/{symbol}" in project.run("-m", "market_data", "openapi")
    project.tests("tests/storage/test_facts.py", "tests/model/test_dataset.py", "tests/doors/api/test_api_datasets.py")


def test_a_provider_takes_a_file_and_its_other_side(follow: Follow) -> None:
    project = follow("add-a-provider")
    assert project.touched == ["src/market_data/providers/example.py", "tests/providers/example/fake.py"]
    project.tests("tests/laws/test_provider_laws.py", "-k", "example")
    # Asked without being named anywhere: last of those who serve coins.
    asked = "from market_data.bootstrap.shelves import *; from market_data.config import load_settings; "
    asked += "settings = load_settings(environ={}); found, _ = open_providers(settings); "
    asked += "print([each.name for each in list(by_priority(settings, found).values())[-1]])"
    assert project.run("-c", asked).strip() == "['binance', 'polygon', 'yahoo', 'example']"


def test_a_setting_takes_a_field(follow: Follow) -> None:
    project = follow("add-a-setting")
    assert project.touched == ["src/market_data/config/settings.py"]
    read = "from market_data.config import load_settings; print(load_settings(environ={}).api.greeting_seconds)"
    assert project.run("-c", read).strip() == "5.0"
    given = read.replace("environ={}", "environ={'MARKET_DATA__API__GREETING_SECONDS': '7'}")
    assert project.run("-c", given).strip() == "7.0"
    page = "import sys; sys.path.insert(0, 'tools'); from reference.settings import settings_page; "
    assert "MARKET_DATA__API__GREETING_SECONDS" in project.run("-c", page + "print(settings_page())")


def test_an_endpoint_takes_a_function(follow: Follow) -> None:
    project = follow("add-an-endpoint")
    assert len(project.touched) == 1
    assert "/api/v1/data/stored/{symbol}" in project.run("-m", "market_data", "openapi")
    project.tests("tests/doors/api/test_api_contract.py", "-k", "stored")


@pytest.mark.prove
@pytest.mark.parametrize("guide", ["add-a-feature", "add-a-rule", "add-a-dataset", "add-a-provider", "add-an-endpoint"])
def test_with_what_was_added_the_whole_project_holds(follow: Follow, guide: str) -> None:
    project = follow(guide)
    project.run("-m", "ruff", "check", "--quiet", "src")
    for tool in ("reference", "alert_rules", "dashboard"):
        project.run(f"tools/write_{tool}.py")
    project.tests("--ignore=tests/recipes", "tests")
