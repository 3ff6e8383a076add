"""Commands on a database whose key ring is another one."""

import os
from typing import Any

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
