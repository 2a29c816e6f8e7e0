"""No setting does nothing: each is read by the program, and those of quality do what their names say."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pytest
from pydantic import BaseModel

import market_data
from market_data.bootstrap.shelves import least_of, shelves_of
from market_data.config import Settings, load_settings
from market_data.config.settings import RetentionSettings
from market_data.model import quality
from market_data.model.instrument import AssetClass

SOURCE = Path(market_data.__file__).parent


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, attribute) of every setting below a group."""
    for name, field in model.model_fields.items():
        inner = [each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)]
        groups = [each for each in inner if issubclass(each, BaseModel)]
        if groups and groups[0] is not RetentionSettings:
            yield from settings_of(groups[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", name


def attributes_read() -> set[str]:
    """Every attribute that some module outside the settings reads."""
    found = set[str]()
    for path in SOURCE.rglob("*.py"):
        if path.name != "settings.py":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return found


def test_every_setting_is_read_by_something() -> None:
    names = dict(settings_of(Settings))
    assert len(names) > 50
    read = attributes_read()
    # Retention is read as a whole: table by table.
    assert [name for name, attribute in names.items() if attribute not in read] == []
    assert "ages" in read


def loaded(**values: Any) -> Settings:
    return load_settings(environ={name.upper(): str(value) for name, value in values.items()})


def test_without_validation_no_rule_is_asked_and_nothing_counts_as_validated() -> None:
    assert shelves_of(loaded()).rules
    bare = shelves_of(loaded(validate_on_insert="false"))
    assert (bare.rules, bare.reference_rules) == ((), ())


def test_as_many_threads_compute_features_as_the_setting_says() -> None:
    room = shelves_of(loaded(feature_computation_workers=3)).computing
    taken = 0
    while room.acquire(blocking=False):
        taken += 1
    assert taken == 3


def test_the_ages_of_the_settings_are_those_of_the_score() -> None:
    limits = "{target: 10, alert: 20, critical: 30, stale: 110}"
    shelves = shelves_of(loaded(market_data__quality__freshness__crypto=limits))
    ages = pl.Series([10.0, 60.0, 110.0])
    assert quality.freshness(ages, AssetClass.CRYPTO, shelves.freshness).to_list() == [1.0, 0.5, 0.0]
    assert shelves.version != shelves_of(loaded()).version, "scores under other ages are stale"


@pytest.mark.parametrize(
    ("least", "score", "complete", "expected"),
    [
        ({}, 0.95, 0.96, "healthy"),
        ({}, 0.95, 0.94, "warning"),
        ({"min_data_completeness": 0.9}, 0.95, 0.94, "healthy"),
        ({}, 0.84, 1.0, "stale"),
        ({"min_quality_score": 0.8}, 0.84, 1.0, "warning"),
    ],
)
def test_the_least_score_and_completeness_decide_the_status(
    least: dict[str, float], score: float, complete: float, expected: str
) -> None:
    found = quality.status_name(
        lag=timedelta(0), quality_score=score, failed=False, data_completeness=complete, least=least_of(loaded(**least))
    )
    assert found == expected
