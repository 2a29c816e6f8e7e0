"""The dashboard asks only for what is exported, in expressions that Prometheus takes, in panels that do not overlap."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from market_data.monitoring.declared import METRICS

ROOT = Path(__file__).parents[2]
FILE = ROOT / "monitoring" / "grafana" / "dashboard.json"
DASHBOARD = json.loads(FILE.read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_the_file_is_what_is_declared() -> None:
    spec = importlib.util.spec_from_file_location("write_dashboard", ROOT / "tools" / "write_dashboard.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert FILE.read_text() == module.text(), "run `make reference`"


def test_it_asks_for_what_is_exported_and_shows_all_of_it() -> None:
    asked = {name for expression in EXPRESSIONS for name in re.findall(r"market_data_\w+", expression)}
    assert asked <= {series for metric in METRICS.values() for series in metric.series}
    unseen = [metric.name for metric in METRICS.values() if not asked & set(metric.series)]
    assert unseen == []


def test_it_groups_by_labels_there_are() -> None:
    for expression in EXPRESSIONS:
        names = set(re.findall(r"market_data_\w+", expression))
        labels = {label for metric in METRICS.values() if names & set(metric.series) for label in metric.labels}
        grouped = {name for group in re.findall(r"\bby \(([^)]*)\)", expression) for name in group.split(", ")}
        assert grouped <= labels | {"le"}, expression


def test_it_has_the_shape_that_grafana_imports() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["uid"]
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert panel["type"] in {"stat", "timeseries"}
        assert panel["datasource"]["uid"] == "${DS_PROMETHEUS}"
        assert place["x"] + place["w"] <= 24
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        apart = (
            one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        )  # fmt: skip
        assert apart


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus")
def test_prometheus_takes_its_expressions(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(EXPRESSIONS)
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert f"{len(EXPRESSIONS)} rules found" in done.stdout, done.stdout + done.stderr
