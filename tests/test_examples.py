"""The examples work, and leak nothing."""

import asyncio
import random
from pathlib import Path

import msgspec
import pytest
from fastapi import Depends, FastAPI

from examples import fastapi_app
from latchkey.middleware.session_errors import UnwrittenWorkError
from latchkey.models import Base, User
from latchkey.service.database import SQLAlchemy, schema
from latchkey.service.settings import Settings
from tests.conftest import assert_nothing_left
from tests.requests import Answer, request


@pytest.fixture
async def app(db: SQLAlchemy, settings: Settings) -> FastAPI:
    """Return the example with a pool of 2; the fixture of the database asserts that nothing is left behind."""
    await db.close()
    return fastapi_app.create_app(msgspec.structs.replace(settings, pool_timeout_s=20.0))


async def create(app: FastAPI, email: str = "ann@example.com") -> Answer:
    return await request(app, "POST", "/users", body={"email": email, "name": "Ann"})


async def test_a_user_is_created_and_read(app: FastAPI) -> None:
    created = await create(app)
    read = await request(app, "GET", f"/users/{created.json['id']}")

    assert created.status == 201
    assert created.json == read.json
    assert read.json["email"] == "ann@example.com"
    assert (await request(app, "GET", "/users/99")).status == 404


async def test_a_taken_email_is_rolled_back_and_the_next_request_works(app: FastAPI) -> None:
    await create(app)
    taken = await create(app, "ANN@example.com")
    other = await create(app, "bob@example.com")

    assert (taken.status, other.status) == (409, 201)
    assert await User.filter().count() == 2


async def test_an_error_rolls_back(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    created = await create(app)
    refused = await request(app, "POST", f"/users/{created.json['id']}/rename", query="name=root")
    read = await request(app, "GET", f"/users/{created.json['id']}")

    assert refused.status == 403
    assert read.json["name"] == "Ann"
    assert "rolled back after HTTPException" in caplog.text


async def test_a_write_that_nobody_committed_is_no_success(app: FastAPI) -> None:
    async def forget(session: fastapi_app.Session) -> dict[str, str]:
        await User.create(email="lost@example.com", name="Lost")
        return {}

    app.post("/forget")(forget)
    answer = Answer()

    with pytest.raises(UnwrittenWorkError, match="ended without committing"):
        await request(app, "POST", "/forget", answer=answer)

    assert answer.status == 500
    assert await User.filter().count() == 0


async def test_each_request_has_a_session_of_its_own_and_one_only(app: FastAPI, db: SQLAlchemy) -> None:
    seen = []

    async def first(session: fastapi_app.Session) -> int:
        return id(session)

    async def look(session: fastapi_app.Session, before: int = Depends(first)) -> dict[str, bool]:
        seen.append(session)
        return {"same": before == id(session) == id(db.scoped_session())}

    app.get("/look")(look)
    answers = [await request(app, "GET", "/look") for _ in range(2)]

    assert [one.json for one in answers] == [{"same": True}] * 2
    assert seen[0] is not seen[1]


@pytest.mark.parametrize("cancelled", [0, 16])
async def test_fifty_at_a_time_on_a_pool_of_two_leak_nothing(
    app: FastAPI, db: SQLAlchemy, cancelled: int
) -> None:
    """Reads and writes, some of them cancelled somewhere: every 201 has its row, and the next request is served."""
    first = (await create(app)).json["id"]
    answers: list[Answer] = []

    async def request_scope(number: int) -> None:
        answer = Answer()
        answers.append(answer)
        if number % 2:
            await request(app, "GET", f"/users/{first}", answer=answer)
        else:
            body = {"email": f"{len(answers)}@example.com", "name": "Ann"}
            await request(app, "POST", "/users", body=body, answer=answer)

    chance = random.Random(1)
    for _ in range(3):
        tasks = [asyncio.create_task(request_scope(number)) for number in range(50)]
        for task in chance.sample(tasks, cancelled):
            await asyncio.sleep(chance.random() / 200)
            task.cancel()
        await asyncio.wait(tasks)
        await assert_nothing_left(db)

    kept = {one.email for one in await User.filter().all()}
    acknowledged = {one.json["email"] for one in answers if one.status == 201 and one.complete}
    assert acknowledged
    assert acknowledged <= kept
    assert {one.status for one in answers} <= {200, 201, None}
    assert sum(task.cancelled() for task in tasks) <= cancelled
    assert [one.status for one in answers].count(None) <= 3 * cancelled
    assert (await request(app, "GET", f"/users/{first}")).status == 200


async def test_the_example_starts_on_a_migrated_database_and_closes(
    app: FastAPI, db: SQLAlchemy, settings: Settings
) -> None:
    async with app.router.lifespan_context(app):
        assert (await create(app)).status == 201
        assert app.state.db is db

    assert not db.is_open
    assert Base.scoped_session is None
    db.init_app(None, settings)


async def test_the_example_refuses_a_database_that_is_not_migrated(tmp_path: Path) -> None:
    app = fastapi_app.create_app(Settings(database_url=f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"))

    with pytest.raises(schema.NotMigratedError, match="run `latchkey migrate`"):
        async with app.router.lifespan_context(app):
            pass

    assert Base.scoped_session is None
