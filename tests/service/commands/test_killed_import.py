"""An import that is killed half-way is run again, and makes no doubles.

The long form, `make test-import`, imports 100,000 keys and prints the time and the memory that it took.
"""

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from benchmarks.processes import peak_mib
from latchkey.models import ApiKey, AuditEvent, KeySecret, User
from latchkey.service.database.engines import create_engines
from latchkey.service.settings import Settings
from tests.conftest import MARIADB
from tests.service.commands.running import ask

IS_LONG = os.environ.get("LATCHKEY_TEST_IMPORT") == "long"
KEYS = 100_000 if IS_LONG else 1_500
USERS = KEYS // 100
FORMATS = "token:32"
DATABASES = ["sqlite", MARIADB] if IS_LONG else ["sqlite"]
LARGEST_MIB = 250


def secret_of(number: int) -> str:
    return f"sk_{number:029d}"


def write_file(path: Path) -> None:
    """Write keys in the form of Unkey's migration, each tenth with limits and metadata."""
    encode = msgspec.json.encode
    with path.open("wb") as file:
        for number in range(KEYS):
            digest = hashlib.sha256(secret_of(number).encode()).hexdigest()
            line: dict[str, Any] = {
                "hash": digest,
                "name": f"key {number}",
                "externalId": f"u{number % USERS}",
            }
            if number % 10 == 0:
                line["meta"] = {"plan": "pro", "number": number}
                line["ratelimits"] = [{"name": "burst", "limit": 100, "duration": 60_000}]
            file.write(encode(line) + b"\n")


def importing() -> "subprocess.Popen[str]":
    arguments = (
        "keys",
        "import",
        "--format",
        "unkey",
        "--create-users",
        "--scopes",
        "users:read",
        "keys.jsonl",
    )
    return subprocess.Popen(
        [sys.executable, "-m", "latchkey", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def count(settings: Settings) -> dict[str, int]:
    """Return the number of rows that an import writes."""
    engine = create_engines(settings).reader
    created = AuditEvent.action == "key.created"
    queries = {
        "keys": select(func.count()).select_from(ApiKey),
        "secrets": select(func.count(KeySecret.secret_sha256.distinct())),
        "users": select(func.count()).select_from(User),
        "events": select(func.count()).select_from(AuditEvent).where(created),
    }
    try:
        async with engine.connect() as connection:
            return {name: (await connection.execute(query)).scalar_one() for name, query in queries.items()}
    finally:
        await engine.dispose()


def say(sentence: str) -> None:
    """Print a figure; `make test-import` shows it."""
    sys.stdout.write(f"\n{sentence}\n")


@pytest.mark.parametrize("database_url", DATABASES, indirect=True)
def test_a_killed_import_is_resumed_without_doubles(migrated: Settings, environ: pytest.MonkeyPatch) -> None:
    environ.setenv("LATCHKEY_IMPORTED_SECRETS", FORMATS)
    settings = msgspec.structs.replace(migrated, imported_secrets=FORMATS)
    write_file(Path("keys.jsonl"))

    began = time.monotonic()
    with importing() as process:
        while asyncio.run(count(migrated))["keys"] < KEYS // 3:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.kill()
    left = asyncio.run(count(migrated))
    first_s = time.monotonic() - began
    began = time.monotonic()
    with importing() as process:
        largest_mib = 0.0
        while process.poll() is None:
            largest_mib = max(largest_mib, peak_mib(process.pid))
            time.sleep(0.02)
        out, err = process.communicate()
    rest_s = time.monotonic() - began

    assert (process.returncode, err) == (0, ""), out
    assert KEYS // 3 <= left["keys"] < KEYS
    assert left["keys"] % 500 == 0
    assert left["keys"] == left["secrets"] == left["events"]
    assert out.startswith(f"{KEYS - left['keys']:,} imported, {left['keys']:,} known, 0 refused")
    assert asyncio.run(count(migrated)) == {"keys": KEYS, "secrets": KEYS, "users": USERS, "events": KEYS}
    for number in (0, KEYS - 1):
        (answer,) = ask(settings, secret_of(number), ("GET", "/v1/me", ""))
        assert (answer.status, answer.json["key"]["name"]) == (200, f"key {number}")
    assert 0 < largest_mib < LARGEST_MIB
    say(
        f"{left['keys']:,} keys in {first_s:.1f} s until the kill, the other {KEYS - left['keys']:,} in {rest_s:.1f} s; "
        f"at most {largest_mib:.0f} MiB"
    )
