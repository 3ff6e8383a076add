"""Rotation over four processes, which share only the database."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import msgspec
import pytest
from starlette.applications import Starlette

from latchkey.service.authentication.wire.query_signature import sign_query
from latchkey.service.settings import Settings
from latchkey.service.shapes import Moment
from tests.api import HeldKey, hold_key, key_row
from tests.conftest import on_mariadb
from tests.processes import Served

pytestmark = on_mariadb

CLIENTS = 4  # for each key
RACERS = 12
GRACE_S = 1
ROTATIONS = 2
FOR_EVER = float("inf")


class Called(msgspec.Struct, frozen=True):
    """One call: its secret, its start and end in unix seconds, and its answer."""

    secret: str
    began: float
    ended: float
    status: int
    told: bool
    """Whether the answer marked the secret as replaced."""


class Four(msgspec.Struct):
    """The processes, and a client; each call uses a new connection, so any of them may answer."""

    served: Served
    client: httpx2.AsyncClient

    async def stop(self) -> int:
        """Stop the processes, which then write their counts."""
        return await asyncio.to_thread(self.served.stop)


@pytest.fixture
async def four(app: Starlette, settings: Settings, tmp_path: Path) -> AsyncIterator[Four]:
    environ = {
        "LATCHKEY_DATABASE_URL": settings.database_url,
        "LATCHKEY_KEYRING": settings.keyring or "",
        "LATCHKEY_POOL_SIZE": "5",
        "LATCHKEY_AUTH_FAILURES_PER_MIN": "0",
    }
    served = Served(tmp_path, "serve", "--workers", "4", environ=environ)
    await asyncio.to_thread(served.__enter__)
    try:
        async with httpx2.AsyncClient(
            base_url=served.url, timeout=30, limits=httpx2.Limits(max_keepalive_connections=0)
        ) as client:
            yield Four(served, client)
    finally:
        await asyncio.to_thread(served.__exit__)
    assert "Traceback" not in served.err.read_text()


async def who(client: httpx2.AsyncClient, key: HeldKey) -> Called:
    began = time.time()
    if key.mode == "bearer":
        answer = await client.get("/v1/me", headers=dict([key.bearer]))
    else:
        query, proof = sign_query(key.secret, "", key.access_key, began)
        answer = await client.get(f"/v1/me?{query}", headers={"secret": proof})
    return Called(key.secret, began, time.time(), answer.status_code, "deprecation" in answer.headers)


async def rotate(client: httpx2.AsyncClient, operator: HeldKey, key: HeldKey, **body: int) -> httpx2.Response:
    return await client.post(
        f"/v1/keys/{key.access_key}/rotate",
        headers=dict([operator.bearer]),
        json={"grace_s": GRACE_S, **body},
    )


async def use_and_rotate(
    client: httpx2.AsyncClient, operator: HeldKey, key: HeldKey
) -> tuple[list[HeldKey], dict[str, float], list[Called]]:
    """Rotate a key repeatedly while it is used; return its secrets, the end of each, and every call.

    Half of the clients use each new secret at once, and half are one behind, past the end of the grace period.
    """
    held, ends, calls = [key], dict[str, float](), list[Called]()
    over = asyncio.Event()

    async def use(behind: int) -> None:
        while not over.is_set():
            calls.append(await who(client, held[max(0, len(held) - 1 - behind)]))

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(use(number % 2))
        for _ in range(ROTATIONS):
            await asyncio.sleep(0.3)
            answer = (await rotate(client, operator, held[-1])).json()
            ends[held[-1].secret] = msgspec.convert(answer["old_secret_expires_at"], Moment).timestamp()
            held.append(msgspec.structs.replace(key, secret=answer["secret"]))
            await asyncio.sleep(GRACE_S + 0.3)
        over.set()
    return held, ends, calls


async def test_rotating_under_load(app: Starlette, operator: HeldKey, four: Four) -> None:
    """No call fails within the grace period, none succeeds after it, and each with an old secret is counted."""
    keys = [
        await hold_key(app, email="partner@example.com", scopes=[], mode=mode)
        for mode in ("bearer", "signed")
    ]

    async with asyncio.TaskGroup() as group:
        both = [group.create_task(use_and_rotate(four.client, operator, key)) for key in keys]
    ended = await four.stop()

    assert ended == 0
    for held, ends, calls in (task.result() for task in both):
        inside = [one for one in calls if one.ended < ends.get(one.secret, FOR_EVER)]
        after = [one for one in calls if one.began > ends.get(one.secret, FOR_EVER)]
        assert {one.status for one in inside} == {200}
        assert {one.status for one in after} == {401}
        assert len(inside) > 50
        assert {one.secret for one in after} == ends.keys()
        told = [one for one in calls if one.told and one.secret == held[-2].secret]
        assert not any(one.told for one in calls if one.secret == held[-1].secret)
        assert (await key_row(held[0].access_key)).old_secret_calls == len(told) > 0
