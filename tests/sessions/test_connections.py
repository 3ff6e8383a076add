"""R5: a connection is checked out only while a statement runs, or a write is open."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import inspect
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message

from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from tests.conftest import table_of
from tests.middleware.asgi import http
from tests.requests import converse, request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import response_route, value_route
from tests.sessions.test_settling import count


async def test_after_a_read_the_connection_is_back_and_the_rows_stay_loaded(
    db: SQLAlchemy, make_app: MakeApp, first: int
) -> None:
    seen: dict[str, Any] = {}

    async def read(request: Request) -> None:
        user = await User.get(first)
        seen["out"] = db.checked_out()
        seen["name"] = user.name
        seen["attached"] = inspect(user).persistent
        seen["again"] = (await User.get(first)) is user

    await request(make_app(value_route(read)), "GET", "/probe")

    assert seen == {"out": 0, "name": "first", "attached": True, "again": True}


async def test_a_request_that_waits_for_its_body_holds_nothing(
    db: SQLAlchemy, make_app: MakeApp, first: int
) -> None:
    """A slow upload: an endpoint that has read, then waits for the next part."""
    out: list[int] = []

    async def upload(request: Request) -> Response:
        await User.get(first)
        async for _ in request.stream():
            await User.get(first)
        return Response()

    app = make_app(response_route(upload, "POST"))
    parts = [b"one", b"two", b"three"]
    sent: list[Message] = []

    async def receive() -> Message:
        out.append(db.checked_out())
        await asyncio.sleep(0)
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: Message) -> None:
        sent.append(message)

    await asyncio.create_task(
        app(
            {
                "type": "http",
                "method": "POST",
                "path": "/probe",
                "headers": [],
                "query_string": b"",
                "scheme": "http",
                "server": ("testserver", 80),
            },
            receive,
            send,
        )
    )

    assert sent[0]["status"] == 200
    assert out == [0, 0, 0]


@pytest.mark.parametrize("last", [{}, {"more_body": False}], ids=["nothing said", "no more"])
async def test_after_the_last_part_a_write_may_be_open(
    db: SQLAlchemy, make_app: MakeApp, last: dict[str, Any]
) -> None:
    """A task that watches for the end of the connection waits for no part of the body."""
    incoming: list[Message] = [
        {"type": "http.request", "body": b"whole", **last},
        {"type": "http.disconnect"},
    ]
    sent: list[Message] = []

    async def watch(request: Request) -> str:
        await request.body()
        await User.create(email="a@b", name="n")
        return (await request.receive())["type"]

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = http(method="POST", path="/probe", query_string=b"", server=("testserver", 80))
    await asyncio.create_task(make_app(value_route(watch, "POST"))(scope, receive, send))

    assert (sent[0]["status"], sent[1]["body"]) == (200, b'{"seen":"http.disconnect"}')
    assert await User.filter().count() == 1


async def test_an_upload_that_writes_must_commit_before_it_waits(
    db: SQLAlchemy, make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    async def upload(request: Request) -> Response:
        await User.create(email="a@b", name="n")
        await request.body()
        return Response()

    answer = await request(make_app(response_route(upload, "POST")), "POST", "/probe", body={})

    assert answer.status == 500
    assert "the request waits for a part of the body, or sends one, while a write is open" in caplog.text
    assert await count(db) == 0


@pytest.mark.parametrize(
    "spec_version", ["2.3", "2.4"], ids=["in a task of its own", "in the request's task"]
)
async def test_a_streamed_body_holds_nothing_while_a_part_is_sent(
    db: SQLAlchemy, make_app: MakeApp, first: int, spec_version: str
) -> None:
    """A slow reader: the parts are read one by one, and each is sent without a connection."""
    out: list[int] = []

    async def stream(request: Request) -> Response:
        async def parts() -> Any:
            for _ in range(3):
                user = (await db.scoped_session().execute(table_of(User).select())).first()
                yield user.name

        return StreamingResponse(parts())

    def look(kind: str) -> None:
        if kind == "http.response.body":
            out.append(db.checked_out())

    app = make_app(response_route(stream))
    answer = await asyncio.create_task(
        converse(app, "GET", "/probe", on_message=look, spec_version=spec_version)
    )

    assert answer.body == b"first" * 3
    assert out == [0, 0, 0, 0]


async def test_after_settling_a_write_holds_nothing(db: SQLAlchemy, make_app: MakeApp) -> None:
    out: list[int] = []

    async def write(request: Request) -> Response:
        await User.create(email="a@b", name="n")
        out.append(db.checked_out())
        return Response()

    def look(kind: str) -> None:
        if kind == "http.response.start":
            out.append(db.checked_out())

    await asyncio.create_task(
        converse(make_app(response_route(write, "POST")), "POST", "/probe", on_message=look)
    )

    assert out == [1, 0], "one while the write is open, none when the answer starts"


async def test_a_server_side_cursor_keeps_its_connection_until_it_is_read(db: SQLAlchemy, first: int) -> None:
    async with db.scoped_session() as session:
        rows = await session.stream_scalars(table_of(User).select().with_only_columns(User.name))
        held = db.checked_out()
        names = [name async for name in rows]

    assert held == 1
    assert names == ["first", "second"]


async def test_several_reads_in_one_run_sync_share_a_connection(db: SQLAlchemy, first: int) -> None:
    def work(session: Any) -> tuple[str, int, str]:
        one = session.get(User, first)
        held = db.checked_out()
        return one.name, held, session.get(User, 2).name

    async with db.scoped_session() as session:
        assert await session.run_sync(work) == ("first", 1, "second")
        assert db.checked_out() == 0


async def test_a_server_side_cursor_that_is_left_open_is_gone_before_the_answer(
    db: SQLAlchemy, make_app: MakeApp, first: int
) -> None:
    out: list[int] = []

    async def leave(request: Request) -> None:
        rows = await request.state.session.stream_scalars(table_of(User).select())
        await anext(aiter(rows))

    def look(kind: str) -> None:
        if kind == "http.response.start":
            out.append(db.checked_out())

    await asyncio.create_task(converse(make_app(value_route(leave)), "GET", "/probe", on_message=look))

    assert out == [0]
