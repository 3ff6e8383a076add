"""The partner guide, run as a partner would: every command of it, in its order, in bash."""

import asyncio
import json
import os
import re
from pathlib import Path

import pytest

from tests.api import HeldKey, hold_key
from tests.server.conftest import Serving

PAGE = (Path(__file__).parents[2] / "docs" / "partner-guide.md").read_text()
BLOCKS: list[str] = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
(EXPECTED,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def run(script: str, serving: Serving, key: HeldKey, folder: Path) -> str:
    environment = {**os.environ, "BASE": serving.url, "KEY": key.access_key, "SECRET": key.secret}
    process = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", script, cwd=folder, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()


async def test_every_command_of_the_guide_works(serving: Serving, tmp_path: Path) -> None:
    bearer = await hold_key(serving.app)
    signing = await hold_key(serving.app, mode="signed")

    printed = [
        await run(block, serving, signing if "signing key" in block else bearer, tmp_path) for block in BLOCKS
    ]

    ready, me, mac, signed, change, problem = printed
    first, again = (json.loads((tmp_path / name).read_text()) for name in ("first.json", "again.json"))
    assert json.loads(ready) == {"status": "ok"}
    assert json.loads(me)["key"]["access_key"] == bearer.access_key
    assert mac == EXPECTED
    assert json.loads(signed)["key"]["access_key"] == signing.access_key
    assert change == ""
    assert first["access_key"] == again["access_key"]
    assert ("secret" in first, again.get("secret")) == (True, None)
    assert json.loads(problem)["code"] == "unauthenticated"
