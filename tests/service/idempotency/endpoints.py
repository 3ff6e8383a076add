"""A team's endpoints that a test controls, and how they are called."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.requests import Request

from latchkey.models import IdempotencyKey, User
from latchkey.service import shapes
from latchkey.service.operation import route
from tests.api import HeldKey, call
from tests.conftest import table_of
from tests.requests import Answer

ANN = {"email": "ann@example.com", "name": "Ann"}
BOB = {"email": "bob@example.com", "name": "Bob"}
COPIES = 32


class EndpointControl:
    """The behaviour of a team's endpoints, and their effects."""

    def __init__(self) -> None:
        self.runs = 0
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        self.errors: list[BaseException] = []
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()

    def begin_run(self) -> None:
        self.runs += 1
        if self.errors:
            raise self.errors.pop(0)


control = EndpointControl()


async def write(body: shapes.NewUser) -> User:
    """Write a row, then fail as the test requests."""
    user = await User.create(email=body.email, name=body.name)
    control.begin_run()
    return user


async def write_slowly(body: shapes.NewUser) -> User:
    """Write a row and wait for the test."""
    user = await User.create(email=body.email, name=body.name)
    control.runs += 1
    control.entered.set()
    await control.go_on.wait()
    return user


async def commit_by_verb(body: shapes.NewUser) -> User:
    """Commit in the middle."""
    return await User.create(email=body.email, name=body.name, auto_commit=True)


async def commit_session(request: Request, body: shapes.NewUser) -> User:
    """Commit in the middle."""
    user = await User.create(email=body.email, name=body.name)
    await request.state.session.commit()
    return user


async def commit_inside(request: Request, body: shapes.NewUser) -> User:
    """Commit in the middle, bypassing the asynchronous session."""

    def work(session: Session) -> User:
        user = User(email=body.email, name=body.name)
        session.add(user)
        session.commit()
        return user

    return await request.state.session.run_sync(work)


async def roll_back(request: Request, body: shapes.NewUser) -> User:
    """Roll everything back, then write; another copy may run first."""
    await request.state.session.rollback()
    if control.meanwhile is not None:
        await control.meanwhile()
    return await User.create(email=body.email, name=body.name)


async def try_in_a_savepoint(request: Request, body: shapes.NewUser) -> User:
    """Roll a part back, and write the rest."""
    taken = await User.filter().first()
    try:
        async with request.state.session.begin_nested():
            await User.create(email=taken.email, name="again")
    except IntegrityError:
        pass
    return await User.create(email=body.email, name=body.name)


class Asked(shapes.Input, frozen=True):
    """The query of a team's route."""

    note: str = ""


async def write_as_asked(body: shapes.NewUser, query: Asked) -> User:
    """Write the value in the query, too."""
    return await User.create(email=body.email, name=body.name + query.note)


async def plain(body: shapes.NewUser) -> User:
    """Write, in a route that is not idempotent."""
    return await User.create(email=body.email, name=body.name)


def team(path: str, endpoint: Any) -> Any:
    return route("POST", path, endpoint, scope="users:write", answers=shapes.User, idempotent=True)


async def send(
    app: Starlette, path: str = "/v1/users", *, key: HeldKey, body: Any = ANN, once: str = "5", **options: Any
) -> Answer:
    """Make a call that must take effect once."""
    method = options.pop("method", "POST")
    return await call(app, method, path, key=key, body=body, headers=[("idempotency-key", once)], **options)


def is_replay(answer: Answer) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"


async def rows(app: Starlette) -> list[Any]:
    async with app.state.db.reader.connect() as connection:
        return list(await connection.execute(select(table_of(IdempotencyKey))))
