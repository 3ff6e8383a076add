"""R3: a request that runs no SQL costs the database nothing."""

from typing import Any

import pytest
from starlette.requests import Request

from latchkey.models import User
from latchkey.service.database import SQLAlchemy
from latchkey.service.database import session as sessions
from tests import wire
from tests.requests import request
from tests.sessions.conftest import MakeApp
from tests.sessions.endpoints import value_route
from tests.sessions.test_pool import pool_of


async def test_no_sql_takes_no_connection_and_sends_nothing(db: SQLAlchemy, make_app: MakeApp) -> None:
    async def nothing(request: Request) -> Any:
        return db.checked_out()

    with wire.listening() as commands:
        answer = await request(make_app(value_route(nothing)), "GET", "/probe")

    assert answer.json == {"seen": 0}
    assert commands == []
    assert sum(pool_of(engine).checkedin() for engine in (db.engine, db.reader)) == 0, (
        "no connection was ever made"
    )


async def test_no_sql_pays_for_no_shielded_close_and_no_commit(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the two would need a task."""
    shielded: list[str] = []

    async def count(work: Any) -> Any:
        shielded.append(work.__qualname__)
        return await work

    monkeypatch.setattr(sessions, "complete", count)

    async def nothing(request: Request) -> None: ...

    async def read_one(request: Request) -> None:
        await User.get(1)

    app = make_app(value_route(nothing), value_route(read_one, path="/read"))
    await request(app, "GET", "/probe")
    await request(app, "GET", "/read")

    assert shielded == []


async def test_no_sql_makes_nothing_inside_the_session(make_app: MakeApp) -> None:
    """The middleware does not create the inner session either, on the way in or out."""
    met: list[sessions.RequestSession] = []

    async def nothing(request: Request) -> None:
        met.append(request.state.session)
        await request.state.session.commit()
        await request.state.session.rollback()

    for method in ("GET", "POST"):
        answer = await request(make_app(value_route(nothing, method)), method, "/probe")
        assert answer.status == 200

    assert [session.untouched for session in met] == [True, True]


async def test_rules_set_before_the_first_use_of_a_session_hold(db: SQLAlchemy, make_app: MakeApp) -> None:
    """An unsafe method's endpoint reads on the writer, even if it is the first use of the session."""
    seen: dict[str, Any] = {}

    async def read(request: Request) -> None:
        session = request.state.session
        seen["before"] = session.untouched
        await User.get(1)
        seen["after"] = session.untouched, session.on_writer

    await request(make_app(value_route(read, "POST")), "POST", "/probe")

    assert seen == {"before": True, "after": (False, True)}
