"""The README's examples, run as a reader would: in a shell, with Python, and as a team's own application."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from benchmarks.ports import free_port
from latchkey.service.settings import Settings
from tests.api import call, hold_key
from tests.conftest import opened
from tests.server.conftest import Serving

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language: str, mark: str) -> str:
    """Return the code block of a language that contains `mark`."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (found,) = [one for one in blocks if mark in one]
    return str(found)


async def run(program: list[str], serving: Serving) -> str:
    key = await hold_key(serving.app, mode="signed", scopes=["users:read"])
    environment = {**os.environ, "BASE": serving.url, "KEY": key.access_key, "SECRET": key.secret}
    process = await asyncio.create_subprocess_exec(
        *program, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    found = json.loads(out)
    assert found["key"]["access_key"] == key.access_key
    return str(found["user"]["email"])


async def test_the_first_signed_call_with_curl(serving: Serving) -> None:
    for program in ("bash", "curl", "openssl"):
        assert shutil.which(program), f"{program} not found: apt-get install {program}"
    script = "set -euo pipefail\n" + block("bash", "openssl")

    assert await run(["bash", "-c", script], serving) == "operator@example.com"


async def test_the_first_signed_call_in_python(serving: Serving) -> None:
    script = block("python", "urllib.request")

    assert await run([sys.executable, "-c", script], serving) == "operator@example.com"


async def test_an_endpoint_of_ones_own(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example reads its settings from the environment, as under a server."""
    for name in ("database_url", "keyring"):
        monkeypatch.setenv(f"LATCHKEY_{name.upper()}", getattr(settings, name))
    namespace: dict[str, Any] = {"__name__": "team"}
    monkeypatch.setitem(sys.modules, "team", type(sys)("team"))
    exec(block("python", "user-count"), namespace)

    async with opened(namespace["create_app"], settings) as app:
        key = await hold_key(app, scopes=["users:read"])
        answer = await call(app, "GET", "/v1/user-count", key=key)
        described = await call(app, "GET", "/openapi.json")

    assert (answer.status, answer.json) == (200, {"users": 1})
    assert described.json["paths"]["/v1/user-count"]["get"]["summary"] == "Count the active users."


async def test_the_commands_around_it_run_as_they_are_pasted(tmp_path: Path) -> None:
    """From the key ring to the first call, in a folder with only the endpoint; only the port differs."""
    (tmp_path / "team.py").write_text(block("python", "user-count"))
    port = free_port()
    script = "set -euo pipefail\n" + block("console", "keys create").replace("8001", str(port))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LATCHKEY_")}
    environment = kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", script.replace("latchkey serve", "exec latchkey serve")),
        cwd=tmp_path,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout
    try:
        async with asyncio.timeout(60):
            secret = ""
            while not secret:
                line = (await process.stdout.readline()).decode()
                assert line, "the commands ended before a key was made"
                secret = "".join(re.findall(r"^secret +(lks_\w+)", line))
            async with httpx2.AsyncClient(headers={"authorization": f"Bearer {secret}"}) as client:
                while True:
                    with contextlib.suppress(httpx2.TransportError):
                        answer = await client.get(f"http://127.0.0.1:{port}/v1/user-count")
                        break
                    await asyncio.sleep(0.1)
    finally:
        process.terminate()
        await process.communicate()

    assert (answer.status_code, answer.json()) == (200, {"users": 1})


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (Path(__file__).parents[2] / target).exists(), target
