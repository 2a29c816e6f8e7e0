"""The pages of docs/reference equal what the program declares, and each thing it declares has its place there."""

import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psycopg
import pytest
import typer

from market_data import features as feature_shelf
from market_data import providers as provider_shelf
from market_data import rules as rule_shelf
from market_data.api.app import create_api
from market_data.cli.app import app
from market_data.config import PLAIN_NAMES, Settings, load_settings, provider_settings
from market_data.model.feature import Feature
from market_data.model.provider import Provider
from market_data.model.rule import Rule
from market_data.model.timeframe import Timeframe
from market_data.monitoring import declared
from market_data.shelf import collect, collect_classes
from market_data.storage.server.database import Database

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"
sys.path.insert(0, str(ROOT / "tools"))

import write_reference  # noqa: E402  # found by the line above


@cache
def page(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def headings(name: str) -> set[str]:
    return set(re.findall(r"^#+ (.*)$", page(name), flags=re.MULTILINE))


def test_the_pages_are_what_the_program_declares(database: Database) -> None:
    made = write_reference.pages(database)
    stale = [name for name, text in made.items() if (FOLDER / name).read_text(encoding="utf-8") != text]
    assert not stale, "run `make reference`"
    others = {path.name for path in FOLDER.glob("*.md")} - set(made)
    assert others == {"alerts.md", "conformance.md", "faults.md"}, "every other page is made by a tool of its own"


def test_every_command_and_option_has_its_place() -> None:
    def walk(words: str, command) -> Iterator[tuple[str, set[str]]]:
        yield words, {name for one in command.params for name in one.opts if name.startswith("--")}
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(f"{words} {name}", inner)

    for words, options in walk("market-data", typer.main.get_command(app)):
        told = re.search(rf"^## {re.escape(words)}\n(.*?)(?=^## |\Z)", page("cli"), flags=re.MULTILINE | re.DOTALL)
        assert told, words
        assert {option for option in options if option not in told[1]} == set(), words


def test_every_endpoint_and_document_has_its_place() -> None:
    document = create_api().openapi()
    routes = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert routes <= headings("endpoints")
    for name, schema in document["components"]["schemas"].items():
        told = re.search(rf"^### {name}\n(.*?)(?=^##|\Z)", page("endpoints"), flags=re.MULTILINE | re.DOTALL)
        assert told, name
        assert {field for field in schema.get("properties", {}) if f"| `{field}` |" not in told[1]} == set(), name


def test_every_setting_has_its_place() -> None:
    def leaves(value: object, prefix: str) -> Iterator[str]:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                yield from leaves(inner, f"{prefix}.{name}" if prefix else name)
        else:
            yield prefix

    keys = set(leaves(load_settings(None, {}).model_dump(mode="json"), "")) - {"providers"}
    for name, cls in collect_classes(provider_shelf, Provider).items():  # type: ignore[type-abstract]
        keys |= {f"providers.{name}.{field}" for field in cls.Settings.model_fields}
    assert {key for key in keys if f"| `{key}` |" not in page("settings")} == set()
    assert {name for name in PLAIN_NAMES if f"`{name}`" not in page("settings")} == set()
    assert set(Settings.model_fields) - {"providers"} <= headings("settings")


def test_the_environment_file_names_what_the_environment_may() -> None:
    named = set(re.findall(r"^([A-Z][A-Z0-9_]*)=", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))
    assert {name for name in named if not name.startswith("MARKET_DATA__")} == set(PLAIN_NAMES)
    nested = {
        f"MARKET_DATA__{key.upper().replace('.', '__')}"
        for key in re.findall(r"^\| `([a-z0-9_.]+)` \|", page("settings"), re.MULTILINE)
    }
    assert {name for name in named if name.startswith("MARKET_DATA__")} <= nested
    asked_for = """
        DATABASE_URL POLYGON_API_KEY MASSIVE_API_KEY BINANCE_API_KEY BINANCE_API_SECRET LOG_LEVEL PROMETHEUS_PORT
        DATA_ENRICHMENT_ENABLED ENRICHMENT_SCHEDULE_HOUR ENRICHMENT_SCHEDULE_MINUTE BACKFILL_SCHEDULE_HOUR
        BACKFILL_SCHEDULE_MINUTE FEATURE_COMPUTATION_WORKERS BATCH_SIZE_MARKET_DATA MIN_QUALITY_SCORE
        MIN_DATA_COMPLETENESS VALIDATE_ON_INSERT
    """
    assert set(asked_for.split()) <= named


@pytest.mark.parametrize(("name", "key"), PLAIN_NAMES.items())
def test_every_plain_name_leads_to_a_setting(name: str, key: str) -> None:
    (row,) = [line for line in page("settings").splitlines() if line.startswith(f"| `{key}` |")]
    assert f"`{name}`" in row
    value = "1" if key.startswith(("providers", "pipelines", "quality", "enrichment")) else "8001"
    if key == "monitoring.log_level":
        value = "debug"
    settings = load_settings(None, {name: value})
    for provider, cls in collect_classes(provider_shelf, Provider).items():  # type: ignore[type-abstract]
        provider_settings(settings.providers.get(provider, {}), cls.Settings, provider)


def test_every_table_and_column_has_its_place(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns c JOIN information_schema.tables t "
            "USING (table_schema, table_name) WHERE table_schema = 'public' AND table_type = 'BASE TABLE' "
            "AND NOT EXISTS (SELECT FROM pg_class p WHERE p.relname = table_name AND p.relispartition)"
        ).fetchall()
    assert len(columns) > 300
    for table in {table for table, _ in columns}:
        told = re.search(rf"^## {table}\n(.*?)(?=^## |\Z)", page("tables"), flags=re.MULTILINE | re.DOTALL)
        assert told, table
        assert {name for other, name in columns if other == table and f"| `{name}`" not in told[1]} == set(), table
        empty = re.findall(r"^\| `(\w+)`.*\|\s*\|$", told[1], flags=re.MULTILINE)
        assert not empty, "a column without a meaning"


def test_every_metric_has_its_place() -> None:
    known = set(re.findall(r"^\| `(market_data_\w+)` \| (\w+)", page("metrics"), flags=re.MULTILINE))
    named = {
        (f"{one.name}_total" if one.kind is declared.Kind.COUNTER else one.name, one.kind.value)
        for one in declared.METRICS.values()
    }
    assert known == named


@pytest.mark.parametrize(
    ("name", "items"),
    [
        ("features", collect(feature_shelf, Feature)),
        ("rules", collect(rule_shelf, Rule)),
        ("providers", collect_classes(provider_shelf, Provider)),  # type: ignore[type-abstract]
        ("timeframes", {frame.value: frame for frame in Timeframe}),
    ],
)
def test_everything_on_a_shelf_has_its_place(name: str, items: dict[str, object]) -> None:
    assert items
    told = headings(name) | set(re.findall(r"\| `([^`]+)` \|", page(name)))
    assert set(items) <= told


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    def pages(entries: list) -> Iterator[str]:
        for entry in entries:
            for value in entry.values() if isinstance(entry, dict) else [entry]:
                if isinstance(value, str):
                    yield value
                else:
                    yield from pages(value)

    named = set(pages(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    docs = ROOT / "docs"
    there = {str(path.relative_to(docs)) for path in docs.rglob("*.md")}
    assert there - named - {f"decisions/{path.name}" for path in (docs / "decisions").glob("0*.md")} == set()
    assert named <= there
    listed = (docs / "decisions" / "index.md").read_text()
    assert [path.name for path in (docs / "decisions").glob("0*.md") if f"({path.name})" not in listed] == []
