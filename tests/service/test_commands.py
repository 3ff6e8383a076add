"""The command line: its output, its exit status, and its agreement with the endpoints."""

import asyncio
import base64
import hmac
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from signal import Signals
from typing import Any, Self

import click
import msgspec
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import insert

from latchkey import service
from latchkey.models import Nonce
from latchkey.service import housekeeping, openapi, shapes
from latchkey.service.app import create_app
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.authentication.wire.credentials import parse_access_key, parse_secret
from latchkey.service.commands import latchkey, server
from latchkey.service.commands.parameters import GRACE
from latchkey.service.commands.server import reachable
from latchkey.service.database import SQLAlchemy, schema
from latchkey.service.database.engines import create_engines
from latchkey.service.key_cache.channel import open_channel
from latchkey.service.routes import ROUTES, declared_scopes
from latchkey.service.settings import Settings
from tests.conftest import empty
from tests.redis import PrivateRedis
from tests.requests import Answer, request

Run = Callable[..., Result]

EVERY_SCOPE = ",".join(sorted(declared_scopes(ROUTES)))
NO_KEY = "lka_0000000000000000000000"
A_SECRET = "lks_00000000000000000000000000000000000000000003GTfko"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


SERVE = ("serve", "--port", str(free_port()))  # the default may be used by the developer's server


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Return an environment without settings, in an empty folder, and close the database afterwards."""
    for name in list(os.environ):
        if name.startswith("LATCHKEY_") and not name.startswith("LATCHKEY_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield monkeypatch
    assert not SQLAlchemy().is_open


@pytest.fixture
def run() -> Run:
    """Run a command in this process."""
    return lambda *args, **kwargs: CliRunner().invoke(latchkey, args, prog_name="latchkey", **kwargs)


@pytest.fixture
def migrated(settings: Settings, environ: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Set the environment for a migrated, empty database."""
    environ.setenv("LATCHKEY_DATABASE_URL", settings.database_url)
    environ.setenv("LATCHKEY_KEYRING", settings.keyring or "")
    yield settings
    if "mysql" in settings.database_url:
        asyncio.run(empty(settings))


@pytest.fixture
def migrated_sqlite(sqlite_template: Path, environ: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Set the environment for a migrated, empty file."""
    (tmp_path / "latchkey.db").write_bytes(sqlite_template.read_bytes())
    environ.setenv("LATCHKEY_KEYRING", KeyRing.generate_text())
    return Settings.from_env(os.environ)


def good(result: Result) -> Result:
    """Assert that a command succeeded."""
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result


def answered(result: Result) -> Any:
    """Return the JSON of a command that succeeded."""
    return json.loads(good(result).stdout)


def ask(settings: Settings, bearer: str, *calls: tuple[str, str, str]) -> list[Answer]:
    """Make calls of method, path and query to the application, one after another."""

    async def converse() -> list[Answer]:
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            return [
                await request(app, method, path, query=query, headers={"authorization": f"Bearer {bearer}"})
                for method, path, query in calls
            ]

    return asyncio.run(converse())


# ---------------------------------------------------------------------- users and keys


class TestUsers:
    def test_one_is_created_found_blocked_and_unblocked(self, migrated: Settings, run: Run) -> None:
        made = answered(run("users", "create", "--email", "Ann@example.com", "--name", "Ann Ü", "--json"))
        listed = answered(run("users", "list", "--email", "ANN@EXAMPLE.COM", "--json"))
        blocked = answered(run("users", "block", str(made["id"]), "--json"))
        unblocked = answered(run("users", "unblock", "ann@example.com", "--json"))

        assert (made["email"], made["name"], made["status"]) == ("Ann@example.com", "Ann Ü", "active")
        assert listed == {"data": [made], "next_cursor": None}
        assert blocked["status"] == "blocked"
        assert unblocked == {**made, "updated_at": unblocked["updated_at"]}

    def test_blocking_twice_changes_nothing(self, migrated: Settings, run: Run) -> None:
        answered(run("users", "create", "--email", "ann@example.com", "--name", "Ann", "--json"))
        once = answered(run("users", "block", "ann@example.com", "--json"))

        assert answered(run("users", "block", "ann@example.com", "--json")) == once

    def test_a_taken_email_is_refused_in_whatever_letter_case(self, migrated: Settings, run: Run) -> None:
        answered(run("users", "create", "--email", "ann@example.com", "--name", "Ann", "--json"))

        refused = run("users", "create", "--email", "ANN@example.com", "--name", "Other")

        assert (refused.exit_code, refused.stdout) == (1, "")
        assert (
            refused.stderr
            == "Error: the email ANN@example.com is taken; that of a deleted user stays taken.\n"
        )

    def test_the_list_is_whole_unless_it_is_limited(self, migrated_sqlite: Settings, run: Run) -> None:
        for number in range(3):
            good(run("users", "create", "--email", f"u{number}@example.com", "--name", "U"))
        good(run("users", "block", "u1@example.com"))

        def ids(*options: str) -> list[int]:
            return [user["id"] for user in answered(run("users", "list", "--json", *options))["data"]]

        assert ids() == [1, 2, 3]
        assert ids("--limit", "2") == [1, 2]
        assert ids("--status", "active") == [1, 3]
        assert ids("--email", "nobody@example.com") == []

    def test_the_table_has_a_line_for_each(self, migrated_sqlite: Settings, run: Run) -> None:
        good(run("users", "create", "--email", "ann@example.com", "--name", "Ann"))
        good(run("users", "create", "--email", "b@example.com", "--name", "Bob Baker"))

        header, ann, bob = good(run("users", "list")).stdout.splitlines()

        assert header.split() == ["id", "email", "name", "status", "created_at"]
        assert header.index("name") == ann.index("Ann") == bob.index("Bob Baker")

    def test_one_is_shown_a_line_a_field(self, migrated_sqlite: Settings, run: Run) -> None:
        shown = good(run("users", "create", "--email", "ann@example.com", "--name", "Ann")).stdout

        assert re.match(
            r"id +1\nemail +ann@example\.com\nname +Ann\nstatus +active\nlimits +-\nquota +-\ncreated_at",
            shown,
        )


class TestKeys:
    @pytest.fixture
    def ann(self, migrated: Settings, run: Run) -> int:
        return answered(run("users", "create", "--email", "ann@example.com", "--name", "Ann", "--json"))["id"]

    @pytest.mark.parametrize("mode", ["bearer", "signed"])
    def test_one_is_created_found_and_revoked(self, ann: int, run: Run, mode: str) -> None:
        made = answered(
            run(
                "keys", "create", "--user", "Ann@example.com", "--name", "import", "--mode", mode,
                "--scopes", "users:read, keys:read", "--expires-at", "2100-01-01T02:00:00+02:00", "--json",
            )
        )  # fmt: skip
        secret = made.pop("secret")
        listed = answered(run("keys", "list", "--user", str(ann), "--json"))
        revoked = answered(run("keys", "revoke", made["access_key"], "--json"))

        assert parse_secret(secret, "lk")
        assert parse_access_key(made["access_key"], "lk")
        assert (made["user_id"], made["mode"], made["status"]) == (ann, mode, "active")
        assert made["scopes"] == ["users:read", "keys:read"]
        assert made["expires_at"] == "2100-01-01T00:00:00Z"
        assert listed == {"data": [made], "next_cursor": None}
        assert revoked == {**made, "status": "revoked", "updated_at": revoked["updated_at"]}
        assert answered(run("keys", "revoke", made["access_key"], "--json")) == revoked
        assert answered(run("keys", "list", "--status", "active", "--json"))["data"] == []

    @pytest.mark.parametrize("mode", ["bearer", "signed"])
    def test_one_is_rotated_as_the_endpoint_does_it(
        self, ann: int, migrated: Settings, run: Run, mode: str
    ) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", mode,
                "--scopes", EVERY_SCOPE, "--json",
            )
        )  # fmt: skip
        rotated = answered(run("keys", "rotate", made["access_key"], "--grace", "7d", "--json"))
        listed = answered(run("keys", "list", "--json"))["data"]

        grace = datetime.fromisoformat(rotated["old_secret_expires_at"]) - datetime.now(UTC)
        assert timedelta(days=6, hours=23) < grace <= timedelta(days=7)
        assert parse_secret(rotated["secret"], "lk")
        assert rotated["secret"] != made["secret"]
        assert msgspec.json.encode(msgspec.convert(rotated, shapes.RotatedKey)) == msgspec.json.encode(
            rotated
        )
        assert listed == [{name: rotated[name] for name in made if name != "secret"}]
        assert listed[0]["secret_version"] == 2
        if mode == "bearer":
            both = [made["secret"], rotated["secret"]]
            assert [ask(migrated, secret, ("GET", "/v1/me", ""))[0].status for secret in both] == [200, 200]

    def test_without_grace_the_old_secret_ends_at_once(self, ann: int, migrated: Settings, run: Run) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", "", "--json"
            )
        )  # fmt: skip

        rotated = run("keys", "rotate", made["access_key"])

        (secret,) = re.findall(r"^secret +(lks_\w{49})$", rotated.stdout, re.MULTILINE)
        assert rotated.exit_code == 0
        assert rotated.stderr == (
            "The secret is shown only this once: keep it safe.\nThe old secret has ended.\n"
        )
        both = [made["secret"], secret]
        assert [ask(migrated, one, ("GET", "/v1/me", ""))[0].status for one in both] == [401, 200]

    def test_until_when_the_old_secret_works_is_told_to_people(self, ann: int, run: Run) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", "",
                "--expires-at", "2100-01-01T00:00:00Z", "--json",
            )
        )  # fmt: skip

        told = run("keys", "rotate", made["access_key"], "--grace", "600").stderr

        assert re.search(
            r"^The old secret works until 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00\.$", told, re.MULTILINE
        )

    @pytest.mark.parametrize(
        "grace, seconds",
        [("0", 0), ("90", 90), ("90s", 90), ("30m", 1800), ("12h", 43200), ("7d", 604800), ("30d", 2592000)],
    )
    def test_a_grace_is_a_number_of_seconds_or_has_a_unit(self, grace: str, seconds: int) -> None:
        assert GRACE.convert(grace, None, None) == seconds

    def test_a_revoked_one_is_not_rotated(self, ann: int, run: Run) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", "", "--json"
            )
        )  # fmt: skip
        good(run("keys", "revoke", made["access_key"]))

        refused = run("keys", "rotate", made["access_key"])

        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr == f"Error: the key {made['access_key']} is revoked, and stays so.\n"

    def test_the_secret_is_shown_once_and_only_on_standard_output(self, ann: int, run: Run) -> None:
        made = run(
            "keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", "users:read"
        )

        assert made.exit_code == 0
        (secret,) = re.findall(r"^secret +(lks_\w{49})$", made.stdout, re.MULTILINE)
        assert made.stderr == "The secret is shown only this once: keep it safe.\n"
        assert secret not in good(run("keys", "list")).stdout

    def test_one_is_given_more_scopes_and_keeps_those_that_it_has(self, ann: int, run: Run) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", "users:read",
                "--json",
            )
        )  # fmt: skip
        secret = made.pop("secret")

        given = answered(
            run("keys", "grant", made["access_key"], "--scopes", "keys:read,users:read", "--json")
        )

        assert secret
        assert given == {
            **made, "scopes": ["users:read", "keys:read"], "updated_at": given["updated_at"],
        }  # fmt: skip
        assert answered(run("keys", "list", "--json"))["data"] == [given]

    def test_a_revoked_one_is_given_nothing(self, ann: int, run: Run) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", "", "--json"
            )
        )  # fmt: skip
        good(run("keys", "revoke", made["access_key"]))

        refused = run("keys", "grant", made["access_key"], "--scopes", "users:read")

        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr == f"Error: the key {made['access_key']} is revoked, and stays so.\n"

    def test_one_has_at_most_a_hundred_scopes(
        self, ann: int, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", EVERY_SCOPE,
                "--json",
            )
        )  # fmt: skip
        monkeypatch.setattr(shapes, "MOST_SCOPES", 5)

        refused = run("keys", "grant", made["access_key"], "--scopes", "users:read")

        assert refused.exit_code == 1
        assert "would have 6 scopes; at most 5." in refused.stderr

    def test_a_key_may_have_no_scope_at_all(self, ann: int, run: Run) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "signed", "--scopes", "", "--json"
            )
        )  # fmt: skip

        assert made["scopes"] == []

    def test_a_key_may_be_bound_to_networks(self, ann: int, run: Run) -> None:
        made = answered(
            run(
                "keys", "create", "--user", str(ann), "--name", "k", "--mode", "signed", "--scopes", "",
                "--networks", "10.0.0.0/8, 2001:DB8::1", "--json",
            )
        )  # fmt: skip

        assert made["allowed_networks"] == ["10.0.0.0/8", "2001:db8::1/128"]

    def test_a_key_may_be_limited(self, ann: int, run: Run) -> None:
        options = ("--limit", "burst=100/60s", "--limit", "hourly=1000/1h", "--quota", "10000/day")
        create = ("keys", "create", "--user", str(ann), "--name", "k", "--mode", "bearer", "--scopes", "")
        made = answered(run(*create, *options, "--json"))
        shown = run(*create, *options).stdout

        assert made["limits"] == [
            {"name": "burst", "limit": 100, "window_s": 60},
            {"name": "hourly", "limit": 1000, "window_s": 3600},
        ]
        assert made["quota"] == {"limit": 10000, "per": "day"}
        assert "name=burst limit=100 window_s=60,name=hourly limit=1000 window_s=3600\n" in shown
        assert "limit=10000 per=day\n" in shown

    def test_a_blocked_owner_gets_none(self, ann: int, run: Run) -> None:
        good(run("users", "block", str(ann)))

        refused = run(
            "keys", "create", "--user", str(ann), "--name", "k", "--mode", "signed", "--scopes", "users:read"
        )

        assert (refused.exit_code, refused.stdout) == (1, "")
        assert refused.stderr == f"Error: the user {ann} is blocked: only active users get keys.\n"
        assert answered(run("keys", "list", "--json"))["data"] == []


def test_the_json_is_what_the_endpoints_answer(migrated: Settings, run: Run) -> None:
    """The command line and HTTP return the same rows in the same bytes."""
    user = good(run("users", "create", "--email", "Ann@example.com", "--name", "Ann Ü", "--json"))
    other = good(run("users", "create", "--email", "bob@example.com", "--name", "Bob", "--json"))
    key = answered(
        run(
            "keys", "create", "--user", "bob@example.com", "--name", "k", "--mode", "bearer",
            "--scopes", EVERY_SCOPE, "--json",
        )
    )  # fmt: skip
    bearer, access_key = key.pop("secret"), key["access_key"]
    ids = [answered(one)["id"] for one in (user, other)]

    read_user, users, read_key, keys, _, blocked, _, revoked = ask(
        migrated,
        bearer,
        ("GET", f"/v1/users/{ids[0]}", ""),
        ("GET", "/v1/users", ""),
        ("GET", f"/v1/keys/{access_key}", ""),
        ("GET", "/v1/keys", f"user_id={ids[1]}"),
        ("DELETE", f"/v1/users/{ids[0]}", ""),
        ("GET", "/v1/users", "status=deleted"),
        ("DELETE", f"/v1/keys/{access_key}", ""),
        ("GET", f"/v1/keys/{access_key}", ""),
    )

    assert user.stdout_bytes == read_user.body + b"\n"
    assert (
        users.body + b"\n"
        == b'{"data":['
        + b",".join([user.stdout_bytes.strip(), other.stdout_bytes.strip()])
        + b'],"next_cursor":null}\n'
    )
    assert read_key.json == key
    assert keys.json == {"data": [key], "next_cursor": None}
    assert good(run("users", "list", "--status", "deleted", "--json")).stdout_bytes == blocked.body + b"\n"
    assert revoked.status == 401  # its own key, from the next call on
    stored = answered(run("keys", "list", "--user", str(ids[1]), "--json"))["data"][0]
    assert stored["status"] == "revoked"
    assert stored["last_used_at"] is not None


def test_a_new_key_is_shown_with_the_fields_of_the_endpoint(migrated_sqlite: Settings, run: Run) -> None:
    good(run("users", "create", "--email", "ann@example.com", "--name", "Ann"))

    made = good(
        run("keys", "create", "--user", "1", "--name", "k", "--mode", "signed", "--scopes", "", "--json")
    )

    decoded = msgspec.json.decode(made.stdout_bytes, type=shapes.KeyWithSecret)
    assert msgspec.json.encode(decoded) + b"\n" == made.stdout_bytes


# ---------------------------------------------------------------------- invalid arguments

CREATE_USER = ("users", "create", "--name", "Ann", "--email")
CREATE_KEY = ("keys", "create", "--user", "1", "--name", "k", "--mode", "bearer")
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).isoformat()


class TestMistakes:
    @pytest.mark.parametrize(
        "arguments, status, sentence",
        [
            pytest.param((), 2, "Usage: latchkey", id="nothing"),
            pytest.param(("usres",), 2, "No such command 'usres'", id="an unknown command"),
            pytest.param(("users", "create"), 2, "Missing option '--email'", id="an option too few"),
            pytest.param(("users", "list", "--emial", "x"), 2, "No such option '--emial'", id="an unknown option"),
            pytest.param((*CREATE_USER, "ann"), 2, "'--email': it must be at most 254 characters", id="email"),
            pytest.param((*CREATE_USER, "a@b@c"), 2, "'--email': it must be", id="two at signs"),
            pytest.param((*CREATE_USER, "a b@c"), 2, "'--email': it must be", id="a space in the email"),
            pytest.param((*CREATE_USER, "a" * 250 + "@b.cd"), 2, "'--email': it must be", id="a long email"),
            pytest.param(("users", "create", "--email", "a@b", "--name", ""), 2, "'--name': it must be 1 to 200",
                         id="an empty name"),
            pytest.param(("users", "create", "--email", "a@b", "--name", "a\nb"), 2, "'--name': it must be",
                         id="a control character"),
            pytest.param(("users", "create", "--email", "a@b", "--name", "\udcff"), 2, "Argument 6 is not valid",
                         id="bytes that are no text"),
            pytest.param(("users", "block", "77"), 1, "there is no user 77.", id="an unknown id"),
            pytest.param(("users", "block", "x@y"), 1, "there is no user x@y.", id="an unknown email"),
            pytest.param(("users", "block", "0"), 2, "it must be a positive 64-bit number", id="zero"),
            pytest.param(("users", "block", "9" * 30), 2, "it must be a positive 64-bit number", id="10^30"),
            pytest.param(("users", "block", "2"), 1, "the user 2 is deleted, and stays so.", id="a deleted user"),
            pytest.param(("users", "list", "--status", "gone"), 2, "'gone' is not one of 'active'", id="status"),
            pytest.param(("users", "list", "--limit", "0"), 2, "0 is not in the range", id="limit"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--limit", "burst=100"), 2, "it must be a name, an amount and a window",
                         id="a limit without a window"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--limit", "b=0/1s"), 2, "it must be a name", id="a limit of 0"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--limit", "b=1/32d"), 2, "it must be a name",
                         id="a long window"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--limit", "quota=1/1s"), 2, "and not 'quota'",
                         id="a limit that is named as the quota"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--limit", "b=1/1s", "--limit", "b=2/1s"), 2,
                         "--limit: the name is given twice.", id="two limits of a name"),
            pytest.param((*CREATE_KEY, "--scopes", "", *(part for n in "abcdef" for part in ("--limit", f"{n}=1/1s"))),
                         2, "--limit: at most 5.", id="six limits"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--quota", "5/week"), 2, "it must be an amount and a period",
                         id="a quota of a week"),
            pytest.param((*CREATE_KEY, "--scopes", "users:fly"), 2, "'users:fly': there is no such scope; there are "
                         "keys:read", id="an undeclared scope"),
            pytest.param((*CREATE_KEY, "--scopes", "users:read,users:read"), 2, "the scope is given twice",
                         id="a scope twice"),
            pytest.param((*CREATE_KEY, "--scopes", ",".join("a" * 101)), 2, "at most 100 scopes", id="101 scopes"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--networks", "10.0.0.0/8,10.0.0.1/8"), 2,
                         "'10.0.0.1/8': it has host bits set", id="a block with host bits"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--networks", "10.0.0.0/8,"), 2, "'': it is not a block",
                         id="a comma too many"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--networks", ",".join(["::1"] * 101)), 2,
                         "at most 100 blocks", id="101 blocks"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--expires-at", YESTERDAY), 2, "the moment has passed",
                         id="a moment that has passed"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--expires-at", "2100-01-01T00:00:00"), 2,
                         "a moment with its offset", id="a moment without an offset"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--expires-at", "9999-12-31T23:59:59-14:00"), 2,
                         "the moment is out of range", id="a moment beyond the calendar"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--expires-at", "tomorrow"), 2, "a moment with its offset",
                         id="no moment"),
            pytest.param((*CREATE_KEY[:-1], "basic", "--scopes", ""), 2, "'basic' is not one of 'bearer', 'signed'",
                         id="mode"),
            pytest.param((*CREATE_KEY[:3], "7", *CREATE_KEY[4:], "--scopes", ""), 1, "there is no user 7.",
                         id="a key for nobody"),
            pytest.param((*CREATE_KEY[:3], "2", *CREATE_KEY[4:], "--scopes", ""), 1,
                         "the user 2 is deleted: only active users get keys.", id="a key for a deleted user"),
            pytest.param(("keys", "list", "--user", "x@y"), 1, "there is no user x@y.", id="the keys of nobody"),
            pytest.param(("keys", "revoke", NO_KEY), 1, f"there is no key {NO_KEY}.", id="an unknown key"),
            pytest.param(("keys", "grant", NO_KEY, "--scopes", "users:read"), 1, f"there is no key {NO_KEY}.",
                         id="widening an unknown key"),
            pytest.param(("keys", "grant", NO_KEY, "--scopes", "users:fly"), 2, "'users:fly': there is no such scope",
                         id="widening by an undeclared scope"),
            pytest.param(("keys", "rotate", NO_KEY), 1, f"there is no key {NO_KEY}.", id="rotating an unknown key"),
            pytest.param(("keys", "rotate", NO_KEY, "--grace", "31d"), 2, "it must be a number of seconds",
                         id="a grace that is too long"),
            pytest.param(("keys", "rotate", NO_KEY, "--grace", "2592001"), 2, "at most 30d", id="a second too long"),
            pytest.param(("keys", "rotate", NO_KEY, "--grace", "-1"), 2, "it must be a number of seconds",
                         id="a negative grace"),
            pytest.param(("keys", "rotate", NO_KEY, "--grace", "1w"), 2, "such as 30m, 12h or 7d", id="an unknown unit"),
            pytest.param(("keys", "revoke", "1"), 2, "it must be an access key", id="no public id"),
            pytest.param(("serve", "--port", "0"), 2, "0 is not in the range", id="port 0"),
            pytest.param(("serve", "--port", "http"), 2, "'http' is not a valid integer", id="no port"),
            pytest.param(("serve", "--workers", "0"), 2, "0 is not in the range", id="no workers"),
            pytest.param(("serve", "--workers", "2", "--reload"), 2, "--reload requires a single worker", id="reload"),
            pytest.param(("serve", "--host", "no such host", "--port", "1024"), 1, "cannot listen on port 1024 of no such host",
                         id="host"),
            pytest.param(("sign", "GET", "/v1/me", "--key", NO_KEY, "--secret", A_SECRET), 2,
                         "The URL must start with http://", id="a relative URL"),
            pytest.param(("sign", "BREW", "http://h/", "--key", NO_KEY, "--secret", A_SECRET), 2,
                         "'BREW' is not one of 'GET'", id="an unknown method"),
            pytest.param(("sign", "GET", "http://h/", "--key", "me", "--secret", A_SECRET), 2,
                         "it must be an access key", id="a wrong key"),
            pytest.param(("sign", "GET", "http://h/", "--key", NO_KEY, "--secret", ""), 2, "There is no secret.",
                         id="an empty secret"),
            pytest.param(("sign", "GET", "http://h/", "--key", NO_KEY, "--secret", "-"), 2, "There is no secret.",
                         id="nothing on standard input"),
            pytest.param(("sign", "GET", "http://h/", "--key", NO_KEY, "--secret", A_SECRET, "--form", "jwt"), 2,
                         "'jwt' is not one of 'query', 'message'", id="an unknown form"),
            pytest.param(("sign", "HEAD", "http://h/", "--key", NO_KEY, "--secret", A_SECRET, "--data", "{}"), 2,
                         "A HEAD call cannot have a body.", id="head with a body"),
            pytest.param(("call", "GET", "http://127.0.0.1:1/", "--key", NO_KEY, "--secret", A_SECRET), 1,
                         "127.0.0.1:1 does not answer: Connection refused.", id="a server that is not there"),
        ],
    )  # fmt: skip
    def test_the_sentence_says_what_to_do(
        self, migrated_sqlite: Settings, run: Run, arguments: tuple[Any, ...], status: int, sentence: str
    ) -> None:
        good(run("users", "create", "--email", "one@example.com", "--name", "One"))
        good(run("users", "create", "--email", "two@example.com", "--name", "Two"))
        asyncio.run(delete_user(migrated_sqlite, 2))

        result = run(*arguments)

        assert sentence in result.stderr
        assert (result.exit_code, result.stdout) == (status, "")
        assert isinstance(result.exception, SystemExit)  # and no traceback
        if status == 1:
            assert re.fullmatch(r"Error: [^\n]+\n", result.stderr)

    @pytest.mark.parametrize(
        "settings, arguments, sentence",
        [
            pytest.param({"LATCHKEY_DATABSE_URL": "x"}, ("users", "list"), "did you mean LATCHKEY_DATABASE_URL?",
                         id="a typo in a name"),
            pytest.param({"LATCHKEY_POOL_SIZE": "many"}, ("migrate",), "LATCHKEY_POOL_SIZE: ", id="a wrong value"),
            pytest.param({"LATCHKEY_DATABASE_URL": "postgresql://h/d"}, ("migrate",), "is not supported",
                         id="another database"),
            pytest.param({"LATCHKEY_DATABASE_URL": "mysql+asyncmy://app:hunter2@127.0.0.1:1/d"}, ("users", "list"),
                         "Can't connect", id="a server that is not there"),
            pytest.param({"LATCHKEY_DATABASE_URL": "mysql+asyncmy://app:hunter2@127.0.0.1:1/d"}, SERVE,
                         "Can't connect", id="serving without it"),
            pytest.param({"LATCHKEY_DATABASE_URL": "mysql+asyncmy://app:hunter2@127.0.0.1:1/d"}, ("migrate",),
                         "Can't connect", id="migrating without it"),
            pytest.param({"LATCHKEY_DATABASE_URL": "sqlite+aiosqlite:////no/such/folder/x.db"}, ("migrate",),
                         "unable to open database file", id="a folder that is not there"),
            pytest.param({"LATCHKEY_DATABASE_URL": "sqlite+aiosqlite:///text.db"}, ("migrate",),
                         "file is not a database", id="another kind of file"),
            pytest.param({"LATCHKEY_DATABASE_URL": "sqlite+aiosqlite:///new.db"}, ("users", "list"),
                         "the database is at revision none and this release needs", id="not migrated"),
            pytest.param({"LATCHKEY_DATABASE_URL": "sqlite+aiosqlite:///new.db"}, ("purge",),
                         "run `latchkey migrate`", id="purging what is not migrated"),
            pytest.param({"LATCHKEY_DATABASE_URL": "sqlite+aiosqlite:///new.db"}, SERVE,
                         "run `latchkey migrate`", id="serving what is not migrated"),
            pytest.param({"LATCHKEY_KEYRING": ""}, (*CREATE_KEY, "--scopes", ""), "`latchkey keyring` prints a new one",
                         id="no key ring"),
            pytest.param({"LATCHKEY_KEYRING": ""}, SERVE, "LATCHKEY_KEYRING is not set", id="serving without it"),
            pytest.param({"LATCHKEY_KEYRING": "1:hunter2"}, SERVE, "LATCHKEY_KEYRING: Entry 1",
                         id="a wrong key ring"),
        ],
    )  # fmt: skip
    def test_a_wrong_setting_is_one_sentence(
        self,
        migrated_sqlite: Settings,
        environ: pytest.MonkeyPatch,
        run: Run,
        tmp_path: Path,
        settings: dict[str, str],
        arguments: tuple[str, ...],
        sentence: str,
    ) -> None:
        (tmp_path / "text.db").write_text("not a database, though long enough to be looked at as one " * 20)
        for name, value in settings.items():
            environ.setenv(name, value)

        result = run(*arguments)

        assert (result.exit_code, result.stdout) == (1, "")
        assert sentence in result.stderr
        assert re.fullmatch(r"Error: [^\n]+\n", result.stderr)
        assert "hunter2" not in result.stderr

    def test_a_database_from_the_future_is_refused(self, migrated_sqlite: Settings, run: Run) -> None:
        asyncio.run(set_revision(migrated_sqlite, "9999"))

        for arguments in (("migrate",), ("users", "list"), SERVE):
            result = run(*arguments)
            assert result.exit_code == 1
            assert re.fullmatch(r"Error: [^\n]*9999[^\n]*\n", result.stderr)

    def test_a_port_that_is_taken_is_one_sentence(self, migrated_sqlite: Settings, run: Run) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]

            result = run("serve", "--port", str(port))

        assert result.exit_code == 1
        assert (
            result.stderr
            == f"Error: cannot listen on port {port} of 127.0.0.1: Address already in use; --port chooses another.\n"
        )

    @pytest.mark.parametrize(
        "arguments",
        [
            (A_SECRET,),
            ("keys", "revoke", A_SECRET),
            ("keys", "rotate", A_SECRET),
            ("keys", "rotate", NO_KEY, "--grace", A_SECRET),
            ("users", "block", A_SECRET),
            ("users", "list", A_SECRET),
            ("users", "list", "--status", A_SECRET),
            ("users", "list", f"--{A_SECRET}"),
            ("sign", "GET", A_SECRET, "--key", NO_KEY, "--secret", A_SECRET),
            ("sign", A_SECRET, "http://h/", "--key", NO_KEY, "--secret", A_SECRET),
            ("sign", "GET", "http://h/", "--key", A_SECRET, "--secret", A_SECRET),
            ("call", "GET", "http://127.0.0.1:1/", "--key", NO_KEY, "--secret", A_SECRET),
            (*CREATE_KEY, "--scopes", A_SECRET),
            (*CREATE_KEY, "--scopes", "", "--networks", A_SECRET),
        ],
    )
    def test_a_secret_in_the_wrong_place_is_not_repeated(
        self, migrated_sqlite: Settings, run: Run, arguments: tuple[str, ...]
    ) -> None:
        result = run(*arguments)

        assert result.exit_code in {1, 2}
        assert A_SECRET[4:] not in result.output


async def delete_user(settings: Settings, id: int) -> None:
    db = SQLAlchemy()
    db.init_app(None, settings)
    async with db.scoped_session() as session:
        connection = await session.connection()
        await connection.exec_driver_sql(f"UPDATE users SET status = 'deleted' WHERE id = {id}")
        await session.commit()
    await db.close()


async def set_revision(settings: Settings, revision: str) -> None:
    engine = create_engines(settings).writer
    async with engine.begin() as connection:
        await connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")
    await engine.dispose()


# ---------------------------------------------------------------------- the key ring of the database


class TestAnotherKeyRing:
    @pytest.fixture
    def key(self, migrated_sqlite: Settings, run: Run) -> dict[str, Any]:
        """A signing key that was made with the ring of the database; then another one is set."""
        good(run("users", "create", "--email", "ann@example.com", "--name", "Ann"))
        return answered(run(*CREATE_KEY[:-1], "signed", "--scopes", "", "--json"))

    @pytest.mark.parametrize(
        "arguments",
        [
            SERVE,
            (*CREATE_KEY, "--scopes", ""),
            ("keys", "rotate", "{access_key}"),
        ],
        ids=["serve", "create", "rotate"],
    )
    def test_it_stops_what_needs_the_ring_with_a_sentence(
        self, key: dict[str, Any], run: Run, environ: pytest.MonkeyPatch, arguments: tuple[str, ...]
    ) -> None:
        other = KeyRing.generate_text()
        environ.setenv("LATCHKEY_KEYRING", other)

        result = run(*(one.format(access_key=key["access_key"]) for one in arguments))

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == (
            "Error: LATCHKEY_KEYRING is not the key ring of this database: its key 1 is another one. "
            "If the right ring is lost, `latchkey keyring --adopt` accepts this one.\n"
        )

    def test_what_needs_no_ring_goes_on(
        self, key: dict[str, Any], run: Run, environ: pytest.MonkeyPatch
    ) -> None:
        environ.setenv("LATCHKEY_KEYRING", KeyRing.generate_text())

        assert len(answered(run("users", "list", "--json"))["data"]) == 1
        assert good(run("keys", "revoke", key["access_key"], "--json"))

    def test_it_is_adopted_when_it_is_asked_for(
        self, key: dict[str, Any], run: Run, environ: pytest.MonkeyPatch
    ) -> None:
        before = os.environ["LATCHKEY_KEYRING"]
        environ.setenv("LATCHKEY_KEYRING", KeyRing.generate_text())

        adopted = run("keyring", "--adopt")

        assert (adopted.exit_code, adopted.stdout) == (0, "")
        assert "must be rotated" in adopted.stderr
        assert answered(run("keys", "rotate", key["access_key"], "--json"))["secret_version"] == 2
        environ.setenv("LATCHKEY_KEYRING", before)
        assert run("keys", "rotate", key["access_key"]).exit_code == 1

    def test_none_is_adopted_without_a_ring(
        self, migrated_sqlite: Settings, run: Run, environ: pytest.MonkeyPatch
    ) -> None:
        environ.delenv("LATCHKEY_KEYRING")

        result = run("keyring", "--adopt")

        assert result.exit_code == 1
        assert "LATCHKEY_KEYRING is not set" in result.stderr


# ---------------------------------------------------------------------- signing


class TestSign:
    def test_it_prints_one_line_without_the_secret(self, run: Run) -> None:
        result = good(run("sign", "get", "http://h/v1/users?limit=2", "--key", NO_KEY, "--secret", A_SECRET))

        assert re.fullmatch(
            r"curl -sS -X GET -H 'secret: [A-Za-z0-9+/]{43}=' 'http://h/v1/users\?key=lka_0{22}&timestamp=\d+"
            r"&nonce=[A-Za-z0-9_-]{16,64}&method=GET&path=%2Fv1%2Fusers&limit=2'\n",
            result.stdout,
        )

    def test_the_secret_may_come_from_standard_input(self, run: Run) -> None:
        result = good(
            run("sign", "GET", "http://h/", "--key", NO_KEY, "--secret", "-", input=A_SECRET + "\n")
        )

        assert result.stdout.startswith("curl ")

    @pytest.mark.parametrize(
        "arguments, environment, given",
        [
            pytest.param(("--secret-file", "secret.txt"), None, None, id="a file"),
            pytest.param(("--secret", "@secret.txt"), None, None, id="@file"),
            pytest.param((), A_SECRET, None, id="the environment"),
            pytest.param((), f" {A_SECRET}\n", None, id="the environment, with white space"),
            pytest.param((), "@secret.txt", None, id="the environment names a file"),
            pytest.param(
                ("--secret-file", "secret.txt"), "another", None, id="a file before the environment"
            ),
            pytest.param(("--secret", "-"), "another", A_SECRET, id="standard input before the environment"),
            pytest.param(("--secret", A_SECRET), "another", None, id="the option before the environment"),
        ],
    )
    def test_the_secret_comes_from(
        self,
        run: Run,
        environ: pytest.MonkeyPatch,
        arguments: tuple[Any, ...],
        environment: str | None,
        given: str | None,
    ) -> None:
        Path("secret.txt").write_text(f"{A_SECRET}\na second line\n")
        if environment is not None:
            environ.setenv("LATCHKEY_SECRET", environment)

        line = good(run("sign", "GET", "http://h/", "--key", NO_KEY, *arguments, input=given)).stdout

        url = shlex.split(line)[-1]
        proof = hmac.digest(A_SECRET.encode(), url.partition("?")[2].encode(), "sha256")
        assert f"secret: {base64.b64encode(proof).decode()}" in shlex.split(line)

    def test_the_secret_may_come_from_a_pipe(self) -> None:
        """For example from a password manager; the command line never shows a secret."""
        made = subprocess.run(
            ["bash", "-c", f'"{sys.executable}" -m latchkey sign GET http://h/ --key {NO_KEY} --secret-file <(echo {A_SECRET})'],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

        assert (made.returncode, made.stdout[:5], made.stderr) == (0, "curl ", "")

    @pytest.mark.parametrize(
        "arguments, status, sentence",
        [
            pytest.param((), 2, "There is no secret. Pass it in a file with --secret-file FILE", id="none"),
            pytest.param(("--secret", "x", "--secret-file", "y"), 2, "give one of them", id="two ways"),
            pytest.param(
                ("--secret-file", "none.txt"), 1, "none.txt: No such file or directory", id="no file"
            ),
            pytest.param(("--secret", "@none.txt"), 1, "none.txt: No such file or directory", id="no @file"),
            pytest.param(("--secret-file", "."), 1, ".: Is a directory", id="a folder"),
            pytest.param(("--secret-file", "empty.txt"), 2, "There is no secret.", id="an empty file"),
            pytest.param(("--secret-file", "binary.txt"), 1, "binary.txt: it is not text.", id="no text"),
            pytest.param(("--secret-file", "a\0b"), 1, "null", id="no path"),
        ],
    )
    def test_without_a_secret_nothing_is_signed(
        self, run: Run, arguments: tuple[Any, ...], status: int, sentence: str
    ) -> None:
        Path("empty.txt").touch()
        Path("binary.txt").write_bytes(b"\xff\xfe")

        result = run("sign", "GET", "http://h/", "--key", NO_KEY, *arguments)

        assert (result.exit_code, result.stdout) == (status, "")
        assert sentence in result.stderr
        assert isinstance(result.exception, SystemExit)

    def test_the_variable_of_the_secret_stops_no_other_command(
        self, migrated_sqlite: Settings, run: Run, environ: pytest.MonkeyPatch
    ) -> None:
        environ.setenv("LATCHKEY_SECRET", A_SECRET)

        assert answered(run("users", "list", "--json")) == {"data": [], "next_cursor": None}

    def test_a_wrong_checksum_is_warned_about_and_signed(self, run: Run) -> None:
        wrong = A_SECRET[:-1] + "x"

        result = run("sign", "GET", "http://h/", "--key", NO_KEY, "--secret", wrong)

        assert (result.exit_code, result.stdout[:5]) == (0, "curl ")
        assert result.stderr == "Warning: the checksum of the secret is wrong; it may have a typo.\n"

    def test_a_message_is_signed_in_headers(self, run: Run) -> None:
        line = good(
            run("sign", "GET", "http://h/x", "--key", NO_KEY, "--secret", A_SECRET, "--form", "message")
        ).stdout

        words = shlex.split(line)
        headers = dict(word.split(": ", 1) for word in words[words.index("-H") :] if ": " in word)
        assert words[-1] == "http://h/x"
        assert list(headers) == ["signature-input", "signature", "host"]
        assert abs(time.time() - int(re.search(r";created=(\d+);", line)[1])) < 5

    def test_every_call_has_a_nonce_of_its_own(self, run: Run) -> None:
        nonces = {
            re.search(r"nonce=([^&]+)", run("sign", "GET", "http://h/", "--key", NO_KEY, "--secret", A_SECRET).stdout)[1]
            for _ in range(3)
        }  # fmt: skip

        assert len(nonces) == 3


# ---------------------------------------------------------------------- the rest


def every_command(group: click.Group = latchkey, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Return all commands, each with its arguments."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every_command(command, f"{before}{name} ")
        else:
            yield before + name, command


class TestMigrate:
    def test_it_says_from_where_to_where_and_needs_no_key_ring(self, run: Run, tmp_path: Path) -> None:
        first, second = run("migrate"), run("migrate")

        assert (first.exit_code, second.exit_code) == (0, 0)
        assert first.stdout == second.stdout == ""
        assert first.stderr == f"Migrated the database from revision none to {schema.head()}.\n"
        assert second.stderr == f"The database is at revision {schema.head()} already.\n"

    def test_what_is_up_to_date_stays(self, migrated: Settings, run: Run) -> None:
        assert run("migrate").stderr == f"The database is at revision {schema.head()} already.\n"


class TestPurge:
    def test_it_prints_how_many_rows_of_each_table_went_and_needs_no_key_ring(
        self, migrated: Settings, environ: pytest.MonkeyPatch, run: Run
    ) -> None:
        environ.delenv("LATCHKEY_KEYRING")
        asyncio.run(insert_nonces(migrated, 3))

        first, second = good(run("purge")), good(run("purge"))

        assert first.stdout == "idempotency_keys  0\nlimit_counters    0\nnonces            3\n"
        assert second.stdout == "idempotency_keys  0\nlimit_counters    0\nnonces            0\n"

    def test_a_long_one_says_how_far_it_is(
        self, migrated: Settings, environ: pytest.MonkeyPatch, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(housekeeping, "BATCH_ROWS", 2)
        monkeypatch.setattr(housekeeping, "PAUSE_S", 0)
        monkeypatch.setattr(server, "TELL_EVERY_ROWS", 4)
        asyncio.run(insert_nonces(migrated, 9))

        result = run("purge")

        assert result.exit_code == 0
        assert result.stdout == "idempotency_keys  0\nlimit_counters    0\nnonces            9\n"
        assert result.stderr == "nonces: 4 so far\nnonces: 8 so far\n"

    def test_where_somebody_else_purges_it_says_so(
        self, migrated_sqlite: Settings, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def be_late(*_: object, **__: object) -> None:
            return None

        monkeypatch.setattr(housekeeping, "purge", be_late)

        result = run("purge")

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "Error: another process is purging this database.\n"


async def insert_nonces(settings: Settings, rows: int) -> None:
    """Insert expired nonces."""
    engine = create_engines(settings).writer
    async with engine.begin() as connection:
        ended = datetime.now(UTC) - timedelta(minutes=1)
        await connection.execute(
            insert(Nonce.__table__),
            [{"access_key": NO_KEY, "nonce": b"n%d" % n, "expires_at": ended} for n in range(rows)],
        )
    await engine.dispose()


class TestPrinting:
    def test_a_key_ring_that_works(self, run: Run) -> None:
        first, second = (good(run("keyring")).stdout for _ in range(2))

        assert first != second
        KeyRing.from_text(first.removesuffix("\n"))

    def test_the_description_without_settings(self, environ: pytest.MonkeyPatch, run: Run) -> None:
        environ.setenv("LATCHKEY_DATABASE_URL", "nowhere")

        assert good(run("openapi")).stdout == openapi.render(openapi.document(ROUTES))

    def test_the_version(self, run: Run) -> None:
        assert good(run("--version")).stdout == f"latchkey, version {service.__version__}\n"

    def test_these_are_the_commands(self) -> None:
        assert sorted(name for name, _ in every_command()) == [
            "call", "dev", "keyring", "keys create", "keys grant", "keys list", "keys revoke", "keys rotate", "migrate", "openapi",
            "purge", "serve", "sign", "users block", "users create", "users list", "users unblock",
        ]  # fmt: skip

    @pytest.mark.parametrize("command", ["", "users", "keys", *(name for name, _ in every_command())])
    def test_every_command_explains_itself(self, run: Run, command: str) -> None:
        told = good(run(*command.split(), "--help")).stdout

        assert told.startswith(f"Usage: latchkey {command}".rstrip())
        assert re.search(r"\n\n  [A-Z][^\n]+", told)

    def test_the_documentation_names_every_command_and_option(self) -> None:
        documented = (Path(__file__).parents[2] / "docs" / "commands.md").read_text()
        named = {
            option
            for name, command in every_command()
            for option in (
                f"`latchkey {name}",
                *(one for parameter in command.params for one in parameter.opts),
            )
            if option.startswith(("-", "`"))
        }

        assert sorted(name for name in named if name not in documented) == []

    @pytest.mark.parametrize(
        "host, url_host",
        [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("h", "h")],
    )
    def test_an_address_to_listen_on_becomes_one_to_call(self, host: str, url_host: str) -> None:
        assert reachable(host) == url_host


# ---------------------------------------------------------------------- real processes


class Served:
    """A process `python -m latchkey …` on a free port, until the end of the block."""

    def __init__(self, folder: Path, *arguments: str, environ: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.arguments = [sys.executable, "-m", "latchkey", *arguments, "--port", str(self.port)]
        self.folder = folder
        self.environ = {**os.environ, **(environ or {})}
        self.out, self.err = folder / "out.txt", folder / "err.txt"

    def __enter__(self) -> Self:
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                self.arguments, cwd=self.folder, env=self.environ, stdout=out, stderr=err
            )
        deadline = time.monotonic() + 30
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                self.process.wait()
                pytest.fail(f"it does not serve: {self.err.read_text()}")
            time.sleep(0.05)
        return self

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url + "/healthz", timeout=5):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()


def status_of(asked: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def latchkey_process(*arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "latchkey", *arguments],
        capture_output=True, text=True, timeout=60, check=False, **kwargs,
    )  # fmt: skip


class TestTellingOfChanges:
    """With Redis, the workers are notified of a command's changes, and the command does not wait long for it."""

    async def test_a_command_tells_what_it_changed(
        self, migrated_sqlite: Settings, environ: pytest.MonkeyPatch, redis: PrivateRedis, run: Run
    ) -> None:
        environ.setenv("LATCHKEY_REDIS_URL", redis.url)
        channel = open_channel(Settings.from_env(os.environ))
        async with channel.listening() as listener:
            await asyncio.to_thread(run, "users", "create", "--email", "ann@example.com", "--name", "Ann")
            blocked = await asyncio.to_thread(run, "users", "block", "1")
            heard = [await listener.next(1) for _ in range(3)]
        await channel.close()

        good(blocked)
        assert [one for one in heard if one is not None] == [(1, "users 1"), (2, "users 1")]

    @pytest.mark.parametrize("answers", [False, True], ids=["nobody there", "somebody silent"])
    def test_without_redis_it_warns_and_changes_all_the_same(
        self, migrated_sqlite: Settings, environ: pytest.MonkeyPatch, run: Run, answers: bool
    ) -> None:
        good(run("users", "create", "--email", "ann@example.com", "--name", "Ann"))
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1] if answers else free_port()
            environ.setenv("LATCHKEY_REDIS_URL", f"redis://:hush@127.0.0.1:{port}")
            began = time.monotonic()
            blocked = run("users", "block", "1", "--json")

        assert time.monotonic() - began < 5
        assert (blocked.exit_code, json.loads(blocked.stdout)["status"]) == (0, "blocked")
        assert blocked.stderr.startswith("Redis cannot be reached (")
        assert "LATCHKEY_KEY_CACHE_TTL_S" in blocked.stderr
        assert blocked.stderr.count("\n") == 1
        assert "hush" not in blocked.stderr

    def test_reading_tells_nothing(
        self, migrated_sqlite: Settings, environ: pytest.MonkeyPatch, run: Run
    ) -> None:
        environ.setenv("LATCHKEY_REDIS_URL", f"redis://127.0.0.1:{free_port()}")

        good(run("users", "list"))

    def test_a_url_that_cannot_be_used_is_one_sentence(
        self, migrated_sqlite: Settings, environ: pytest.MonkeyPatch, run: Run
    ) -> None:
        environ.setenv("LATCHKEY_REDIS_URL", "hush")
        refused = run("users", "list")

        assert refused.exit_code == 1
        assert refused.stderr.startswith("Error: LATCHKEY_REDIS_URL cannot be used: ")
        assert "hush" not in refused.stderr


class TestServe:
    @pytest.fixture
    def keys(self, migrated_sqlite: Settings, run: Run) -> dict[str, Any]:
        good(run("users", "create", "--email", "ann@example.com", "--name", "Ann"))
        return {
            mode: answered(
                run("keys", "create", "--user", "1", "--name", mode, "--mode", mode, "--scopes", EVERY_SCOPE, "--json")
            )
            for mode in ("bearer", "signed")
        }  # fmt: skip

    def test_a_day_in_the_life(self, keys: dict[str, Any], tmp_path: Path) -> None:
        """It serves both kinds of keys, stops on request, exits with 0, and its logs contain no secret."""
        with Served(tmp_path, "serve") as served:
            asked = urllib.request.Request(
                served.url + "/v1/me", headers={"authorization": f"Bearer {keys['bearer']['secret']}"}
            )
            with urllib.request.urlopen(asked) as answer:
                by_bearer = json.load(answer)
                headers = answer.headers
            signer = ("--key", keys["signed"]["access_key"], "--secret", keys["signed"]["secret"])
            by_signature = latchkey_process("call", "GET", served.url + "/v1/me", *signer)
            by_message = latchkey_process("call", "GET", served.url + "/v1/me", *signer, "--form", "message")
            created = latchkey_process(
                "call", "POST", served.url + "/v1/users", *signer, "--data", '{"email":"b@c.d","name":"Bö"}'
            )
            made_by_message = latchkey_process(
                "call", "POST", served.url + "/v1/users?", *signer, "--form", "message",
                "--data", '{"email":"c@c.d","name":"Cö"}',
            )  # fmt: skip
            refused = latchkey_process("call", "GET", served.url + "/v1/users/77", *signer)
            ended = served.stop()
        logged = served.err.read_text()

        assert by_bearer["user"]["email"] == "ann@example.com"
        assert "server" not in headers
        assert json.loads(by_signature.stdout)["user"] == by_bearer["user"]
        assert (by_signature.returncode, by_signature.stderr) == (0, "HTTP/1.1 200 OK\n")
        assert (by_message.returncode, by_message.stderr) == (0, "HTTP/1.1 200 OK\n")
        assert json.loads(by_message.stdout)["user"] == by_bearer["user"]
        assert (made_by_message.returncode, made_by_message.stderr) == (0, "HTTP/1.1 201 Created\n")
        assert json.loads(made_by_message.stdout)["name"] == "Cö"
        assert (created.returncode, created.stderr) == (0, "HTTP/1.1 201 Created\n")
        assert json.loads(created.stdout)["name"] == "Bö"
        assert (refused.returncode, refused.stderr) == (1, "HTTP/1.1 404 Not Found\n")
        assert json.loads(refused.stdout)["code"] == "not_found"
        assert ended == 0
        assert "DB disconnected." in logged
        assert "Traceback" not in logged
        assert served.out.read_text() == ""
        assert not re.search(r"lks_\w{40}|nonce=|secret: ", logged)

    @pytest.mark.parametrize(
        "arguments, how",
        [
            pytest.param((), signal.SIGINT, id="Ctrl+C"),
            pytest.param(("--workers", "2"), signal.SIGTERM, id="two workers"),
            pytest.param(("--reload",), signal.SIGTERM, id="reload"),
        ],
    )
    def test_it_ends_well(
        self, migrated_sqlite: Settings, tmp_path: Path, arguments: tuple[Any, ...], how: Signals
    ) -> None:
        with Served(tmp_path, "serve", *arguments) as served:
            ended = served.stop(how)
        logged = served.err.read_text()

        assert ended == 0
        assert "DB disconnected." in logged
        assert "Traceback" not in logged

    @pytest.mark.parametrize(
        "trusted, status, client",
        [
            pytest.param("", 403, "127.0.0.1", id="no proxy is trusted"),
            pytest.param("127.0.0.0/8", 200, "192.0.2.7", id="this one is"),
        ],
    )
    def test_only_a_trusted_proxy_says_who_the_client_is(
        self, migrated_sqlite: Settings, run: Run, tmp_path: Path, trusted: str, status: int, client: str
    ) -> None:
        """The server itself would believe any header from this machine."""
        good(run("users", "create", "--email", "ann@example.com", "--name", "Ann"))
        key = answered(
            run("keys", "create", "--user", "1", "--name", "k", "--mode", "bearer", "--scopes", "", "--networks",
                "192.0.2.0/24", "--json")
        )  # fmt: skip
        asked = {"authorization": f"Bearer {key['secret']}", "x-forwarded-for": "192.0.2.7"}
        environ = {"LATCHKEY_TRUSTED_PROXIES": trusted, "LATCHKEY_LOG_FORMAT": "json"}

        with Served(tmp_path, "serve", environ=environ) as served:
            found = status_of(urllib.request.Request(served.url + "/v1/me", headers=asked))
        logged = [json.loads(line) for line in served.err.read_text().splitlines()]

        assert found == status
        assert [line["client"] for line in logged if line.get("path") == "/v1/me"] == [client]

    def test_a_wrong_setting_stops_it_before_it_starts(
        self, migrated_sqlite: Settings, environ: pytest.MonkeyPatch
    ) -> None:
        environ.setenv("LATCHKEY_KEYRING", "")

        done = latchkey_process("serve", "--port", str(free_port()))

        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(r"Error: LATCHKEY_KEYRING is not set: [^\n]+\n", done.stderr)

    def test_letters_that_the_terminal_lacks_are_escaped(
        self, migrated_sqlite: Settings, run: Run, environ: pytest.MonkeyPatch
    ) -> None:
        good(run("users", "create", "--email", "ann@example.com", "--name", "安"))
        environ.setenv("PYTHONIOENCODING", "latin-1")

        done = latchkey_process("users", "list")

        assert done.returncode == 0
        assert "\\u5b89" in done.stdout
