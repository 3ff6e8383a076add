"""The commands `latchkey export` and `latchkey users erase`."""

import json
import os
import sqlite3
from typing import Any

import pytest

from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.settings import Settings
from tests.service.commands.running import CREATE_KEY, CREATE_USER, Run, answered, good


@pytest.fixture
def key(migrated_sqlite: Settings, run: Run) -> dict[str, Any]:
    """Create a user with a key."""
    good(run(*CREATE_USER, "ann@example.com"))
    return dict(answered(run(*CREATE_KEY, "--scopes", "", "--json")))


def seal_events(run: Run) -> None:
    """Seal the events, as the service does; the erasure of another user does it too."""
    good(run(*CREATE_USER, "bob@example.com"))
    good(run("users", "erase", "bob@example.com", "--yes"))


def test_an_export_has_a_line_for_each_thing(key: dict[str, Any], run: Run) -> None:
    lines = [json.loads(line) for line in good(run("export", "ann@example.com")).stdout.splitlines()]

    assert [line["type"] for line in lines] == ["user", "key", "secret", "audit_event", "audit_event"]
    assert lines[1]["data"]["access_key"] == key["access_key"]
    assert key["secret"] not in str(lines)


def test_an_erasure_prints_what_it_erased_and_can_be_repeated(key: dict[str, Any], run: Run) -> None:
    first = dict(line.split() for line in good(run("users", "erase", "1", "--yes")).stdout.splitlines())
    second = dict(line.split() for line in good(run("users", "erase", "1", "--yes")).stdout.splitlines())

    assert (first["users"], first["keys"], first["audit_values"]) == ("1", "1", "2")
    assert set(second.values()) == {"0"}
    with sqlite3.connect("latchkey.db") as connection:
        assert "ann@example.com" not in "\n".join(connection.iterdump())
    good(run(*CREATE_USER, "ann@example.com"))


def test_an_erasure_asks_first(key: dict[str, Any], run: Run) -> None:
    refused = run("users", "erase", "ann@example.com", input="n\n")

    assert refused.exit_code == 1
    assert "Erase the personal data of the user ann@example.com? [y/N]: n" in refused.stderr
    assert answered(run("users", "list", "--json"))["data"][0]["status"] == "active"
    assert run("users", "erase", "ann@example.com", input="y\n").exit_code == 0


def test_a_ring_without_the_key_of_a_seal_is_named(
    key: dict[str, Any], run: Run, environ: pytest.MonkeyPatch
) -> None:
    seal_events(run)
    old = os.environ["LATCHKEY_KEYRING"]
    new = KeyRing.generate_text(key_id=2)
    environ.setenv("LATCHKEY_KEYRING", f"{new},{old}")
    good(run("keyring", "rewrap"))
    environ.setenv("LATCHKEY_KEYRING", new)

    refused = run("users", "erase", "1", "--yes")

    assert refused.exit_code == 1
    assert (
        "Error: the audit log: The value was sealed with key 1, which is not in the key ring."
        in refused.stderr
    )
    environ.setenv("LATCHKEY_KEYRING", f"{new},{old}")
    good(run("users", "erase", "1", "--yes"))
    good(run("audit", "verify"))
