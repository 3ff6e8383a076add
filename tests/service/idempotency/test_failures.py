"""Only successful answers are stored: after any failure the call runs again, and has one effect."""

import asyncio
import logging
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from starlette.applications import Starlette

from latchkey.models import IdempotencyKey, User
from latchkey.models.types import utc_in
from latchkey.service.idempotency.key import identify
from tests.api import HeldKey, assert_problem, call, stored
from tests.conftest import table_of
from tests.service.idempotency.endpoints import (
    ANN,
    control,
    is_replay,
    rows,
    send,
)


@pytest.mark.parametrize(
    "error, status",
    [
        pytest.param(ZeroDivisionError(), 500, id="an error of ours"),
        pytest.param(OperationalError("", {}, Exception(1064, "syntax")), 500, id="one of the database"),
        pytest.param(OperationalError("", {}, Exception(2013, "lost")), 503, id="the database is gone"),
    ],
)
async def test_a_failed_call_runs_again(app: Starlette, operator: HeldKey, error: Any, status: int) -> None:
    control.errors = [error]

    answers = [await send(app, "/write", key=operator) for _ in range(3)]

    assert [(one.status, is_replay(one)) for one in answers] == [(status, False), (200, False), (200, True)]
    assert control.runs == 2


async def test_a_refused_call_runs_again(app: Starlette, operator: HeldKey) -> None:
    await call(app, "POST", "/v1/users", key=operator, body=ANN)
    path = f"/v1/users/{operator.user_id}"

    refused = await send(app, path, key=operator, method="PATCH", body={"email": ANN["email"]})
    found = await rows(app)
    await call(app, "PATCH", "/v1/users/" + str((await User.filter_by(email=ANN["email"]).one()).id),
               key=operator, body={"email": "free@example.com"})  # fmt: skip
    again = await send(app, path, key=operator, method="PATCH", body={"email": ANN["email"]})

    assert_problem(refused, 409, "email_taken")
    assert found == []
    assert again.status == 200


async def test_a_refusal_drops_nothing_that_anybody_would_miss(
    app: Starlette, operator: HeldKey, log_lines: list[logging.LogRecord]
) -> None:
    answer = await send(app, "/v1/users/77", key=operator, method="PATCH", body={"name": "Ann"})

    assert_problem(answer, 404, "not_found")
    assert await rows(app) == []
    assert [one.getMessage() for one in log_lines if "drops" in one.getMessage()] == []


@pytest.mark.parametrize("number", [1213, 1020])
async def test_a_unit_of_work_that_lost_claims_anew(app: Starlette, operator: HeldKey, number: int) -> None:
    control.errors = [OperationalError("", {}, Exception(number, "lost"))] * 2

    answers = [await send(app, "/write", key=operator) for _ in range(2)]

    assert [(one.status, is_replay(one)) for one in answers] == [(200, False), (200, True)]
    assert control.runs == 3
    assert await User.filter_by(email_key=ANN["email"]).count() == 1


async def test_a_conflict_at_commit_claims_anew(
    app: Starlette, operator: HeldKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer that a failed COMMIT would have stored is not returned: the endpoint runs again."""
    commit_of = Session.commit
    errors = [OperationalError("", {}, Exception(1213, "certification"))]

    def fail_once(session: Session) -> None:
        if errors and session.in_transaction():
            raise errors.pop()
        commit_of(session)

    monkeypatch.setattr(Session, "commit", fail_once)

    answers = [await send(app, "/write", key=operator) for _ in range(2)]

    assert [(one.status, is_replay(one)) for one in answers] == [(200, False), (200, True)]
    assert control.runs == 2


@pytest.mark.parametrize("kept", [True, False], ids=["it was kept", "it was not"])
async def test_after_a_commit_of_unknown_outcome_the_retry_makes_it_one_effect(
    app: Starlette, operator: HeldKey, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    dialect = app.state.db.engine.sync_engine.dialect
    do_commit = dialect.do_commit

    def lose(connection: Any) -> None:
        if kept:
            do_commit(connection)
        raise OperationalError("COMMIT", {}, Exception(2013, "lost"), connection_invalidated=True)

    with monkeypatch.context() as patch:
        patch.setattr(dialect, "do_commit", lose)
        unknown = await send(app, "/write", key=operator)

    retry = await send(app, "/write", key=operator)

    assert_problem(unknown, 500, "commit_unknown")
    assert (retry.status, is_replay(retry)) == (200, kept)
    assert await User.filter_by(email_key=ANN["email"]).count() == 1


@pytest.mark.parametrize("path", ["/commit-by-verb", "/commit-session", "/commit-inside"])
@pytest.mark.parametrize("headers", [[], [("idempotency-key", "5")]], ids=["without a key", "with one"])
async def test_an_endpoint_that_commits_by_itself_is_refused_by_name(
    app: Starlette, operator: HeldKey, log_lines: list[logging.LogRecord], path: str, headers: list[Any]
) -> None:
    before = await stored(app.state.db.reader)

    answer = await call(app, "POST", path, key=operator, body=ANN, headers=headers)

    assert_problem(answer, 500, "internal_error")
    assert any(one.exc_info and "leave COMMIT to the adapter" in str(one.exc_info[1]) for one in log_lines)
    assert await stored(app.state.db.reader) == before


@pytest.mark.parametrize("quicker", [False, True], ids=["alone", "a copy is quicker"])
async def test_an_endpoint_that_rolls_its_claim_back_is_refused_by_name(
    app: Starlette, operator: HeldKey, log_lines: list[logging.LogRecord], quicker: bool
) -> None:
    async def be_quicker() -> None:
        scope = {"user": type("", (), {"key": operator}), "method": "POST", "path": "/roll-back"}
        values = {
            "id": identify(scope, "5"),
            "fingerprint": b"f" * 32,
            "expires_at": utc_in(60),
            "status": 200,
        }
        async with app.state.db.engine.begin() as connection:
            await connection.execute(insert(table_of(IdempotencyKey)).values(values))

    control.meanwhile = be_quicker if quicker else None
    users = await User.filter().count()

    answer = await send(app, "/roll-back", key=operator)

    assert_problem(answer, 500, "internal_error")
    assert any(one.exc_info and "SAVEPOINT" in str(one.exc_info[1]) for one in log_lines)
    assert await User.filter().count() == users
    assert [row.status for row in await rows(app)] == [200] * quicker


async def test_a_part_may_be_taken_back_in_a_savepoint(app: Starlette, operator: HeldKey) -> None:
    answers = [await send(app, "/savepoint", key=operator) for _ in range(2)]

    assert [(one.status, is_replay(one)) for one in answers] == [(200, False), (200, True)]


async def test_a_call_that_is_cancelled_leaves_the_key_to_the_next_one(
    app: Starlette, operator: HeldKey
) -> None:
    cancelled = asyncio.create_task(send(app, "/slow", key=operator))
    await control.entered.wait()
    cancelled.cancel()
    await asyncio.wait([cancelled])
    control.go_on.set()

    answer = await send(app, "/slow", key=operator)

    assert (answer.status, is_replay(answer)) == (200, False)
    assert await User.filter_by(email_key=ANN["email"]).count() == 1
