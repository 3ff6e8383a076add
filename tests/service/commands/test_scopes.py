"""`latchkey scopes`."""

import json

from latchkey.service.settings import Settings
from tests.service.commands.running import Run, good


def test_a_scope_is_added_listed_and_removed(migrated: Settings, run: Run) -> None:
    made = json.loads(
        good(run("scopes", "add", "orders:read", "--description", "Read orders.", "--json")).stdout
    )
    listed = json.loads(good(run("scopes", "list", "--json")).stdout)
    user = json.loads(
        good(run("users", "create", "--email", "scopes@example.com", "--name", "S", "--json")).stdout
    )
    key = json.loads(
        good(
            run("keys", "create", "--user", str(user["id"]), "--name", "n", "--mode", "bearer",
                "--scopes", "orders:read,orders:*", "--json")
        ).stdout
    )  # fmt: skip

    in_use = run("scopes", "remove", "orders:read")
    good(run("keys", "revoke", key["access_key"]))
    good(run("scopes", "remove", "orders:read"))
    gone = run("scopes", "remove", "orders:read")

    assert (made["name"], made["description"]) == ("orders:read", "Read orders.")
    assert listed["data"] == [made]
    assert key["scopes"] == ["orders:read", "orders:*"]
    assert (in_use.exit_code, in_use.stderr) == (
        1,
        f"Error: These keys have the scope orders:read: {key['access_key']}.\n",
    )
    assert (gone.exit_code, gone.stderr) == (1, "Error: there is no registered scope orders:read.\n")


def test_a_declared_scope_is_not_registered(migrated: Settings, run: Run) -> None:
    result = run("scopes", "add", "users:read")

    assert (result.exit_code, result.stderr) == (
        1,
        "Error: A route of this service declares the scope users:read.\n",
    )


def test_the_form_of_a_scope_is_checked(migrated: Settings, run: Run) -> None:
    assert run("scopes", "add", "orders:*").exit_code == 2
