"""The public endpoints of the service itself."""

import asyncio
import contextlib

import pytest
from sqlalchemy import func
from starlette.applications import Starlette

from latchkey import service
from latchkey.service.endpoints import service as house
from latchkey.service.settings import Settings
from tests import wire
from tests.api import HeldKey, assert_problem, call
from tests.conftest import on_mariadb


async def test_the_root_says_what_this_is_and_where_to_go(app: Starlette, operator: HeldKey) -> None:
    answer = await call(app, "GET", "/")

    assert answer.status == 200
    assert answer.json["name"] == "Latchkey"
    assert answer.json["version"] == service.__version__
    for link in answer.json["links"].values():
        assert (await call(app, "GET", link, key=operator)).status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/livez", "/readyz", "/openapi.json", "/problems/conflict"]
)
async def test_public_paths_answer_anybody(app: Starlette, method: str, path: str) -> None:
    assert (await call(app, method, path)).status == 200


@pytest.mark.parametrize("path", ["/healthz", "/livez"])
async def test_health_asks_no_database(app: Starlette, path: str) -> None:
    with wire.listening() as commands:
        answer = await call(app, "GET", path)

    assert (answer.json, commands) == ({"status": "ok"}, [])


async def test_readiness_asks_the_database(app: Starlette) -> None:
    await call(app, "GET", "/readyz")  # connects

    with wire.listening() as commands:
        answer = await call(app, "GET", "/readyz")

    assert answer.json == {"status": "ok"}
    assert [command.partition(" ")[0] for command in commands] == ["SELECT"]


async def test_with_every_connection_in_use_the_service_is_not_ready(
    app: Starlette, settings: Settings
) -> None:
    async with contextlib.AsyncExitStack() as held:
        for _ in range(settings.pool_size):
            await held.enter_async_context(app.state.db.reader.connect())
        answer = await call(app, "GET", "/readyz")

    assert_problem(answer, 503, "unavailable")


@on_mariadb
async def test_a_database_that_does_not_answer_in_time_is_not_ready(
    app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house, "READY_DEADLINE_S", 0.1)
    monkeypatch.setattr(house, "literal", lambda _: func.sleep(5))

    async with asyncio.timeout(2):
        answer = await call(app, "GET", "/readyz")

    assert_problem(answer, 503, "unavailable")
    assert answer.json["detail"] == "The database does not answer in time."


def test_readiness_waits_two_seconds() -> None:
    assert house.READY_DEADLINE_S == 2


async def test_the_description_is_json(app: Starlette) -> None:
    answer = await call(app, "GET", "/openapi.json")

    assert answer.headers["content-type"] == "application/json"
    assert answer.json["openapi"].startswith("3.1")
