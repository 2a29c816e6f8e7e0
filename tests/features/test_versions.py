"""A feature's version follows what it computes, and nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from market_data.model import feature as feature_module
from market_data.model.feature import Feature

SOURCE = '''
from market_data.model.feature import feature

WEIGHT = 2.0


def scaled(values):
    return values * WEIGHT


@feature(lookback=0, inputs=("close",), unit="price")
def twice(window):
    """Twice the close.

    Formula: 2 * close.
    Null: when the close is absent.
    Source: this test.
    """
    return scaled(window.close)
'''


def version(folder: Path, source: str) -> str:
    path = folder / f"declared_{abs(hash(source))}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    declared: Feature = module.twice
    return declared.version


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Twice the close.", "The close, doubled."),
        ("    return values", "    # A remark.\n    return values"),
        ("return values * WEIGHT", "return (values *  WEIGHT)"),
    ],
)
def test_words_and_layout_do_not_count(tmp_path, old, new):
    assert version(tmp_path, SOURCE.replace(old, new)) == version(tmp_path, SOURCE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("WEIGHT = 2.0", "WEIGHT = 3.0"),
        ("values * WEIGHT", "values * WEIGHT + 0"),
        ("scaled(window.close)", "scaled(window.open)"),
        ("lookback=0", "lookback=1"),
        ("lookback=0", "lookback=lambda series: 0"),
        ('inputs=("close",)', 'inputs=("close", "open")'),
        ("def scaled(values):", "def scaled(values, by=1):"),
    ],
)
def test_code_constants_and_parameters_count(tmp_path, old, new):
    assert version(tmp_path, SOURCE.replace(old, new)) != version(tmp_path, SOURCE)


def test_the_engine_counts(tmp_path, monkeypatch):
    before = version(tmp_path, SOURCE)
    monkeypatch.setattr(feature_module, "ENGINE_VERSION", -1)
    assert version(tmp_path, SOURCE) != before
