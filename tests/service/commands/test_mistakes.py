"""A wrong argument or setting is one sentence that says what to do, without a traceback or a secret."""

import asyncio
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from latchkey.service.database import SQLAlchemy, schema
from latchkey.service.database.engines import name_of
from latchkey.service.settings import Settings
from tests.service.commands.running import (
    A_SECRET,
    CREATE_KEY,
    CREATE_USER,
    NO_KEY,
    SERVE,
    YESTERDAY,
    Run,
    good,
    set_revision,
)


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
                         "audit:read", id="an undeclared scope"),
            pytest.param((*CREATE_KEY, "--scopes", "users:read,users:read"), 2, "the scope is given twice",
                         id="a scope twice"),
            pytest.param((*CREATE_KEY, "--scopes", ",".join("a" * 101)), 2, "at most 100 scopes", id="101 scopes"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--networks", "10.0.0.0/8,10.0.0.1/8"), 2,
                         "'10.0.0.1/8': it has host bits set", id="a block with host bits"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--networks", "10.0.0.0/8,"), 2, "'': it is not a block",
                         id="a comma too many"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--networks", ",".join(["::1"] * 101)), 2,
                         "at most 100 blocks", id="101 blocks"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--expires-at", YESTERDAY), 2, "the time has passed",
                         id="a moment that has passed"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--expires-at", "2100-01-01T00:00:00"), 2,
                         "a time with its offset", id="a moment without an offset"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--expires-at", "9999-12-31T23:59:59-14:00"), 2,
                         "the time is out of range", id="a moment beyond the calendar"),
            pytest.param((*CREATE_KEY, "--scopes", "", "--expires-at", "tomorrow"), 2, "a time with its offset",
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
            pytest.param(("keys", "revoke", "1"), 2, "it must be an access key", id="no access key"),
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
            pytest.param(("sign", "GET", "http://h:99999/", "--key", NO_KEY, "--secret", A_SECRET), 2,
                         "The port of the URL must be a number from 1 to 65535.", id="a port that is too large"),
            pytest.param(("serve", "--port", "99999"), 2, "99999 is not in the range", id="port 99999"),
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
                         "unable to open database file: /no/such/folder/x.db (there is no folder /no/such/folder)",
                         id="a folder that is not there"),
            pytest.param({"LATCHKEY_DATABASE_URL": "sqlite+aiosqlite:////"}, ("migrate",),
                         "unable to open database file: / (it is a folder)", id="a database that is a folder"),
            pytest.param({"LATCHKEY_DATABASE_URL": "mysql+asyncmy://app:hunter2@/d?unix_socket=/no/such.sock"}, ("migrate",),
                         "No such file or directory): /no/such.sock", id="a socket that is not there"),
            pytest.param({"LATCHKEY_DATABASE_URL": "mysql+asyncmy://app:x@hunter2@127.0.0.1:1/d"}, ("migrate",),
                         "@ as %40", id="a password with @"),
            pytest.param({"LATCHKEY_DATABASE_URL": "mysql+asyncmy://app:x@hunter2/y@127.0.0.1:1/d"}, SERVE,
                         "/ as %2F", id="a password with @ and /"),
            pytest.param({"LATCHKEY_READER_URL": "mysql+asyncmy://app:x/hunter2@127.0.0.1:1/d"}, SERVE,
                         "LATCHKEY_READER_URL: the user or the password contains", id="a reader's password with /"),
            pytest.param({"LATCHKEY_REDIS_URL": "redis://app:x@hunter2@127.0.0.1:1/0"}, ("users", "list"),
                         "LATCHKEY_REDIS_URL: the user or the password contains", id="Redis's password with @"),
            pytest.param({"LATCHKEY_REDIS_URL": "redis://127.0.0.1:99999/0"}, ("users", "list"),
                         "a port is from 1 to 65535", id="a port of Redis that is none"),
            pytest.param({"LATCHKEY_REDIS_URL": "rediss://127.0.0.1/0?ssl_ca=/no/ca.pem"}, ("users", "list"),
                         "LATCHKEY_REDIS_URL: ssl_ca=/no/ca.pem: No such file or directory", id="an authority of Redis"),
            pytest.param({"LATCHKEY_DATABASE_URL": "sqlite+aiosqlite:///text.db"}, ("migrate",),
                         "text.db", id="another kind of file"),
            pytest.param({"LATCHKEY_DATABASE_URL": "sqlite+aiosqlite:///new.db"}, ("users", "list"),
                         "new.db is at revision none and this release needs", id="not migrated"),
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

    def test_a_database_from_the_future_is_refused(self, migrated: Settings, run: Run) -> None:
        asyncio.run(set_revision(migrated, "9999"))

        try:
            for arguments in (("migrate",), ("migrate", "--check"), ("users", "list"), ("purge",), SERVE):
                result = run(*arguments)
                assert result.exit_code == 1
                assert result.stderr == (
                    f"Error: the database {name_of(make_url(migrated.database_url))} is at revision 9999, which this "
                    f"release does not know, because it ends at {schema.head()}: a newer release has migrated it. "
                    "Run that one, or one that is newer.\n"
                )
        finally:
            asyncio.run(set_revision(migrated, schema.head()))

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
