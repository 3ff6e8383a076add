"""The programs in the README of each client run, as they are printed: the vector, calls to a live server, a webhook."""

import asyncio
import os
import re
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from standardwebhooks import Webhook

from tests.api import hold_key
from tests.server.conftest import Serving

FOLDER = Path(__file__).parents[3] / "examples" / "clients"
BLOCK = re.compile(r"^```(?:python|javascript|sh|go|php)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
VECTOR = "jnjkwUMJgHhfGRCQ1ZD90poV7c3l9OUzl0phNFzkRQg="
WEBHOOK_SECRET = "whsec_b3RoZXI="
EVENT = '{"type": "key.revoked"}'
GO = """package main
import ("fmt"; "net/http"; "os"; "time"; "latchkey.example/client")
func main() {
    %s
    body := []byte(`%s`)
    request := &http.Request{Header: http.Header{}}
    for _, name := range []string{"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"} {
        request.Header.Set(name, os.Getenv(name))
    }
    %s
}
"""


class Language(msgspec.Struct, frozen=True):
    """How to run a program: the name of its file, its command, and what defines the names of the webhook."""

    file: str
    command: tuple[str, ...]
    webhook: str = ""
    first: str = ""
    event: str = "key.revoked"


HEADERS = ("Webhook-Id", "Webhook-Timestamp", "Webhook-Signature")
LANGUAGES = {
    "python": Language(
        "p.py", (sys.executable,), f"import os\nbody, headers = b'{EVENT}', {{k: os.environ[k] for k in {HEADERS}}}\n"
    ),
    "node": Language(
        "p.mjs",
        ("node",),
        f"const body = '{EVENT}', headers = Object.fromEntries({list(HEADERS)}.map((k) => [k, process.env[k]]));\n",
    ),
    "bash": Language(
        "p.sh",
        ("env", "-S", "bash -euo pipefail"),
        f"printf %s '{EVENT}' >body.json\n"
        + "".join(f"{name.lower().replace('-', '_')}=$(printenv {name})\n" for name in HEADERS),
        event="valid",
    ),
    "php": Language(
        "p.php",
        ("php",),
        f"$body = '{EVENT}'; foreach ({list(HEADERS)} as $k) {{ $headers[$k] = getenv($k); }}\n",
        first="<?php\n",
    ),
    "go": Language("main.go", ("go", "run"), event="valid"),
}  # fmt: skip


async def run(language: Language, text: str, folder: Path, environ: dict[str, str]) -> list[str]:
    (folder / language.file).write_text(language.first + text)
    process = await asyncio.create_subprocess_exec(
        *language.command, language.file, cwd=folder, env={**os.environ, **environ},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode().splitlines()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", LANGUAGES)
async def test_the_programs_of_the_readme_run(name: str, serving: Serving, tmp_path: Path) -> None:
    language = LANGUAGES[name]
    if shutil.which(language.command[0]) is None:
        pytest.skip(f"{language.command[0]} not found")
    vector, calls, webhook = BLOCK.findall((FOLDER / name / "README.md").read_text())
    shutil.copytree(FOLDER / name, tmp_path, dirs_exist_ok=True)
    now = datetime.fromtimestamp(int(time.time()), UTC)
    key = await hold_key(serving.app, mode="signed")
    environ = {
        "BASE": serving.url, "KEY": key.access_key, "SECRET": key.secret, "PYTHONPATH": ".",
        "WEBHOOK_SECRET": WEBHOOK_SECRET, "Webhook-Id": "msg_1", "Webhook-Timestamp": str(int(now.timestamp())),
        "Webhook-Signature": Webhook(WEBHOOK_SECRET).sign("msg_1", now, EVENT),
    }  # fmt: skip

    if name == "go":
        (tmp_path / "go.mod").write_text(
            f"module m\nrequire latchkey.example/client v0.0.0\nreplace latchkey.example/client => {FOLDER / name}\n"
        )
        (tmp_path / "latchkey.go").unlink()
        printed = await run(language, GO % (vector, EVENT, webhook), tmp_path, environ)
    else:
        printed = await run(language, vector, tmp_path, environ)
        printed += await run(language, language.webhook + webhook, tmp_path, environ)
    made = await run(language, calls, tmp_path, environ)

    assert printed == [VECTOR, language.event]
    assert made == ["signed key", "201"] or re.search('"signed key".*"nightly import"', "".join(made))
