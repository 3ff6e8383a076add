"""R6, R7: only the owner task may use a session, and no attempt of another task keeps a connection."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, text
from starlette.requests import Request

from latchkey.middleware.session_errors import OtherTaskError
from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from latchkey.service.database.own_task import AWAITED, CALLED
from tests.requests import request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import value_route

USES: dict[str, Callable[[Any, User], Any]] = {
    "execute": lambda s, _: s.execute(select(User)),
    "scalar": lambda s, _: s.scalar(text("SELECT 1")),
    "scalars": lambda s, _: s.scalars(select(User)),
    "stream": lambda s, _: s.stream(select(User)),
    "stream_scalars": lambda s, _: s.stream_scalars(select(User)),
    "get": lambda s, one: s.get(User, one.id),
    "get_one": lambda s, one: s.get_one(User, one.id),
    "merge": lambda s, one: s.merge(one),
    "refresh": lambda s, one: s.refresh(one),
    "delete": lambda s, one: s.delete(one),
    "run_sync": lambda s, _: s.run_sync(lambda inside: inside.new),
    "add": lambda s, one: s.add(one),
    "add_all": lambda s, one: s.add_all([one]),
    "expire": lambda s, one: s.expire(one),
    "expunge": lambda s, one: s.expunge(one),
}


def test_every_guarded_method_is_tried() -> None:
    assert USES.keys() <= {*AWAITED, *CALLED}


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_gather_on_the_session_of_a_request_is_refused_and_keeps_no_connection(
    db: SQLAlchemy, make_app: MakeApp, first: int, method: str
) -> None:
    async def gather(request: Request) -> Any:
        session = request.state.session
        with pytest.raises(OtherTaskError, match="only the owner may use a session"):
            await asyncio.gather(session.scalar(text("SELECT 1")), session.scalar(text("SELECT 2")))

    app = make_app(value_route(gather, method=method))
    for _ in range(4):  # more than the pool has connections
        assert (await request(app, method, "/probe")).status == 200
        assert db.checked_out() == 0


@pytest.mark.parametrize("name", [*AWAITED, *CALLED])
async def test_another_task_is_refused_whatever_it_calls(db: SQLAlchemy, first: int, name: str) -> None:
    async with db.scoped_session() as session:
        user = await session.get_one(User, first)

        async def child() -> None:
            use: Callable[[Any, Any], Any] = USES.get(name, lambda s, _: getattr(s, name)())
            outcome = use(session, user)
            if name in AWAITED:
                await outcome

        with pytest.raises(OtherTaskError, match="uses the session of the task"):
            await asyncio.create_task(child(), name="other")
        assert user in session
        assert (await session.get_one(User, first)).name == "first"
    assert db.checked_out() == 0


async def test_loading_that_bypasses_the_methods_is_refused_too(db: SQLAlchemy, first: int) -> None:
    async with db.scoped_session() as session:

        async def child() -> None:
            session.get_bind(clause=select(User))

        with pytest.raises(OtherTaskError):
            await asyncio.create_task(child())


async def test_the_own_task_goes_on_after_a_child_was_refused(db: SQLAlchemy, first: int) -> None:
    async with db.scoped_session() as session:
        (await session.get_one(User, first)).name = "renamed"
        with pytest.raises(OtherTaskError):
            await asyncio.create_task(session.rollback())
        await session.commit()
    assert (await User.get(first)).name == "renamed"
