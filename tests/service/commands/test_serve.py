"""`latchkey serve` and `latchkey call` in separate processes."""

import json
import re
import signal
import urllib.error
import urllib.request
from pathlib import Path
from signal import Signals
from typing import Any

import pytest

from benchmarks.ports import free_port
from latchkey.service.settings import Settings
from tests.processes import Served, latchkey_process, status_of
from tests.service.commands.running import EVERY_SCOPE, Run, answered, good


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
