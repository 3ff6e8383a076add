"""R4: the session is settled before the first byte, and no 2xx is sent for an uncommitted change."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.util import await_only
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from latchkey.models import User
from latchkey.service import shapes
from latchkey.service.database import SQLAlchemy
from latchkey.service.database import session as sessions
from latchkey.service.database.session import RequestSession
from latchkey.service.database.stalls import has_stalled
from latchkey.service.endpoints import adapter as endpoint
from latchkey.service.operation import route
from latchkey.service.problems import Problem
from tests.requests import request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import NewRow, response_route, value_route


async def count(db: SQLAlchemy) -> int:
    async with db.reader.connect() as connection:
        return (await connection.execute(select(func.count()).select_from(User))).scalar_one()


class Unencodable:
    """A value that JSON cannot represent."""


@pytest.mark.parametrize("status", [200, 201, 302, 399])
async def test_a_status_below_400_commits_what_is_left(
    db: SQLAlchemy, make_app: MakeApp, status: int
) -> None:
    async def leave(request: Request) -> Response:
        request.state.session.add(User(email="a@b", name="left"))
        return Response(status_code=status)

    answer = await request(make_app(response_route(leave, "POST")), "POST", "/probe")

    assert answer.status == status
    assert await count(db) == 1


@pytest.mark.parametrize("status", [400, 404, 422, 500])
async def test_any_other_status_rolls_back_and_says_what_was_dropped(
    db: SQLAlchemy, make_app: MakeApp, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def leave(request: Request) -> Response:
        await User.create(email="a@b", name="flushed")
        request.state.session.add(User(email="c@d", name="pending"))
        return Response(status_code=status)

    answer = await request(make_app(response_route(leave, "POST")), "POST", "/probe")

    assert answer.status == status
    assert await count(db) == 0
    assert f"the response {status} drops changes: User" in caplog.text


async def test_raw_sql_is_rolled_back_too(db: SQLAlchemy, make_app: MakeApp, first: int) -> None:
    async def change(request: Request) -> Response:
        await request.state.session.execute(text("UPDATE users SET name = 'changed'"))
        return Response(status_code=422)

    await request(make_app(response_route(change, "POST")), "POST", "/probe")

    assert (await User.get(first)).name == "first"


async def test_the_row_is_there_before_the_start_is_sent(db: SQLAlchemy, make_app: MakeApp) -> None:
    seen: list[int] = []

    class Watch:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def watch(message: Any) -> None:
                if message["type"] == "http.response.start":
                    seen.append(await count(db))
                await send(message)

            await self.app(scope, receive, watch)

    async def write(body: NewRow) -> User:
        return await User.create(email=body.email, name="n")

    app = Watch(make_app(route("POST", "/w", write, public=True, status=201, answers=shapes.User)))
    answer = await request(app, "POST", "/w", body={"email": "a@b"})

    assert (answer.status, seen) == (201, [1])


async def test_an_answer_that_cannot_be_encoded_commits_nothing(db: SQLAlchemy, make_app: MakeApp) -> None:
    async def write(request: Request) -> Any:
        await User.create(email="a@b", name="n")
        return Unencodable()

    answer = await request(make_app(value_route(write, "POST")), "POST", "/probe")

    assert answer.status == 500
    assert answer.json["code"] == "internal_error"
    assert await count(db) == 0


class Lost(Exception):
    """An error of the driver when the connection is lost."""


@pytest.fixture
def commit_fails(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make COMMIT fail with an error of the database."""

    def arrange(db: SQLAlchemy, error: Exception, *, disconnected: bool = False) -> None:
        def do_commit(_connection: Any) -> None:
            raise OperationalError("COMMIT", {}, error, connection_invalidated=disconnected)

        monkeypatch.setattr(db.engine.sync_engine.dialect, "do_commit", do_commit)

    return arrange


@pytest.mark.parametrize(
    "error, disconnected, status, code",
    [
        (Exception(1213, "Deadlock found"), False, 503, "unavailable"),
        (Lost(2013, "Lost connection"), True, 500, "commit_unknown"),
        (Exception(1047, "WSREP has not yet prepared node"), False, 503, "unavailable"),
    ],
    ids=["conflict", "lost after COMMIT was sent", "no quorum"],
)
@pytest.mark.parametrize("how", ["adapter", "settle"])
async def test_a_commit_that_fails_is_one_problem_and_never_the_2xx(
    db: SQLAlchemy,
    make_app: MakeApp,
    commit_fails: Any,
    error: Exception,
    disconnected: bool,
    status: int,
    code: str,
    how: str,
) -> None:
    ran: list[str] = []

    async def later() -> None:
        ran.append("background")

    async def by_adapter(request: Request) -> Any:
        await User.create(email="a@b", name="n")

    async def by_settle(request: Request) -> Response:
        await User.create(email="a@b", name="n")
        return JSONResponse({"good": True}, 201, background=BackgroundTask(later))

    app = make_app(
        value_route(by_adapter, "POST", "/adapter", retry=False), response_route(by_settle, "POST", "/settle")
    )
    commit_fails(db, error, disconnected=disconnected)
    answer = await request(app, "POST", f"/{how}")

    assert (answer.status, answer.json["code"], answer.starts) == (status, code, 1)
    assert ("retry-after" in answer.headers) == (status == 503)
    assert ran == [], "background work does not run when settling failed"


async def test_a_constraint_at_settling_is_a_409(db: SQLAlchemy, make_app: MakeApp, first: int) -> None:
    async def leave(request: Request) -> Response:
        request.state.session.add(User(email="FIRST@example.com", name="n"))
        return Response(status_code=201)

    answer = await request(make_app(response_route(leave, "POST")), "POST", "/probe")

    assert (answer.status, answer.json["code"], answer.starts) == (409, "conflict", 1)


class LeavingWork:
    """A middleware that leaves a write for the settling at the start of the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def leave(message: Any) -> None:
            if message["type"] == "http.response.start":
                scope["state"]["session"].add(User(email="first@example.com", name="n"))
            await send(message)

        await self.app(scope, receive, leave)


async def test_a_second_answer_after_a_failed_commit_is_not_sent(
    db: SQLAlchemy, make_app: MakeApp, first: int
) -> None:
    """A middleware that answers exceptions itself cannot send its own body."""

    class Replacing:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await self.app(scope, receive, send)
            except Exception:
                await JSONResponse({"mine": True}, 200)(scope, receive, send)

    async def answer_well(request: Request) -> Response:
        return JSONResponse({"good": True}, 201)

    app = make_app(
        response_route(answer_well, "POST"), extra=[Middleware(Replacing), Middleware(LeavingWork)]
    )
    answer = await request(app, "POST", "/probe")

    assert (answer.status, answer.starts) == (409, 1)
    assert answer.json["code"] == "conflict"


async def test_a_handler_for_every_exception_does_not_hide_a_failed_commit(
    db: SQLAlchemy, make_app: MakeApp, first: int
) -> None:
    """Starlette wraps an exception that is raised when it assumes that the answer has started."""

    async def handle(request: Request, error: Exception) -> Response:
        return JSONResponse({"handled": True}, 200)

    async def answer_well(request: Request) -> Response:
        return JSONResponse({"good": True}, 201)

    app = make_app(response_route(answer_well, "POST"), extra=[Middleware(LeavingWork)])
    app.exception_handlers[IntegrityError] = handle
    answer = await request(app, "POST", "/probe")

    assert (answer.status, answer.json["code"], answer.starts) == (409, "conflict", 1)


async def test_a_commit_runs_to_its_end_when_its_task_is_cancelled(db: SQLAlchemy) -> None:
    """R4, also for `await session.commit()` outside requests."""

    async def write() -> None:
        async with db.scoped_session() as session:
            await User.create(email="a@b", name="n")
            task.get_loop().call_soon(task.cancel)
            await session.commit()

    task = asyncio.create_task(write())
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await count(db) == 1


async def test_a_commit_past_its_deadline_is_of_unknown_outcome(
    db: SQLAlchemy, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "COMMIT_DEADLINE_S", 0.05)
    monkeypatch.setattr(
        db.engine.sync_engine.dialect, "do_commit", lambda _connection: await_only(asyncio.sleep(5))
    )

    stalled: list[bool] = []

    async def write(request: Request) -> None:
        await User.create(email="a@b", name="n")
        stalled.append(has_stalled())
        try:
            await request.state.session.commit()
        finally:
            stalled.append(has_stalled())

    answer = await request(make_app(value_route(write, "POST")), "POST", "/probe")

    assert (answer.status, answer.json["code"]) == (500, "commit_unknown")
    assert stalled == [False, True], "the end of the request does not wait for the database again"


async def test_a_problem_rolls_back(db: SQLAlchemy, make_app: MakeApp) -> None:
    async def write(request: Request) -> None:
        await User.create(email="a@b", name="n")
        raise Problem("conflict")

    answer = await request(make_app(value_route(write, "POST")), "POST", "/probe")

    assert answer.status == 409
    assert await count(db) == 0


async def test_trouble_before_the_endpoint_maps_the_same_way(db: SQLAlchemy, make_app: MakeApp) -> None:
    """A read of the authenticator, or of any middleware, while the database cannot be reached."""

    class Reading:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            raise OperationalError("SELECT", {}, Exception(2003, "Can't connect"))

    async def nothing(request: Request) -> None: ...

    answer = await request(make_app(value_route(nothing), extra=[Middleware(Reading)]), "GET", "/probe")

    assert (answer.status, answer.json["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "1"


async def test_a_pool_that_is_empty_is_an_honest_503(db: SQLAlchemy, make_app: MakeApp, first: int) -> None:
    async def write(request: Request) -> None:
        await User.create(email="a@b", name="n")

    async with db.engine.connect(), db.engine.connect():
        answer = await request(make_app(value_route(write, "POST")), "POST", "/probe")

    assert (answer.status, answer.json["code"]) == (503, "unavailable")


async def test_the_adapter_encodes_before_it_commits(
    db: SQLAlchemy, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """decode → endpoint → flush and refresh → encode → commit → send."""
    order: list[str] = []

    def note(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def noted(*args: Any, **kwargs: Any) -> Any:
            order.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, noted)

    for name in ("decode_body", "encode"):
        note(endpoint, name)
    for name in ("flush_and_refresh", "commit"):
        note(RequestSession, name)

    async def write(body: NewRow) -> User:
        order.append("endpoint")
        return await User.create(email=body.email, name="n")

    app = make_app(route("POST", "/w", write, public=True, answers=shapes.User))
    await request(app, "POST", "/w", body={"email": "a@b"})

    assert order[:5] == ["decode_body", "endpoint", "flush_and_refresh", "encode", "commit"]


async def test_a_rollback_that_fails_too_does_not_hide_the_failure(
    db: SQLAlchemy, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fall(request: Request) -> None:
        await User.create(email="a@b", name="n")
        raise Problem("conflict") from None

    def do_rollback(_connection: Any) -> None:
        raise OperationalError("ROLLBACK", {}, Lost(2013, "Lost connection"), connection_invalidated=True)

    class Raising:
        """A middleware in place of the authenticator: only the session middleware handles its exceptions."""

        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await User.create(email="a@b", name="n")
            monkeypatch.setattr(db.engine.sync_engine.dialect, "do_rollback", do_rollback)
            raise OperationalError("SELECT", {}, Exception(2003, "Can't connect"))

    answer = await request(make_app(value_route(fall, "POST"), extra=[Middleware(Raising)]), "POST", "/probe")
    monkeypatch.undo()

    assert (answer.status, answer.json["code"]) == (503, "unavailable")
    assert "the rollback failed too" in caplog.text


async def test_a_rollback_that_hangs_is_broken_off(
    db: SQLAlchemy, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be cancelled, so it must be bounded."""
    monkeypatch.setattr(sessions, "END_DEADLINE_S", 0.05)
    original = db.engine.sync_engine.dialect.do_rollback
    hung: list[bool] = []

    def do_rollback(connection: Any) -> None:
        if not hung:
            hung.append(True)
            await_only(asyncio.sleep(30))
        original(connection)

    async def refuse(request: Request) -> Response:
        await User.create(email="a@b", name="n")
        monkeypatch.setattr(db.engine.sync_engine.dialect, "do_rollback", do_rollback)
        return Response(status_code=409)

    async with asyncio.timeout(5):
        answer = await request(make_app(response_route(refuse, "POST")), "POST", "/probe")

    assert hung
    assert answer.starts == 1
    assert await count(db) == 0
