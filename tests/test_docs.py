"""Documentation names what exists and everything that exists: links, commands, targets, settings, shelves."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import typer

from market_data.cli.app import app
from market_data.config import PLAIN_NAMES

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text()
every_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def commands() -> set[str]:
    group = typer.main.get_command(app)
    return set(group.commands)


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@every_page
def test_a_page_has_one_title(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    assert len(re.findall(r"^# ", text, flags=re.MULTILINE)) == 1


@every_page
def test_named_targets_and_commands_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    shown = "\n".join(code(page))
    lines = re.findall(r"^(?:\$ )?make ([a-z -]+)", shown, flags=re.MULTILINE)
    made = {name for line in lines for name in line.split()}
    assert made <= targets
    asked = set(re.findall(r"market-data (?:--sandbox )?([a-z]+)", shown))
    assert asked <= commands()


def code(page: Path) -> list[str]:
    """Shell lines and inline code of a page."""
    text = page.read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, flags=re.DOTALL)
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    lines = [line.partition("#")[0].rstrip() for block in blocks for line in block.splitlines()]
    return [*lines, *inline]


def test_the_readme_names_every_command() -> None:
    unnamed = {name for name in commands() if not re.search(rf"market-data {name}\b", README)}
    assert not unnamed


def test_the_readme_names_the_plain_settings_of_this_version() -> None:
    named = {name for name in re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", README) if "__" not in name}
    assert named <= set(PLAIN_NAMES)


def test_decisions_are_numbered_without_repetition() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs" / "decisions").glob("0*.md")]
    assert len(numbers) == len(set(numbers))
    for path in (ROOT / "docs" / "decisions").glob("0*.md"):
        assert re.match(rf"# {int(path.name[:4])}\. \S", path.read_text()), path.name


def test_every_decision_names_the_tests_that_hold_it() -> None:
    for path in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        held = re.search(r"^(?:\*\*)?Held by(?:\*\*)? (.*?)\.$", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        assert held, f"{path.name} names no test: end it with **Held by** `tests/….py`."
        named = re.findall(r"`([^`]+)`", held[1])
        assert named
        for name in named:
            file, _, test = name.partition("::")
            assert (ROOT / file).is_file(), f"{path.name} names {file}, which there is not"
            assert not test or f"def {test}" in (ROOT / file).read_text(), f"{path.name}: {file} has no {test}"


def test_architecture_says_where_everything_is() -> None:
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    places = set(re.findall(r"^\| [^|]+ \| `([^`]+)` \|$", text, flags=re.MULTILINE))
    source = ROOT / "src" / "market_data"
    assert len(places) > 30
    assert [place for place in places if not (source / place).exists()] == []
    rooms = {f"{path.parent.relative_to(source)}/" for path in source.rglob("__init__.py") if path.parent != source}
    # A room is found when it or something in it is; a provider is found on its shelf.
    shelf = {room for room in rooms if room.startswith("providers/")} - {"providers/"}
    assert {room for room in rooms - shelf if not any(place.startswith(room) for place in places)} == set()


def test_pins_name_versions_and_no_places() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9A-Za-z.]+", pin)] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {normal(re.split(r"[\[>=<; ]", line)[0]) for line in [*project["dependencies"], *extras["dev"]]}
    assert wanted <= {normal(pin.partition("==")[0]) for pin in pins}


def test_the_drawing_of_the_architecture_has_every_package() -> None:
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    drawing = text.split("```")[1]
    drawn = set(re.findall(r"\b[a-z]+\b", drawing))
    there = {
        path.stem
        for path in (ROOT / "src" / "market_data").iterdir()
        if path.name[0] not in "_." and path.suffix != ".typed"
    }
    assert there <= drawn
    absent = re.search(r"not\nthere yet \(([^)]*)\)", text)
    assert absent
    assert not there & set(absent[1].split(", "))


FIGURE = re.compile(r"(?<![\w.])(\d[\d,.]*\d|\d)\s?(ms|µs|s|seconds|MB|MiB|GB|×|k rows/s|M rows/s|rows/s)(?![\w/])")


def quoted_figures(text: str) -> list[float]:
    """Numbers with a unit of speed, size or ratio in running text; blocks of code show output, not claims."""
    running = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [float(number.replace(",", "")) for number, _ in FIGURE.findall(running)]


def measured(results: dict[str, dict[str, object]], figure: float) -> bool:
    """Whether some result, rounded as the figure is, is that figure."""
    digits = len(str(figure).rstrip("0").partition(".")[2])
    values = [one["value"] for one in results.values() if isinstance(one.get("value"), int | float)]
    return any(round(float(str(value)), digits) == figure for value in values)


def test_figures_quoted_in_the_readme_are_measured() -> None:
    results = json.loads((ROOT / "bench" / "results.json").read_text())
    assert [figure for figure in quoted_figures(README) if not measured(results, figure)] == []


def test_a_figure_nobody_measured_is_found() -> None:
    results = {"a": {"value": 9.4513}, "b": {"value": 120}}
    assert quoted_figures("features in 9.5 ms, 7.4 × faster, 1,200 rows/s, Python 3.11, 30 days") == [9.5, 7.4, 1200]
    assert [measured(results, figure) for figure in (9.5, 9.45, 9.4, 120.0, 12.0)] == [True, True, False, True, False]


def test_every_data_file_names_its_origin_and_licence() -> None:
    ours = {".py", ".sql", ".yaml", ".md", ".typed", ".pyc", ".json", ".html", ".css", ".js", ".svg"}
    data = [path for path in (ROOT / "src").rglob("*") if path.is_file() and path.suffix not in ours]
    assert data
    notice = " ".join((ROOT / "NOTICE").read_text().split())
    for path in data:
        (row,) = [line for line in (path.parent / "PROVENANCE.md").read_text().splitlines() if f"`{path.name}`" in line]
        origin = re.search(r"(sdist|wheel) `([^`]+)` ([\d.]+) \((?:Apache-2.0|BSD-3-Clause|MIT)\)", row)
        assert origin or "the same" in row, path.name
        if origin:
            assert f"{origin[2]} {origin[3]}" in notice, path.name
        assert path.stem in notice
    foreign = [path for path in (ROOT / "src").rglob("*.sql") if "MIT licence" in path.read_text()]
    assert foreign
    assert all(str(path.relative_to(ROOT)) in notice for path in foreign)


def normal(name: str) -> str:
    """A distribution's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
