"""`latchkey gate explain`."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from latchkey.service.settings import Settings
from tests.service.commands.running import Run, good

RULES = """
[[rules]]
name = "health"
paths = ["/health"]
public = true

[[rules]]
hosts = ["api.example.com"]
methods = ["GET", "DELETE"]
paths = ["/orders/**"]
scope = "orders:read"
cost = 2
"""


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "gate.toml"
    file.write_text(RULES)
    monkeypatch.setenv("LATCHKEY_GATE_RULES", str(file))
    return file


def test_the_rule_that_decides_is_shown(migrated: Settings, rules: Path, run: Run) -> None:
    shown = good(run("gate", "explain", "delete", "https://API.example.com/%6frders/7?a=1")).stdout

    assert [line.split(None, 1) for line in shown.splitlines()] == [
        ["rule", "rule 2"],
        ["hosts", "api.example.com"],
        ["methods", "GET, DELETE"],
        ["paths", "/orders/**"],
        ["needs", "a key with the scope orders:read"],
        ["cost", "2"],
    ]


def test_a_public_request_is_shown_as_such(migrated: Settings, rules: Path, run: Run) -> None:
    shown = good(run("gate", "explain", "GET", "http://anything/health")).stdout

    assert "rule 1 (health)" in shown
    assert "nothing, the request is public" in shown


@pytest.mark.parametrize(
    "method, url, fault",
    [
        (
            "POST",
            "https://api.example.com/orders",
            "no rule of 2 permits POST https://api.example.com/orders.",
        ),
        (
            "GET",
            "https://api.example.com/a/../orders",
            "every such request: the path has a segment that ends",
        ),
        ("GET", "https://api.example.com//orders", "every such request: the path has two slashes in a row."),
        ("GET", "api.example.com/orders", "The URL must start with http://"),
    ],
)
def test_a_request_that_is_refused_ends_with_1(
    migrated: Settings, rules: Path, run: Run, method: str, url: str, fault: str
) -> None:
    result = run("gate", "explain", method, url)

    assert (result.exit_code, result.stdout) == (1, "")
    assert fault in result.stderr


def test_wrong_rules_are_named(migrated: Settings, rules: Path, run: Run) -> None:
    rules.write_text("[[rules]]\npaths = ['/a']")

    result = run("gate", "explain", "GET", "https://a/")

    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: {rules}: rule 1: set exactly one of `scope`, `any_key = true` and `public = true`.\n",
    )


def test_other_rules_can_be_tried(rules: Path, run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("[[rules]]\npaths = ['/**']\nany_key = true\ncost = 0")

    shown = good(run("gate", "explain", "GET", "https://a/b", "--rules", str(other))).stdout

    assert "a valid key" in shown


def test_without_rules_every_request_is_refused(
    migrated: Settings, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LATCHKEY_GATE_RULES", raising=False)

    result = run("gate", "explain", "GET", "https://a/")

    assert (result.exit_code, result.stderr) == (1, "Error: no rule of 0 permits GET https://a/.\n")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_stored_rules_come_after_those_of_the_file(migrated: Settings, rules: Path, run: Run) -> None:
    text = [{"name": "all", "paths": ["/**"], "any_key": True}]
    with closing(sqlite3.connect(migrated.database_url.partition("///")[2])) as connection:
        connection.execute(
            "INSERT INTO gate_rule_sets VALUES (1, 7, ?, '2026-11-01 00:00:00.000000')", [json.dumps(text)]
        )
        connection.commit()

    other = good(run("gate", "explain", "POST", "https://api.example.com/orders")).stdout
    health = good(run("gate", "explain", "GET", "https://api.example.com/health")).stdout
    only_file = run("gate", "explain", "POST", "https://a/", "--rules", str(rules))

    assert "stored rule 1 (all)" in other
    assert "rule 1 (health)" in health
    assert "stored" not in health
    assert "no rule of 2 permits" in only_file.stderr
