"""`latchkey sign`: where the secret comes from, and the printed call."""

import base64
import hmac
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from latchkey.service.settings import Settings
from tests.service.commands.running import A_SECRET, NO_KEY, Run, answered, good


class TestSign:
    def test_it_prints_one_line_without_the_secret(self, run: Run) -> None:
        result = good(run("sign", "get", "http://h/v1/users?limit=2", "--key", NO_KEY, "--secret", A_SECRET))

        assert re.fullmatch(
            r"curl -sS -X GET -H 'secret: [A-Za-z0-9+/]{43}=' 'http://h/v1/users\?key=lka_0{22}&timestamp=\d+"
            r"&nonce=[A-Za-z0-9_-]{16,64}&method=GET&path=%2Fv1%2Fusers&limit=2'\n",
            result.stdout,
        )

    def test_it_shows_the_query_that_is_signed(self, run: Run) -> None:
        result = good(
            run("sign", "GET", "http://h/v1/me?a=1", "--key", NO_KEY, "--secret", A_SECRET, "--show")
        )

        assert re.fullmatch(
            rf"key={NO_KEY}&timestamp=\d+&nonce=[A-Za-z0-9_-]+&method=GET&path=%2Fv1%2Fme&a=1\n",
            result.stdout,
        )

    def test_it_shows_the_signature_base(self, run: Run) -> None:
        result = good(
            run("sign", "POST", "http://h:81/v1/me", "--key", NO_KEY, "--secret", A_SECRET, "--show",
                "--data", "{}", "--form", "message")
        )  # fmt: skip

        assert result.stdout.startswith(
            '"@method": POST\n"@authority": h:81\n"@path": /v1/me\n"@query": ?\n"content-type": application/json\n'
            '"content-digest": sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:\n"@signature-params": ("@method"'
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

    @pytest.mark.parametrize(
        "arguments", [("--secret-file", "secret.txt"), ("--secret", "@secret.txt"), ("--secret", "-")]
    )
    def test_a_byte_order_mark_is_no_part_of_the_secret(self, run: Run, arguments: tuple[str, ...]) -> None:
        """Some editors begin a file with it."""
        Path("secret.txt").write_text(f"\ufeff{A_SECRET}\n", encoding="utf-8")

        good(run("sign", "GET", "http://h/", "--key", NO_KEY, *arguments, input=f"\ufeff{A_SECRET}\n"))

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
