"""A copy waits for the first call, without a connection, and for a short time."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import insert, select
from starlette.applications import Starlette

from latchkey.models import IdempotencyKey, User
from latchkey.models.types import utc_in
from latchkey.service.idempotency.claims import Claim, Idempotency
from latchkey.service.idempotency.key import identify
from tests import wire
from tests.api import HeldKey, assert_problem, call
from tests.conftest import on_mariadb, table_of
from tests.service.idempotency.endpoints import (
    ANN,
    BOB,
    COPIES,
    control,
    is_replay,
    send,
)


async def test_a_copy_waits_a_second_and_no_longer(app: Starlette, operator: HeldKey) -> None:
    first = asyncio.create_task(send(app, "/slow", key=operator))
    await control.entered.wait()

    begun = time.monotonic()
    answer = await send(app, "/slow", key=operator)
    waited_s = time.monotonic() - begun
    control.go_on.set()

    assert_problem(answer, 409, "idempotency_in_progress")
    assert answer.headers["retry-after"] == "1"
    assert 0.9 < waited_s < 3
    assert (await first).status == 200
    assert is_replay(await send(app, "/slow", key=operator))


async def test_waiting_copies_leave_the_pool_to_other_calls(app: Starlette, operator: HeldKey) -> None:
    """The pool has two connections."""
    async with asyncio.TaskGroup() as group:
        copies = [group.create_task(send(app, "/slow", key=operator)) for _ in range(COPIES)]
        await control.entered.wait()
        await asyncio.sleep(0.1)
        held = app.state.db.checked_out()
        other = await call(app, "GET", "/v1/users", key=operator)
        control.go_on.set()

    assert held == 1
    assert other.status == 200
    assert Counter(one.result().status for one in copies) == {200: COPIES}


async def test_waiting_copies_are_answered_from_memory(app: Starlette, operator: HeldKey) -> None:
    with wire.listening() as commands:
        async with asyncio.TaskGroup() as group:
            copies = [group.create_task(send(app, "/slow", key=operator)) for _ in range(COPIES)]
            await control.entered.wait()
            await asyncio.sleep(0.2)
            control.go_on.set()

    assert Counter(is_replay(one.result()) for one in copies) == {False: 1, True: COPIES - 1}
    assert len([one for one in commands if "INSERT INTO idempotency_keys" in one]) == 1


class Elsewhere:
    """A claim of another process."""

    def __init__(self, app: Starlette, key: HeldKey) -> None:
        scope = {"user": type("", (), {"key": key}), "method": "POST", "path": "/v1/users"}
        self.engine = app.state.db.engine
        self.values = {"id": identify(scope, "5"), "fingerprint": b"f" * 32, "expires_at": utc_in(60)}

    async def __aenter__(self) -> Any:
        self.connection = await self.engine.connect()
        await self.connection.execute(insert(table_of(IdempotencyKey)).values(self.values))
        return self.connection

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close()


@on_mariadb
async def test_a_claim_of_another_process_is_waited_for_without_a_connection(
    app: Starlette, operator: HeldKey
) -> None:
    """It holds one of the two connections itself."""
    begun = time.monotonic()
    async with Elsewhere(app, operator), asyncio.TaskGroup() as group:
        copies = [group.create_task(send(app, key=operator)) for _ in range(COPIES)]
        await asyncio.sleep(0.2)
        other = await call(app, "POST", "/v1/users", key=operator, body=BOB)
    waited_s = time.monotonic() - begun

    assert other.status == 201
    for copy in copies:
        assert_problem(copy.result(), 409, "idempotency_in_progress")
    assert waited_s < 5
    assert (await send(app, key=operator)).status == 201


@on_mariadb
async def test_a_claim_of_another_process_that_ends_is_followed_at_once(
    app: Starlette, operator: HeldKey
) -> None:
    async with Elsewhere(app, operator) as connection:
        copy = asyncio.create_task(send(app, key=operator))
        await asyncio.sleep(0.1)
        await connection.rollback()
        answer = await copy

    assert (answer.status, is_replay(answer)) == (201, False)


@on_mariadb
async def test_a_range_that_is_locked_is_not_waited_for(app: Starlette, operator: HeldKey) -> None:
    """MySQL finds no row to lock, and its INSERT waits for the gap."""
    elsewhere = Elsewhere(app, operator)
    async with app.state.db.engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        key = select(IdempotencyKey.id).where(IdempotencyKey.id == elsewhere.values["id"])
        await connection.execute(key.with_for_update())
        begun = time.monotonic()
        answer = await send(app, key=operator)
        waited_s = time.monotonic() - begun
        await connection.rollback()

    assert_problem(answer, 409, "idempotency_in_progress")
    assert waited_s < 1.5
    assert (await send(app, key=operator)).status == 201


@on_mariadb
async def test_copies_in_many_processes_leave_the_database_to_others(
    app: Starlette, operator: HeldKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if each was alone in its process: none waits in memory for another."""
    monkeypatch.setattr(Idempotency, "turn", turn_without_memory)
    waits: list[float] = []

    async def copy() -> int | None:
        begun = time.monotonic()
        status = (await send(app, key=operator)).status
        waits.append(time.monotonic() - begun)
        return status

    async with Elsewhere(app, operator), asyncio.TaskGroup() as group:
        copies = [group.create_task(copy()) for _ in range(9)]
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        other = await call(app, "POST", "/v1/users", key=operator, body=BOB)
        other_s = time.monotonic() - begun

    assert other.status == 201
    assert other_s < 0.5
    assert [one.result() for one in copies] == [409] * 9
    assert max(waits) < 2


@asynccontextmanager
async def turn_without_memory(idempotency: Any, key: Any, scope: Any) -> AsyncIterator[Claim]:
    yield Claim(key, scope, idempotency.primary, idempotency.allowance)


async def test_a_claim_without_an_answer_is_never_run_again(app: Starlette, operator: HeldKey) -> None:
    """Whatever committed it, such as a statement that defines a table, it is unknown how much of its effect exists."""
    async with Elsewhere(app, operator) as connection:
        await connection.commit()

    assert_problem(await send(app, key=operator), 409, "idempotency_in_progress")
    assert await User.filter_by(email_key=ANN["email"]).count() == 0
