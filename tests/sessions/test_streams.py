"""R5: a stream of rows keeps its connection until its last row, a slow client does not, and no row is missing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy import insert, lambda_stmt, select, text
from sqlalchemy.orm import selectinload
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from latchkey.middleware.session import SessionMiddleware
from latchkey.middleware.session_errors import OpenWriteError, StreamClosedError, StreamTimeoutError
from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.session import RequestSession
from latchkey.service.exception_handlers import problem_of_exception
from latchkey.service.middleware_stack import make_route
from tests.conftest import on_mariadb, only_on_mariadb
from tests.requests import Answer, converse, request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import response_route, value_route

COUNT = 2000
WHOLE = [f"name {number}" for number in range(1, COUNT + 1)]

by_id = select(User).order_by(User.id)
names = select(User.name).order_by(User.id)
sql = "SELECT name FROM users ORDER BY id"

Open = Callable[[RequestSession], Awaitable[Any]]


async def on_connection(session: RequestSession, statement: Any) -> Any:
    return await (await session.connection()).stream(statement)


WAYS: dict[str, Open] = {
    "columns": lambda session: session.stream(names),
    "instances": lambda session: session.stream_scalars(by_id),
    "yield_per": lambda session: session.stream(names.execution_options(yield_per=7)),
    "instances with yield_per": lambda session: session.stream_scalars(
        by_id, execution_options={"yield_per": 100}
    ),
    "text": lambda session: session.stream(text(sql)),
    "text in a comment": lambda session: session.stream(text(f"/* UPDATE */ {sql}")),
    "instances of text": lambda session: session.stream_scalars(
        select(User).from_statement(text("SELECT * FROM users ORDER BY id"))
    ),
    "a lambda": lambda session: session.stream(lambda_stmt(lambda: names)),
    "a connection": lambda session: on_connection(session, names),
    "a connection's text": lambda session: on_connection(session, text(sql)),
}
# The ORM reads all rows with the first one by default; such streams hold nothing.
HELD = {
    name: WAYS[name]
    for name in ("yield_per", "instances with yield_per", "text", "a connection", "a connection's text")
}
each_held = pytest.mark.parametrize("way", HELD.values(), ids=HELD)
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
each_way_and_server = pytest.mark.parametrize(
    ("way", "spec_version"),
    [*((way, "2.3") for way in WAYS.values()), (WAYS["text"], "2.4"), (WAYS["yield_per"], "2.4")],
    ids=[*WAYS, "text, in the task of the request", "yield_per, in the task of the request"],
)
each_method = pytest.mark.parametrize("method", ["GET", "POST"])
each_server = pytest.mark.parametrize("spec_version", ["2.3", "2.4"])


@pytest.fixture
async def many(db: SQLAlchemy) -> None:
    emails = {name: f"{number}@example.com" for number, name in enumerate(WHOLE, 1)}
    rows: list[dict[str, str | int]] = [
        {"email": email, "email_key": email, "name": name} for name, email in emails.items()
    ]
    for number, row in enumerate(rows, 1):
        row["id"] = number
    async with db.scoped_session() as session:
        await session.execute(insert(User), rows)
        await session.commit()


def name_of(row: Any) -> str:
    return f"{row.name}\n"


def lines(answer: Answer) -> list[str]:
    return answer.body.decode().splitlines()


async def ask(app: Starlette, method: str, **options: Any) -> Answer:
    return await asyncio.create_task(converse(app, method, "/probe", **options))


def from_endpoint(way: Open, method: str) -> Any:
    """Mount an endpoint that opens a stream for its body."""

    async def stream(request: Request) -> Response:
        rows = await way(request.state.session)
        return StreamingResponse(name_of(row) async for row in rows)

    return response_route(stream, method)


def from_block(db: SQLAlchemy, way: Open, method: str) -> Any:
    """Mount an endpoint whose body opens a stream in its own block."""

    async def parts() -> AsyncIterator[str]:
        async with db.scoped_session() as session:
            async for row in await way(session):
                yield name_of(row)

    async def stream(request: Request) -> Response:
        return StreamingResponse(parts())

    return response_route(stream, method)


@pytest.mark.usefixtures("many")
@each_way_and_server
@each_method
async def test_every_row_of_a_stream_of_the_endpoint_arrives(
    db: SQLAlchemy, make_app: MakeApp, way: Open, method: str, spec_version: str
) -> None:
    answer = await ask(make_app(from_endpoint(way, method)), method, spec_version=spec_version)

    assert (answer.status, answer.complete) == (200, True)
    assert lines(answer) == WHOLE
    assert db.checked_out() == 0


@pytest.mark.usefixtures("many")
@each_way_and_server
@each_method
async def test_every_row_of_a_stream_of_the_body_arrives(
    db: SQLAlchemy, make_app: MakeApp, way: Open, method: str, spec_version: str
) -> None:
    answer = await ask(make_app(from_block(db, way, method)), method, spec_version=spec_version)

    assert (answer.status, answer.complete) == (200, True)
    assert lines(answer) == WHOLE
    assert db.checked_out() == 0


@pytest.mark.usefixtures("many")
@each_way
async def test_a_block_reads_every_row(db: SQLAlchemy, way: Open) -> None:
    async with db.scoped_session() as session:
        found = [row.name async for row in await way(session)]
        assert session.unwritten is None

    assert found == WHOLE


@pytest.mark.usefixtures("many")
async def test_after_its_last_row_a_stream_keeps_nothing(db: SQLAlchemy, make_app: MakeApp) -> None:
    out: list[int] = []

    async def stream(request: Request) -> Response:
        rows = await request.state.session.stream(names.limit(3))

        async def parts() -> AsyncIterator[str]:
            async for row in rows:
                yield name_of(row)
            yield "last"

        return StreamingResponse(parts())

    def look(kind: str) -> None:
        if kind == "http.response.body":
            out.append(db.checked_out())

    await ask(make_app(response_route(stream)), "GET", on_message=look)

    assert out[-2:] == [0, 0]


@pytest.mark.usefixtures("many")
@each_server
async def test_a_stream_is_read_while_the_body_of_the_request_is(
    db: SQLAlchemy, make_app: MakeApp, spec_version: str
) -> None:
    async def compare(request: Request) -> Any:
        rows = await request.state.session.stream_scalars(names)
        found = [await anext(aiter(rows))]
        await request.body()
        found += [name async for name in rows]
        return found == WHOLE

    answer = await ask(make_app(value_route(compare, "POST")), "POST", body=b"{}", spec_version=spec_version)

    assert answer.json == {"seen": True}


# ---------------------------------------------------------------------- slow clients

TIMEOUT_S = 0.3


def bounded(db: SQLAlchemy, operation: Any) -> Starlette:
    """Mount an operation with a middleware that has a short limit."""
    return Starlette(
        routes=[make_route(operation, ())],
        middleware=[
            Middleware(
                SessionMiddleware,
                scoped_session=db.scoped_session,
                problem=problem_of_exception,
                stream_timeout_s=TIMEOUT_S,
            )
        ],
    )


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("way", [WAYS["yield_per"], WAYS["text"]], ids=["yield_per", "text"])
@pytest.mark.parametrize("place", ["endpoint", "block"])
@pytest.mark.parametrize("stall_s", [30.0, 0.1], ids=["stalled", "dripping"])
@pytest.mark.parametrize(("method", "spec_version"), [("GET", "2.3"), ("POST", "2.4")])
async def test_a_slow_client_has_its_answer_cut(
    db: SQLAlchemy, way: Open, place: str, stall_s: float, method: str, spec_version: str
) -> None:
    operation = from_endpoint(way, method) if place == "endpoint" else from_block(db, way, method)
    app = bounded(db, operation)
    answer = Answer()
    parts = 0

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        async def wait(message: Any) -> None:
            nonlocal parts
            await send(message)
            if message["type"] == "http.response.body":
                parts += 1
                await asyncio.sleep(stall_s if parts > 2 else 0)

        await app(scope, receive, wait)

    async with asyncio.timeout(5):
        with pytest.raises(StreamTimeoutError, match="LATCHKEY_STREAM_TIMEOUT_S"):
            await ask(slow, method, answer=answer, spec_version=spec_version)  # type: ignore[arg-type]

    assert (answer.status, answer.complete) == (200, False)
    assert 3 <= len(lines(answer)) < 10
    assert db.checked_out() == 0


@pytest.mark.usefixtures("many")
async def test_a_client_may_be_slow_while_no_connection_is_held(db: SQLAlchemy) -> None:
    async def stream(request: Request) -> Response:
        async def parts() -> AsyncIterator[str]:
            for number in (1, 2):
                yield name_of(await User.get(number))

        return StreamingResponse(parts())

    app = bounded(db, response_route(stream))

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        async def wait(message: Any) -> None:
            await send(message)
            await asyncio.sleep(TIMEOUT_S)

        await app(scope, receive, wait)

    answer = await ask(slow, "GET")  # type: ignore[arg-type]

    assert lines(answer) == WHOLE[:2]


# ---------------------------------------------------------------------- what ends a stream

ENDS: dict[str, Callable[[RequestSession], Awaitable[Any]]] = {
    "commit": lambda session: session.commit(),
    "rollback": lambda session: session.rollback(),
    "close": lambda session: session.close(),
    "reset": lambda session: session.reset(),
}


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@each_held
async def test_to_read_on_after_its_end_is_an_error_and_no_end_of_the_rows(
    db: SQLAlchemy, way: Open, end: Any
) -> None:
    async with db.scoped_session() as session:
        rows = await way(session)
        await anext(aiter(rows))
        await end(session)
        with pytest.raises(StreamClosedError, match="before its last row was read"):
            [row async for row in rows]
        assert await session.scalar(text("SELECT 1")) == 1
        await session.rollback()
        assert db.checked_out() == 0


@pytest.mark.usefixtures("many")
@each_held
async def test_to_read_on_after_the_session_has_ended_is_an_error(db: SQLAlchemy, way: Open) -> None:
    async with db.scoped_session() as session:
        rows = await way(session)
        await anext(aiter(rows))
    assert db.checked_out() == 0

    with pytest.raises(StreamClosedError):
        [row async for row in rows]


@pytest.mark.usefixtures("many")
async def test_a_transaction_by_hand_that_fails_ends_the_stream_by_name(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        with pytest.raises(LookupError):
            async with session.begin():
                rows = await session.stream(text(sql))
                await anext(aiter(rows))
                raise LookupError
        with pytest.raises(StreamClosedError):
            [row async for row in rows]


@on_mariadb
@pytest.mark.usefixtures("many")
@each_held
async def test_another_statement_on_its_connection_ends_a_stream_by_name(db: SQLAlchemy, way: Open) -> None:
    async with db.scoped_session() as session:
        await session.connection()
        rows = await way(session)
        await anext(aiter(rows))
        assert await session.scalar(text("SELECT 2")) == 2
        with pytest.raises(StreamClosedError, match="another statement"):
            [row async for row in rows]


@pytest.mark.usefixtures("many")
async def test_a_stream_whose_option_sends_statements_is_whole_or_an_error(
    db: SQLAlchemy, database_url: str, make_app: MakeApp
) -> None:
    """With a plain session on MariaDB its rows end in silence after the first part."""
    statement = by_id.options(selectinload(User.keys)).execution_options(yield_per=100)

    async def read_all(session: RequestSession) -> int:
        return len([user async for user in await session.stream_scalars(statement)])

    async def ask(request: Request) -> int | str:
        try:
            return await read_all(request.state.session)
        except StreamClosedError:
            return "closed"

    is_sqlite = "sqlite" in database_url
    async with db.scoped_session() as session:
        with nullcontext() if is_sqlite else pytest.raises(StreamClosedError, match="another statement"):
            assert await read_all(session) == COUNT
    for method in ("GET", "POST"):
        answer = await request(make_app(value_route(ask, method)), method, "/probe")
        assert answer.json == {"seen": COUNT if is_sqlite else "closed"}


@pytest.mark.usefixtures("many")
async def test_a_stream_that_is_left_early_disturbs_nothing(db: SQLAlchemy) -> None:
    async with db.scoped_session() as session:
        async for row in await session.stream(text(sql)):
            assert row.name == WHOLE[0]
            break
        await User.create(email="after@example.com", name="after")
        async for row in await session.stream(text(sql)):
            assert row.name == WHOLE[0]
            break
        await session.commit()
    assert await User.filter().count() == COUNT + 1


@pytest.mark.usefixtures("many")
@each_method
async def test_an_open_write_and_a_stream_for_the_body_are_refused_by_name(
    db: SQLAlchemy, make_app: MakeApp, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    async def stream(request: Request) -> Response:
        await User.create(email="new@example.com", name="new")
        rows = await request.state.session.stream(text(sql))
        return StreamingResponse(name_of(row) async for row in rows)

    answer = await ask(make_app(response_route(stream, method)), method)

    assert (answer.status, answer.starts) == (500, 1)
    assert OpenWriteError.__name__ in caplog.text
    assert await User.filter().count() == COUNT


@only_on_mariadb("MySQL has no RETURNING")
@pytest.mark.usefixtures("many")
async def test_a_stream_of_what_it_writes_is_refused_in_a_body(db: SQLAlchemy, make_app: MakeApp) -> None:
    update = text("DELETE FROM users WHERE id < 1000 RETURNING name")
    answer = Answer()

    with pytest.raises(OpenWriteError):
        await ask(
            make_app(from_block(db, lambda session: session.stream(update), "POST")), "POST", answer=answer
        )

    assert not answer.complete
    assert await User.filter().count() == COUNT


@pytest.mark.usefixtures("many")
@each_method
async def test_an_answer_that_is_whole_ends_the_stream_that_was_left(
    db: SQLAlchemy, make_app: MakeApp, method: str
) -> None:
    out: list[int] = []
    left: list[Any] = []

    async def leave(request: Request) -> Response:
        rows = await request.state.session.stream(text(sql))
        left.append(rows)
        return JSONResponse((await anext(aiter(rows))).name)

    def look(kind: str) -> None:
        if kind.startswith("http.response"):
            out.append(db.checked_out())

    answer = await ask(make_app(response_route(leave, method)), method, on_message=look)
    assert (answer.json, out) == (WHOLE[0], [0, 0])
    with pytest.raises(StreamClosedError):
        [row async for row in left[0]]


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    "statement", [text(sql), names.execution_options(yield_per=7)], ids=["on the writer", "on the reader"]
)
async def test_without_the_adapter_the_last_part_of_the_body_ends_it(db: SQLAlchemy, statement: Any) -> None:
    out: list[int] = []

    async def leave(request: Request) -> Response:
        rows = await request.state.session.stream(statement)
        request.app.state.rows = rows
        return JSONResponse((await anext(aiter(rows))).name)

    app = Starlette(
        routes=[Route("/probe", leave)],
        middleware=[
            Middleware(SessionMiddleware, scoped_session=db.scoped_session, problem=problem_of_exception)
        ],
    )

    def look(kind: str) -> None:
        if kind == "http.response.body":
            out.append(db.checked_out())

    assert (await ask(app, "GET", on_message=look)).status == 200
    assert out == [0]
