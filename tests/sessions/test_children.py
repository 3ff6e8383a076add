"""R7: child tasks, streamed bodies and background work have sessions of their own."""

import asyncio
import sys
from typing import Any

import pytest
from sqlalchemy import inspect
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from latchkey.middleware import request_scope
from latchkey.middleware.session import SessionMiddleware
from latchkey.middleware.session_errors import ChildWriteError, SettledSessionError, UnwrittenWorkError
from latchkey.models import User
from latchkey.models.errors import LostWriteError
from latchkey.service.database import SQLAlchemy
from latchkey.service.exception_handlers import problem_of_exception
from tests.requests import request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import response_route, value_route
from tests.sessions.test_settling import count


async def test_each_child_reads_on_a_session_that_ends_with_it(
    db: SQLAlchemy, make_app: MakeApp, first: int
) -> None:
    seen: list[AsyncSession] = []

    async def child() -> str:
        session = db.scoped_session()
        seen.append(session)
        return (await session.get(User, first)).name

    async def gather(request: Request) -> Any:
        seen.append(request.state.session)
        names = await asyncio.gather(child(), child(), child())
        await asyncio.sleep(0)
        return [names, len(db.scoped_session.registry.registry)]

    answer = await request(make_app(value_route(gather)), "GET", "/probe")

    assert answer.json == {"seen": [["first"] * 3, 1]}
    assert len(set(seen)) == 4


async def test_more_children_than_connections_do_not_wait_for_each_other(
    db: SQLAlchemy, make_app: MakeApp, first: int
) -> None:
    """A pool of 2: three requests that have read, with four children each that meet before they end."""

    async def crowd(request: Request) -> Any:
        meeting = asyncio.Barrier(4)

        async def child() -> Any:
            name = (await db.scoped_session().get(User, first)).name
            await meeting.wait()
            return name

        await User.get(first)
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(child())

    app = make_app(value_route(crowd))
    answers = await asyncio.gather(*(request(app, "GET", "/probe") for _ in range(3)))

    assert [answer.status for answer in answers] == [200] * 3


async def test_children_that_still_run_are_cancelled_and_closed_at_the_end(
    db: SQLAlchemy, make_app: MakeApp, first: int
) -> None:
    ended: list[str] = []

    async def child() -> None:
        try:
            await db.scoped_session().get(User, first)
            await asyncio.sleep(30)
        finally:
            ended.append("child")

    async def leave(request: Request) -> None:
        request.app.state.child = asyncio.create_task(child())
        await asyncio.sleep(0.05)

    app = make_app(value_route(leave))
    answer = await request(app, "GET", "/probe")

    assert answer.status == 200
    assert app.state.child.cancelled()
    assert ended == ["child"]


async def test_a_child_that_ignores_its_cancellation_is_named_and_not_waited_for_for_ever(
    db: SQLAlchemy,
    make_app: MakeApp,
    first: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(request_scope, "CHILD_DEADLINE_S", 0.05)
    has_read, release = asyncio.Event(), asyncio.Event()

    async def child() -> None:
        await db.scoped_session().get(User, first)
        has_read.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async def leave(request: Request) -> None:
        request.app.state.child = asyncio.create_task(child(), name="stubborn")
        await has_read.wait()

    app = make_app(value_route(leave))
    answer = await request(app, "GET", "/probe")
    release.set()
    await app.state.child

    assert answer.status == 200
    assert "stubborn" in caplog.text


async def test_a_childs_write_commits_itself_or_is_refused(db: SQLAlchemy, make_app: MakeApp) -> None:
    refusals: list[str] = []

    async def child(email: str, *, auto_commit: bool) -> None:
        try:
            await User.create(email=email, name="n", auto_commit=auto_commit)
        except LostWriteError as error:
            refusals.append(str(error))

    async def write(request: Request) -> None:
        await asyncio.gather(child("kept@x", auto_commit=True), child("refused@x", auto_commit=False))

    answer = await request(make_app(value_route(write, "POST")), "POST", "/probe")

    assert answer.status == 200
    assert await count(db) == 1
    assert len(refusals) == 1
    assert "auto_commit=True" in refusals[0]


@pytest.mark.parametrize("flushed", [True, False], ids=["flushed", "pending"])
async def test_a_child_that_ends_with_unwritten_work_fails_the_request(
    db: SQLAlchemy, make_app: MakeApp, caplog: pytest.LogCaptureFixture, flushed: bool
) -> None:
    """Otherwise the request would answer 200 for a row that was not committed."""

    async def child() -> None:
        db.scoped_session().add(User(email="a@b", name="n"))
        if flushed:
            await db.scoped_session().flush()

    async def write(request: Request) -> None:
        await asyncio.create_task(child(), name="careless")

    answer = await request(make_app(value_route(write, "POST")), "POST", "/probe")

    assert (answer.status, answer.starts) == (500, 1)
    assert "'careless' ended without committing" in caplog.text
    assert await count(db) == 0


async def test_the_work_of_a_child_is_missed_in_the_very_step_in_which_it_ends(db: SQLAlchemy) -> None:
    """The callback of its task has not run yet when the answer starts."""

    async def child() -> None:
        db.scoped_session().add(User(email="a@b", name="n"))

    async def write(request: Request) -> Response:
        await asyncio.create_task(child(), name="careless")
        return Response()

    app = Starlette(
        routes=[Route("/probe", write)],
        middleware=[
            Middleware(SessionMiddleware, scoped_session=db.scoped_session, problem=problem_of_exception)
        ],
    )
    with pytest.raises(UnwrittenWorkError, match="'careless' ended without committing User"):
        await request(app, "GET", "/probe")


async def test_a_child_that_writes_while_its_request_writes_is_refused_by_name(
    db: SQLAlchemy, make_app: MakeApp
) -> None:
    """On SQLite one such request, on MariaDB as many as the pool has connections, would wait for ever."""
    refusals: list[str] = []

    async def child() -> None:
        try:
            await User.create(email="child@x", name="n", auto_commit=True)
        except ChildWriteError as error:
            refusals.append(str(error))

    async def write(request: Request) -> None:
        await User.create(email="parent@x", name="n")
        await asyncio.create_task(child(), name="second writer")

    answer = await request(make_app(value_route(write, "POST")), "POST", "/probe")

    assert answer.status == 200
    assert await count(db) == 1
    assert "'second writer' wants to write while its request has a write open" in refusals[0]


async def test_a_child_reads_while_its_request_writes(db: SQLAlchemy, make_app: MakeApp, first: int) -> None:
    async def write(request: Request) -> Any:
        await User.create(email="parent@x", name="n")
        child = asyncio.create_task(User.get(first))
        return (await child).name

    answer = await request(make_app(value_route(write, "POST")), "POST", "/probe")

    assert answer.json == {"seen": "first"}


async def test_after_settling_the_requests_session_raises_by_name(
    db: SQLAlchemy, make_app: MakeApp, first: int
) -> None:
    seen: dict[str, Any] = {}

    async def stream(request: Request) -> Response:
        held = request.state.session
        user = await User.get(first)

        async def parts() -> Any:
            seen["loaded"] = user.name
            for name, use in {
                "state": lambda: request.state.session,
                "held": held.sync_session.get_bind,
            }.items():
                try:
                    use()
                except SettledSessionError as error:
                    seen[name] = str(error)
            seen["fresh"] = db.scoped_session() is not held
            yield b"x"

        return StreamingResponse(parts())

    await request(make_app(response_route(stream)), "GET", "/probe")

    assert seen["loaded"] == "first"
    assert seen["fresh"]
    assert seen["state"] == seen["held"]
    assert "request.state.session was settled" in seen["state"]


@pytest.mark.parametrize("auto_commit", [True, False])
async def test_background_work_writes_on_a_session_of_its_own(
    db: SQLAlchemy, make_app: MakeApp, caplog: pytest.LogCaptureFixture, auto_commit: bool
) -> None:
    async def work() -> None:
        await User.create(email="a@b", name="n", auto_commit=auto_commit)

    async def endpoint(request: Request) -> Response:
        return JSONResponse({}, background=BackgroundTask(work))

    app = make_app(response_route(endpoint, "POST"))
    if auto_commit:
        await request(app, "POST", "/probe")
    else:
        with pytest.raises(LostWriteError):
            await request(app, "POST", "/probe")

    assert await count(db) == auto_commit


async def test_background_work_that_forgets_to_commit_is_logged(
    db: SQLAlchemy, make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        db.scoped_session().add(User(email="a@b", name="n"))
        await db.scoped_session().flush()

    async def endpoint(request: Request) -> Response:
        return JSONResponse({}, background=BackgroundTask(work))

    answer = await request(make_app(response_route(endpoint, "POST")), "POST", "/probe")

    assert answer.status == 200
    assert "ended without committing what it wrote" in caplog.text
    assert await count(db) == 0


async def test_an_instance_that_a_child_has_read_is_attached_by_a_verb(
    db: SQLAlchemy, make_app: MakeApp, first: int
) -> None:
    async def rename(request: Request) -> Any:
        user = await asyncio.create_task(User.get(first))
        detached = user not in request.state.session
        await user.update(name="renamed")
        return [detached, user in request.state.session]

    answer = await request(make_app(value_route(rename, "POST")), "POST", "/probe")

    assert answer.json == {"seen": [True, True]}
    assert (await User.get(first)).name == "renamed"


async def test_wait_for_is_a_child_before_python_3_12_and_says_so(db: SQLAlchemy, make_app: MakeApp) -> None:
    async def write(request: Request) -> Any:
        try:
            await asyncio.wait_for(User.create(email="a@b", name="n"), 5)
        except LostWriteError as error:
            return str(error)

    answer = await request(make_app(value_route(write, "POST")), "POST", "/probe")

    if sys.version_info < (3, 12):
        assert "so does `asyncio.wait_for` before Python 3.12" in answer.json["seen"]
        assert await count(db) == 0
    else:
        assert answer.json == {"seen": None}
        assert await count(db) == 1


async def test_an_endpoint_whose_child_has_committed_is_not_run_again(
    db: SQLAlchemy, make_app: MakeApp
) -> None:
    """Otherwise the child's row would be inserted twice."""
    runs = 0

    async def write(request: Request) -> None:
        nonlocal runs
        runs += 1
        await asyncio.create_task(User.create(email=f"{runs}@x", name="n", auto_commit=True))
        raise OperationalError("UPDATE", {}, Exception(1213, "Deadlock found"))

    answer = await request(make_app(value_route(write, "POST")), "POST", "/probe")

    assert (answer.status, runs) == (503, 1)
    assert await count(db) == 1


async def test_the_rows_of_a_child_are_detached_when_it_has_ended(
    make_app: MakeApp, db: SQLAlchemy, first: int
) -> None:
    async def parent(request: Request) -> list[Any]:
        async def child() -> User | None:
            return await db.scoped_session().get(User, first)

        user = await asyncio.create_task(child())
        await asyncio.sleep(0)  # the callback of the task that has ended
        return [inspect(user).detached, user.name]

    for method in ("GET", "POST"):
        answer = await request(make_app(value_route(parent, method)), method, "/probe")
        assert answer.json == {"seen": [True, "first"]}
