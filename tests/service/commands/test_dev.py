"""`latchkey dev` prepares everything for a first call, once, readable by its owner only, and reports its steps."""

import asyncio
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result
from sqlalchemy import text

from latchkey.models import ApiKey, User
from latchkey.service.authentication.keyring import KeyRing
from latchkey.service.commands import development as dev
from latchkey.service.commands import server
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.engines import create_engines
from latchkey.service.routes import ROUTES, declared_scopes
from latchkey.service.settings import Settings
from tests.conftest import empty
from tests.processes import Served
from tests.service.commands.running import Run

HERE = "sqlite+aiosqlite:///var/latchkey.db"


@pytest.fixture
def prepare(run: Run) -> Run:
    """Prepare without serving; return the output."""

    def prepared(*options: str) -> Result:
        result = run("dev", "--prepare-only", *options)
        assert result.exit_code == 0, result.output
        return result

    return prepared


def test_responses_say_what_took_the_time_unless_a_setting_says_otherwise() -> None:
    given = {"LATCHKEY_DATABASE_URL": HERE, "LATCHKEY_KEYRING": KeyRing.generate_text()}
    name = "LATCHKEY_SERVER_TIMING"

    assert dev.development_environ(given, print)[name] == "true"
    assert dev.development_environ({**given, name: "false"}, print)[name] == "false"


def kept() -> Any:
    return json.loads(Path("var/dev.json").read_text())


def contents() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in Path("var").iterdir()}


def modes() -> dict[str, str]:
    return {str(path): oct(path.stat().st_mode & 0o777) for path in [Path("var"), *Path("var").iterdir()]}


def rows(model: type[Any], url: str = HERE) -> list[Any]:
    async def read() -> list[Any]:
        db = SQLAlchemy()
        db.init_app(None, Settings(database_url=url))
        try:
            return await model.filter().order_by("id").all()
        finally:
            await db.close()

    return asyncio.run(read())


def change(sql: str, url: str = HERE) -> None:
    async def write() -> None:
        engine = create_engines(Settings(database_url=url)).writer
        async with engine.begin() as connection:
            await connection.execute(text(sql))
        await engine.dispose()

    asyncio.run(write())


class TestTheFirstTime:
    def test_it_makes_a_user_with_two_keys(self, prepare: Run) -> None:
        prepare("--port", "8123")

        (user,) = rows(User)
        bearer, signed = rows(ApiKey)
        assert (user.email, user.name, user.status) == ("dev@example.com", "Developer", "active")
        assert (bearer.user_id, bearer.mode, frozenset(bearer.scopes)) == (
            user.id,
            "bearer",
            declared_scopes(ROUTES),
        )
        assert (signed.user_id, signed.mode, signed.scopes) == (user.id, "signed", ("users:read",))
        assert kept() == {
            "base_url": "http://127.0.0.1:8123",
            "bearer": kept()["bearer"],
            "signed": {"access_key": signed.access_key, "secret": kept()["signed"]["secret"]},
        }

    @pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
    def test_the_files_are_readable_by_their_owner_only(self, prepare: Run, umask: int) -> None:
        before = os.umask(umask)
        try:
            prepare()
        finally:
            os.umask(before)

        assert modes() == {
            "var": "0o700",
            "var/keyring": "0o600",
            "var/latchkey.db": "0o600",
            "var/dev.json": "0o600",
            "var/dev.header": "0o600",
            "var/dev.secret": "0o600",
        }

    def test_the_files_are_readable_by_their_owner_only_from_the_start(
        self, prepare: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Files are private from the start, not only after a `chmod`."""
        monkeypatch.setattr(Path, "chmod", lambda self, mode: None)
        before = os.umask(0)
        try:
            prepare()
        finally:
            os.umask(before)

        assert modes() == {"var": "0o700", **{f"var/{name}": "0o600" for name in contents()}}

    def test_a_file_is_never_open_to_others_not_even_at_first(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        seen = []
        replace = Path.replace
        monkeypatch.setattr(
            Path,
            "replace",
            lambda self, target: (seen.append(self.stat().st_mode & 0o777), replace(self, target)),
        )
        before = os.umask(0)
        try:
            dev.write_private(tmp_path / "secret", "text")
        finally:
            os.umask(before)

        assert seen == [0o600]
        assert [file.name for file in tmp_path.iterdir()] == ["secret"]

    def test_only_the_two_commands_are_on_standard_output(self, prepare: Run) -> None:
        result = prepare("--port", "8123")

        curl, call = result.stdout.splitlines()
        assert shlex.split(curl) == ["curl", "-sS", "-H", "@var/dev.header", "http://127.0.0.1:8123/v1/me"]
        assert shlex.split(call) == [
            sys.executable, "-m", "latchkey", "call", "GET", "http://127.0.0.1:8123/v1/me",
            "--key", kept()["signed"]["access_key"], "--secret-file", "var/dev.secret",
        ]  # fmt: skip
        assert Path("var/dev.header").read_text() == f"Authorization: Bearer {kept()['bearer']}\n"
        assert Path("var/dev.secret").read_text() == kept()["signed"]["secret"] + "\n"
        assert "lks_" not in result.output
        assert KeyRing.from_text(Path("var/keyring").read_text().strip())
        assert Path("var/keyring").read_text().strip() not in result.output

    def test_the_command_is_the_one_of_the_virtual_environment_where_there_is_one(self, prepare: Run) -> None:
        Path(".venv/bin").mkdir(parents=True)
        Path(".venv/bin/latchkey").touch()

        assert prepare().stdout.splitlines()[1].startswith(".venv/bin/latchkey call GET http://")

    def test_it_prints_the_variables_of_the_other_commands_unless_they_are_set(
        self, prepare: Run, run: Run, environ: pytest.MonkeyPatch
    ) -> None:
        """With them, the other commands find what it has prepared; the key ring stays in its file."""
        lines = [line for line in prepare().stderr.splitlines() if line.startswith("export ")]
        told = "; ".join([*lines, 'echo "$LATCHKEY_DATABASE_URL" "$LATCHKEY_KEYRING"'])
        shell = subprocess.run(["sh", "-c", told], capture_output=True, text=True, check=True)
        url, keyring = shell.stdout.split()

        assert keyring not in "".join(lines)
        environ.setenv("LATCHKEY_DATABASE_URL", url)
        environ.setenv("LATCHKEY_KEYRING", keyring)
        assert "dev@example.com" in run("users", "list").stdout
        assert "export" not in prepare().stderr


class TestAgain:
    def test_nothing_changes(self, prepare: Run) -> None:
        first = prepare()
        before = contents()

        second = prepare()

        assert contents() == before
        assert second.stdout == first.stdout
        assert "Created" in first.stderr
        assert "Created" not in second.stderr

    @pytest.mark.parametrize("name", ["dev.header", "dev.secret"])
    @pytest.mark.parametrize("text", [None, "lks_another"], ids=["lost", "another's"])
    def test_missing_files_of_the_commands_are_written_again(
        self, prepare: Run, name: str, text: str | None
    ) -> None:
        prepare()
        before = contents()
        Path("var", name).unlink() if text is None else Path("var", name).write_text(text)

        prepare()

        assert contents() == before

    def test_another_port_changes_only_the_url(self, prepare: Run) -> None:
        prepare("--port", "8001")
        before = kept()

        prepare("--port", "8002", "--host", "0.0.0.0")

        assert kept() == {**before, "base_url": "http://127.0.0.1:8002"}

    def test_files_that_an_editor_began_with_a_byte_order_mark_are_read(self, prepare: Run) -> None:
        prepare()
        before = kept()
        for name in ("keyring", "dev.json"):
            path = Path("var", name)
            path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

        prepare()

        assert kept() == before

    def test_modes_that_were_loosened_are_tightened(self, prepare: Run) -> None:
        prepare()
        before = modes()
        for path in [Path("var"), *Path("var").iterdir()]:
            path.chmod(0o755)

        prepare()

        assert modes() == before

    def test_scopes_that_are_new_go_to_the_bearer_key(
        self, prepare: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as earlier:
            earlier.setattr(server, "read_scopes", lambda: frozenset({"users:read"}))
            prepare()
        before = kept()

        result = prepare()

        bearer, signed = rows(ApiKey)
        assert set(bearer.scopes) == declared_scopes(ROUTES)
        assert signed.scopes == ("users:read",)
        assert kept() == before
        assert (
            f"Added to the bearer key: {', '.join(sorted(set(bearer.scopes) - {'users:read'}))}."
            in result.stderr
        )


BOTH = {"bearer", "signed"}


class TestWhatNoLongerFits:
    @pytest.mark.parametrize(
        "sql, renewed, user",
        [
            pytest.param("UPDATE api_keys SET status = 'revoked' WHERE mode = 'bearer'", {"bearer"}, 1, id="revoked"),
            pytest.param("UPDATE api_keys SET status = 'revoked' WHERE mode = 'signed'", {"signed"}, 1,
                         id="the other one revoked"),
            pytest.param("UPDATE api_keys SET expires_at = '2020-01-01 00:00:00.000000'", BOTH, 1, id="expired"),
            pytest.param("DELETE FROM key_secrets", BOTH, 1, id="without their secrets"),
            pytest.param("UPDATE key_secrets SET expires_at = '2020-01-01 00:00:00.000000'", BOTH, 1,
                         id="with secrets that have ended"),
            pytest.param("UPDATE key_secrets SET expires_at = '2100-01-01 00:00:00.000000'", set(), 1,
                         id="with secrets that will end"),
            pytest.param("UPDATE users SET status = 'deleted'", BOTH, 2, id="user deleted"),
            pytest.param("UPDATE users SET status = 'blocked'", set(), 1, id="user blocked"),
        ],
    )  # fmt: skip
    def test_broken_keys_are_made_anew_and_reported(
        self, prepare: Run, sql: str, renewed: set[Any], user: int
    ) -> None:
        prepare()
        before = kept()
        change(sql)

        told = prepare().stderr

        assert {name for name in BOTH if kept()[name] != before[name]} == renewed
        for mode in BOTH:
            line = f"Created a {mode} key: the one in var/dev.json does not work here."
            assert (line in told) == (mode in renewed)
        assert [row.id for row in rows(User) if row.status == "active"] == [user]
        assert_works()

    @pytest.mark.parametrize(
        "wreck",
        [
            pytest.param(lambda: Path("var/dev.json").unlink(), id="lost"),
            pytest.param(lambda: Path("var/dev.json").write_text("{"), id="cut off"),
            pytest.param(lambda: Path("var/dev.json").write_bytes(b'"\xff"'), id="no text"),
            pytest.param(lambda: Path("var/dev.json").write_text('{"bearer": 1}'), id="of another shape"),
        ],
    )
    def test_keys_that_were_lost_are_made_anew_and_said(
        self, prepare: Run, wreck: Callable[..., Any]
    ) -> None:
        prepare()
        wreck()

        told = prepare().stderr

        assert "Created a bearer key." in told
        assert "Created a signed key." in told
        assert "Created the user" not in told
        assert_works()

    def test_a_secret_that_is_not_the_keys_own_is_made_anew(self, prepare: Run) -> None:
        prepare()
        before = kept()
        mixed = {**before, "signed": {**before["signed"], "secret": before["bearer"]}}
        Path("var/dev.json").write_text(json.dumps(mixed))

        prepare()

        assert kept()["bearer"] == before["bearer"]
        assert kept()["signed"]["access_key"] != before["signed"]["access_key"]
        assert_works()

    def test_another_key_ring_makes_another_signed_key(self, prepare: Run) -> None:
        prepare()
        before = kept()
        Path("var/keyring").unlink()

        prepare()

        assert kept()["bearer"] == before["bearer"]
        assert kept()["signed"] != before["signed"]
        assert_works()

    def test_another_database_makes_other_keys(self, prepare: Run) -> None:
        prepare()
        before = kept()
        Path("var/latchkey.db").unlink()

        prepare()

        assert {name for name in BOTH if kept()[name] != before[name]} == BOTH
        assert_works()


def assert_works() -> None:
    """Assert that both keys in var/dev.json belong to one active user, are active, and that the secret of the signed one opens."""
    found = msgspec.json.decode(Path("var/dev.json").read_bytes(), type=dev.Kept)
    ring = KeyRing.from_text(Path("var/keyring").read_text().strip())
    again = asyncio.run(
        dev.prepare(
            Settings(database_url=HERE),
            ring,
            scopes=declared_scopes(ROUTES),
            base_url=found.base_url,
            report=pytest.fail,
        )
    )
    assert again == found


class TestSettings:
    def test_a_database_of_the_users_own_is_used_and_named(
        self, settings: Settings, environ: pytest.MonkeyPatch, prepare: Run
    ) -> None:
        environ.setenv("LATCHKEY_DATABASE_URL", settings.database_url)
        try:
            first, second = prepare(), prepare()

            assert [user.email for user in rows(User, settings.database_url)] == ["dev@example.com"]
            assert len(rows(ApiKey, settings.database_url)) == 2
        finally:
            if "mysql" in settings.database_url:
                asyncio.run(empty(settings))
        said = "Using the database of LATCHKEY_DATABASE_URL, not var/latchkey.db."
        assert said in first.stderr
        assert said in second.stderr
        assert settings.database_url not in first.output
        assert first.stdout == second.stdout
        assert not Path("var/latchkey.db").exists()

    def test_a_key_ring_of_the_users_own_is_used_and_named(
        self, environ: pytest.MonkeyPatch, prepare: Run
    ) -> None:
        environ.setenv("LATCHKEY_KEYRING", KeyRing.generate_text())

        assert "Using LATCHKEY_KEYRING, not var/keyring." in prepare().stderr
        assert not Path("var/keyring").exists()

    def test_a_key_ring_that_is_none_is_one_sentence(self, run: Run) -> None:
        Path("var").mkdir()
        Path("var/keyring").write_text("1:secretsecret\n")

        result = run("dev", "--prepare-only")

        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("Error: var/keyring is not a key ring (Entry 1")
        assert "secretsecret" not in result.stderr

    def test_a_folder_that_is_none_is_one_sentence(self, run: Run) -> None:
        Path("var").touch()

        result = run("dev", "--prepare-only")

        assert (result.exit_code, result.stderr) == (1, "Error: var: File exists\n")

    def test_a_port_that_is_taken_stops_it_before_anything_is_made(self, run: Run) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]

            result = run("dev", "--port", str(port))

        assert result.exit_code == 1
        assert (
            result.stderr
            == f"Error: cannot listen on port {port} of 127.0.0.1: Address already in use; --port chooses another.\n"
        )
        assert not Path("var").exists()

    def test_no_secret_is_in_what_a_traceback_would_show(self) -> None:
        held = dev.Kept(base_url="http://h", bearer="lks_1", signed=dev.SignedKey("lka_1", "lks_2"))

        assert "lks_" not in repr(held) + repr(held.signed)


def test_both_commands_answer_as_the_same_user(tmp_path: Path, environ: pytest.MonkeyPatch) -> None:
    """The whole sequence: prepare, serve with reload, run both commands, stop."""
    with Served(tmp_path, "dev") as served:
        lines = served.out.read_text().splitlines()
        answers = [
            subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, check=False, timeout=60)
            for line in lines
            if shutil.which(shlex.split(line)[0])
        ]
        held = kept()
        asked = urllib.request.Request(
            served.url + "/v1/me", headers={"authorization": f"Bearer {held['bearer']}"}
        )
        with urllib.request.urlopen(asked) as answer:
            me = json.load(answer)
        ended = served.stop()

    assert len(lines) == 2
    assert held["base_url"] == served.url
    assert [json.loads(answer.stdout)["user"] for answer in answers] == [me["user"]] * len(answers)
    assert me["user"]["email"] == "dev@example.com"
    assert ended == 0
    logged = served.err.read_text()
    assert "DB disconnected." in logged
    assert "lks_" not in logged
    assert "Traceback" not in logged


def test_serve_takes_what_dev_prepared(tmp_path: Path, environ: pytest.MonkeyPatch, prepare: Run) -> None:
    call = prepare("--port", "8000").stdout.splitlines()[1]
    mine = {"LATCHKEY_DATABASE_URL": HERE, "LATCHKEY_KEYRING": Path("var/keyring").read_text().strip()}

    with Served(tmp_path, "serve", environ=mine) as served:
        done = subprocess.run(
            shlex.split(call.replace("http://127.0.0.1:8000", served.url)),
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip

    assert json.loads(done.stdout)["key"]["scopes"] == ["users:read"]
