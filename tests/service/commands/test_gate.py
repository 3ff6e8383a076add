"""`latchkey gate explain`."""

from pathlib import Path

import pytest

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


def test_the_rule_that_decides_is_shown(rules: Path, run: Run) -> None:
    shown = good(run("gate", "explain", "delete", "https://API.example.com/%6frders/7?a=1")).stdout

    assert [line.split(None, 1) for line in shown.splitlines()] == [
        ["rule", "rule 2"],
        ["hosts", "api.example.com"],
        ["methods", "GET, DELETE"],
        ["paths", "/orders/**"],
        ["needs", "a key with the scope orders:read"],
        ["cost", "2"],
    ]


def test_a_public_request_is_shown_as_such(rules: Path, run: Run) -> None:
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
    rules: Path, run: Run, method: str, url: str, fault: str
) -> None:
    result = run("gate", "explain", method, url)

    assert (result.exit_code, result.stdout) == (1, "")
    assert fault in result.stderr


def test_wrong_rules_are_named(rules: Path, run: Run) -> None:
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


def test_without_rules_every_request_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LATCHKEY_GATE_RULES", raising=False)

    result = run("gate", "explain", "GET", "https://a/")

    assert (result.exit_code, result.stderr) == (
        1,
        "Error: LATCHKEY_GATE_RULES is not set, so the gate refuses every request.\n",
    )
