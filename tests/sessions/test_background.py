"""R7: a task that a request starts and that uses the database ends with it, except background work."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from sqlalchemy import select
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from latchkey.middleware import background as work
from latchkey.middleware.background import background
from latchkey.middleware.request_scope import RequestScope
from latchkey.middleware.session_errors import EndedRequestError
from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from tests.requests import request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import response_route, value_route
from tests.sessions.test_settling import count

Touch = Callable[[SQLAlchemy], Awaitable[Any]]


async def by_engine(db: SQLAlchemy) -> None:
    async with db.reader.connect() as connection:
        await connection.execute(select(User.id))


async def by_block(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        await session.execute(select(User.id))


TOUCHES: dict[str, Touch] = {
    "a verb": lambda _: User.filter().count(),
    "a block": by_block,
    "the session of the task": lambda db: db.scoped_session().execute(select(User.id)),
    "an engine": by_engine,
}
each_touch = pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)


@each_touch
async def test_a_child_that_has_touched_the_database_ends_with_its_request(
    db: SQLAlchemy, make_app: MakeApp, touch: Touch
) -> None:
    """Whether it holds a session when the request ends, or is between two of them."""
    children: list[asyncio.Task[None]] = []
    touched = asyncio.Event()

    async def child() -> None:
        await touch(db)
        touched.set()
        await asyncio.sleep(30)

    async def start(_request: Request) -> None:
        children.append(asyncio.create_task(child()))
        await touched.wait()

    answer = await request(make_app(value_route(start)), "GET", "/probe")

    assert answer.status == 200
    assert children[0].cancelled()
    assert db.checked_out() == 0


@each_touch
async def test_a_child_that_comes_to_the_database_after_its_request_is_refused_by_name(
    db: SQLAlchemy, make_app: MakeApp, touch: Touch
) -> None:
    over = asyncio.Event()
    children: list[asyncio.Task[None]] = []

    async def late() -> None:
        await over.wait()
        await touch(db)

    async def start(_request: Request) -> None:
        children.append(asyncio.create_task(late(), name="late"))

    await request(make_app(value_route(start)), "GET", "/probe")
    over.set()

    with pytest.raises(EndedRequestError, match=r"'late' has ended, .* `latchkey.background\(…\)`"):
        await children[0]
    assert db.checked_out() == 0


@pytest.mark.parametrize("steps", range(0, 60, 3))
async def test_at_no_moment_does_a_child_outlive_its_request(
    db: SQLAlchemy, make_app: MakeApp, steps: int
) -> None:
    """In whatever step of the loop it begins, it is cancelled or refused, and never continues."""
    children: list[asyncio.Task[None]] = []

    async def poll() -> None:
        for _ in range(steps):
            await asyncio.sleep(0)
        while True:
            await User.filter().count()
            await asyncio.sleep(0.001)

    async def start(_request: Request) -> None:
        children.append(asyncio.create_task(poll()))
        await asyncio.sleep(0)

    await request(make_app(value_route(start)), "GET", "/probe")

    done, _ = await asyncio.wait(children, timeout=5)
    assert done, "it goes on"
    assert children[0].cancelled() or isinstance(children[0].exception(), EndedRequestError)


async def test_a_child_that_is_cancelled_may_tidy_up_in_the_database(
    db: SQLAlchemy, make_app: MakeApp
) -> None:
    touched = asyncio.Event()

    async def child() -> None:
        await User.filter().count()
        touched.set()
        try:
            await asyncio.sleep(30)
        finally:
            await User.create(email="tidy@example.com", name="tidy", auto_commit=True)

    async def start(request: Request) -> None:
        request.app.state.child = asyncio.create_task(child())
        await touched.wait()

    app = make_app(value_route(start))
    await request(app, "GET", "/probe")

    assert app.state.child.cancelled()
    assert await count(db) == 1


# ---------------------------------------------------------------------- background work


async def test_background_work_goes_on_with_sessions_of_its_own(db: SQLAlchemy, make_app: MakeApp) -> None:
    touched, over = asyncio.Event(), asyncio.Event()
    told: ContextVar[str] = ContextVar("told", default="nothing")
    seen: list[Any] = []

    async def notify(request: Request) -> None:
        seen.append((told.get(), RequestScope.current()))
        told.set("by the work")
        await User.filter().count()
        touched.set()
        await over.wait()
        async with db.scoped_session() as session:
            await User.create(email="later@example.com", name="later")
            await session.commit()
        await User.create(email="last@example.com", name="last", auto_commit=True)

    async def start(request: Request) -> None:
        told.set("by the request")
        request.app.state.work = background(notify(request), name="notify")
        await User.create(email="first@example.com", name="first")
        await touched.wait()

    app = make_app(value_route(start, "POST"))
    assert (await request(app, "POST", "/probe")).status == 200
    assert not app.state.work.done()
    over.set()
    await app.state.work

    assert seen == [("by the request", None)]
    assert await count(db) == 3


async def test_a_worker_that_starts_lazily_in_a_request_serves_the_next_ones(
    db: SQLAlchemy, make_app: MakeApp
) -> None:
    jobs: asyncio.Queue[str | None] = asyncio.Queue()
    workers: list[asyncio.Task[None]] = []

    async def run() -> None:
        while (email := await jobs.get()) is not None:
            await asyncio.create_task(User.create(email=email, name="by the worker", auto_commit=True))
            jobs.task_done()

    async def enqueue(request: Request) -> None:
        if not workers:
            workers.append(background(run(), name="worker"))
        jobs.put_nowait(request.headers["x-email"])

    app = make_app(value_route(enqueue, "POST"))
    for n in range(3):
        await request(app, "POST", "/probe", headers={"x-email": f"{n}@example.com"})
        await jobs.join()
    jobs.put_nowait(None)
    await workers[0]

    assert await count(db) == 3


async def test_a_failure_of_background_work_is_logged(
    db: SQLAlchemy, make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise LookupError("no such row")

    async def start(_request: Request) -> None:
        background(fail(), name="careless")

    assert (await request(make_app(value_route(start)), "GET", "/probe")).status == 200
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert "the background task 'careless' failed" in caplog.text
    assert "no such row" in caplog.text


async def test_closing_waits_for_background_work(db: SQLAlchemy) -> None:
    async def slow() -> None:
        await User.filter().count()
        await asyncio.sleep(0.1)
        await User.create(email="slow@example.com", name="slow", auto_commit=True)

    task = background(slow())
    await asyncio.sleep(0)
    await db.close()

    assert task.done()
    assert task.exception() is None


async def test_background_work_beyond_the_grace_is_cancelled_and_named(
    db: SQLAlchemy, caplog: pytest.LogCaptureFixture
) -> None:
    touched = asyncio.Event()

    async def endless() -> None:
        await db.scoped_session().execute(select(User.id))
        touched.set()
        await asyncio.sleep(3600)

    task = background(endless(), name="endless")
    await touched.wait()
    await work.finish(0.05)

    assert task.cancelled()
    assert "cancelled: ['endless']" in caplog.text


async def test_work_that_ignores_its_cancellation_is_named_and_not_waited_for_for_ever(
    db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(work, "END_AGAIN_S", 0.01)
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    task = background(stubborn(), name="stubborn")
    await asyncio.sleep(0)
    await work.finish(0.0)
    release.set()
    await task

    assert "ignore their cancellation: ['stubborn']" in caplog.text


async def test_a_task_that_a_server_starts_from_send_is_no_child_of_the_request(
    db: SQLAlchemy, make_app: MakeApp
) -> None:
    """uvicorn starts the next request of a connection when it sends the previous answer."""
    scopes: list[RequestScope | None] = []

    async def stream(_request: Request) -> Response:
        async def parts() -> Any:
            yield b"x"

        return StreamingResponse(parts())

    await request(
        make_app(response_route(stream)),
        "GET",
        "/probe",
        on_message=lambda _: scopes.append(RequestScope.current()),
    )

    assert scopes[-1] is None
