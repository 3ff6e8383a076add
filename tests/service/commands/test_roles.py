"""`latchkey roles`: add, list, change and remove, and the roles of keys."""

import pytest

from latchkey.service.settings import Settings
from tests.service.commands.running import Run, answered, good


@pytest.fixture
def key(migrated: Settings, run: Run) -> str:
    """Return the access key of a key with the role `reader`."""
    answered(run("users", "create", "--email", "ann@example.com", "--name", "Ann", "--json"))
    answered(run("roles", "add", "reader", "--scopes", "users:read", "--description", "Look.", "--json"))
    options = ("--name", "k", "--mode", "bearer", "--scopes", "", "--roles", "reader", "--json")
    made = answered(run("keys", "create", "--user", "ann@example.com", *options))
    assert (made["roles"], made["role_scopes"]) == (["reader"], ["users:read"])
    return str(made["access_key"])


def test_a_key_follows_its_roles(key: str, run: Run) -> None:
    answered(run("roles", "add", "lister", "--scopes", "scopes:read", "--json"))
    granted = answered(run("keys", "grant", key, "--roles", "lister", "--json"))
    changed = answered(run("roles", "change", "reader", "--scopes", "users:read,keys:read", "--json"))
    listed = answered(run("keys", "list", "--json"))["data"][0]
    roles = answered(run("roles", "list", "--json"))["data"]

    assert (granted["roles"], granted["role_scopes"]) == (["reader", "lister"], ["users:read", "scopes:read"])
    assert (changed["scopes"], changed["description"]) == (["users:read", "keys:read"], "Look.")
    assert listed["role_scopes"] == ["users:read", "keys:read", "scopes:read"]
    assert [one["name"] for one in roles] == ["reader", "lister"]
    for options, found in (
        (("--role", "lister", "--environment", "live"), [key]),
        (("--role", "list"), []),
        (("--environment", "test"), []),
    ):
        data = answered(run("keys", "list", *options, "--json"))["data"]
        assert [one["access_key"] for one in data] == found


def test_a_role_in_use_is_not_removed(key: str, run: Run) -> None:
    refused = run("roles", "remove", "reader")
    answered(run("keys", "revoke", key, "--json"))
    removed = run("roles", "remove", "reader")

    assert refused.exit_code == 1
    assert key in refused.stderr
    good(removed)


@pytest.mark.parametrize(
    "command, words",
    [
        (("roles", "add", "Reader", "--scopes", ""), "a lower-case letter"),
        (("roles", "add", "other", "--scopes", "nothing:read"), "there is no such scope"),
        (("roles", "add", "reader", "--scopes", ""), "The role exists already"),
        (("roles", "change", "nobody", "--scopes", ""), "there is no role nobody"),
        (("roles", "remove", "nobody"), "there is no role nobody"),
    ],
)
def test_a_mistake_ends_with_one_sentence(key: str, run: Run, command: tuple[str, ...], words: str) -> None:
    done = run(*command)

    assert done.exit_code != 0
    assert words in done.stderr


def test_a_key_is_given_only_roles_that_exist(key: str, run: Run) -> None:
    done = [run("keys", "grant", key, "--roles", "nobody"), run("keys", "grant", key)]

    assert all(one.exit_code != 0 for one in done)
    assert "there is no such role" in done[0].stderr
    assert "give --scopes or --roles" in done[1].stderr
