"""Every command leaves one event for each transaction that changes something, and every other command leaves none."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import click
import pytest

from latchkey.service.authentication.wire.credentials import new_secret
from latchkey.service.commands.keys import keys
from latchkey.service.commands.roles import roles
from latchkey.service.commands.scopes import scopes
from latchkey.service.commands.users import users
from latchkey.service.origin import command_origin
from latchkey.service.settings import Settings
from tests.service.commands.running import CREATE_KEY, CREATE_USER, NO_KEY, Run, answered, good

GROUPS: tuple[click.Group, ...] = (users, keys, roles, scopes)
WRITING = {
    "users create": ((*CREATE_USER, "b@example.com"), "user.created"),
    "users block": (("users", "block", "1"), "user.blocked"),
    "users unblock": (("users", "unblock", "2"), "user.unblocked"),
    "users erase": (("users", "erase", "1", "--yes"), "user.deleted user.erased"),
    "keys create": ((*CREATE_KEY, "--scopes", "users:read"), "key.created"),
    "keys import": (("keys", "import", "keys.jsonl"), "key.created"),
    "keys rotate": (("keys", "rotate", "KEY"), "key.rotated"),
    "keys grant": (("keys", "grant", "KEY", "--scopes", "users:write"), "key.changed"),
    "keys credits": (("keys", "credits", "KEY", "--add", "5"), "key.changed"),
    "keys revoke": (("keys", "revoke", "KEY"), "key.revoked"),
    "roles add": (("roles", "add", "writer", "--scopes", ""), "role.created"),
    "roles change": (("roles", "change", "reader", "--description", "Reads."), "role.changed"),
    "roles remove": (("roles", "remove", "reader"), "role.deleted"),
    "scopes add": (("scopes", "add", "orders:write"), "scope.created"),
    "scopes remove": (("scopes", "remove", "orders:read"), "scope.deleted"),
}
READING = {f"{one} list": (one, "list") for one in ("users", "keys", "roles", "scopes")}
REFUSED = {
    "users create": (*CREATE_USER, "ANN@example.com"),
    "users block": ("users", "block", "9"),
    "users erase": ("users", "erase", "9", "--yes"),
    "keys create": ("keys", "create", "--user", "9", "--name", "k", "--mode", "bearer", "--scopes", ""),
    "keys revoke": ("keys", "revoke", NO_KEY),
    "roles add": ("roles", "add", "reader", "--scopes", ""),
    "scopes remove": ("scopes", "remove", "orders:none"),
}


def stored() -> list[tuple[Any, ...]]:
    with sqlite3.connect("latchkey.db") as connection:
        return connection.execute(
            "SELECT CAST(action AS TEXT), CAST(actor_kind AS TEXT), CAST(actor_id AS TEXT) "
            "FROM audit_events ORDER BY id"
        ).fetchall()


@pytest.fixture
def key(migrated_sqlite: Settings, run: Run) -> str:
    """Create the rows that the commands change, and return the access key of a key."""
    good(run(*CREATE_USER, "ann@example.com"))
    good(run(*CREATE_USER, "bob@example.com"))
    good(run("users", "block", "2"))
    made = answered(run(*CREATE_KEY, "--scopes", "", "--credits", "5", "--json"))
    good(run("roles", "add", "reader", "--scopes", ""))
    good(run("scopes", "add", "orders:read"))
    Path("keys.jsonl").write_text(json.dumps({"user_id": 1, "name": "n", "secret": new_secret("lk")}))
    return str(made["access_key"])


def test_no_command_is_missing() -> None:
    assert {f"{group.name} {name}" for group in GROUPS for name in group.commands} == {*WRITING, *READING}


@pytest.mark.parametrize("args, action", WRITING.values(), ids=WRITING)
def test_a_command_leaves_its_events(key: str, run: Run, args: tuple[str, ...], action: str) -> None:
    before = stored()

    result = run(*(key if one == "KEY" else one for one in args))

    assert result.exit_code == 0, result.output
    expected = [(one, "command", command_origin().actor_id) for one in action.split()]
    assert stored()[len(before) :] == expected


@pytest.mark.parametrize("args", [*REFUSED.values(), *READING.values()], ids=[*REFUSED, *READING])
def test_a_command_that_changes_nothing_leaves_none(key: str, run: Run, args: tuple[str, ...]) -> None:
    before = stored()

    result = run(*args)

    assert (result.exit_code == 0) is (args in READING.values()), result.output
    assert stored() == before
