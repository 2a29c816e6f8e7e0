"""Each rule fires on what breaks it, in Prometheus and in the platform alike, and stays silent on the rest."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from market_data.monitoring.collector import _instruments, _pipeline
from market_data.monitoring.declared import METRICS
from market_data.monitoring.readings import Readings
from market_data.monitoring.rules import MOST_SUBJECTS, RULES, findings

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "monitoring" / "prometheus"
# Minutes: promtool evaluates every one of them, so rules that hold for longer are only tested where they fire.
LONGEST_EVERYWHERE = 121
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus"
)


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_alert_rules", ROOT / "tools" / "write_alert_rules.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shipped() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((PROMETHEUS / "rules.yaml").read_text())["groups"]
    return group["rules"]


def test_the_shipped_files_are_what_is_declared() -> None:
    for path, text in generator().texts().items():
        assert path.read_text() == text, "run `make reference`"


@needs_promtool
def test_promtool_finds_nothing_wrong() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(PROMETHEUS / "rules.yaml"))
    promtool("check", "config", str(PROMETHEUS / "prometheus.yaml"))


def test_rules_ask_for_what_is_exported() -> None:
    exported = {name for metric in METRICS.values() for name in metric.series}
    for rule in RULES:
        asked = set(re.findall(r"market_data_\w+", rule.expression))
        assert asked, rule.name
        assert asked <= exported, rule.name


def test_every_rule_of_the_contract_is_there() -> None:
    severities = {rule.name: rule.severity for rule in RULES}
    contract = {
        "MarketDataStale": "critical", "MarketDataFetchesFail": "warning", "MarketDataQualityLow": "warning",
        "MarketDataOld": "warning", "MarketDataComputationsFail": "critical",
    }  # fmt: skip
    assert contract.items() <= severities.items()
    assert len(severities) == len(RULES)


def test_the_platform_finds_each_and_only_it(broken: dict[str, tuple[Readings, dict[str, str]]]) -> None:
    evaluated = {rule.name for rule in RULES if rule.holds}
    assert evaluated == broken.keys() - {"MarketDataSchedulerStopped"}
    for name, (readings, labels) in broken.items():
        found = {rule.name: [one.subject for one in findings(rule, readings)] for rule in RULES}
        found = {rule: subjects for rule, subjects in found.items() if subjects}
        assert found == ({name: ["/".join(labels.values())]} if name in evaluated else {}), name


def test_the_platform_is_silent_when_all_is_well(well: Readings, barely_well: Readings) -> None:
    for readings in (well, barely_well):
        assert [rule.name for rule in RULES if findings(rule, readings)] == []


def test_subjects_are_bounded(well: Readings, with_crypto: Callable[..., Readings]) -> None:
    from dataclasses import replace

    late = with_crypto(lag=1000.0, overdue=500.0).instruments[1]
    (rule,) = (rule for rule in RULES if rule.name == "MarketDataStale")
    found = findings(rule, replace(well, instruments=[late] * 150))
    assert len(found) == MOST_SUBJECTS + 1
    assert found[-1].detail == "and 50 more"


def series_of(readings: Readings) -> list[dict[str, str]]:
    """What Prometheus would scrape of these readings: our own exposition of them, unchanged for two days."""
    samples = [sample for family in (*_instruments(readings), *_pipeline(readings)) for sample in family.samples]
    lines = {
        f"{sample.name}{{{','.join(f'{key}={json.dumps(value)}' for key, value in sample.labels.items())}}}": float(
            sample.value
        )
        for sample in samples
    }
    return [
        {"series": series, "values": f"{value:.9g}+0x1500"} for series, value in {**lines, "market_data_up": 1}.items()
    ]


def case(series: list[dict[str, str]], expected: dict[str, dict[str, str]]) -> dict[str, Any]:
    """One test of promtool: what fires once every rule has held for long enough, and what does not before."""
    alerts = []
    for rule in shipped():
        hold = int(next(one.hold for one in RULES if one.name == rule["alert"]) / timedelta(minutes=1))
        fires = []
        if hold > LONGEST_EVERYWHERE and rule["alert"] not in expected:
            continue
        if rule["alert"] in expected:
            labels = expected[rule["alert"]]
            summary = rule["annotations"]["summary"]
            for name, value in labels.items():
                summary = summary.replace(f"{{{{ $labels.{name} }}}}", value)
            annotations = {**rule["annotations"], "summary": summary}
            fires = [{"exp_labels": {**rule["labels"], **labels}, "exp_annotations": annotations}]
        alerts.append({"eval_time": f"{hold + 1}m", "alertname": rule["alert"], "exp_alerts": fires})
        alerts.append({"eval_time": f"{hold - 1}m", "alertname": rule["alert"], "exp_alerts": []})
    return {"interval": "1m", "input_series": series, "alert_rule_test": alerts}


def unit_tests(cases: list[dict[str, Any]], folder: Path) -> str:
    document = {"rule_files": [str(PROMETHEUS / "rules.yaml")], "evaluation_interval": "1m", "tests": cases}
    path = folder / "rules_test.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return str(path)


@needs_promtool
def test_prometheus_fires_each_and_only_it(
    broken: dict[str, tuple[Readings, dict[str, str]]], well: Readings, barely_well: Readings, tmp_path: Path
) -> None:
    cases = [case(series_of(readings), {name: labels}) for name, (readings, labels) in broken.items()]
    cases += [case(series_of(readings), {}) for readings in (well, barely_well)]
    # The database is away: nothing else is exported. And nobody exports anything.
    cases.append(case([{"series": "market_data_up", "values": "0+0x1500"}], {"MarketDataDown": {}}))
    cases.append(case([], {"MarketDataDown": {}}))
    # Two processes that export the same are one platform.
    twice = [
        {**one, "series": one["series"].replace("{", f'{{instance="{name}",', 1)}
        for one in series_of(well)
        for name in "ab"
    ]
    cases.append(case(twice, {}))
    assert {name for one in cases for name in fired(one)} == {rule.name for rule in RULES}
    assert "SUCCESS" in promtool("test", "rules", unit_tests(cases, tmp_path))


def fired(one: dict[str, Any]) -> set[str]:
    return {test["alertname"] for test in one["alert_rule_test"] if test["exp_alerts"]}


@needs_promtool
def test_promtools_verdict_can_be_no(well: Readings, tmp_path: Path) -> None:
    wrong = unit_tests([case(series_of(well), {"MarketDataNoWorker": {}})], tmp_path)
    done = subprocess.run(["promtool", "test", "rules", wrong], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "MarketDataNoWorker" in done.stdout + done.stderr
