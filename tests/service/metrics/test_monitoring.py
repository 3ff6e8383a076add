"""The dashboard, the alert rules and their documentation name metrics that exist."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from latchkey.service.metrics.collection import Metrics
from latchkey.service.metrics.exposition import Stored, render

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "examples" / "monitoring"
NAME = re.compile(r"\blatchkey_[a-z_]+\b")
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def sample_names() -> dict[str, set[str]]:
    """Return the names of the samples of each metric."""
    families = [*Metrics().registry.collect(), *Stored(keys_expiring=0, outbox_age_s=0).collect()]
    return {one.name: {one.name + suffix for suffix in SUFFIXES[one.type]} for one in families}


def expressions() -> list[str]:
    """Return all expressions of the dashboard and of the rules."""
    board: dict[str, Any] = json.loads((FOLDER / "grafana.json").read_text())
    rules: dict[str, Any] = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return asked + [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


def test_every_metric_that_is_asked_for_exists() -> None:
    existing = set().union(*sample_names().values())
    asked = {name for text in expressions() for name in NAME.findall(text)}

    assert asked
    assert asked - existing == set()


def test_the_dashboard_shows_every_metric() -> None:
    asked = {name for text in expressions() for name in NAME.findall(text)}

    assert [name for name, samples in sample_names().items() if not samples & asked] == []


def test_the_labels_that_are_asked_for_exist() -> None:
    labels = {"le", "instance", "pool", *("route", "status", "code", "reason", "result")}
    asked = {
        label.strip()
        for text in expressions()
        for found in re.findall(r"\bby \(([^)]*)\)", text)
        for label in found.split(",")
    }

    assert asked - labels == set()


def test_every_rule_says_what_it_means() -> None:
    rules = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"][0]["rules"]

    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["labels"]["severity"] in {"page", "ticket", "info"}
        assert re.fullmatch(r"\d+[mh]", rule["for"])
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_promtool_accepts_the_rules_and_the_metrics(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool not found: apt-get install prometheus")
    stored = Stored(keys_expiring=1, outbox_age_s=0.5)
    checks = [
        ([promtool, "check", "rules", str(FOLDER / "alerts.yaml")], b""),
        ([promtool, "check", "metrics"], render(Metrics().registry, stored)),
    ]

    for command, text in checks:
        done = subprocess.run(command, input=text, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")


def test_prometheus_asks_with_a_key_from_a_file() -> None:
    (job,) = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"]

    assert (job["metrics_path"], list(job["authorization"])) == ("/metrics", ["credentials_file"])


def test_the_documentation_has_every_metric() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    rows = set(re.findall(r"^\| `(latchkey_[a-z_]+)`", page, re.MULTILINE))

    assert rows == {
        next(iter(samples)) if len(samples) == 1 else name for name, samples in sample_names().items()
    }
