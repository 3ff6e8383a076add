"""The whole application: its start, its end, and the processing of a request."""

import asyncio
import gc
import logging
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from starlette.applications import Starlette

from latchkey.middleware.access_log import AccessLogMiddleware
from latchkey.middleware.answer_headers import AnswerHeadersMiddleware
from latchkey.middleware.answered import AnsweredMiddleware
from latchkey.middleware.body_deadline import BodyDeadlineMiddleware
from latchkey.middleware.body_limit import BodyLimitMiddleware
from latchkey.middleware.measured import MeasuredMiddleware
from latchkey.middleware.request_id import RequestIDMiddleware
from latchkey.middleware.root_path import RootPathMiddleware
from latchkey.middleware.session import SessionMiddleware
from latchkey.middleware.status_in_headers import StatusInHeadersMiddleware
from latchkey.middleware.trace import TraceMiddleware
from latchkey.service import lifespan
from latchkey.service.app import create_app
from latchkey.service.connections.guard import ServerGuardMiddleware
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.schema import NotMigratedError
from latchkey.service.router import ConvertedRoute
from latchkey.service.serving import create_served_app
from latchkey.service.settings import Settings, SettingsError
from tests.api import HeldKey, assert_problem, call, stored
from tests.conftest import KEYRING


@pytest.mark.parametrize(
    "keyring, sentence",
    [
        pytest.param(None, "LATCHKEY_KEYRING is not set", id="none"),
        pytest.param("hush", "LATCHKEY_KEYRING: Entry 1 of the key ring is not of the form", id="no entry"),
        pytest.param("1:hush", "LATCHKEY_KEYRING: Entry 1 of the key ring: the key has 3 bytes", id="no key"),
    ],
)
def test_without_a_key_ring_nothing_starts(keyring: str | None, sentence: str, loggers: None) -> None:
    with pytest.raises(SettingsError) as refused:
        create_app(Settings(keyring=keyring))

    assert str(refused.value).startswith(sentence)
    assert "hush" not in str(refused.value)
    assert not SQLAlchemy().is_open


def test_without_settings_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, loggers: None) -> None:
    monkeypatch.setenv("LATCHKEY_KEYRING", KEYRING)
    monkeypatch.setenv("LATCHKEY_POOLSIZE", "5")

    with pytest.raises(SettingsError, match="did you mean LATCHKEY_POOL_SIZE"):
        create_app()


async def test_a_request_walks_in_this_order(app: Starlette) -> None:
    assert list[Any](one.cls for one in app.user_middleware) == [
        RootPathMiddleware,
        MeasuredMiddleware,
        StatusInHeadersMiddleware,
        AnswerHeadersMiddleware,
        AnsweredMiddleware,
        TraceMiddleware,
        RequestIDMiddleware,
        ServerGuardMiddleware,
        AccessLogMiddleware,
        BodyDeadlineMiddleware,
        BodyLimitMiddleware,
        SessionMiddleware,
    ]
    assert not app.router.redirect_slashes
    assert all(type(route) is ConvertedRoute for route in app.routes)


async def test_a_database_that_is_not_migrated_is_refused_with_the_command_to_run(
    tmp_path: Path, loggers: None
) -> None:
    app = create_app(Settings(database_url=f"sqlite+aiosqlite:///{tmp_path}/empty.db", keyring=KEYRING))

    with pytest.raises(NotMigratedError, match="run `latchkey migrate`"):
        async with app.router.lifespan_context(app):
            pass

    assert not app.state.db.is_open


async def test_a_served_application_is_none_of_the_garbage_collectors_business(
    monkeypatch: pytest.MonkeyPatch, loggers: None, database_url: str
) -> None:
    """A full collection would scan all of it, and stop every request meanwhile."""
    monkeypatch.setenv("LATCHKEY_KEYRING", KEYRING)
    monkeypatch.setenv("LATCHKEY_DATABASE_URL", database_url)
    thresholds = gc.get_threshold()
    gc.unfreeze()  # objects that another test may have served
    gc.set_threshold(700, *thresholds[1:])

    app: Any = create_served_app()
    try:
        assert gc.get_freeze_count() > 10_000
        assert all(found is not app for found in gc.get_objects(generation=2))
        assert gc.get_threshold()[0] > 700
    finally:
        gc.set_threshold(*thresholds)
        await app.state.db.close()


async def test_closing_writes_the_last_uses_and_closes_the_database(
    app: Starlette, operator: HeldKey
) -> None:
    async with app.router.lifespan_context(app):
        await call(app, "GET", "/v1/me", key=operator)
        assert "last used" in {task.get_name() for task in asyncio.all_tasks()}

    assert not app.state.db.is_open
    assert "last used" not in {task.get_name() for task in asyncio.all_tasks()}
    with pytest.raises(RuntimeError, match="create a new one with create_app"):
        async with app.router.lifespan_context(app):
            pass


async def test_a_closing_that_cannot_write_still_closes_the_database(
    app: Starlette, operator: HeldKey
) -> None:
    @event.listens_for(app.state.db.engine.sync_engine, "before_cursor_execute")
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with app.router.lifespan_context(app):
            await call(app, "GET", "/v1/me", key=operator)

    assert not app.state.db.is_open


async def test_two_writers_of_one_email_are_told_apart_by_the_constraint(
    app: Starlette, operator: HeldKey
) -> None:
    """The unique constraint decides; there is no SELECT before the INSERT."""
    body = {"email": "ann@example.com", "name": "Ann"}

    async with asyncio.TaskGroup() as group:
        both = [group.create_task(call(app, "POST", "/v1/users", key=operator, body=body)) for _ in range(2)]

    answers = sorted((task.result() for task in both), key=lambda answer: answer.status or 0)
    assert answers[0].status == 201
    assert_problem(answers[1], 409, "email_taken")
    users = (await stored(app.state.db.reader))["users"]
    assert len(users) == 2


async def test_an_ordinary_refusal_is_no_warning(
    app: Starlette, operator: HeldKey, log_lines: list[logging.LogRecord]
) -> None:
    """A taken email concerns the client; warnings are for the operator."""
    body = {"email": "operator@example.com", "name": "Again"}

    await call(app, "POST", "/v1/users", key=operator, body=body)

    assert [line.getMessage() for line in log_lines if line.levelname not in {"INFO", "DEBUG"}] == []


async def test_tasks_beside_requests_are_stopped_although_a_driver_loses_a_cancellation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifespan, "STOP_AGAIN_S", 0.01)
    lost: list[Any] = []

    async def go_on() -> None:
        while True:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                if len(lost) == 2:
                    raise
                lost.append("one")

    tasks = [asyncio.create_task(go_on()), asyncio.create_task(asyncio.sleep(30))]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await lifespan.stop(tasks)

    assert [len(lost), *(task.cancelled() for task in tasks)] == [2, True, True]
