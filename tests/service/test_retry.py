"""A unit of work that lost a conflict with another transaction is run again from the start."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from sqlalchemy.exc import DBAPIError, OperationalError
from starlette.applications import Starlette
from starlette.requests import Request

import latchkey.service.endpoints.adapter
from latchkey.models import User
from latchkey.service import shapes
from latchkey.service.operation import Operation, route
from latchkey.service.problems import Problem
from tests.api import HeldKey, assert_problem, call, hold_key
from tests.conftest import on_mariadb


class Names(msgspec.Struct):
    """A body that an endpoint may change."""

    names: list[str]


class Seen(msgspec.Struct):
    """The arguments of the endpoint in each run."""

    runs: list[list[str]]


class Conflict(Exception):
    """An error of the driver, with the attributes that are used."""

    sqlstate: str


def lost(number: int = 1213, text: str = "Deadlock found") -> DBAPIError:
    return OperationalError("UPDATE secret_table", {}, Conflict(number, text))


GROUP = "Got error 149 - 'Lock deadlock; Retry transaction' during COMMIT"
"""The message of error 1180, with which group replication reports a conflict, in addition to 3101."""


class EndpointControl:
    """The failure of each run; later runs succeed."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.runs: list[list[str]] = []
        self.callers: list[object] = []
        self.meeting = asyncio.Barrier(2)

    def raise_next_error(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


control = EndpointControl()


@pytest.fixture(autouse=True)
def _new_control(monkeypatch: pytest.MonkeyPatch) -> None:
    vars(control).update(vars(EndpointControl()))
    monkeypatch.setattr(latchkey.service.endpoints.adapter, "LONGEST_PAUSE_S", 0.001)


async def write(request: Request, body: Names) -> Seen:
    """Write a row, change the body, and fail as the control requests."""
    control.runs.append(list(body.names))
    control.callers.append(request.user)
    await User.create(email=f"{body.names.pop()}@example.com", name="written")
    control.raise_next_error()
    return Seen(control.runs)


async def commit(request: Request, body: Names) -> Seen:
    """Commit in between, which cannot be undone."""
    control.runs.append(list(body.names))
    await User.create(email=f"{body.names[0]}@example.com", name="written", auto_commit=True)
    control.raise_next_error()
    return Seen(control.runs)


async def lock(request: Request, body: Names) -> Seen:
    """Lock two users in the given order; the first two runs meet when each holds one lock."""
    control.runs.append(body.names)
    for place, email in enumerate(body.names):
        user = await User.filter(email_key=email).for_update().one()
        await user.update(name=user.name + body.names[0][0])
        if place == 0 and len(control.runs) <= 2:
            await control.meeting.wait()
    return Seen([])


async def answer_by_itself(request: Request, body: Names) -> shapes.User:
    """Fail, and turn every error into a problem, so that there is nothing to run again."""
    control.runs.append(body.names)
    try:
        control.raise_next_error()
    except DBAPIError:
        raise Problem("conflict") from None
    raise AssertionError


@pytest.fixture
def routes() -> Sequence[Operation]:
    return (
        route("POST", "/write", write, scope="users:write"),
        route("POST", "/write-once", write, scope="users:write", retry=False),
        route("POST", "/commit", commit, scope="users:write"),
        route("POST", "/lock", lock, scope="users:write"),
        route("POST", "/by-itself", answer_by_itself, scope="users:write"),
    )


BODY = {"names": ["ann", "bob"]}


async def emails() -> set[str]:
    return {user.email for user in await User.filter(name="written").all()}


@pytest.mark.parametrize(
    "error",
    [lost(1213), lost(1020), lost(3101), lost(1180, GROUP)],
    ids=lambda one: one.orig.args[0],
)
@pytest.mark.parametrize("times", [1, 2, 3])
async def test_it_runs_again_with_a_fresh_body_until_it_goes_well(
    app: Starlette, operator: HeldKey, times: int, error: Any
) -> None:
    control.errors = [error] * times

    answer = await call(app, "POST", "/write", key=operator, body=BODY)

    assert answer.status == 200
    assert answer.json == {"runs": [["ann", "bob"]] * (times + 1)}
    assert await emails() == {"bob@example.com"}


async def test_it_is_told_by_its_sqlstate_too(app: Starlette, operator: HeldKey) -> None:
    error = Conflict("serialization failure")
    error.sqlstate = "40001"
    control.errors = [OperationalError("UPDATE", {}, error)]

    assert (await call(app, "POST", "/write", key=operator, body=BODY)).status == 200
    assert len(control.runs) == 2


async def test_the_fourth_time_it_gives_up(app: Starlette, operator: HeldKey) -> None:
    control.errors = [lost() for _ in range(9)]

    answer = await call(app, "POST", "/write", key=operator, body=BODY)

    assert_problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    assert len(control.runs) == 4
    assert b"secret_table" not in answer.body
    assert await emails() == set()


async def test_the_caller_is_authenticated_once_and_the_same_in_every_run(
    app: Starlette, operator: HeldKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    verifier = app.state.latchkey.verifier
    verify = verifier.verify
    monkeypatch.setattr(verifier, "verify", lambda scope: (asked.append(scope), verify(scope))[1])
    control.errors = [lost(), lost()]

    await call(app, "POST", "/write", key=operator, body=BODY)

    assert len(asked) == 1
    assert len(control.callers) == 3
    assert control.callers == control.callers[:1] * 3


@pytest.mark.parametrize(
    "path, error, status, code, kept",
    [
        pytest.param("/write-once", lost(), 503, "unavailable", set(), id="retry=False"),
        pytest.param("/commit", lost(), 503, "unavailable", {"ann@example.com"}, id="after a commit"),
        pytest.param("/write", lost(1064), 500, "internal_error", set(), id="another error of the database"),
        pytest.param(
            "/write",
            lost(1180, "Got error 1149 during COMMIT"),
            503,
            "unavailable",
            set(),
            id="an error while committing that is no conflict",
        ),
        pytest.param("/write", ZeroDivisionError(), 500, "internal_error", set(), id="an error of ours"),
        pytest.param("/write", Problem("conflict"), 409, "conflict", set(), id="a problem"),
        pytest.param("/by-itself", lost(), 409, "conflict", set(), id="what the endpoint answers by itself"),
    ],
)
async def test_it_runs_only_once(
    app: Starlette, operator: HeldKey, path: str, error: Any, status: int, code: str, kept: set[Any]
) -> None:
    control.errors = [error]

    answer = await call(app, "POST", path, key=operator, body=BODY)

    assert_problem(answer, status, code)
    assert len(control.runs) == 1
    assert await emails() == kept


@pytest.mark.parametrize(
    "error", [lost(1213), lost(3101), lost(1180, GROUP)], ids=lambda one: one.orig.args[0]
)
async def test_a_conflict_at_commit_runs_it_again(
    app: Starlette, operator: HeldKey, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    """Galera and group replication report a conflict there; the transaction is rolled back."""
    dialect = app.state.db.engine.sync_engine.dialect
    commit, sent = dialect.do_commit, []

    def fail_twice(connection: Any) -> None:
        sent.append(connection)
        if len(sent) > 2:
            commit(connection)
            return
        connection.rollback()
        raise error

    monkeypatch.setattr(dialect, "do_commit", fail_twice)

    answer = await call(app, "POST", "/write", key=operator, body=BODY)

    assert answer.status == 200
    assert len(control.runs) == 3
    assert await emails() == {"bob@example.com"}


@on_mariadb
async def test_one_of_two_deadlocked_requests_runs_again_and_both_succeed(
    app: Starlette, operator: HeldKey
) -> None:
    for email in ("ann", "bob"):
        await hold_key(app, email=email)

    async with asyncio.TaskGroup() as group:
        one = group.create_task(call(app, "POST", "/lock", key=operator, body={"names": ["ann", "bob"]}))
        two = group.create_task(call(app, "POST", "/lock", key=operator, body={"names": ["bob", "ann"]}))

    assert (one.result().status, two.result().status) == (200, 200)
    assert len(control.runs) == 3
    names = [user.name for user in await User.filter(email__in=["ann", "bob"]).all()]
    assert len(names) == 2
    assert all(sorted(name.removeprefix("Operator")) == ["a", "b"] for name in names)
