"""A database server that hangs, with its sockets open, delays a call by at most its timeout."""

import time
from contextlib import ExitStack
from typing import Any

import msgspec
import pytest
from sqlalchemy import event
from starlette.applications import Starlette

from latchkey.service.database import driver, session
from latchkey.service.settings import Settings
from tests.api import HeldKey, assert_problem, call
from tests.conftest import on_mariadb
from tests.mariadb import PrivateMariaDB

pytestmark = on_mariadb

NEW = {"email": "ann@example.com", "name": "Ann"}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, database_timeout_s=1.0)


@pytest.mark.parametrize(
    "method, path, body", [("GET", "/v1/users", None), ("POST", "/v1/users", NEW), ("GET", "/readyz", None)]
)
async def test_a_call_ends_with_a_503_and_the_next_one_works(
    app: Starlette,
    operator: HeldKey,
    mariadb: PrivateMariaDB,
    method: str,
    path: str,
    body: dict[str, str] | None,
) -> None:
    warm = await call(app, method, path, key=operator, body=body and {**body, "email": "bob@example.com"})
    assert warm.status in {200, 201}
    with mariadb.frozen():
        begun = time.monotonic()
        answer = await call(app, method, path, key=operator, body=body)
        took_s = time.monotonic() - begun

    assert_problem(answer, 503, "unavailable")
    assert took_s < 1.6
    assert (await call(app, method, path, key=operator, body=body)).status in {200, 201}


async def test_a_commit_ends_within_its_deadline(
    app: Starlette, operator: HeldKey, mariadb: PrivateMariaDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One deadline for COMMIT and for the work after its failure."""
    monkeypatch.setattr(session, "COMMIT_DEADLINE_S", 0.5)
    with ExitStack() as frozen:

        def freeze(_connection: Any) -> None:
            frozen.enter_context(mariadb.frozen())

        event.listen(app.state.db.engine.sync_engine, "commit", freeze)
        frozen.callback(event.remove, app.state.db.engine.sync_engine, "commit", freeze)
        begun = time.monotonic()
        answer = await call(app, "POST", "/v1/users", key=operator, body=NEW)
        took_s = time.monotonic() - begun

    assert_problem(answer, 500, "commit_unknown")
    assert took_s < 2


async def test_a_greeting_that_does_not_come_is_not_waited_for(
    mariadb: PrivateMariaDB, settings: Settings
) -> None:
    with mariadb.frozen():
        begun = time.monotonic()
        with pytest.raises(driver.ConnectError, match="cannot connect"):
            await driver.connect(host="127.0.0.1", port=mariadb.port, user="app", connect_timeout=1)
        took_s = time.monotonic() - begun

    assert took_s < 2
