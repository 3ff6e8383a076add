"""The help of every command, and commands that only print."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from latchkey import service
from latchkey.service import openapi
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.commands import latchkey
from latchkey.service.commands.server import reachable
from latchkey.service.routes import ROUTES
from tests.service.commands.running import Run, good


def every_command(group: click.Group = latchkey, before: str = "") -> Iterator[tuple[str, click.Command]]:
    """Return all commands, each with its arguments."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every_command(command, f"{before}{name} ")
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield before + name, command


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
            "audit export", "audit verify", "call", "dev", "export", "gate explain", "keyring", "keyring rewrap",
            "keyring status", "keys create", "keys credits", "keys grant", "keys import", "keys list", "keys revoke",
            "keys rotate", "migrate", "migrations new", "new endpoint", "openapi", "purge", "roles add", "roles change",
            "roles list", "roles remove", "scopes add", "scopes list", "scopes remove", "serve", "sign", "usage",
            "users block", "users create", "users erase", "users list", "users unblock", "webhooks list",
            "webhooks ping", "webhooks redeliver",
        ]  # fmt: skip

    @pytest.mark.parametrize("command", ["", "users", "keys", *(name for name, _ in every_command())])
    def test_every_command_explains_itself(self, run: Run, command: str) -> None:
        told = good(run(*command.split(), "--help")).stdout

        assert told.startswith(f"Usage: latchkey {command}".rstrip())
        assert re.search(r"\n\n  [A-Z][^\n]+", told)

    def test_the_documentation_names_every_command_and_option(self) -> None:
        documented = (Path(__file__).parents[3] / "docs" / "commands.md").read_text()
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
