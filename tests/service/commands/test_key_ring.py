"""Commands on a database whose key ring is another one."""

import os
from typing import Any, cast

import pytest

from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.settings import Settings
from tests.service.commands.running import CREATE_KEY, SERVE, Run, answered, good


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

    def test_commands_that_need_no_ring_still_work(
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


MAY_GO = "Ring key 1 may be removed from LATCHKEY_KEYRING once every process has ring key 2 in front."
NOT_SEALED = "The value was sealed with key 1, which is not in the key ring."


class TestANewFirstKey:
    @pytest.fixture
    def key(self, migrated_sqlite: Settings, run: Run, environ: pytest.MonkeyPatch) -> dict[str, Any]:
        """A signing key that was made with ring key 1; then ring key 2 is in front."""
        good(run("users", "create", "--email", "ann@example.com", "--name", "Ann"))
        made = answered(run(*CREATE_KEY[:-1], "signed", "--scopes", "", "--json"))
        self.old = os.environ["LATCHKEY_KEYRING"]
        self.new = good(run("keyring", "--id", "2")).stdout.strip()
        assert self.new.startswith("2:")
        environ.setenv("LATCHKEY_KEYRING", f"{self.new},{self.old}")
        return cast("dict[str, Any]", made)

    def test_the_status_shows_what_uses_each_key(
        self, key: dict[str, Any], run: Run, environ: pytest.MonkeyPatch
    ) -> None:
        shown = good(run("keyring", "status")).stdout.splitlines()

        assert [line.split()[:3] for line in shown[1:3]] == [["2", "first", "0"], ["1", "yes", "1"]]
        assert shown[3:] == [
            "Ring key 1 is used by 1 secrets of keys. `latchkey keyring rewrap` replaces it."
        ]
        environ.setenv("LATCHKEY_KEYRING", self.new)
        found = answered(run("keyring", "status", "--json"))
        assert found["ring"] == [2]
        assert found["uses"]["1"]["encrypted"] == {"secrets of keys": 1}

    def test_a_removed_key_that_is_needed_stops_the_start_until_it_is_replaced(
        self, key: dict[str, Any], run: Run, environ: pytest.MonkeyPatch
    ) -> None:
        assert run("keys", "rotate", key["access_key"], "--grace", "1h").exit_code == 0
        environ.setenv("LATCHKEY_KEYRING", self.new)

        refused = run(*SERVE)

        assert refused.exit_code == 1
        assert (
            f"key 1 is missing, with which the secret of {key['access_key']} is sealed: add it again, "
            "and run `latchkey keyring rewrap` before you remove it."
        ) in refused.stderr
        environ.setenv("LATCHKEY_KEYRING", f"{self.new},{self.old}")
        assert good(run("keyring", "rewrap")).stdout.splitlines() == [
            "1 values were encrypted with ring key 2.",
            f"{MAY_GO} Nothing uses it.",
        ]
        environ.setenv("LATCHKEY_KEYRING", self.new)
        assert answered(run("keys", "rotate", key["access_key"], "--json"))["secret_version"] == 3

    def test_a_value_that_does_not_open_is_named(
        self, key: dict[str, Any], run: Run, environ: pytest.MonkeyPatch
    ) -> None:
        good(run("keys", "revoke", key["access_key"]))
        environ.setenv("LATCHKEY_KEYRING", self.new)
        run("keyring", "--adopt")

        result = run("keyring", "rewrap")

        assert result.exit_code == 1
        assert result.stdout.splitlines()[1].startswith(
            "Ring key 1 is used by 1 secrets of keys. It is missing"
        )
        assert result.stderr.splitlines() == [
            f"the secret of {key['access_key']}, version 1: {NOT_SEALED}",
            "Error: 1 values cannot be decrypted.",
        ]
