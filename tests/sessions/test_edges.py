"""Combinations of the rules R1 to R12."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy import func, literal, select, text, update
from sqlalchemy.exc import OperationalError
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from latchkey.middleware.session_errors import CommitUnknownError, UnwrittenWorkError
from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from latchkey.service.database import session as sessions
from tests.conftest import on_mariadb, only_on_mariadb
from tests.requests import converse, request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import response_route, value_route
from tests.sessions.test_settling import count

Hook = Callable[[Any, Any], Coroutine[Any, Any, None]]
CONFLICT = OperationalError("UPDATE", {}, Exception(1213, "Deadlock found"))


async def emails(db: SQLAlchemy) -> list[str]:
    async with db.reader.connect() as connection:
        return sorted((await connection.execute(select(User.email))).scalars())


@pytest.fixture
def lose_commit(db: SQLAlchemy) -> Callable[[pytest.MonkeyPatch], None]:
    """Lose the connection when COMMIT is sent."""

    def do_commit(_connection: Any) -> None:
        raise OperationalError("COMMIT", {}, Exception(2013, "Lost"), connection_invalidated=True)

    return lambda patch: patch.setattr(db.engine.sync_engine.dialect, "do_commit", do_commit)


# ---------------------------------------------------------------------- transactions begun by hand


async def test_after_a_transaction_by_hand_the_endpoint_is_not_run_again(
    db: SQLAlchemy, make_app: MakeApp
) -> None:
    runs = 0

    async def write(request: Request) -> None:
        nonlocal runs
        runs += 1
        async with request.state.session.begin():
            await User.create(email=f"{runs}@b", name="n")
        raise CONFLICT

    answer = await request(make_app(value_route(write, "POST")), "POST", "/probe")

    assert (answer.status, await emails(db)) == (503, ["1@b"])


async def test_a_transaction_by_hand_whose_commit_is_lost_is_of_unknown_outcome(
    make_app: MakeApp, lose_commit: Any
) -> None:
    async def write(request: Request) -> None:
        async with request.state.session.begin():
            await User.create(email="a@b", name="n")

    with pytest.MonkeyPatch.context() as patch:
        lose_commit(patch)
        answer = await request(make_app(value_route(write, "POST")), "POST", "/probe")

    assert (answer.status, answer.json["code"]) == (500, "commit_unknown")


async def test_a_transaction_by_hand_commits_to_its_end(db: SQLAlchemy) -> None:
    async def write() -> None:
        async with db.scoped_session() as session, session.begin():
            await User.create(email="a@b", name="n")
            task.get_loop().call_soon(task.cancel)

    task = asyncio.create_task(write())
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await count(db) == 1


async def test_a_commit_of_unknown_outcome_is_not_run_again_even_when_it_was_caught(
    make_app: MakeApp, lose_commit: Any
) -> None:
    runs = 0

    async def write(request: Request) -> None:
        nonlocal runs
        runs += 1
        with pytest.MonkeyPatch.context() as patch, pytest.raises(CommitUnknownError):
            lose_commit(patch)
            await User.create(email="a@b", name="n", auto_commit=True)
        raise CONFLICT

    await request(make_app(value_route(write, "POST")), "POST", "/probe")

    assert runs == 1


# ---------------------------------------------------------------------- after-commit hooks


async def test_hooks_do_not_commit_what_the_session_has_not(
    db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hook(_user: User, session: Any) -> None:
        await session.execute(select(literal(1)))

    monkeypatch.setattr(User, "after_commit", hook)
    with pytest.raises(ZeroDivisionError):
        async with db.scoped_session() as session:
            async with session.begin():
                await User.create(email="whole@b", name="n")
            await User.create(email="half@b", name="n")
            raise ZeroDivisionError

    assert await emails(db) == ["whole@b"]


async def test_rows_that_a_hook_writes_run_no_hooks(db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = 0

    async def hook(_user: User, session: Any) -> None:
        nonlocal runs
        runs += 1
        await User.create(email=f"{runs}@hook", name="n", session=session)

    monkeypatch.setattr(User, "after_commit", hook)
    await User.create(email="a@b", name="n", auto_commit=True)

    assert await emails(db) == ["1@hook", "a@b"]


async def fall(_user: User, session: Any) -> None:
    await session.execute(update(User).values(name="changed by the hook"))
    raise KeyError("hook")


async def cancel_itself(_user: User, session: Any) -> None:
    inner = asyncio.create_task(asyncio.sleep(9))
    inner.cancel()
    await inner


async def hang(_user: User, session: Any) -> None:
    await asyncio.sleep(30)


@pytest.mark.parametrize("hook", [fall, cancel_itself, hang], ids=lambda hook: hook.__name__)
async def test_a_hook_never_turns_a_committed_request_into_a_failure(
    db: SQLAlchemy, make_app: MakeApp, hook: Hook, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(User, "after_commit", hook)
    monkeypatch.setattr("latchkey.models.hooks.HOOKS_DEADLINE_S", 0.05)

    async def write(request: Request) -> str:
        user = await User.create(email="a@b", name="n", auto_commit=True)
        return user.name

    answer = await request(make_app(value_route(write, "POST")), "POST", "/probe")

    assert (answer.status, answer.json) == (200, {"seen": "n"})
    assert await emails(db) == ["a@b"]
    assert "the after-commit hook of User failed; the commit stands" in caplog.text


# ---------------------------------------------------------------------- children


async def test_a_child_that_lost_work_fails_its_request_before_the_commit(
    db: SQLAlchemy, make_app: MakeApp
) -> None:
    async def child() -> None:
        db.scoped_session().add(User(email="child@b", name="n"))

    async def write(request: Request) -> None:
        await asyncio.create_task(child())
        await User.create(email="parent@b", name="n")

    answer = await request(make_app(value_route(write, "POST")), "POST", "/probe")

    assert (answer.status, await emails(db)) == (500, [])


async def test_a_child_that_is_cut_off_with_unwritten_work_is_logged(
    db: SQLAlchemy, make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    async def child() -> None:
        db.scoped_session().add(User(email="a@b", name="n"))
        await asyncio.sleep(30)

    async def leave(request: Request) -> None:
        request.app.state.child = asyncio.create_task(child(), name="cut off")
        await asyncio.sleep(0.05)

    await request(make_app(value_route(leave)), "GET", "/probe")

    assert "the request ended before its child task 'cut off' committed User" in caplog.text


@on_mariadb
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_child_that_waits_for_the_client_does_not_disturb_a_running_query(
    make_app: MakeApp, first: int, method: str
) -> None:
    async def read(request: Request) -> Any:
        async def watch() -> bool:
            await asyncio.sleep(0.05)
            return await request.is_disconnected()

        watching = asyncio.create_task(watch())
        rows = await request.state.session.execute(select(func.sleep(0.3), literal("mine")))
        await watching
        return rows.one()[1]

    async with asyncio.timeout(5):
        answer = await request(make_app(value_route(read, method)), method, "/probe")

    assert answer.json == {"seen": "mine"}


# ---------------------------------------------------------------------- leaving


async def test_a_generator_that_nobody_closes_does_not_keep_the_requests_connection(
    db: SQLAlchemy, make_app: MakeApp
) -> None:
    """`get_db` that was entered and never left, in a request that is cancelled."""
    reached = asyncio.Event()
    held: list[Any] = []

    async def hold(request: Request) -> None:
        injected = db.session()
        await anext(injected)
        held.append(injected)
        await User.create(email="half@b", name="n")
        reached.set()
        await asyncio.sleep(30)

    task = asyncio.create_task(converse(make_app(value_route(hold, "POST")), "POST", "/probe"))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert db.checked_out() == 0
    for injected in held:
        await injected.aclose()


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
async def test_a_write_may_be_answered_with_a_stream(
    db: SQLAlchemy, make_app: MakeApp, spec_version: str
) -> None:
    """The body was never read, so the listener for a disconnect receives it."""

    async def write(request: Request) -> Response:
        await User.create(email="a@b", name="n")

        async def parts() -> Any:
            yield b"x"

        return StreamingResponse(parts())

    app = make_app(response_route(write, "POST"))
    answer = await asyncio.create_task(converse(app, "POST", "/probe", spec_version=spec_version))

    assert (answer.status, answer.body, await emails(db)) == (200, b"x", ["a@b"])


async def test_an_endpoint_that_answers_by_itself_is_run_again_too(db: SQLAlchemy, make_app: MakeApp) -> None:
    runs = 0
    dialect = db.engine.sync_engine.dialect
    original = dialect.do_commit

    def do_commit(connection: Any) -> None:
        if runs == 1:
            raise OperationalError("COMMIT", {}, Exception(1213, "Deadlock found"))
        original(connection)

    async def write(request: Request) -> Response:
        nonlocal runs
        runs += 1
        await User.create(email="a@b", name="n")
        return JSONResponse({})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dialect, "do_commit", do_commit)
        answer = await request(make_app(response_route(write, "POST")), "POST", "/probe")

    assert (answer.status, runs, await emails(db)) == (200, 2, ["a@b"])


async def test_an_instance_added_after_the_answer_has_started_is_logged(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer_and_add(request: Request) -> Response:
        held = request.state.session

        async def work() -> None:
            held.add(User(email="a@b", name="n"))

        return JSONResponse({}, background=BackgroundTask(work))

    caplog.set_level(logging.ERROR)
    await request(make_app(response_route(answer_and_add, "POST")), "POST", "/probe")

    assert "User was added to the request's session after the response had started" in caplog.text


async def test_text_that_reads_in_a_streamed_body_pins_nothing(db: SQLAlchemy, make_app: MakeApp) -> None:
    out: list[int] = []

    async def stream(request: Request) -> Response:
        async def parts() -> Any:
            for _ in range(2):
                await db.scoped_session().execute(text("SELECT 1"))
                yield b"x"

        return StreamingResponse(parts())

    def look(kind: str) -> None:
        if kind == "http.response.body":
            out.append(db.checked_out())

    await asyncio.create_task(converse(make_app(response_route(stream)), "GET", "/probe", on_message=look))

    assert out == [0, 0, 0]


# ---------------------------------------------------------------------- writes that would be lost


async def test_a_row_that_is_locked_by_refresh_keeps_its_pending_change(db: SQLAlchemy, first: int) -> None:
    async with db.scoped_session() as session:
        user = await session.get(User, first)
        user.name = "changed"
        await session.refresh(user, with_for_update=True)
        await session.commit()

    assert (await User.get(first)).name == "changed"


@pytest.mark.parametrize(
    "how",
    ["bulk", pytest.param("text", marks=only_on_mariadb("MySQL has no RETURNING"))],
)
async def test_work_past_the_unit_of_work_is_not_lost_in_silence(
    db: SQLAlchemy, first: int, how: str
) -> None:
    row = (
        "INSERT INTO users (email, email_key, name, status, created_at, updated_at) "
        "VALUES ('a', 'b', 'c', 'active', '2020-01-01 00:00:00.000000', '2020-01-01 00:00:00.000000') RETURNING id"
    )
    with pytest.raises(UnwrittenWorkError):
        async with db.scoped_session() as session:
            if how == "bulk":
                await session.run_sync(
                    lambda inner: inner.bulk_update_mappings(User, [{"id": 1, "name": "n"}])
                )
            else:
                await session.execute(text(row).columns(User.id))


@on_mariadb
async def test_a_pending_row_is_not_lost_with_a_dead_connection(
    db: SQLAlchemy, make_app: MakeApp, mariadb: Any, first: int
) -> None:
    """The statement may be run once more, but not without the flush that it began with."""

    async def write(request: Request) -> None:
        session = request.state.session
        session.add(User(email="new@b", name="n"))
        mariadb.kill_connections()
        await asyncio.sleep(0.05)
        await session.execute(select(User).where(User.id == first).with_for_update())

    async with db.engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
    answer = await request(make_app(value_route(write, "POST")), "POST", "/probe")

    assert (answer.status == 200) == ("new@b" in await emails(db))


@on_mariadb
async def test_waiting_for_a_lock_can_be_cancelled(db: SQLAlchemy, first: int) -> None:
    """Only COMMIT itself runs to its end; the flush before it may wait for long."""
    loop = asyncio.get_running_loop()
    async with db.engine.connect() as other:
        await other.execute(text("UPDATE users SET name = 'q' WHERE id = 1"))
        user = await User.get(first)
        began = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await user.update(name="z", auto_commit=True)
        took = loop.time() - began
        await other.rollback()

    assert took < sessions.COMMIT_DEADLINE_S / 3
